"""Card of a pretrained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stedfm_hf.cards.model_facts import CardResult, ModelFacts, front_matter
from stedfm_hf.cards.rendering import render


@dataclass(frozen=True)
class TrainingData:
    """Data set of a training.

    Attributes:
        name: Hub id, or name of the folder without its path.
        crops: Number of training crops.
        simulated: Whether its images are simulated; None if unknown.
        on_hub: Whether the name is a Hub id.
    """

    name: str
    crops: int
    simulated: bool | None = None
    on_hub: bool = False


@dataclass(frozen=True, kw_only=True)
class PretrainedCardFacts(ModelFacts):
    """Facts of the card of a pretrained model (see `ModelFacts`); `config` also has `mask_ratio` and `norm_pix_loss`.

    Attributes:
        architecture: Name of the architecture.
        data: Data sets of the training.
        steps: Number of optimiser steps.
        samples: Number of crops seen.
        init_from: Name of the model that the training started from; None for random weights.
        epochs: Number of epochs.
        hours: Time of the training steps in hours, without evaluations and checkpoints.
        images_per_second: Median speed of all processes together, in crops per second.
        machine: Description of the devices, such as `1 x NVIDIA H100`, without the host name.
        precision: Floating-point type of the training, such as `bfloat16`.
        settings: Settings of the training by name, without paths.
        held_out_crops: Number of crops of the held-out evaluation.
        held_out_step: Optimiser step of the held-out evaluation; None for the last step.
        held_out_loss: Loss on the held-out crops, with fixed masks.
        constant_loss: Loss of the best constant prediction on the held-out crops.
        psnr: Peak signal-to-noise ratio of the masked pixels, in dB.
        knn: k-nearest-neighbour accuracy of the encoder, in [0, 1].
        knn_untrained: The same accuracy before the first step.
        curve: Path of the figure of the losses, relative to the folder.
        reconstructions: Path of the figure of the reconstructions, relative to the folder.
    """

    architecture: str
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

    @property
    def simulated(self) -> str:
        """Whether "all", "some" or "none" of the data sets are known to be simulated."""
        known = [each.simulated is True for each in self.data]
        return "all" if known and all(known) else "some" if any(known) else "none"


def render_pretrained_card(facts: PretrainedCardFacts) -> str:
    """Render the card of a pretrained model.

    Args:
        facts: Facts of the card.

    Returns:
        Text of `README.md`.

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
        >>> "only simulated images" in card, "kNN" in card
        (True, False)
    """
    results = []
    if facts.knn is not None:
        results.append(CardResult(facts.data[0].name, "held-out crops", "knn_accuracy", round(facts.knn, 4)))
    data = front_matter(
        facts,
        tags=["masked-autoencoder", *["synthetic"] * (facts.simulated != "none")],
        datasets=[each.name for each in facts.data if each.on_hub],
        results=results,
    )
    return render("pretrained.md.jinja", data, facts=facts)
