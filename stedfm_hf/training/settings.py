"""Settings shared by all trainings, and settings of the pretraining.

Other fields of `transformers.TrainingArguments` are options, too; `stedfm_hf.training.arguments` converts them when
training starts. This module imports neither torch nor transformers, so that `--help` and error messages are fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, fields
from math import gcd
from pathlib import Path
from typing import Any, ClassVar

from stedfm_hf.cards.checks import check_licence
from stedfm_hf.runs import UserError, counted, options
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import option, result_settings, settings
from stedfm_hf.training.checks import check_argument_names, check_trackers, deepspeed_file, flag
from stedfm_hf.training.effective_batch import split_batch, world_size

OPTIMISATION = "Optimisation"
MODEL = "Model"
CHECKPOINTS = "Evaluation and checkpoints"
"""Headings of the help under which the options of trainings are listed."""
RECIPES = Path(__file__).parent / "recipes"
"""Folder of the packaged recipes of pretraining."""
MAX_PER_DEVICE_BATCH = {
    "stedfm-vit-tiny": 256,
    "stedfm-vit-small": 256,
    "stedfm-vit-base": 128,
    "stedfm-vit-large": 64,
    "stedfm-vit-64-p8": 512,
}
"""Largest number of crops in one forward pass of a GPU, by architecture (reference protocol: V100 with 16 GB)."""


def effective_batch_option(default: int) -> Any:
    """Define the option `--effective-batch-size`."""
    return option(
        default,
        minimum=1,
        group=OPTIMISATION,
        help="Number of samples in an optimiser step, of all processes together.",
    )


def warmup_option(default: float) -> Any:
    """Define the option `--warmup-ratio`."""
    return option(
        default,
        minimum=0,
        group=OPTIMISATION,
        help="Fraction of the steps for the warm-up of the learning rate, below 1.",
    )


@settings
class TrainingSettings(ABC):
    """Settings shared by all trainings."""

    command: ClassVar[str]
    unit: ClassVar[str]

    _: KW_ONLY
    output: str | Path = option(
        affects_result=False,
        flags=("--output", "--output-dir"),
        metavar="FOLDER",
        help="Folder of the trained model; an interrupted run in it is resumed.",
    )
    max_steps: int | None = option(
        None,
        minimum=-1,
        group=OPTIMISATION,
        help="Number of optimiser steps, instead of --num-train-epochs; -1 for no limit.",
    )
    effective_batch_size: int = effective_batch_option(64)
    max_per_device_batch: int | None = option(
        None,
        affects_result=False,
        minimum=1,
        group=OPTIMISATION,
        help="Largest number of samples in one forward pass of a process.",
    )
    per_device_train_batch_size: int | None = option(
        None,
        affects_result=False,
        minimum=1,
        group=OPTIMISATION,
        help="Number of samples in one forward pass; by default the largest that divides the effective batch.",
    )
    gradient_accumulation_steps: int | None = option(
        None,
        affects_result=False,
        minimum=1,
        group=OPTIMISATION,
        help="Number of forward passes in an optimiser step; by default from --effective-batch-size.",
    )
    learning_rate: float | None = option(
        None, minimum=0, group=OPTIMISATION, help="Peak learning rate, after the warm-up."
    )
    lr_scheduler_type: str = option("cosine", group=OPTIMISATION, help="Learning-rate schedule after the warm-up.")
    warmup_ratio: float = warmup_option(0.1)
    weight_decay: float = option(
        0.05, minimum=0, group=OPTIMISATION, help="Weight decay of matrices; biases, norms and tokens are not decayed."
    )
    max_grad_norm: float = option(
        1.0, minimum=0, group=OPTIMISATION, help="Gradient norm for clipping; 0 for no clipping."
    )
    precision: str = options.precision("auto", "on GPUs that compute it fast")
    device: str = options.device()
    report_to: list[str] = option(
        default_factory=list,
        affects_result=False,
        group=CHECKPOINTS,
        help="Trackers that log the training, such as tensorboard.",
    )
    training_arguments: dict[str, Any] = option(
        default_factory=dict, extra=True, help="Other fields of transformers.TrainingArguments, by name."
    )

    def check(self) -> None:
        """Refuse contradictory values, and an output of another command."""
        check_argument_names(self.training_arguments, [each.name for each in fields(self)])
        check_trackers(self.report_to)
        if self.precision != "auto" and {"bf16", "fp16"} & set(self.training_arguments):
            raise UserError("--precision excludes --bf16 and --fp16; give one of them")
        if "hub_token" in self.training_arguments:
            raise UserError("--hub-token would be written to the manifest; run `hf auth login`, or set HF_TOKEN")
        if self.warmup_ratio >= 1:
            raise UserError(f"--warmup-ratio is {self.warmup_ratio}; it must be below 1")
        self.split_batch()
        check_output(self.output, self.command, is_folder=True)

    @property
    def folder(self) -> Path:
        """Folder of the trained model."""
        return Path(self.output)

    @property
    def step_limit(self) -> int | None:
        """Number of optimiser steps, or None for whole epochs."""
        return self.max_steps if self.max_steps is not None and self.max_steps > 0 else None

    @property
    @abstractmethod
    def peak_learning_rate(self) -> float:
        """Peak learning rate: the given one, or the default."""

    @property
    @abstractmethod
    def max_forward_batch_size(self) -> int:
        """Largest number of samples in one forward pass of a process."""

    def split_batch(self) -> tuple[int, int]:
        """Return the number of samples in a forward pass of a process, and of forward passes in an optimiser step."""
        return split_batch(
            self.effective_batch_size,
            world_size(),
            limit=self.max_forward_batch_size,
            per_device=self.per_device_train_batch_size,
            accumulation=self.gradient_accumulation_steps,
        )

    def describe_batch(self) -> str:
        """Describe the effective batch in one line."""
        processes = f"{world_size()} process{'es' if world_size() > 1 else ''}"
        size, times = self.split_batch()
        steps = counted(times, "accumulation step")
        return f"effective batch {self.effective_batch_size} = {processes} x {size} {self.unit} x {steps}"

    def recipe(self) -> dict[str, Any]:
        """Return the values that reproduce a run on the same data; they name no folder and no machine."""
        return {name: value for name, value in result_settings(self).items() if value not in (None, {}, [])}


@settings
class StreamedSettings(TrainingSettings):
    """Settings shared by trainings on streamed data sets of crops."""

    checked_fractions: ClassVar[tuple[str, ...]]
    """Names of the fields that must be between 0 and 1, or None."""

    dataset: list[str] = option(
        affects_result=False,
        storage=True,
        help="Folders, also in an object store, or Hub ids of data sets (OWNER/NAME or hf:// paths); each batch mixes "
        "crops of all of them.",
    )
    _: KW_ONLY
    dataset_weights: list[float] | None = option(
        None,
        group=options.INPUT,
        help="Relative numbers of crops of the data sets in a batch, one for each; by default equal.",
    )
    train_split: str = option("train", group=options.INPUT, help="Split to train on.")
    validation_split: str = option("validation", group=options.INPUT, help="Split of the held-out evaluation.")
    validation_dataset: list[str] = option(
        default_factory=list,
        affects_result=False,
        storage=True,
        group=options.INPUT,
        help="Data sets of the held-out evaluation; by default those of the training.",
    )
    open_shards: int = option(
        4,
        minimum=1,
        group=options.INPUT,
        help="Number of shards that are shuffled together; changes the order of the crops.",
    )
    workers: int = option(
        2,
        affects_result=False,
        minimum=1,
        group=options.COMPUTATION,
        help="Number of threads per process that prefetch crops.",
    )
    num_train_epochs: float = option(
        1000.0, group=OPTIMISATION, help="Number of passes over the data (reference protocol: 1000)."
    )
    max_seconds: float | None = option(
        None,
        group=OPTIMISATION,
        help="Time limit in seconds; the learning-rate schedule spans this time.",
    )
    warmup_steps: int | None = option(
        None, minimum=0, group=OPTIMISATION, help="Number of steps of the warm-up, instead of --warmup-ratio."
    )
    adam_beta1: float = option(
        0.9, minimum=0, maximum=1, group=OPTIMISATION, help="Decay rate of the first moment of AdamW."
    )
    adam_beta2: float = option(
        0.95, minimum=0, maximum=1, group=OPTIMISATION, help="Decay rate of the second moment of AdamW."
    )
    augment: bool = option(True, group=OPTIMISATION, help="Rotate, mirror and crop the images at random.")
    logging_steps: int = option(
        50,
        affects_result=False,
        minimum=1,
        group=CHECKPOINTS,
        help="Number of steps between two rows of the curve; must divide --save-steps and --eval-steps.",
    )
    save_steps: int = option(
        1000, affects_result=False, minimum=1, group=CHECKPOINTS, help="Number of steps between two checkpoints."
    )
    eval_steps: int = option(
        1000,
        affects_result=False,
        minimum=0,
        group=CHECKPOINTS,
        help="Number of steps between two evaluations on held-out crops; 0 for none.",
    )
    save_total_limit: int | None = option(
        2, affects_result=False, minimum=1, group=CHECKPOINTS, help="Number of checkpoints to keep."
    )
    push_to_hub: bool = option(
        False, affects_result=False, group=CHECKPOINTS, help="Publish the finished model on the Hub."
    )
    hub_model_id: str | None = option(
        None,
        affects_result=False,
        group=CHECKPOINTS,
        metavar="OWNER/NAME",
        help="Hub id of the published model.",
    )
    licence: str | None = option(
        None,
        affects_result=False,
        group=CHECKPOINTS,
        metavar="ID",
        help="Licence of the weights on the card, as the Hub names it, such as mit or cc-by-4.0.",
    )
    hub_private_repo: bool = option(
        True, affects_result=False, group=CHECKPOINTS, help="Create a private repository on the Hub."
    )

    def check(self) -> None:
        """Refuse contradictory values, and missing data sets."""
        super().check()
        from stedfm_hf.data.sources import check_dataset  # imports NumPy, which help does not need

        for each in [*self.dataset, *self.validation_dataset]:
            check_dataset(each)
        if not self.dataset:
            raise UserError("--dataset is missing; give a folder or a Hub id (`stedfm data build` makes a data set)")
        if self.push_to_hub and (self.hub_model_id is None or self.licence is None):
            raise UserError("--push-to-hub needs --hub-model-id OWNER/NAME and --licence, such as mit")
        if self.licence is not None:
            check_licence(self.licence)
        weights = self.dataset_weights
        if weights is not None and (len(weights) != len(self.dataset) or min(weights) <= 0):
            raise UserError(
                f"--dataset-weights {' '.join(f'{each:g}' for each in weights)}: give one number above 0 for each of "
                f"{counted(len(self.dataset), 'data set')}"
            )
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise UserError(f"--max-seconds is {self.max_seconds}; it must be above 0")
        for name in self.checked_fractions:
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UserError(f"{flag(name)} is {value}; it must be between 0 and 1")
        # Resuming truncates the curve at the checkpoint: a row that spans it would mix steps of two runs.
        common = gcd(self.save_steps, self.eval_steps)
        if common % self.logging_steps:
            near = min((n for n in range(1, common + 1) if common % n == 0), key=lambda n: abs(n - self.logging_steps))
            raise UserError(
                f"--logging-steps {self.logging_steps} does not divide --save-steps {self.save_steps} and "
                f"--eval-steps {self.eval_steps}; the nearest that does: {near}"
            )


@settings
class PretrainSettings(StreamedSettings):
    """Pretrain a masked autoencoder on data sets of crops.

    `stedfm pretrain generation` trains a diffusion model. If interrupted, run the same command again to resume.
    torchrun, accelerate and SLURM start training/pretrain.py with the same options. All fields of
    transformers.TrainingArguments are options, too.

    Example:
        >>> settings = PretrainSettings(dataset=["lab/sted-crops"], output="run", effective_batch_size=512)
        >>> settings.peak_learning_rate, settings.describe_batch()
        (0.0003, 'effective batch 512 = 1 process x 256 crops x 2 accumulation steps')
    """

    command: ClassVar[str] = "pretrain"
    unit: ClassVar[str] = "crops"
    checked_fractions: ClassVar[tuple[str, ...]] = ("mask_ratio", "ema_decay")

    _: KW_ONLY
    architecture: str = option(
        "stedfm-vit-small", choices=tuple(MAX_PER_DEVICE_BATCH), group=MODEL, help="Architecture to train."
    )
    mask_ratio: float = option(0.75, group=MODEL, help="Fraction of the patches that are masked, between 0 and 1.")
    norm_pix_loss: bool = option(
        False, group=MODEL, help="Normalise the target pixels of each patch by their mean and standard deviation."
    )
    decoder_hidden_size: int | None = option(
        None, minimum=1, group=MODEL, help="Width of the decoder; by default that of the architecture."
    )
    decoder_num_hidden_layers: int | None = option(
        None, minimum=1, group=MODEL, help="Number of layers of the decoder."
    )
    decoder_num_attention_heads: int | None = option(
        None, minimum=1, group=MODEL, help="Number of attention heads of the decoder."
    )
    decoder_intermediate_size: int | None = option(
        None, minimum=1, group=MODEL, help="Width of the MLP of the decoder."
    )
    standardise_input: bool = option(
        True,
        group=MODEL,
        help="Standardise the pixels inside the patch embedding; the input of the model stays in [0, 1].",
    )
    init_from: str | None = option(
        None,
        affects_result=False,
        group=MODEL,
        help="Folder or Hub id of the model to start from; by default random weights.",
    )
    seed: int = options.seed("weights, order, masks and augmentation", default=42)
    effective_batch_size: int = effective_batch_option(1024)
    base_learning_rate: float = option(
        1.5e-4,
        minimum=0,
        group=OPTIMISATION,
        help="Learning rate for 256 crops; the peak learning rate is this times --effective-batch-size / 256.",
    )
    warmup_ratio: float = warmup_option(0.05)
    ema_decay: float | None = option(
        None, group=OPTIMISATION, help="Decay of a moving average of the weights, such as 0.9999."
    )
    protocol: str = options.protocol(
        "uses an oscillating learning rate (period of 40 epochs), decays all weights, and only mirrors images"
    )
    deepspeed: str | None = option(
        None,
        affects_result=False,
        group=options.COMPUTATION,
        help="DeepSpeed configuration: zero1, zero2, zero3, or a JSON file.",
    )

    def check(self) -> None:
        """Refuse contradictory values, and a missing configuration of DeepSpeed."""
        super().check()
        if self.deepspeed is not None:
            deepspeed_file(self.deepspeed)

    @property
    def peak_learning_rate(self) -> float:
        """Peak learning rate: the given one, or the base learning rate scaled with the batch."""
        given = self.learning_rate
        return self.base_learning_rate * self.effective_batch_size / 256 if given is None else given

    @property
    def max_forward_batch_size(self) -> int:
        """Largest number of crops in one forward pass of a process."""
        return self.max_per_device_batch or MAX_PER_DEVICE_BATCH[self.architecture]
