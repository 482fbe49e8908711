"""Arguments of a pretraining: typed, from flags and recipes (ours).

`parse_arguments` reads the words of the command line; the dataclasses can be made in Python as well. Whatever a
recipe or a flag does not say has the default that stands here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import gcd
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.hf_argparser import HfArg
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from stedfm_hf.runs import UserError
from stedfm_hf.runs.recipes import recipe_names
from stedfm_hf.runs.wording import nearest
from stedfm_hf.training.effective_batch import split_batch
from stedfm_hf.training.parsing import (
    RECIPES,
    ArgumentParser,
    at_least,
    describe_batch,
    recipe_values,
    settle_device,
    settle_library,
    several,
)

EXAMPLE = "Example: stedfm pretrain --recipe small --dataset my-crops --output_dir run"
DEEPSPEED_CONFIGS = Path(__file__).parent / "deepspeed_configs"
MAX_PER_DEVICE_BATCH = {
    "stedfm-vit-tiny": 256,
    "stedfm-vit-small": 256,
    "stedfm-vit-base": 128,
    "stedfm-vit-large": 64,
    "stedfm-vit-64-p8": 512,
}
"""Crops of a GPU at a time, by architecture (reference protocol: V100 with 16 GB)."""


@dataclass
class DataArguments:
    """What is trained on.

    Raises:
        UserError: no data set, or weights that do not fit.

    Example:
        >>> DataArguments(dataset=["sted-crops", "lab/more-crops"], weights=[3, 1]).train_split
        'train'
    """

    _argument_group_name = "data"

    dataset: list[str] = several(
        default_factory=list,
        help="Folder of a data set, its id on the Hub, or its hf:// path; several are mixed in every batch.",
    )
    weights: list[float] | None = several(default=None, help="Shares of the data sets in a batch; by default equal.")
    train_split: str = HfArg(default="train", help="Split that is trained on.")
    validation_split: str = HfArg(default="validation", help="Split that the held-out checks use.")
    validation_dataset: list[str] = several(
        default_factory=list,
        help="Other data sets for the held-out checks; by default those that are trained on.",
    )
    open_shards: int = HfArg(default=4, help="Shards that are mixed at a time; the order depends on it.")
    reader_threads: int = HfArg(default=2, help="Threads of a process that read ahead.")

    def __post_init__(self) -> None:
        if not self.dataset:
            raise UserError("no data set is named; give --dataset FOLDER (`stedfm data build` makes one)")
        if self.weights is not None and (len(self.weights) != len(self.dataset) or min(self.weights) <= 0):
            raise UserError(
                f"weights {self.weights} must be above 0 and one for each of {len(self.dataset)} data sets"
            )
        at_least(1, open_shards=self.open_shards, reader_threads=self.reader_threads)


@dataclass
class ModelArguments:
    """What is trained.

    Raises:
        UserError: an unknown architecture, or a mask ratio that hides nothing or everything.

    Example:
        >>> ModelArguments().architecture
        'stedfm-vit-small'
    """

    _argument_group_name = "model"

    architecture: str = HfArg(default="stedfm-vit-small", help=f"One of {', '.join(ARCHITECTURES)}.")
    mask_ratio: float = HfArg(default=0.75, help="Share of the patches that are hidden from the encoder.")
    norm_pix_loss: bool = HfArg(default=False, help="Predict patches that are standardised one by one.")
    decoder_hidden_size: int | None = HfArg(default=None, help="Width of the decoder; by default the architecture's.")
    decoder_num_hidden_layers: int | None = HfArg(default=None, help="Its layers; likewise.")
    decoder_num_attention_heads: int | None = HfArg(default=None, help="Its attention heads; likewise.")
    decoder_intermediate_size: int | None = HfArg(default=None, help="Width of its MLP; likewise.")
    standardise_input: bool = HfArg(
        default=True,
        help="Fold mean and spread of the pixels into the patch embedding; input stays in [0, 1].",
    )
    init_from: str | None = HfArg(default=None, help="Folder or Hub id of a model whose weights are the start.")

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise UserError(
                f"architecture {self.architecture!r} is unknown{nearest(self.architecture, ARCHITECTURES)}; "
                f"choose {', '.join(ARCHITECTURES)}"
            )
        if not 0 < self.mask_ratio < 1:
            raise UserError(f"mask_ratio is {self.mask_ratio}; give a number between 0 and 1, such as 0.75")


@dataclass(repr=False)  # the library's own hides tokens
class PretrainArguments(TrainingArguments):
    """How it is trained: `transformers.TrainingArguments` with our defaults.

    Making one sets the device up and, under a launcher, joins the other processes. Afterwards the batch of a process,
    the accumulation, the learning rate, the warm-up and the precision are settled.

    Raises:
        UserError: values that cannot be, alone or together.

    Example:
        >>> arguments = PretrainArguments(output_dir="run", effective_batch=512, use_cpu=True)
        >>> arguments.learning_rate, arguments.describe_batch()
        (0.0003, 'effective batch 512 = 1 process x 256 crops x 2 accumulated')
    """

    _argument_group_name = "training"

    output_dir: str | None = HfArg(
        default=None,
        aliases=["--output"],
        help="Folder for checkpoints, curve, figures and the final model; a run that is there is continued.",
    )
    num_train_epochs: float = HfArg(default=1000.0, help="Passes over the data (reference protocol: 1000).")
    max_steps: int = HfArg(default=-1, help="Optimiser steps; above 0 it replaces num_train_epochs.")
    seed: int = HfArg(default=42, help="Of the weights, the order, the masks and the augmentation.")
    effective_batch: int = HfArg(
        default=1024, help="Crops of an optimiser step, whatever the number of processes (reference protocol: 1024)."
    )
    max_per_device_batch: int | None = HfArg(
        default=None, help="Most crops of a process at a time; by default the reference's for the architecture."
    )
    per_device_train_batch_size: int | None = HfArg(
        default=None, help="Crops of a process at a time; by default as many as the bound allows."
    )
    gradient_accumulation_steps: int | None = HfArg(
        default=None, help="Batches of a process in an optimiser step; by default what effective_batch leaves."
    )
    base_learning_rate: float = HfArg(
        default=1.5e-4, help="Learning rate for 256 crops; times effective_batch / 256 it is the highest one."
    )
    learning_rate: float | None = HfArg(default=None, help="The highest learning rate itself.")
    lr_scheduler_type: str = HfArg(default="cosine", help="Course of the learning rate after the warm-up.")
    warmup_share: float = HfArg(default=0.05, help="Share of the steps in which the learning rate rises.")
    warmup_steps: float | None = HfArg(default=None, help="Steps of the warm-up, instead of warmup_share.")
    adam_beta1: float = HfArg(default=0.9, help="Decay of the first moment.")
    adam_beta2: float = HfArg(default=0.95, help="Decay of the second moment.")
    weight_decay: float = HfArg(default=0.05, help="Decay of the matrices; biases, norms and tokens have none.")
    max_grad_norm: float = HfArg(default=1.0, help="Norm at which gradients are clipped; 0: never.")
    augment: bool = HfArg(default=True, help="Turn and mirror the images at random, and crop larger ones.")
    ema_decay: float | None = HfArg(default=None, help="Keep a moving average of the weights, such as 0.9999.")
    bf16: bool | None = HfArg(
        default=None,
        metadata={"nargs": "?", "const": True},
        help="Compute in bfloat16; by default on GPUs that have it. On a CPU float32 is exact to the bit.",
    )
    legacy: bool = HfArg(
        default=False,
        help="Odd ways of the reference: cosine with a half period of 20 epochs, decay of all weights, flips only.",
    )
    logging_steps: int = HfArg(default=50, help="Steps between two rows of the curve; divides the next two.")
    save_steps: int = HfArg(default=1000, help="Steps between two checkpoints.")
    check_steps: int = HfArg(default=1000, help="Steps between two checks on held-out crops; 0: none.")
    save_total_limit: int | None = HfArg(default=2, help="Checkpoints that are kept.")
    report_to: None | str | list[str] = HfArg(
        default="none", help="Where curves are sent, too, such as tensorboard (with the extra of that name)."
    )
    # The library's own annotation, bare `dict` and all: its parser looks for these very types.
    deepspeed: dict | str | None = HfArg(  # type: ignore[type-arg]
        default=None, help="zero1, zero2, zero3, or a file of one's own (with the extra `deepspeed`)."
    )
    hub_private_repo: bool | None = HfArg(
        default=True, help="Whether a repository that --push_to_hub makes is private."
    )
    disable_tqdm: bool | None = HfArg(default=True, help="No bars: progress is told in lines.")
    remove_unused_columns: bool = False
    label_names: list[str] | None = HfArg(default_factory=list)
    logging_nan_inf_filter: bool = False
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self) -> None:
        self._check()
        if self.learning_rate is None:
            self.learning_rate = self.base_learning_rate * self.effective_batch / 256
        if self.warmup_steps is None:
            self.warmup_steps = self.warmup_share
        self._check_reports()
        self.eval_strategy = "steps" if self.check_steps else "no"
        self.eval_steps: int | None = self.check_steps or None
        for package in (
            "deepspeed" if self.deepspeed else "",
            "tensorboard" if "tensorboard" in (self.report_to or []) else "",
        ):
            if package and find_spec(package) is None:
                raise UserError(f"{package} is not installed; pip install 'stedfm-hf[{package}]'")
        if isinstance(self.deepspeed, str) and not self.deepspeed.lstrip().startswith("{"):
            self.deepspeed = str(_deepspeed_file(self.deepspeed))
        settle_device(self)
        # Before the rest, for DeepSpeed reads the batch there: the first look at the device joins the processes.
        _ = self.device
        self.per_device_train_batch_size, self.gradient_accumulation_steps = split_batch(
            self.effective_batch,
            self.world_size,
            most=self.max_per_device_batch or MAX_PER_DEVICE_BATCH["stedfm-vit-small"],
            per_device=self.per_device_train_batch_size,
            accumulation=self.gradient_accumulation_steps,
        )
        settle_library(self, super().__post_init__)

    def _check(self) -> None:
        if not self.output_dir:
            raise UserError("no output folder is named; give --output_dir FOLDER")
        at_least(1, effective_batch=self.effective_batch, logging_steps=self.logging_steps, save_steps=self.save_steps)
        at_least(0, check_steps=self.check_steps, seed=self.seed)
        if not 0 <= self.warmup_share < 1:
            raise UserError(f"warmup_share is {self.warmup_share}; give 0 or more, below 1")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(f"ema_decay is {self.ema_decay}; give a number between 0 and 1, such as 0.9999")
        # A resumed curve is cut back to its checkpoint: a row across one would hold steps of two runs.
        common = gcd(self.save_steps, self.check_steps)
        if common % self.logging_steps:
            near = min((n for n in range(1, common + 1) if common % n == 0), key=lambda n: abs(n - self.logging_steps))
            raise UserError(
                f"logging_steps {self.logging_steps} does not divide save_steps {self.save_steps} and check_steps "
                f"{self.check_steps}; the nearest that does: {near}"
            )

    def _check_reports(self) -> None:
        wanted = [self.report_to] if isinstance(self.report_to, str) else self.report_to or []
        known = [*INTEGRATION_TO_CALLBACK, "none", "all"]
        for name in wanted:
            if name not in known:
                raise UserError(f"report_to {name!r} is unknown{nearest(name, known)}; tensorboard is the usual one")

    def describe_batch(self) -> str:
        """The effective batch and who shares it, in one line."""
        return describe_batch(self, "crops")


KINDS: tuple[type, ...] = (DataArguments, ModelArguments, PretrainArguments)
LOCAL = frozenset(
    "dataset validation_dataset reader_threads init_from output_dir max_per_device_batch per_device_train_batch_size "
    "deepspeed gradient_accumulation_steps hub_private_repo report_to disable_tqdm save_total_limit "
    "remove_unused_columns label_names logging_nan_inf_filter ddp_find_unused_parameters".split()
)
"""Fields of ours that belong to a machine or a place: no part of a recipe that others shall repeat."""
SHOWN = frozenset("torch_compile push_to_hub hub_model_id".split())
"""Arguments of the library that the help shows; the others work as well."""


def parse_arguments(argv: Sequence[str] | None = None) -> tuple[DataArguments, ModelArguments, PretrainArguments]:
    """Reads the arguments of a pretraining: flags, over the values of `--recipe`, over the defaults.

    Args:
        argv: words of the command line; None takes those of the process.

    Returns:
        What is trained on, what is trained, and how.

    Raises:
        UserError: an unknown flag or key (names the nearest), a wrong type, or values that cannot be.
        SystemExit: after `--help`.

    Example:
        >>> words = "--recipe tiny --dataset sted-crops --output_dir run --mask_ratio 0.6 --device cpu"
        >>> data, model, training = parse_arguments(words.split())
        >>> data.dataset, model.architecture, model.mask_ratio
        (['sted-crops'], 'stedfm-vit-tiny', 0.6)
    """
    parser = ArgumentParser(
        KINDS,
        prog="stedfm pretrain",
        usage="[--recipe NAME] --dataset DATA [DATA ...] --output_dir FOLDER [--OPTION VALUE ...]",
        description="Pretrain a masked autoencoder on data sets of crops. The same command goes on where it stopped.\n"
        "torchrun, accelerate and SLURM start stedfm_hf/training/pretrain.py with the same options.",
        example=EXAMPLE,
        recipe=f"{', '.join(recipe_names(RECIPES))}, or a YAML or JSON file; flags override it.",
        shown=SHOWN,
    )
    values = parser.read(argv)
    if values["max_per_device_batch"] is None:
        values["max_per_device_batch"] = MAX_PER_DEVICE_BATCH.get(values["architecture"])
    data, model, training = parser.build(values)
    return data, model, training


def used_recipe(data: DataArguments, model: ModelArguments, arguments: PretrainArguments) -> dict[str, Any]:
    """The values that, as a recipe, repeat a run on the same data; none of them names a place or a machine.

    Args:
        data: what was trained on.
        model: what was trained.
        arguments: how.

    Returns:
        Plain data by key, for :func:`stedfm_hf.runs.recipes.write_recipe`.
    """
    values = recipe_values((data, model, arguments), LOCAL)
    # Of two ways to say the same, the one that still holds when the effective batch or the length is changed.
    by_rule = arguments.learning_rate == arguments.base_learning_rate * arguments.effective_batch / 256
    values.pop("learning_rate" if by_rule else "base_learning_rate")
    values.pop("warmup_steps" if arguments.warmup_steps == arguments.warmup_share else "warmup_share")
    return values


def _deepspeed_file(name: str) -> Path:
    shipped = {path.stem: path for path in DEEPSPEED_CONFIGS.glob("*.json")}
    path = shipped.get(name, Path(os.path.expanduser(name)))
    if not path.is_file():
        raise UserError(f"deepspeed {name!r}: there is no such file; give {', '.join(sorted(shipped))} or a JSON file")
    return path
