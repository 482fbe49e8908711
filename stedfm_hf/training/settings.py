"""Settings that all trainings share, and those of pretraining.

They hold the options of this package. Any other field of `transformers.TrainingArguments` can be given as well, and is
kept as it is until training starts (`stedfm_hf.training.arguments`). This module imports neither torch nor
transformers, so that help and wrong options answer at once.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, fields
from math import gcd
from pathlib import Path
from typing import Any, ClassVar

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import decisive, option, settings
from stedfm_hf.training.checks import (
    check_argument_names,
    check_trackers,
    deepspeed_file,
)
from stedfm_hf.training.effective_batch import split_batch, world_size

RECIPES = Path(__file__).parent / "recipes"
"""Folder of the packaged recipes of pretraining."""
MAX_PER_DEVICE_BATCH = {
    "stedfm-vit-tiny": 256,
    "stedfm-vit-small": 256,
    "stedfm-vit-base": 128,
    "stedfm-vit-large": 64,
    "stedfm-vit-64-p8": 512,
}
"""Crops in one forward pass of a GPU, by architecture (reference protocol: V100 with 16 GB)."""


def effective_batch_of(default: int) -> Any:
    """Number of samples in an optimiser step."""
    text = "Number of samples in an optimiser step, whatever the number of processes."
    return option(default, minimum=1, help=text)


def warmup_ratio_of(default: float) -> Any:
    """Share of the steps in which the learning rate rises."""
    return option(default, minimum=0, help="Share of the steps in which the learning rate rises; below 1.")


@settings
class TrainingSettings:
    """Settings that all trainings share."""

    command: ClassVar[str]
    unit: ClassVar[str]

    _: KW_ONLY
    output: str | Path = option(
        decides=False,
        flags=("--output", "--output-dir"),
        metavar="FOLDER",
        help="Folder of the trained model; a run that was interrupted there is resumed.",
    )
    max_steps: int | None = option(
        None, minimum=-1, help="Number of optimiser steps, instead of num_train_epochs; -1 for none."
    )
    effective_batch_size: int = effective_batch_of(64)
    max_per_device_batch: int | None = option(
        None, decides=False, minimum=1, help="Largest number of samples in one forward pass of a process."
    )
    per_device_train_batch_size: int | None = option(
        None, decides=False, minimum=1, help="Number of samples in one forward pass; by default as many as allowed."
    )
    gradient_accumulation_steps: int | None = option(
        None,
        decides=False,
        minimum=1,
        help="Forward passes in an optimiser step; by default what effective_batch_size asks.",
    )
    learning_rate: float | None = option(None, minimum=0, help="Highest learning rate.")
    lr_scheduler_type: str = option("cosine", help="Learning-rate schedule after the warm-up.")
    warmup_ratio: float = warmup_ratio_of(0.1)
    weight_decay: float = option(0.05, minimum=0, help="Weight decay of matrices; biases, norms and tokens have none.")
    max_grad_norm: float = option(1.0, minimum=0, help="Norm at which gradients are clipped; 0 never clips.")
    precision: str = options.precision("auto", "on GPUs that compute it fast")
    device: str = options.device()
    report_to: list[str] = option(
        default_factory=list, decides=False, help="Trackers that also get the curve, such as tensorboard."
    )
    training_arguments: dict[str, Any] = option(
        default_factory=dict, extra=True, help="Other fields of transformers.TrainingArguments, by name."
    )

    def check(self) -> None:
        """Refuse values that do not go together, and an output that is not of this command."""
        check_argument_names(self.training_arguments, [each.name for each in fields(self)])
        check_trackers(self.report_to)
        if self.precision != "auto" and {"bf16", "fp16"} & set(self.training_arguments):
            raise UserError("precision and bf16 or fp16 are two ways to say the same; give one of them")
        if "hub_token" in self.training_arguments:
            raise UserError("hub_token would be recorded; log in with `hf auth login`, or set HF_TOKEN")
        if self.warmup_ratio >= 1:
            raise UserError(f"warmup_ratio is {self.warmup_ratio}; it must be below 1")
        self.split_batch()
        check_output(self.output, self.command, is_folder=True)

    @property
    def folder(self) -> Path:
        """Folder of the trained model."""
        return Path(self.output)

    @property
    def step_limit(self) -> int | None:
        """Number of optimiser steps that was asked for."""
        return self.max_steps if self.max_steps is not None and self.max_steps > 0 else None

    @property
    def peak_learning_rate(self) -> float:
        """Highest learning rate: the one that was given, or the usual one."""
        raise NotImplementedError

    @property
    def max_forward_batch_size(self) -> int:
        """Largest number of samples in one forward pass of a process."""
        raise NotImplementedError

    def split_batch(self) -> tuple[int, int]:
        """Return the samples in one forward pass of a process, and its forward passes in an optimiser step."""
        return split_batch(
            self.effective_batch_size,
            world_size(),
            limit=self.max_forward_batch_size,
            per_device=self.per_device_train_batch_size,
            accumulation=self.gradient_accumulation_steps,
        )

    def describe_batch(self) -> str:
        """Describe how the effective batch is shared, in one line."""
        processes = f"{world_size()} process{'es' if world_size() > 1 else ''}"
        size, times = self.split_batch()
        return f"effective batch {self.effective_batch_size} = {processes} x {size} {self.unit} x {times} accumulated"

    def recipe(self) -> dict[str, Any]:
        """Return the values that repeat a run on the same data; none of them names a folder or a machine."""
        return {name: value for name, value in decisive(self).items() if value not in (None, {}, [])}


@settings
class PretrainSettings(TrainingSettings):
    """Pretrain a masked autoencoder on data sets of crops.

    If interrupted, run the same command again to resume. torchrun, accelerate and SLURM start training/pretrain.py
    with the same options. The other fields of transformers.TrainingArguments are options, too.

    Example:
        >>> settings = PretrainSettings(dataset=["lab/sted-crops"], output="run", effective_batch_size=512)
        >>> settings.peak_learning_rate, settings.describe_batch()
        (0.0003, 'effective batch 512 = 1 process x 256 crops x 2 accumulated')
    """

    command: ClassVar[str] = "pretrain"
    unit: ClassVar[str] = "crops"

    dataset: list[str] = option(
        decides=False,
        help="Folders or Hub ids (OWNER/NAME, hf:// paths) of data sets; several are mixed in every batch.",
    )
    _: KW_ONLY
    weights: list[float] | None = option(None, help="Shares of the data sets in a batch; by default equal.")
    train_split: str = option("train", help="Split to train on.")
    validation_split: str = option("validation", help="Split of the held-out evaluation.")
    validation_dataset: list[str] = option(
        default_factory=list,
        decides=False,
        help="Other data sets for the held-out evaluation; by default those that are trained on.",
    )
    open_shards: int = option(4, minimum=1, help="Number of shards mixed at a time; the order depends on it.")
    workers: int = option(2, decides=False, minimum=1, help="Number of threads of a process that read ahead.")
    architecture: str = option("stedfm-vit-small", choices=tuple(MAX_PER_DEVICE_BATCH), help="Architecture to train.")
    mask_ratio: float = option(0.75, help="Share of the patches hidden from the encoder, between 0 and 1.")
    norm_pix_loss: bool = option(False, help="Predict patches that are standardised one by one.")
    decoder_hidden_size: int | None = option(
        None, minimum=1, help="Width of the decoder; by default that of the architecture."
    )
    decoder_num_hidden_layers: int | None = option(None, minimum=1, help="Number of layers of the decoder.")
    decoder_num_attention_heads: int | None = option(None, minimum=1, help="Number of attention heads of the decoder.")
    decoder_intermediate_size: int | None = option(None, minimum=1, help="Width of the MLP of the decoder.")
    standardise_input: bool = option(
        True, help="Fold mean and standard deviation of the pixels into the patch embedding; input stays in [0, 1]."
    )
    init_from: str | None = option(
        None, decides=False, help="Folder or Hub id of a model whose weights are the start."
    )
    num_train_epochs: float = option(1000.0, help="Number of passes over the data (reference protocol: 1000).")
    max_seconds: float | None = option(
        None,
        help="Seconds after which training ends; warm-up and half a cosine of the learning rate span this time.",
    )
    seed: int = options.seed("the weights, the order, the masks and the augmentation", default=42)
    effective_batch_size: int = effective_batch_of(1024)
    base_learning_rate: float = option(
        1.5e-4,
        minimum=0,
        help="Learning rate for 256 crops: the highest one is this times effective_batch_size / 256.",
    )
    warmup_ratio: float = warmup_ratio_of(0.05)
    warmup_steps: int | None = option(None, minimum=0, help="Steps of the warm-up, instead of warmup_ratio.")
    adam_beta1: float = option(0.9, minimum=0, maximum=1, help="Decay of the first moment.")
    adam_beta2: float = option(0.95, minimum=0, maximum=1, help="Decay of the second moment.")
    augment: bool = option(True, help="Rotate and mirror the images at random, and crop larger ones at random.")
    ema_decay: float | None = option(None, help="Decay of a moving average of the weights, such as 0.9999.")
    protocol: str = options.protocol(
        "has a cosine schedule with a half period of 20 epochs, decay of all weights, and reflections only"
    )
    logging_steps: int = option(
        50, decides=False, minimum=1, help="Steps between two rows of the curve; divides save_steps and eval_steps."
    )
    save_steps: int = option(1000, decides=False, minimum=1, help="Steps between two checkpoints.")
    eval_steps: int = option(
        1000, decides=False, minimum=0, help="Steps between two evaluations on held-out crops; 0 for none."
    )
    save_total_limit: int | None = option(2, decides=False, minimum=1, help="Number of checkpoints to keep.")
    deepspeed: str | None = option(
        None, decides=False, help="DeepSpeed configuration: zero1, zero2, zero3, or a JSON file."
    )
    push_to_hub: bool = option(False, decides=False, help="Publish the finished model on the Hub.")
    hub_model_id: str | None = option(None, decides=False, help="Id of its repository; by default the folder's name.")
    hub_private_repo: bool = option(True, decides=False, help="Make a new repository private.")

    def check(self) -> None:
        """Refuse values that do not go together, and data that are not there."""
        super().check()
        from stedfm_hf.data.sources import check_dataset  # imports NumPy, which help does not need

        for each in [*self.dataset, *self.validation_dataset]:
            check_dataset(each)
        if not self.dataset:
            raise UserError("no data set is named; give --dataset FOLDER (`stedfm data build` makes one)")
        if self.weights is not None and (len(self.weights) != len(self.dataset) or min(self.weights) <= 0):
            raise UserError(
                f"weights {self.weights} must be above 0 and one for each of {len(self.dataset)} data sets"
            )
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise UserError(f"max_seconds is {self.max_seconds}; it must be above 0")
        for name in ("mask_ratio", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UserError(f"{name} is {value}; it must be between 0 and 1")
        # A resumed curve is cut back to its checkpoint: a row across one would hold steps of two runs.
        common = gcd(self.save_steps, self.eval_steps)
        if common % self.logging_steps:
            near = min((n for n in range(1, common + 1) if common % n == 0), key=lambda n: abs(n - self.logging_steps))
            raise UserError(
                f"logging_steps {self.logging_steps} does not divide save_steps {self.save_steps} and eval_steps "
                f"{self.eval_steps}; the nearest that does: {near}"
            )
        if self.deepspeed is not None:
            deepspeed_file(self.deepspeed)

    @property
    def peak_learning_rate(self) -> float:
        """Highest learning rate."""
        given = self.learning_rate
        return self.base_learning_rate * self.effective_batch_size / 256 if given is None else given

    @property
    def max_forward_batch_size(self) -> int:
        """Largest number of crops in one forward pass of a process."""
        return self.max_per_device_batch or MAX_PER_DEVICE_BATCH[self.architecture]
