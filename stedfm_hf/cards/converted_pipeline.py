"""Card of a pipeline that was converted from a checkpoint of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from huggingface_hub import ModelCardData

from stedfm_hf.cards.rendering import MODEL_TAGS, render


@dataclass(frozen=True, kw_only=True)
class ConvertedPipelineCardFacts:
    """Facts of the card of a converted pipeline.

    Attributes:
        name: Title of the card and name of the pipeline in the examples.
        encoder: Name of the architecture of the encoder; None if the pipeline has none.
        classes: Names of the classes that condition the network; empty for other networks.
        num_classes: Number of classes; None for a network that takes embeddings.
        condition_dim: Length of the embeddings; None for a network that takes classes.
        image_size: Height and width of the training images, in pixels.
        parameters: Numbers of parameters by part.
        source: Name of the converted file.
        source_sha256: SHA-256 of the converted file.
        dropped: Reason by key of each value of the file that was not converted.
        licence: Licence of the weights, as the Hub names it.
    """

    name: str
    encoder: str | None
    image_size: int
    parameters: Mapping[str, int]
    source: str
    source_sha256: str
    classes: tuple[str, ...] = ()
    num_classes: int | None = None
    condition_dim: int | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None

    @property
    def dropped_reasons(self) -> dict[str, list[str]]:
        """Keys that were not converted, by the reason."""
        reasons: dict[str, list[str]] = {}
        for key, reason in self.dropped.items():
            reasons.setdefault(reason, []).append(key)
        return reasons


def render_converted_pipeline_card(facts: ConvertedPipelineCardFacts) -> str:
    """Render the card of a converted pipeline for the Hugging Face Hub: YAML front matter and Markdown.

    Args:
        facts: Facts of the card.

    Returns:
        Text of `README.md`.

    Example:
        >>> card = render_converted_pipeline_card(
        ...     ConvertedPipelineCardFacts(
        ...         name="my-generator",
        ...         encoder=None,
        ...         image_size=224,
        ...         parameters={"denoising network": 9594593},
        ...         source="checkpoint-69.pth",
        ...         source_sha256="0" * 64,
        ...         classes=("f-actin", "tubulin"),
        ...         num_classes=2,
        ...     )
        ... )
        >>> "9,594,593" in card and 'label = "f-actin"' in card
        True
    """
    data = ModelCardData(
        license=facts.licence,
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation" if facts.num_classes else "image-to-image",
        tags=[*MODEL_TAGS, "diffusion"],
    )
    return render("converted_pipeline.md.jinja", data, facts=facts)
