"""Settings of the fine-tunings; this module imports neither torch nor transformers."""

from __future__ import annotations

from dataclasses import KW_ONLY
from pathlib import Path
from typing import ClassVar

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import option, settings
from stedfm_hf.training.checks import check_installed, flag
from stedfm_hf.training.settings import (
    CHECKPOINTS,
    MAX_PER_DEVICE_BATCH,
    MODEL,
    OPTIMISATION,
    TrainingSettings,
    effective_batch_option,
)
from stedfm_hf.weights.models import find_model
from stedfm_hf.weights.packaged import PACKAGED

MAX_EPOCHS = 1000
"""Largest number of epochs on a sample of the training images (reference protocol)."""
NEW_ENCODER = ("from-scratch", "untrained")
"""Modes with a randomly initialised encoder."""


@settings
class FinetuneSettings(TrainingSettings):
    """Settings shared by all fine-tunings."""

    learning_rates: ClassVar[dict[str, float]]
    layer_decays: ClassVar[dict[str, float]] = {}
    largest_batch: ClassVar[int]

    model: str = option(
        affects_result=False,
        help="Folder of a model, Hub id, or `demo`; with --mode from-scratch also the name of an architecture.",
    )
    dataset: str = option(affects_result=False, help="Folder or Hub id of a data set, or folder of images.")
    _: KW_ONLY
    train_split: str = option("train", group=options.INPUT, help="Split to train on.")
    validation_split: str = option(
        "validation",
        group=options.INPUT,
        help="Split that selects the best model; if missing, it is taken from train by a hash of the source ids.",
    )
    test_split: str = option(
        "test", group=options.INPUT, help="Split of the reported metrics; not used for training or selection."
    )
    labels_per_class: int | None = option(
        None, minimum=1, group=options.INPUT, help="Number of training images to sample per class."
    )
    label_fraction: float | None = option(None, group=options.INPUT, help="Fraction of the training images to sample.")
    series: str | int | None = options.series("Series to read from each image file.")
    channel: str | int | None = options.channel()
    source_pattern: str | None = options.source_pattern()
    mode: str = option("full", group=MODEL, help="Weights to train.")
    blocks: int | None = option(
        None, minimum=1, group=MODEL, help="Number of blocks to train with --mode last-blocks."
    )
    lora_rank: int = option(8, minimum=1, group=MODEL, help="Rank of the adapters with --mode lora.")
    seeds: list[int] = option(
        default_factory=lambda: [42],
        affects_result=False,
        minimum=0,
        flags=("--seeds", "--seed"),
        help="Random seeds of sampled images, new weights, order and augmentation; one run for each.",
    )
    num_train_epochs: float = option(
        30.0,
        group=OPTIMISATION,
        help="Number of passes over all training images; a run on a sample of them takes the same number of steps.",
    )
    sample_budget: int | None = option(
        None, minimum=1, group=OPTIMISATION, help="Total number of samples, instead of --num-train-epochs."
    )
    layer_decay: float | None = option(
        None,
        group=OPTIMISATION,
        help="Layer-wise decay of the learning rate: factor from each block to the one below; the default depends "
        "on --mode.",
    )
    augment: bool = option(
        True, group=OPTIMISATION, help="Rotate, mirror and crop the images, and change their intensities, at random."
    )
    metric_for_best_model: str | None = option(
        None, group=CHECKPOINTS, help="Validation metric that selects the best model."
    )
    early_stopping_patience: int | None = option(
        None,
        minimum=1,
        group=CHECKPOINTS,
        help="Number of evaluations without improvement before training stops; by default no early stopping.",
    )
    num_evaluations: int = option(
        10, minimum=1, group=CHECKPOINTS, help="Number of evaluations on the validation images per run."
    )
    evaluations_per_checkpoint: int = option(
        1,
        affects_result=False,
        minimum=1,
        group=CHECKPOINTS,
        help="Number of evaluations from one checkpoint to the next.",
    )
    workers: int = option(
        0,
        affects_result=False,
        minimum=0,
        group=options.COMPUTATION,
        help="Number of processes that prefetch images; 0 for none.",
    )

    def check(self) -> None:
        """Refuse contradictory values, and missing data sets or models."""
        super().check()
        from stedfm_hf.data.sources import check_dataset  # imports NumPy, which help does not need

        check_dataset(self.dataset)
        if self.model not in PACKAGED and not (self.mode in NEW_ENCODER and self.model in MAX_PER_DEVICE_BATCH):
            find_model(self.model)
        if self.mode == "last-blocks" and self.blocks is None:
            raise UserError("--mode last-blocks: give the number of blocks, such as --blocks 2")
        if self.mode != "last-blocks" and self.blocks is not None:
            raise UserError(f"--blocks {self.blocks} needs --mode last-blocks, but the mode is {self.mode}")
        if self.mode == "lora":
            check_installed("peft", "--mode lora: ")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"--seeds {' '.join(map(str, self.seeds))}: give at least one seed, and each only once")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"--layer-decay is {self.layer_decay}; it must be above 0 and at most 1")
        refused = {
            "load_best_model_at_end": "--load-best-model-at-end: always done; the metric is --metric-for-best-model",
            "push_to_hub": "--push-to-hub: not available; use `stedfm publish` for the finished folder",
            "deepspeed": "--deepspeed: not available for fine-tuning; start several GPUs with torchrun",
            "fsdp": "--fsdp: not available for fine-tuning; start several GPUs with torchrun",
        }
        for name in refused.keys() & self.training_arguments.keys():
            raise UserError(refused[name])

    @property
    def peak_learning_rate(self) -> float:
        """Peak learning rate: the given one, or that of the mode."""
        return self.learning_rates[self.mode] if self.learning_rate is None else self.learning_rate

    @property
    def effective_layer_decay(self) -> float:
        """Layer-wise decay of the learning rate: factor from each block to the one below it."""
        return self.layer_decays.get(self.mode, 1.0) if self.layer_decay is None else self.layer_decay

    @property
    def max_forward_batch_size(self) -> int:
        """Largest number of samples in one forward pass of a process."""
        return self.max_per_device_batch or self.largest_batch

    def steps_for(self, images: int, sampled: int) -> int:
        """Return the number of optimiser steps of a run; it hardly depends on the number of sampled images.

        Args:
            images: Number of all training images.
            sampled: Number of sampled training images.
        """
        if self.step_limit is not None:
            return self.step_limit
        budget = self.num_train_epochs * images if self.sample_budget is None else self.sample_budget
        return max(1, round(min(budget, MAX_EPOCHS * sampled) / self.effective_batch_size))


@settings
class ClassificationSettings(FinetuneSettings):
    """Train a classifier or a regression on labelled images.

    If interrupted, run the same command again to resume. torchrun starts training/classify.py with the same options.
    All fields of transformers.TrainingArguments are options, too.

    Example:
        >>> settings = ClassificationSettings("demo", "lab/crops", output="run", mode="full", seeds=[1, 2])
        >>> settings.peak_learning_rate, settings.describe_batch()
        (0.0002, 'effective batch 64 = 1 process x 64 images x 1 accumulation step')
    """

    command: ClassVar[str] = "finetune classification"
    unit: ClassVar[str] = "images"
    largest_batch: ClassVar[int] = 64
    learning_rates: ClassVar[dict[str, float]] = {
        "linear-probe": 3e-3,
        "last-blocks": 3e-4,
        "full": 2e-4,
        "lora": 1e-3,
        "from-scratch": 5e-4,
    }
    """Default peak learning rate by mode, for an effective batch of 64 images."""

    dataset: str = option(
        affects_result=False,
        help=options.LABELLED,
    )
    _: KW_ONLY
    target: str | None = option(
        None,
        group=options.INPUT,
        help="Column of the labels, or key of the column `metadata`; by default label. Decimal numbers train a "
        "regression.",
    )
    mode: str = option(
        "linear-probe",
        choices=tuple(learning_rates),
        group=MODEL,
        help="Weights to train: head, head and last blocks, all, low-rank adapters, or all from random weights.",
    )
    head_init: str | None = option(
        None,
        choices=("probe", "random"),
        group=MODEL,
        help="Initial weights of the head: probe (linear probe on features of the encoder) or random; by default "
        "probe with last-blocks, full and lora, else random.",
    )
    class_weights: str = option(
        "none",
        choices=("none", "balanced"),
        group=OPTIMISATION,
        help="Weights of the classes in the loss; balanced gives classes equal weight.",
    )
    metric_for_best_model: str | None = option(
        None,
        group=CHECKPOINTS,
        help="Validation metric that selects the best model; by default balanced_accuracy, macro_f1 or r2.",
    )

    def check(self) -> None:
        """Refuse more than one way to sample images, and a probe on random features."""
        super().check()
        _check_one_sampling(self, ("labels_per_class", "label_fraction"))
        if self.head_init == "probe" and self.mode in NEW_ENCODER:
            raise UserError(f"--head-init probe needs a pretrained encoder; with --mode {self.mode}, use random")

    @property
    def starts_from_probe(self) -> bool:
        """Whether the head starts from a linear probe: the given choice, or that of the mode."""
        by_default = "probe" if self.mode in ("last-blocks", "full", "lora") else "random"
        return (self.head_init or by_default) == "probe"


@settings
class SegmentationSettings(FinetuneSettings):
    """Train a segmenter on images with masks.

    If interrupted, run the same command again to resume. torchrun starts training/segment.py with the same options.
    All fields of transformers.TrainingArguments are options, too.

    Example:
        >>> settings = SegmentationSettings("demo", "lab/masks", output="run", mode="frozen", decoder="linear")
        >>> settings.peak_learning_rate, settings.describe_batch()
        (0.002, 'effective batch 16 = 1 process x 16 crops x 1 accumulation step')
    """

    command: ClassVar[str] = "finetune segmentation"
    unit: ClassVar[str] = "crops"
    largest_batch: ClassVar[int] = 16
    learning_rates: ClassVar[dict[str, float]] = {
        "frozen": 2e-3,
        "last-blocks": 1e-3,
        "full": 2e-3,
        "lora": 2e-3,
        "from-scratch": 1e-3,
        "untrained": 2e-3,
    }
    """Default peak learning rate by mode, for an effective batch of 16 crops."""
    layer_decays: ClassVar[dict[str, float]] = {"full": 0.75}
    """Factor of the learning rate from a block to the previous one, by mode; 1 for the other modes."""

    dataset: str = option(
        affects_result=False,
        help=options.ANNOTATED,
    )
    _: KW_ONLY
    masks: str | None = options.masks()
    classes: list[str] | None = options.classes()
    target_type: str | None = options.target_type()
    series: str | int | None = options.series(
        "Series to read from each image file; `all` reads every plane of a stack, with the same plane of its mask."
    )
    min_annotated: float = option(
        0.01,
        minimum=0,
        maximum=1,
        group=options.INPUT,
        help="Smallest annotated fraction of a training crop (reference: 0.1); 0 accepts every crop.",
    )
    label_count: int | None = option(
        None, minimum=1, group=options.INPUT, help="Number of training images to sample, independent of their classes."
    )
    mode: str = option(
        "full",
        choices=tuple(learning_rates),
        metavar="|".join(learning_rates),
        group=MODEL,
        help="Weights to train: decoder (frozen), decoder and last blocks, all, low-rank adapters, or all from random "
        "weights; untrained: decoder on a random encoder, a baseline.",
    )
    decoder: str = option(
        "upernet",
        choices=("upernet", "unetr", "linear"),
        group=MODEL,
        help="Decoder; unetr and linear are those of the reference.",
    )
    decode_head_hidden_size: int | None = option(
        None, minimum=1, group=MODEL, help="Width of upernet; by default a quarter of the width of the encoder."
    )
    auxiliary: bool = option(
        False, group=MODEL, help="Train an auxiliary head on an intermediate level (upernet only)."
    )
    segmentation_loss: str = option(
        "auto",
        choices=("auto", "cross_entropy", "bce_dice", "mse"),
        group=OPTIMISATION,
        help="Loss; auto is cross_entropy for exclusive classes, otherwise bce_dice; mse is that of the reference.",
    )
    effective_batch_size: int = effective_batch_option(16)
    protocol: str = options.protocol("changes intensities in the augmentation so that most images become darker")
    metric_for_best_model: str | None = option(
        None, group=CHECKPOINTS, help="Validation metric that selects the best model: iou (the default), dice or loss."
    )
    overlays: int = option(
        4,
        affects_result=False,
        minimum=0,
        group=CHECKPOINTS,
        help="Number of validation images to plot with masks and predictions at every evaluation.",
    )

    def check(self) -> None:
        """Refuse more than one way to sample images, and options that the decoder lacks."""
        super().check()
        _check_one_sampling(self, ("label_fraction", "label_count", "labels_per_class"))
        if self.masks is not None and not Path(self.masks).is_dir():
            raise UserError(f"--masks {self.masks}: there is no such folder")
        if self.auxiliary and self.decoder != "upernet":
            raise UserError(f"--auxiliary needs --decoder upernet, but the decoder is {self.decoder}")


def _check_one_sampling(settings: FinetuneSettings, names: tuple[str, ...]) -> None:
    given = [flag(name) for name in names if getattr(settings, name) is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them")
