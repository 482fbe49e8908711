"""Arguments of a fine-tuning for segmentation: typed, from flags and recipes (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers.hf_argparser import HfArg

from stedfm_hf.runs import UserError
from stedfm_hf.runs.wording import nearest
from stedfm_hf.training.finetuning.arguments import (
    FinetuningArguments,
    SplitArguments,
    WeightArguments,
    parse,
)
from stedfm_hf.training.parsing import at_least, several

EXAMPLE = "Example: stedfm finetune segmentation --model demo --dataset annotated --output_dir segmenter"
MODES = ("frozen", "last-blocks", "full", "lora", "from-scratch", "untrained")
LEARNING_RATES = {
    "frozen": 2e-3,
    "last-blocks": 1e-3,
    "full": 2e-3,
    "lora": 2e-3,
    "from-scratch": 1e-3,
    "untrained": 2e-3,
}
"""The highest rate where none is given, for 16 crops in a step (ours)."""
LAYER_DECAYS = {"full": 0.75}
"""Factor of the rate from a block to the one before: what was pretrained moves less than a new decoder (ours)."""


@dataclass
class DataArguments(SplitArguments):
    """What is trained on.

    Raises:
        UserError: no data set, or several ways to draw a few crops.

    Example:
        >>> DataArguments(dataset="annotated", classes=["rings", "fibres"]).min_annotated
        0.01
    """

    dataset: str = HfArg(
        default="",
        help="Folder of images with masks (images/a.tif with masks/a.tif, or a_mask.tif), a data set, or its Hub id.",
    )
    masks: str | None = HfArg(default=None, help="Of a folder of images: another folder with the masks.")
    classes: list[str] | None = several(
        default=None,
        help="Names of the classes 1, 2, ... of label images, or of the planes, in their order; or NUMBER=NAME each.",
    )
    target_type: str | None = HfArg(
        default=None, help="single_label, multi_label (classes overlap) or soft (votes); by default what masks are."
    )
    series: str | None = HfArg(
        default=None,
        help="Of image files: the series to take; all takes each, so every plane of a stack with that of its mask.",
    )
    min_annotated: float = HfArg(
        default=0.01,
        help="Share of a training crop that is to be annotated (reference: 0.1); 0: crops are taken anywhere.",
    )
    label_count: int | None = HfArg(default=None, help="Draw as many training images, whatever they show.")
    labels_per_class: int | None = HfArg(default=None, help="Draw as many training images that show each class.")

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = ("label_fraction", "label_count", "labels_per_class")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} are several ways to draw images; give one of them")
        at_least(1, label_count=1 if self.label_count is None else self.label_count)
        if not 0 <= self.min_annotated <= 1:
            raise UserError(f"min_annotated is {self.min_annotated}; give a share from 0 to 1")


@dataclass
class ModelArguments(WeightArguments):
    """What is trained.

    Raises:
        UserError: no model, an unknown mode, a number of blocks where none is wanted or missing, or `peft` is not
            installed.

    Example:
        >>> ModelArguments(model="demo", decoder="linear").mode
        'full'
    """

    mode: Literal["frozen", "last-blocks", "full", "lora", "from-scratch", "untrained"] = HfArg(
        default="full",
        help="The decoder alone (frozen), with the last blocks, all weights, with adapters of low rank, or anew; "
        "untrained: the decoder alone on an encoder drawn at random, a baseline.",
    )
    decoder: Literal["upernet", "unetr", "linear"] = HfArg(
        default="upernet", help="From the tokens to pixels; unetr and linear are those of the reference."
    )
    decode_head_hidden_size: int | None = HfArg(
        default=None, help="Width of upernet; by default a quarter of the encoder's."
    )
    auxiliary: bool = HfArg(default=False, help="A second, small head on a middle level, in training only (upernet).")
    segmentation_loss: Literal["auto", "cross_entropy", "bce_dice", "mse"] = HfArg(
        default="auto",
        help="auto: cross_entropy for single labels, else bce_dice; mse is the reference's.",
    )

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"mode {self.mode!r} is unknown{nearest(self.mode, MODES)}; choose {', '.join(MODES)}")
        if self.auxiliary and self.decoder != "upernet":
            raise UserError(f"decoder {self.decoder} has no auxiliary head; leave --auxiliary out, or take upernet")
        super().__post_init__()


@dataclass(repr=False)  # the library's own hides tokens
class SegmentationArguments(FinetuningArguments):
    """How it is trained: `transformers.TrainingArguments` with our defaults.

    Making one sets the device up and, under a launcher, joins the other processes.

    Raises:
        UserError: values that cannot be, alone or together.

    Example:
        >>> arguments = SegmentationArguments(output_dir="run", use_cpu=True)
        >>> arguments.seeds, arguments.describe_batch()
        ([42], 'effective batch 16 = 1 process x 16 crops x 1 accumulated')
    """

    num_train_epochs: float = HfArg(
        default=30.0,
        help="Passes over the area of all training images; a few drawn ones are seen more often, as much in all.",
    )
    sample_budget: int | None = HfArg(default=None, help="Crops seen in all, instead of num_train_epochs.")
    effective_batch: int = HfArg(default=16, help="Crops of an optimiser step, whatever the number of processes.")
    max_per_device_batch: int = HfArg(default=16, help="Most crops of a process at a time.")
    augment: bool = HfArg(
        default=True,
        help="Turn and mirror the crops and change their intensity a little, at random; their places always are.",
    )
    augmentation: Literal["sound", "legacy"] = HfArg(
        default="sound",
        help="legacy: the reference's, whose changes of intensity only darken and whose gamma only brightens.",
    )
    choose_by: str | None = HfArg(
        default=None, help="Validation figure of the best model: iou (by default), dice or loss."
    )
    overlays: int = HfArg(default=4, help="Validation images that are drawn at every check, beside their masks.")

    def _check(self) -> None:
        super()._check()
        at_least(0, overlays=self.overlays)

    def describe_batch(self) -> str:
        """The effective batch and who shares it, in one line."""
        return super().describe_batch().replace("images", "crops")


def parse_arguments(
    argv: Sequence[str] | None = None,
) -> tuple[DataArguments, ModelArguments, SegmentationArguments]:
    """Reads the arguments of a fine-tuning: flags, over the values of `--recipe`, over the defaults.

    Args:
        argv: words of the command line; None takes those of the process.

    Returns:
        What is trained on, what is trained, and how.

    Raises:
        UserError: an unknown flag or key (names the nearest), a wrong type, or values that cannot be.
        SystemExit: after `--help`.

    Example:
        >>> words = "--model demo --dataset crops --output_dir run --mode frozen --decoder linear --device cpu"
        >>> data, model, training = parse_arguments(words.split())
        >>> model.decoder, training.seeds, training.learning_rate
        ('linear', [42], 0.002)
    """
    data, model, training = parse(
        (DataArguments, ModelArguments, SegmentationArguments),
        argv,
        task="segmentation",
        description="Train a segmenter on images with masks.",
        script="segment.py",
        example=EXAMPLE,
    )
    training.settle(LEARNING_RATES[model.mode], LAYER_DECAYS.get(model.mode, 1.0))
    return data, model, training
