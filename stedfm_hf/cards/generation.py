"""Card of a pipeline that generates images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import ModelCardData

from stedfm_hf.cards.pretrained import TrainingData
from stedfm_hf.cards.rendering import MODEL_TAGS, render


@dataclass(frozen=True, kw_only=True)
class GenerationCardFacts:
    """Facts of the card of a pipeline that generates images; facts that are None or empty are omitted.

    Attributes:
        name: Title of the card and name of the pipeline in the examples.
        encoder: Name of the encoder whose embeddings are the condition; None for classes.
        classes: Names of the classes that are the condition.
        image_size: Height and width of the training images, in pixels.
        parameters: Number of parameters of the denoising network.
        data: Data sets of the training.
        steps: Number of optimiser steps.
        samples: Number of crops seen.
        prediction: Prediction of the network, as in diffusers.
        noise_schedule: Name of the noise schedule.
        licence: Licence of the weights, as the Hub names it.
        hours: Time of the training steps in hours.
        machine: Description of the devices, without the host name.
        settings: Settings of the training by name, without paths.
        held_out_crops: Number of held-out crops.
        held_out_loss: Loss on held-out crops.
        constant_loss: Loss of the best constant prediction.
        distances: Fréchet distance of samples, and of held-out crops, to other held-out crops, by features.
        curve: Path of the figure of the curve, relative to the folder.
        sheet: Path of the sheet of samples, relative to the folder.
        files: Descriptions of other files of the folder, by name.
    """

    name: str
    encoder: str | None
    image_size: int
    parameters: int
    data: tuple[TrainingData, ...]
    steps: int
    samples: int
    prediction: str
    noise_schedule: str
    classes: tuple[str, ...] = ()
    licence: str | None = None
    hours: float | None = None
    machine: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    held_out_crops: int | None = None
    held_out_loss: float | None = None
    constant_loss: float | None = None
    distances: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    curve: str | None = None
    sheet: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_simulated(self) -> bool:
        """Whether all data sets are known to be simulated."""
        return all(each.simulated is True for each in self.data)


def render_generation_card(facts: GenerationCardFacts) -> str:
    """Render the card of a pipeline that generates images.

    Args:
        facts: Facts of the card.

    Returns:
        Text of `README.md`.

    Example:
        >>> card = render_generation_card(
        ...     GenerationCardFacts(
        ...         name="my-generator",
        ...         encoder="demo",
        ...         image_size=64,
        ...         parameters=3000000,
        ...         data=(TrainingData("attributes-v1", 24000, simulated=True),),
        ...         steps=5000,
        ...         samples=80000,
        ...         prediction="v_prediction",
        ...         noise_schedule="cosine",
        ...     )
        ... )
        >>> "only simulated images" in card, "StedFmGenerationPipeline" in card
        (True, True)
    """
    data = ModelCardData(
        license=facts.licence,
        library_name="diffusers",
        pipeline_tag="image-to-image" if facts.encoder else "unconditional-image-generation",
        tags=[*MODEL_TAGS, "diffusion", *["synthetic"] * facts.is_simulated],
        datasets=[each.name for each in facts.data if each.on_hub] or None,
    )
    return render("generation.md.jinja", data, facts=facts)
