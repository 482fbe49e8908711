"""Arguments that all fine-tunings have (ours): typed, from flags and recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.hf_argparser import HfArg

from stedfm_hf.runs import UserError
from stedfm_hf.runs.recipes import SUFFIXES
from stedfm_hf.training.effective_batch import split_batch
from stedfm_hf.training.parsing import (
    ArgumentParser,
    at_least,
    describe_batch,
    settle_device,
    settle_library,
    several,
)

MOST_EPOCHS = 1000
"""Passes over a few drawn images at most (reference protocol)."""


@dataclass
class SplitArguments:
    """Which images, and the splits they are in.

    Raises:
        UserError: no data set.
    """

    _argument_group_name = "data"

    dataset: str = HfArg(default="", help="Folder of a data set, or its id on the Hub.")
    train_split: str = HfArg(default="train", help="Split that is trained on.")
    validation_split: str = HfArg(
        default="validation",
        help="Split the best model is selected on; without one, a hash of the source ids takes it from train.",
    )
    test_split: str = HfArg(default="test", help="Split the result is told of; never used before.")
    label_fraction: float | None = HfArg(default=None, help="Draw this share of the training images.")
    series: str | None = HfArg(default=None, help="Of image files: the series to take.")
    channel: str | None = HfArg(default=None, help="Of image files: the channel to take.")
    source_pattern: str | None = HfArg(
        default=None, help="Of image files: regular expression for the part of the path that names the source image."
    )

    def __post_init__(self) -> None:
        if not self.dataset:
            raise UserError("no data set is named; give --dataset FOLDER")


@dataclass
class WeightArguments:
    """Whose weights, and which of them are trained.

    Raises:
        UserError: no model, a number of blocks where none is wanted or missing, or `peft` is not installed.
    """

    _argument_group_name = "model"

    model: str = HfArg(
        default="", help="Folder, Hub id or demo; from scratch also the name of an architecture: only that is taken."
    )
    mode: str = HfArg(default="", help="Which weights are trained.")
    blocks: int | None = HfArg(default=None, help="Blocks that last-blocks trains.")
    lora_rank: int = HfArg(default=8, help="Rank of the adapters of lora.")

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("no model is named; give --model FOLDER, a Hub id or demo")
        if (self.mode == "last-blocks") != (self.blocks is not None):
            raise UserError(
                f"mode {self.mode} and blocks {self.blocks} do not fit; give --mode last-blocks --blocks 2"
            )
        if self.mode == "lora" and find_spec("peft") is None:
            raise UserError('mode lora needs peft, which is not installed; pip install "stedfm-hf[peft]"')
        at_least(1, lora_rank=self.lora_rank, blocks=1 if self.blocks is None else self.blocks)


@dataclass(repr=False)  # the library's own hides tokens
class FinetuningArguments(TrainingArguments):
    """How it is trained: `transformers.TrainingArguments` with our defaults.

    Making one sets the device up and, under a launcher, joins the other processes.

    Raises:
        UserError: values that cannot be, alone or together.
    """

    _argument_group_name = "training"

    output_dir: str | None = HfArg(
        default=None, aliases=["--output"], help="Folder for the best model; a run that is there is continued."
    )
    seeds: list[int] | None = several(
        default=None,
        help="One run for each: of the drawn labels, new weights, order and augmentation (default: 42).",
    )
    num_train_epochs: float = HfArg(
        default=30.0,
        help="Passes over all training images; a few drawn ones are seen more often, as many images in all.",
    )
    sample_budget: int | None = HfArg(default=None, help="Images seen in all, instead of num_train_epochs.")
    max_steps: int = HfArg(default=-1, help="Optimiser steps; above 0 it replaces both.")
    effective_batch: int = HfArg(default=64, help="Images of an optimiser step, whatever the number of processes.")
    max_per_device_batch: int = HfArg(default=64, help="Most images of a process at a time.")
    per_device_train_batch_size: int | None = HfArg(
        default=None, help="Images of a process at a time; by default as many as the bound allows."
    )
    gradient_accumulation_steps: int | None = HfArg(
        default=None, help="Batches of a process in an optimiser step; by default what effective_batch leaves."
    )
    learning_rate: float | None = HfArg(default=None, help="The highest one; by default that of the mode.")
    layer_decay: float | None = HfArg(
        default=None,
        help="Factor of the learning rate from a block to the one before it; by default that of the mode.",
    )
    lr_scheduler_type: str = HfArg(default="cosine", help="Course of the learning rate after the warm-up.")
    warmup_share: float = HfArg(default=0.1, help="Share of the steps in which the learning rate rises.")
    weight_decay: float = HfArg(default=0.05, help="Decay of the matrices; biases, norms and tokens have none.")
    max_grad_norm: float = HfArg(default=1.0, help="Norm at which gradients are clipped; 0: never.")
    augment: bool = HfArg(
        default=True,
        help="Turn and mirror the images and change their intensity a little, at random, and crop larger ones.",
    )
    choose_by: str | None = HfArg(default=None, help="Validation figure of the best model.")
    early_stopping_patience: int | None = HfArg(
        default=None, help="Stop after as many checks without a better one; by default never."
    )
    checks: int = HfArg(default=10, help="Checks on the validation images in a training.")
    save_checks: int = HfArg(default=1, help="Checks from one checkpoint to the next.")
    bf16: bool | None = HfArg(
        default=None,
        metadata={"nargs": "?", "const": True},
        help="Compute in bfloat16; by default on GPUs that have it. On a CPU float32 is exact to the bit.",
    )
    report_to: None | str | list[str] = HfArg(default="none", help="Where curves are sent, too, such as tensorboard.")
    disable_tqdm: bool | None = HfArg(default=True, help="No bars: progress is told in lines.")
    save_total_limit: int | None = 1
    remove_unused_columns: bool = False
    label_names: list[str] | None = HfArg(default_factory=list)
    logging_nan_inf_filter: bool = False
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self) -> None:
        self._check()
        if self.seeds is None:
            self.seeds = [self.seed]
        settle_device(self)
        if self.learning_rate is None:
            self.learning_rate = 0.0  # settled by the mode, see `settle`
        self.warmup_steps = self.warmup_share
        _ = self.device  # the first look at it joins the processes
        self.per_device_train_batch_size, self.gradient_accumulation_steps = split_batch(
            self.effective_batch,
            self.world_size,
            most=self.max_per_device_batch,
            per_device=self.per_device_train_batch_size,
            accumulation=self.gradient_accumulation_steps,
        )
        settle_library(self, super().__post_init__)

    def _check(self) -> None:
        if not self.output_dir:
            raise UserError("no output folder is named; give --output_dir FOLDER")
        at_least(1, effective_batch=self.effective_batch, checks=self.checks, save_checks=self.save_checks)
        at_least(0, seed=self.seed, **{f"seeds: {seed}": seed for seed in self.seeds or ()})
        if self.seeds is not None and len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"seeds {self.seeds} name one twice; give each once")
        if self.early_stopping_patience is not None:
            at_least(1, early_stopping_patience=self.early_stopping_patience)
        if not 0 <= self.warmup_share < 1:
            raise UserError(f"warmup_share is {self.warmup_share}; give 0 or more, below 1")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay is {self.layer_decay}; give a number above 0, at most 1")
        if self.metric_for_best_model is not None or self.load_best_model_at_end:
            raise UserError("the best model is always kept; say by which figure with --choose_by")
        if self.push_to_hub:
            raise UserError("a finished folder is sent with `hf upload NAME FOLDER`; leave --push_to_hub out")
        if self.deepspeed or self.fsdp:
            raise UserError("a fine-tuning runs on one GPU or several alike (torchrun); leave deepspeed and fsdp out")

    def describe_batch(self) -> str:
        """The effective batch and who shares it, in one line."""
        return describe_batch(self, "images")

    def steps_for(self, images: int, drawn: int) -> int:
        """Optimiser steps of a run: as many images are seen however few of them were drawn.

        Args:
            images: training images in all.
            drawn: those of the run.
        """
        if self.max_steps > 0:
            return self.max_steps
        budget = self.num_train_epochs * images if self.sample_budget is None else self.sample_budget
        return max(1, round(min(budget, MOST_EPOCHS * drawn) / self.effective_batch))

    def settle(self, learning_rate: float, layer_decay: float = 1.0) -> None:
        """Takes what is usual in the mode, where nothing was given."""
        self.learning_rate = self.learning_rate or learning_rate
        self.layer_decay = layer_decay if self.layer_decay is None else self.layer_decay


LOCAL = frozenset(
    "dataset masks model output_dir seeds max_per_device_batch per_device_train_batch_size "
    "gradient_accumulation_steps report_to disable_tqdm save_total_limit remove_unused_columns label_names "
    "logging_nan_inf_filter ddp_find_unused_parameters".split()
)
"""Fields of ours that belong to a machine or a place: no part of a recipe that others shall repeat."""


def parse(
    kinds: Sequence[type], argv: Sequence[str] | None, *, task: str, description: str, script: str, example: str
) -> tuple[Any, ...]:
    """Reads the arguments of a fine-tuning: flags, over the values of `--recipe`, over the defaults.

    Args:
        kinds: classes of the arguments.
        argv: words of the command line; None takes those of the process.
        task: behind `stedfm finetune`.
        description: what it does.
        script: in the folder of trainings, for a launcher.
        example: a line for the end of the help.

    Returns:
        One object of each class.

    Raises:
        UserError: an unknown flag or key (names the nearest), a wrong type, or values that cannot be.
        SystemExit: after `--help`.
    """
    parser = ArgumentParser(
        kinds,
        prog=f"stedfm finetune {task}",
        usage="--model MODEL --dataset DATA --output_dir FOLDER [--OPTION VALUE ...]",
        description=f"{description} Stopped, the same command goes on.\n"
        f"torchrun starts stedfm_hf/training/{script} with the same options.",
        example=example,
        recipe="A YAML or JSON file with values for these options; flags override it.",
        shown=frozenset({"seed"}),
    )
    return parser.build(parser.read(argv, check_recipe=_check_recipe))


def _check_recipe(recipe: str) -> None:
    """Refuses what is no file of settings.

    Raises:
        UserError: names what would be one.
    """
    if Path(recipe).suffix not in SUFFIXES:
        raise UserError(f"recipe {recipe!r} is no file ({', '.join(SUFFIXES)}); recipe.yaml of a run is one")
