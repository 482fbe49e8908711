"""Arguments of a fine-tuning for classification: typed, from flags and recipes (ours)."""

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

EXAMPLE = "Example: stedfm finetune classification --model demo --dataset my-crops --output_dir classifier"
MODES = ("linear-probe", "last-blocks", "full", "lora", "from-scratch")
LEARNING_RATES = {"linear-probe": 3e-3, "last-blocks": 3e-4, "full": 2e-4, "lora": 1e-3, "from-scratch": 5e-4}
"""The highest rate where none is given, for 64 images in a step (ours)."""


@dataclass
class DataArguments(SplitArguments):
    """What is trained on.

    Raises:
        UserError: no data set, or two ways to draw a few labels.

    Example:
        >>> DataArguments(dataset="my-crops", labels_per_class=10).validation_split
        'validation'
    """

    dataset: str = HfArg(
        default="",
        help="Folder of a data set, its id on the Hub, or a folder with one folder of images for each class.",
    )
    target: str | None = HfArg(
        default=None,
        help="Column of the labels, or entry of the column metadata; by default label. Decimal numbers: a regression.",
    )
    labels_per_class: int | None = HfArg(default=None, help="Draw as many training images of each class.")
    label_fraction: float | None = HfArg(default=None, help="Draw this share of the training images of each class.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels_per_class is not None and self.label_fraction is not None:
            raise UserError("labels_per_class and label_fraction are two ways to draw images; give one of them")


@dataclass
class ModelArguments(WeightArguments):
    """What is trained.

    Raises:
        UserError: no model, an unknown mode, a number of blocks where none is wanted or missing, or `peft` is not
            installed.

    Example:
        >>> ModelArguments(model="demo", mode="last-blocks", blocks=2).mode
        'last-blocks'
    """

    mode: Literal["linear-probe", "last-blocks", "full", "lora", "from-scratch"] = HfArg(
        default="linear-probe", help="The head alone, the last blocks, all weights, adapters of low rank, or anew."
    )

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"mode {self.mode!r} is unknown{nearest(self.mode, MODES)}; choose {', '.join(MODES)}")
        super().__post_init__()


@dataclass(repr=False)  # the library's own hides tokens
class ClassificationArguments(FinetuningArguments):
    """How it is trained: `transformers.TrainingArguments` with our defaults.

    Making one sets the device up and, under a launcher, joins the other processes.

    Raises:
        UserError: values that cannot be, alone or together.

    Example:
        >>> arguments = ClassificationArguments(output_dir="run", use_cpu=True)
        >>> arguments.seeds, arguments.describe_batch()
        ([42], 'effective batch 64 = 1 process x 64 images x 1 accumulated')
    """

    class_weights: Literal["none", "balanced"] = HfArg(
        default="none", help="balanced: classes count alike in the loss, however many images they have."
    )
    choose_by: str | None = HfArg(
        default=None,
        help="Validation figure of the best model; by default balanced_accuracy, macro_f1 or r2 by the task.",
    )


def parse_arguments(
    argv: Sequence[str] | None = None,
) -> tuple[DataArguments, ModelArguments, ClassificationArguments]:
    """Reads the arguments of a fine-tuning: flags, over the values of `--recipe`, over the defaults.

    Args:
        argv: words of the command line; None takes those of the process.

    Returns:
        What is trained on, what is trained, and how.

    Raises:
        UserError: an unknown flag or key (names the nearest), a wrong type, or values that cannot be.
        SystemExit: after `--help`.

    Example:
        >>> words = "--model demo --dataset crops --output_dir run --mode full --seeds 1 2 --device cpu"
        >>> data, model, training = parse_arguments(words.split())
        >>> model.mode, training.seeds, training.learning_rate
        ('full', [1, 2], 0.0002)
    """
    data, model, training = parse(
        (DataArguments, ModelArguments, ClassificationArguments),
        argv,
        task="classification",
        description="Train a classifier or a regression on labelled images.",
        script="classify.py",
        example=EXAMPLE,
    )
    training.settle(LEARNING_RATES[model.mode])
    return data, model, training
