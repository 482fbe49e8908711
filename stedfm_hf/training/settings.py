"""Settings of pretraining and fine-tuning.

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
    check_dataset,
    check_installed,
    check_trackers,
    deepspeed_file,
)
from stedfm_hf.training.effective_batch import split_batch, world_size
from stedfm_hf.weights.models import find_model
from stedfm_hf.weights.packaged import PACKAGED

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
MAX_EPOCHS = 1000
"""Largest number of passes over a few sampled images (reference protocol)."""
NEW_ENCODER = ("from-scratch", "untrained")
"""Modes that begin with a randomly initialised encoder."""


def _effective_batch(default: int) -> Any:
    text = "Number of samples in an optimiser step, whatever the number of processes."
    return option(default, minimum=1, help=text)


def _warmup_ratio(default: float) -> Any:
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
    effective_batch: int = _effective_batch(64)
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
        help="Forward passes in an optimiser step; by default what effective_batch asks.",
    )
    learning_rate: float | None = option(None, minimum=0, help="Highest learning rate.")
    lr_scheduler_type: str = option("cosine", help="Learning-rate schedule after the warm-up.")
    warmup_ratio: float = _warmup_ratio(0.1)
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
    def highest_learning_rate(self) -> float:
        """Highest learning rate: the one that was given, or the usual one."""
        raise NotImplementedError

    @property
    def forward_batch(self) -> int:
        """Largest number of samples in one forward pass of a process."""
        raise NotImplementedError

    def split_batch(self) -> tuple[int, int]:
        """Return the samples in one forward pass of a process, and its forward passes in an optimiser step."""
        return split_batch(
            self.effective_batch,
            world_size(),
            most=self.forward_batch,
            per_device=self.per_device_train_batch_size,
            accumulation=self.gradient_accumulation_steps,
        )

    def describe_batch(self) -> str:
        """Describe how the effective batch is shared, in one line."""
        processes = f"{world_size()} process{'es' if world_size() > 1 else ''}"
        size, times = self.split_batch()
        return f"effective batch {self.effective_batch} = {processes} x {size} {self.unit} x {times} accumulated"

    def recipe(self) -> dict[str, Any]:
        """Return the values that repeat a run on the same data; none of them names a folder or a machine."""
        return {name: value for name, value in decisive(self).items() if value not in (None, {}, [])}


@settings
class PretrainSettings(TrainingSettings):
    """Pretrain a masked autoencoder on data sets of crops.

    If interrupted, run the same command again to resume. torchrun, accelerate and SLURM start training/pretrain.py
    with the same options. The other fields of transformers.TrainingArguments are options, too.

    Example:
        >>> settings = PretrainSettings(dataset=["lab/sted-crops"], output="run", effective_batch=512)
        >>> settings.highest_learning_rate, settings.describe_batch()
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
    effective_batch: int = _effective_batch(1024)
    base_learning_rate: float = option(
        1.5e-4, minimum=0, help="Learning rate for 256 crops: the highest one is this times effective_batch / 256."
    )
    warmup_ratio: float = _warmup_ratio(0.05)
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
    def highest_learning_rate(self) -> float:
        """Highest learning rate."""
        given = self.learning_rate
        return self.base_learning_rate * self.effective_batch / 256 if given is None else given

    @property
    def forward_batch(self) -> int:
        """Largest number of crops in one forward pass of a process."""
        return self.max_per_device_batch or MAX_PER_DEVICE_BATCH[self.architecture]


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
    series: str | int | None = option(
        None, parse=options.index_or_name, metavar="NAME|INDEX", help="Series to take of each image file."
    )
    channel: str | int | None = option(
        None, parse=options.index_or_name, metavar="NAME|INDEX", help="Channel to take of each image file."
    )
    source_pattern: str | None = option(
        None, help="Regular expression for the part of an image file's path that names its source image."
    )
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
    def highest_learning_rate(self) -> float:
        """Highest learning rate."""
        return self.learning_rates[self.mode] if self.learning_rate is None else self.learning_rate

    @property
    def decay_of_layers(self) -> float:
        """Factor of the learning rate from a block to the one before it."""
        return self.layer_decays.get(self.mode, 1.0) if self.layer_decay is None else self.layer_decay

    @property
    def forward_batch(self) -> int:
        """Largest number of samples in one forward pass of a process."""
        return self.max_per_device_batch or self.largest_batch

    def steps_for(self, images: int, sampled: int) -> int:
        """Return the optimiser steps of a run: as many samples are seen however few images were sampled.

        Args:
            images: Number of samples in one pass over all training images.
            sampled: The same of the images of this run.
        """
        if self.step_limit is not None:
            return self.step_limit
        budget = self.num_train_epochs * images if self.sample_budget is None else self.sample_budget
        return max(1, round(min(budget, MAX_EPOCHS * sampled) / self.effective_batch))


@settings
class ClassificationSettings(FinetuneSettings):
    """Train a classifier, or a regression, on labelled images.

    If interrupted, run the same command again to resume. torchrun starts training/classify.py with the same options.
    The other fields of transformers.TrainingArguments are options, too.

    Example:
        >>> settings = ClassificationSettings("demo", "lab/crops", output="run", mode="full", seeds=[1, 2])
        >>> settings.highest_learning_rate, settings.describe_batch()
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
        >>> settings.highest_learning_rate, settings.describe_batch()
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
    masks: str | None = option(None, decides=False, help="Folder of the masks, for a folder of images alone.")
    classes: list[str] | None = option(
        None, help="Names of the classes 1, 2, ... of label images, or of the planes, in order; or NUMBER=NAME each."
    )
    target_type: str | None = option(
        None,
        choices=("single_label", "multi_label", "soft"),
        help="Kind of the masks: one class a pixel, classes that overlap, or votes; by default what the masks are.",
    )
    series: str | int | None = option(
        None,
        parse=options.index_or_name,
        metavar="NAME|INDEX|all",
        help="Series to take of each image file; all takes each plane of a stack with that of its mask.",
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
    effective_batch: int = _effective_batch(16)
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
