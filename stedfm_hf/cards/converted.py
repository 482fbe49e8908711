"""Card of a model that was converted from a checkpoint of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stedfm_hf.cards.model_facts import CardResult, Head, ModelFacts, front_matter
from stedfm_hf.cards.rendering import render


@dataclass(frozen=True, kw_only=True)
class ConvertedCardFacts(ModelFacts):
    """Facts of the card of a converted model (see `ModelFacts`).

    Attributes:
        architecture: Name of the architecture.
        kind: Task of the head of the weights.
        source: Name of the converted file; None if the authors have published none.
        source_sha256: SHA-256 of the converted file.
        dropped: Reason by key of each value of the file that was not converted.
        weights_name: Name that the authors of STED-FM gave to the weights; None for other weights.
        corpus: Description of the pretraining data; None if unknown.
        training: Sentences about the training; empty if unknown.
        published: Published accuracies in per cent, with their standard deviations, by data set and encoder.
        published_as: Name of this model among the encoders of `published`.
        labels: Names of the classes, for classification and segmentation.
    """

    architecture: str
    kind: Literal["pretraining", "classification", "segmentation"]
    source: str | None = None
    source_sha256: str | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    weights_name: str | None = None
    corpus: str | None = None
    training: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    published: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    published_as: str = ""

    @property
    def head(self) -> Head:
        """Head of the model."""
        heads: dict[str, Head] = {"classification": "classifier", "segmentation": "segmenter"}
        return heads.get(self.kind, "encoder")

    @property
    def is_by_the_authors(self) -> bool:
        """Whether the weights are those of the authors of STED-FM."""
        return self.weights_name is not None


def render_converted_card(facts: ConvertedCardFacts) -> str:
    """Render the card of a converted model for the Hugging Face Hub: YAML front matter and Markdown.

    Args:
        facts: Facts of the card.

    Returns:
        Text of `README.md`.

    Example:
        >>> config = {"image_size": 64, "patch_size": 8, "num_channels": 1, "hidden_size": 128}
        >>> config |= {"num_hidden_layers": 8, "num_attention_heads": 4}
        >>> card = render_converted_card(
        ...     ConvertedCardFacts(
        ...         name="my-model",
        ...         architecture="stedfm-vit-64-p8",
        ...         kind="classification",
        ...         config=config,
        ...         parameters={"encoder": 1603200, "head": 516},
        ...         source="fine_tuned.pth",
        ...         source_sha256="0" * 64,
        ...         labels=("actin", "tubulin"),
        ...     )
        ... )
        >>> "1,603,200" in card and "fine_tuned.pth" in card
        True
    """
    results = [
        CardResult(name, "test", "accuracy", round(values[facts.published_as][0] / 100, 3))
        for name, values in facts.published.items()
    ]
    tags = ["masked-autoencoder"] if facts.head == "encoder" else []
    return render("converted.md.jinja", front_matter(facts, tags=tags, results=results), facts=facts)
