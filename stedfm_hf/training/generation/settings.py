"""Settings of the training of a diffusion model; this module imports neither torch nor transformers."""

from __future__ import annotations

from dataclasses import KW_ONLY
from pathlib import Path
from typing import ClassVar

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import option, settings
from stedfm_hf.training.settings import (
    CHECKPOINTS,
    MODEL,
    OPTIMISATION,
    StreamedSettings,
    effective_batch_option,
    warmup_option,
)

RECIPES = Path(__file__).parent / "recipes"
"""Folder of the packaged recipes of the training of diffusion models."""
CONDITIONS = ("embedding", "class")
PREDICTIONS = ("v_prediction", "epsilon", "sample")
NOISE_SCHEDULES = ("cosine", "linear")


@settings
class GenerationSettings(StreamedSettings):
    """Train a diffusion model that generates images from embeddings or classes.

    The result is a pipeline for diffusers. If interrupted, run the same command again to resume. torchrun, accelerate
    and SLURM start training/generate.py with the same options. All fields of transformers.TrainingArguments are
    options, too.

    Example:
        >>> settings = GenerationSettings(["lab/sted-crops"], model="demo", output="run")
        >>> settings.peak_learning_rate, settings.describe_batch()
        (0.0002, 'effective batch 64 = 1 process x 64 crops x 1 accumulation step')
    """

    command: ClassVar[str] = "pretrain generation"
    unit: ClassVar[str] = "crops"
    checked_fractions: ClassVar[tuple[str, ...]] = ("ema_decay",)

    _: KW_ONLY
    model: str | None = option(
        None,
        affects_result=False,
        group=options.INPUT,
        help="Folder or Hub id of the encoder, or `demo`; its weights are not changed.",
    )
    condition: str = option(
        "embedding", choices=CONDITIONS, group=MODEL, help="Condition of the images: their embedding, or their class."
    )
    image_size: int | None = option(
        None, minimum=8, group=MODEL, help="Height and width of the images in pixels; by default those of the crops."
    )
    patch_size: int = option(
        1, minimum=1, group=MODEL, help="Size in pixels of the squares that the network processes as one position."
    )
    base_channels: int = option(64, minimum=8, group=MODEL, help="Number of channels of the first stage.")
    channel_multipliers: list[int] = option(
        default_factory=lambda: [1, 2, 4],
        group=MODEL,
        help="Number of channels of each stage, as multiples of --base-channels.",
    )
    prediction_type: str = option(
        "v_prediction", choices=PREDICTIONS, group=MODEL, help="Quantity that the network predicts."
    )
    noise_schedule: str = option(
        "cosine", choices=NOISE_SCHEDULES, group=MODEL, help="Noise schedule of the 1000 steps."
    )
    min_snr_gamma: float = option(
        5.0,
        minimum=0,
        group=OPTIMISATION,
        help="Largest weight in the min-SNR weighting of the loss; 0 for no weights.",
    )
    condition_dropout: float = option(
        0.1,
        minimum=0,
        group=OPTIMISATION,
        help="Fraction of the samples that are shown without their condition, for guidance; below 1.",
    )
    ema_decay: float | None = option(
        0.9999, group=OPTIMISATION, help="Decay of the moving average of the weights, which is the result."
    )
    num_train_epochs: float = option(
        70.0, group=OPTIMISATION, help="Number of passes over the data (reference protocol: 70)."
    )
    seed: int = options.seed("weights, order, times, noise and augmentation", default=42)
    effective_batch_size: int = effective_batch_option(64)
    learning_rate: float | None = option(
        2e-4, minimum=0, group=OPTIMISATION, help="Peak learning rate, after the warm-up (reference protocol: 2e-4)."
    )
    lr_scheduler_type: str = option("cosine", group=OPTIMISATION, help="Learning-rate schedule after the warm-up.")
    warmup_ratio: float = warmup_option(0.02)
    weight_decay: float = option(
        0.01,
        minimum=0,
        group=OPTIMISATION,
        help="Weight decay of matrices and kernels; biases and norms are not decayed.",
    )
    adam_beta2: float = option(
        0.99, minimum=0, maximum=1, group=OPTIMISATION, help="Decay rate of the second moment of AdamW."
    )
    protocol: str = options.protocol("shows the network intensities from 0 to 1 instead of -1 to 1")
    evaluation_images: int = option(
        512,
        affects_result=False,
        minimum=0,
        group=CHECKPOINTS,
        help="Number of images that an evaluation generates for the Fréchet distances; 0 for none.",
    )
    evaluation_steps: int = option(
        25, affects_result=False, minimum=1, group=CHECKPOINTS, help="Number of sampling steps in an evaluation."
    )

    def check(self) -> None:
        """Refuse contradictory values."""
        super().check()
        if self.model is None and self.condition == "embedding":
            raise UserError("--model is missing; give the folder or Hub id of an encoder, or `demo`")
        if self.condition_dropout >= 1:
            raise UserError(f"--condition-dropout is {self.condition_dropout}; it must be below 1")
        if not self.channel_multipliers or min(self.channel_multipliers) < 1:
            raise UserError("--channel-multipliers must be one whole number above 0 for each stage")
        if 0 < self.evaluation_images < 2:
            raise UserError("--evaluation-images must be 0, or 2 or more")

    @property
    def peak_learning_rate(self) -> float:
        """Peak learning rate."""
        return 2e-4 if self.learning_rate is None else self.learning_rate

    @property
    def max_forward_batch_size(self) -> int:
        """Largest number of crops in one forward pass of a process."""
        return self.max_per_device_batch or 64

    @property
    def value_range(self) -> tuple[float, float]:
        """Range of the pixels that the network sees and predicts."""
        return (0.0, 1.0) if self.protocol == "reference" else (-1.0, 1.0)
