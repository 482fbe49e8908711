"""Settings of fine-tunings; torch-free like those of pretraining."""

from __future__ import annotations

from dataclasses import KW_ONLY
from pathlib import Path
from typing import ClassVar

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import option, settings
from stedfm_hf.training.checks import check_installed
from stedfm_hf.training.settings import MAX_PER_DEVICE_BATCH, TrainingSettings, effective_batch_of
from stedfm_hf.weights.models import find_model
from stedfm_hf.weights.packaged import PACKAGED

MAX_EPOCHS = 1000
"""Largest number of passes over a few sampled images (reference protocol)."""
NEW_ENCODER = ("from-scratch", "untrained")
"""Modes that begin with a randomly initialised encoder."""


@settings
class FinetuneSettings(TrainingSettings):
    """Settings that all fine-tunings share."""

    learning_rates: ClassVar[dict[str, float]]
    layer_decays: ClassVar[dict[str, float]] = {}
    largest_batch: ClassVar[int]

    model: str = option(
        decides=False, help="Folder of a model, Hub id, or `demo`; to train from scratch also an architecture."
    )
    dataset: str = option(decides=False, help="Folder or Hub id of a data set, or folder of images.")
    _: KW_ONLY
    train_split: str = option("train", help="Split to train on.")
    validation_split: str = option(
        "validation",
        help="Split that the best model is chosen on; without one, a hash of the source ids takes it from train.",
    )
    test_split: str = option("test", help="Split of the reported metrics; never used before.")
    labels_per_class: int | None = option(None, minimum=1, help="Number of training images to sample of each class.")
    label_fraction: float | None = option(None, help="Share of the training images to sample.")
    series: str | int | None = options.series("Series to take of each image file.")
    channel: str | int | None = options.channel()
    source_pattern: str | None = options.source_pattern()
    mode: str = option("full", help="Weights to train.")
    blocks: int | None = option(None, minimum=1, help="Number of blocks that the mode last-blocks trains.")
    lora_rank: int = option(8, minimum=1, help="Rank of the adapters of the mode lora.")
    seeds: list[int] = option(
        default_factory=lambda: [42],
        decides=False,
        minimum=0,
        flags=("--seeds", "--seed"),
        help="Random seeds: one run for each, with its own sampled labels, new weights, order and augmentation.",
    )
    num_train_epochs: float = option(
        30.0, help="Number of passes over all training images; a sample of them is seen as many times in all."
    )
    sample_budget: int | None = option(None, minimum=1, help="Number of samples in all, instead of num_train_epochs.")
    layer_decay: float | None = option(
        None, help="Factor of the learning rate from a block to the one before it; by default that of the mode."
    )
    augment: bool = option(
        True, help="Rotate and mirror the images, change their intensity a little and crop larger ones, all at random."
    )
    metric_for_best_model: str | None = option(None, help="Validation metric that the best model is chosen by.")
    early_stopping_patience: int | None = option(
        None,
        minimum=1,
        help="Number of evaluations without a better one before training stops; by default it does not.",
    )
    num_evaluations: int = option(10, minimum=1, help="Number of evaluations on the validation images in a run.")
    evaluations_per_checkpoint: int = option(
        1, decides=False, minimum=1, help="Number of evaluations from one checkpoint to the next."
    )
    workers: int = option(0, decides=False, minimum=0, help="Number of processes that read images ahead; 0 for none.")

    def check(self) -> None:
        """Refuse values that do not go together, and data that are not there."""
        super().check()
        from stedfm_hf.data.sources import check_dataset  # imports NumPy, which help does not need

        check_dataset(self.dataset)
        if self.model not in PACKAGED and not (self.mode in NEW_ENCODER and self.model in MAX_PER_DEVICE_BATCH):
            find_model(self.model)
        if (self.mode == "last-blocks") != (self.blocks is not None):
            raise UserError(
                f"mode {self.mode} and blocks {self.blocks} do not fit; give --mode last-blocks --blocks 2"
            )
        if self.mode == "lora":
            check_installed("peft", "mode lora: ")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"seeds {self.seeds} must name at least one seed, and each once")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay is {self.layer_decay}; it must be above 0 and at most 1")
        refused = {
            "load_best_model_at_end": "the best model is always kept; name the metric with --metric-for-best-model",
            "push_to_hub": "publish a finished folder with `hf upload NAME FOLDER`; leave --push-to-hub out",
            "deepspeed": "fine-tuning runs on one GPU or several alike (torchrun); leave --deepspeed out",
            "fsdp": "fine-tuning runs on one GPU or several alike (torchrun); leave --fsdp out",
        }
        for name in refused.keys() & self.training_arguments.keys():
            raise UserError(refused[name])

    @property
    def peak_learning_rate(self) -> float:
        """Highest learning rate."""
        return self.learning_rates[self.mode] if self.learning_rate is None else self.learning_rate

    @property
    def effective_layer_decay(self) -> float:
        """Factor of the learning rate from a block to the one before it."""
        return self.layer_decays.get(self.mode, 1.0) if self.layer_decay is None else self.layer_decay

    @property
    def max_forward_batch_size(self) -> int:
        """Largest number of samples in one forward pass of a process."""
        return self.max_per_device_batch or self.largest_batch

    def steps_for(self, images: int, sampled: int) -> int:
        """Return the optimiser steps of a run: as many samples are seen however few images were sampled."""
        if self.step_limit is not None:
            return self.step_limit
        budget = self.num_train_epochs * images if self.sample_budget is None else self.sample_budget
        return max(1, round(min(budget, MAX_EPOCHS * sampled) / self.effective_batch_size))


@settings
class ClassificationSettings(FinetuneSettings):
    """Train a classifier, or a regression, on labelled images.

    If interrupted, run the same command again to resume. torchrun starts training/classify.py with the same options.
    The other fields of transformers.TrainingArguments are options, too.

    Example:
        >>> settings = ClassificationSettings("demo", "lab/crops", output="run", mode="full", seeds=[1, 2])
        >>> settings.peak_learning_rate, settings.describe_batch()
        (0.0002, 'effective batch 64 = 1 process x 64 images x 1 accumulated')
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
    """Highest learning rate by mode, for 64 images in a step."""

    dataset: str = option(
        decides=False,
        help="Folder or Hub id of a data set, or folder with one folder of images for each class.",
    )
    _: KW_ONLY
    target: str | None = option(
        None,
        help="Column of the labels, or entry of the column metadata; by default label. Decimal numbers: a regression.",
    )
    mode: str = option(
        "linear-probe",
        choices=tuple(learning_rates),
        help="Weights to train: the head, the last blocks, all, adapters of low rank, or all from random ones.",
    )
    class_weights: str = option(
        "none", choices=("none", "balanced"), help="Weights of the classes in the loss; balanced: all count alike."
    )
    metric_for_best_model: str | None = option(
        None,
        help="Validation metric that the best model is chosen by; by default balanced_accuracy, macro_f1 or r2.",
    )

    def check(self) -> None:
        """Refuse two ways to sample images."""
        super().check()
        _check_one_way(self, ("labels_per_class", "label_fraction"))


@settings
class SegmentationSettings(FinetuneSettings):
    """Train a segmenter on images with masks.

    If interrupted, run the same command again to resume. torchrun starts training/segment.py with the same options.
    The other fields of transformers.TrainingArguments are options, too.

    Example:
        >>> settings = SegmentationSettings("demo", "lab/masks", output="run", mode="frozen", decoder="linear")
        >>> settings.peak_learning_rate, settings.describe_batch()
        (0.002, 'effective batch 16 = 1 process x 16 crops x 1 accumulated')
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
    """Highest learning rate by mode, for 16 crops in a step."""
    layer_decays: ClassVar[dict[str, float]] = {"full": 0.75}
    """Factor of the learning rate from a block to the one before: pretrained weights move less than a new decoder."""

    dataset: str = option(
        decides=False,
        help="Folder of images with masks (images/a.tif with masks/a.tif, or a_mask.tif), or data set, or its Hub id.",
    )
    _: KW_ONLY
    masks: str | None = options.masks()
    classes: list[str] | None = options.classes()
    target_type: str | None = options.target_type()
    series: str | int | None = options.series(
        "Series to take of each image file; all takes each plane of a stack with that of its mask."
    )
    min_annotated: float = option(
        0.01,
        minimum=0,
        maximum=1,
        help="Annotated share of a training crop (reference: 0.1); 0 takes crops anywhere.",
    )
    label_count: int | None = option(None, minimum=1, help="Number of training images to sample, whatever they show.")
    mode: str = option(
        "full",
        choices=tuple(learning_rates),
        help="Weights to train: the decoder (frozen), the last blocks, all, adapters of low rank, or all from random "
        "ones; untrained: the decoder on a random encoder, a baseline.",
    )
    decoder: str = option(
        "upernet",
        choices=("upernet", "unetr", "linear"),
        help="Decoder from tokens to pixels; unetr and linear are those of the reference.",
    )
    decode_head_hidden_size: int | None = option(
        None, minimum=1, help="Width of upernet; by default a quarter of the encoder's."
    )
    auxiliary: bool = option(False, help="Train a second, small head on a middle level, too (upernet).")
    segmentation_loss: str = option(
        "auto",
        choices=("auto", "cross_entropy", "bce_dice", "mse"),
        help="Loss; auto is cross_entropy for single labels, else bce_dice; mse is the reference's.",
    )
    effective_batch_size: int = effective_batch_of(16)
    protocol: str = options.protocol("changes intensities as the published code did, which mostly darkens")
    metric_for_best_model: str | None = option(
        None, help="Validation metric that the best model is chosen by: iou (by default), dice or loss."
    )
    overlays: int = option(
        4, decides=False, minimum=0, help="Number of validation images to plot with their masks at every evaluation."
    )

    def check(self) -> None:
        """Refuse several ways to sample images, and a head that the decoder does not have."""
        super().check()
        _check_one_way(self, ("label_fraction", "label_count", "labels_per_class"))
        if self.masks is not None and not Path(self.masks).is_dir():
            raise UserError(f"masks {self.masks}: there is no such folder")
        if self.auxiliary and self.decoder != "upernet":
            raise UserError(f"decoder {self.decoder} has no auxiliary head; leave --auxiliary out, or take upernet")


def _check_one_way(of: FinetuneSettings, names: tuple[str, ...]) -> None:
    given = [name for name in names if getattr(of, name) is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} are several ways to sample images; give one of them")
