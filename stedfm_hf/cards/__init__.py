"""Model cards and dataset cards, rendered from templates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub import DatasetCardData, ModelCardData

from stedfm_hf.cards.pretrained import PretrainedCardFacts, TrainingData, render_pretrained_card
from stedfm_hf.cards.rendering import MODEL_TAGS, render

__all__ = [
    "CardFacts",
    "PretrainedCardFacts",
    "TrainingData",
    "render_dataset_card",
    "render_model_card",
    "render_pretrained_card",
]


@dataclass(frozen=True)
class CardFacts:
    """Facts of the card of a converted model; unknown facts are omitted from the card.

    Attributes:
        name: Title of the card and name of the folder in the examples, such as `stedfm-vit-small`.
        architecture: Name of the architecture.
        kind: Task of the head of the weights.
        config: Configuration with `image_size, patch_size, num_channels, hidden_size, num_hidden_layers,
            num_attention_heads`, and `decoder_hidden_size, decoder_num_hidden_layers` for pretraining.
        parameters: Numbers of parameters of the encoder and of the head, by part.
        source: Name of the converted file.
        source_sha256: SHA-256 of the converted file.
        dropped: Reason by key of each value of the file that was not converted.
        weights_name: Name that the authors of STED-FM gave to the weights; None for other weights.
        corpus: Description of the pretraining data; None if unknown.
        training: Sentences about the training; empty if unknown.
        licence: Licence of the weights; None if unknown.
        labels: Names of the classes, for classification.
    """

    name: str
    architecture: str
    kind: Literal["pretraining", "classification", "segmentation"]
    config: dict[str, Any]
    parameters: dict[str, int]
    source: str
    source_sha256: str
    dropped: dict[str, str] = field(default_factory=dict)
    weights_name: str | None = None
    corpus: str | None = None
    training: tuple[str, ...] = ()
    licence: str | None = None
    labels: tuple[str, ...] = ()


def render_model_card(facts: CardFacts) -> str:
    """Render the card of a converted model for the Hugging Face Hub: YAML front matter and Markdown.

    Args:
        facts: Facts of the card.

    Returns:
        Text of `README.md`.

    Example:
        >>> config = {"image_size": 64, "patch_size": 8, "num_channels": 1, "hidden_size": 128}
        >>> config |= {"num_hidden_layers": 8, "num_attention_heads": 4}
        >>> card = render_model_card(
        ...     CardFacts(
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
    is_classifier, is_segmenter = facts.kind == "classification", facts.kind == "segmentation"
    tasks = {"classification": "image-classification", "segmentation": "image-segmentation"}
    data = ModelCardData(
        license="mit" if facts.licence else None,
        library_name="transformers",
        pipeline_tag=tasks.get(facts.kind, "image-feature-extraction"),
        tags=[*MODEL_TAGS, *(["masked-autoencoder"] if facts.kind == "pretraining" else [])],
    )
    return render("model_card.md.jinja", data, facts=facts, is_classifier=is_classifier, is_segmenter=is_segmenter)


def render_dataset_card(data: DatasetCardData, **facts: Any) -> str:
    """Render the card of a data set for the Hugging Face Hub: YAML front matter and Markdown.

    Args:
        data: Front matter.
        facts: Variables of the template; see `write_card`.

    Returns:
        Text of `README.md`.
    """
    return render("dataset_card.md.jinja", data, **facts)
