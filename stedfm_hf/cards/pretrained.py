"""The card of a model that was pretrained here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import ModelCardData

from stedfm_hf.cards.rendering import MODEL_TAGS, render


@dataclass(frozen=True)
class TrainingData:
    """A data set that a model was trained on.

    Args:
        name: its id on the Hub, or the name of its folder; no path.
        crops: training crops.
        simulated: whether its images were computed; None if that is not known.
        on_hub: whether the name is an id on the Hub.
    """

    name: str
    crops: int
    simulated: bool | None = None
    on_hub: bool = False


@dataclass(frozen=True)
class PretrainedCardFacts:
    """What a card says of a pretraining; what is None or empty is not known, and nothing is said of it.

    Args:
        name: title of the card and name of the folder in the examples.
        architecture: name of the architecture.
        config: fields of the configuration, as for `CardFacts`, and `mask_ratio`, `norm_pix_loss`.
        parameters: parameters of the encoder and of the decoder.
        data: what it was trained on.
        steps: optimiser steps.
        samples: crops seen.
        init_from: name of the model whose weights were the start; None: the weights were drawn at random.
        epochs: passes over the data.
        hours: time of the training steps, without checks and savings.
        images_per_second: crops of all processes a second, the median over the training.
        machine: what computed it, such as `1 x NVIDIA H100`; no name of a host.
        precision: `float32` or `bfloat16`.
        settings: of the training, by name; no paths.
        held_out_crops: crops that the next figures are of.
        held_out_step: step after which they were looked at; None: the last.
        held_out_loss: loss on them, with fixed masks.
        constant_loss: loss of the best constant there.
        psnr: of their hidden pixels, in dB.
        knn: nearest-neighbour accuracy of the encoder, 0 to 1.
        knn_untrained: the same before the first step.
        curve: picture of the losses, a path inside the folder.
        reconstructions: picture of reconstructions, likewise.
        files: other files of the folder that tell about the training, with a word each.
        licence: identifier of the terms of the weights.
    """

    name: str
    architecture: str
    config: Mapping[str, Any]
    parameters: Mapping[str, int]
    data: tuple[TrainingData, ...]
    steps: int
    samples: int
    init_from: str | None = None
    epochs: float | None = None
    hours: float | None = None
    images_per_second: float | None = None
    machine: str | None = None
    precision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    held_out_crops: int | None = None
    held_out_step: int | None = None
    held_out_loss: float | None = None
    constant_loss: float | None = None
    psnr: float | None = None
    knn: float | None = None
    knn_untrained: float | None = None
    curve: str | None = None
    reconstructions: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None

    @property
    def simulated(self) -> str:
        """How much of the data is known to be simulated: "all", "some" or "none"."""
        known = [each.simulated is True for each in self.data]
        return "all" if known and all(known) else "some" if any(known) else "none"


def render_pretrained_card(facts: PretrainedCardFacts) -> str:
    """Writes the card of a model that was pretrained here.

    Example:
        >>> config = {"image_size": 64, "patch_size": 8, "num_channels": 1, "hidden_size": 128}
        >>> config |= {"num_hidden_layers": 8, "num_attention_heads": 4, "mask_ratio": 0.75, "norm_pix_loss": False}
        >>> card = render_pretrained_card(
        ...     PretrainedCardFacts(
        ...         name="my-model",
        ...         architecture="stedfm-vit-64-p8",
        ...         config=config,
        ...         parameters={"encoder": 1603200, "decoder": 500000},
        ...         data=(TrainingData("benchmark-v1", 20000, simulated=True),),
        ...         steps=5000,
        ...         samples=1280000,
        ...     )
        ... )
        >>> "simulated images alone" in card, "kNN" in card
        (True, False)
    """
    data = ModelCardData(
        license=facts.licence,
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        tags=[*MODEL_TAGS, "masked-autoencoder", *["synthetic"] * (facts.simulated != "none")],
        datasets=[each.name for each in facts.data if each.on_hub] or None,
    )
    return render("pretrained_card.md.jinja", data, facts=facts)
