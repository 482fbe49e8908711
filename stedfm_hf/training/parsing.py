"""What the trainings' command lines share: parsers of argument classes, recipes under flags, the device (ours)."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import HfArg

from stedfm_hf.inference.loading import choose_device, has_fast_bfloat16
from stedfm_hf.runs import UserError
from stedfm_hf.runs.options import DEVICES
from stedfm_hf.runs.recipes import load_recipe
from stedfm_hf.runs.wording import nearest

RECIPES = Path(__file__).parent / "recipes"
"""Folder of the packaged recipes of pretraining."""


class Gather(argparse.Action):
    """Of an option with several values: given again it adds to them, instead of dropping the first ones in silence."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        """Adds to what earlier flags gave, never to a default."""
        held = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if held is self.default else [*held, *values])


def several(**of_field: Any) -> Any:
    """A field with several values: `--seeds 42 43` is the same as `--seeds 42 --seeds 43`.

    Args:
        of_field: arguments of the library's `HfArg`, which writes the help into the metadata that it is given: each
            field has its own.
    """
    return HfArg(metadata={"action": Gather}, **of_field)


class ArgumentParser(HfArgumentParser):
    """A parser of argument classes: wrong words are a `UserError`, and the help shows only what is ours.

    Args:
        kinds: classes of the arguments.
        prog: words of the command.
        usage: its arguments in short.
        description: what it does.
        example: a line for the end of the help.
        recipe: help of `--recipe`.
        shown: further arguments, of the library, that the help shows; the others work as well.
    """

    def __init__(
        self,
        kinds: Sequence[type],
        *,
        prog: str,
        usage: str,
        description: str,
        example: str,
        recipe: str,
        shown: frozenset[str],
    ) -> None:
        super().__init__(
            list(kinds),
            prog=prog,
            usage=f"{prog} {usage}",
            description=description,
            epilog=f"The other fields of transformers.TrainingArguments are options, too.\n\n{example}",
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        self.kinds = tuple(kinds)
        self.add_argument("--recipe", help=recipe)
        self.add_argument("--device", choices=DEVICES, default="auto", help="auto takes a GPU if there is one.")
        ours = set().union(*map(own_fields, kinds))
        for action in self._actions:
            if not action.help or action.dest not in ours | shown | {"help", "recipe", "device"}:
                action.help = argparse.SUPPRESS
            if isinstance(action.default, bool) and action.nargs == 0 and action.help is not argparse.SUPPRESS:
                action.help = f"Not so: {action.option_strings[0].removeprefix('--no_')}."
            # --mask-ratio is taken as well as --mask_ratio; the help is shorter with one of them.
            action.option_strings = [flag for flag in action.option_strings if "-" not in flag[2:]]

    def error(self, message: str) -> Any:
        """Raises instead of ending the process."""
        raise UserError(f"{message}; see --help")

    def read(self, argv: Sequence[str] | None, *, check_recipe: Callable[[str], None] | None = None) -> dict[str, Any]:
        """Reads flags, over the values of `--recipe`, over the defaults.

        Args:
            argv: words of the command line; None takes those of the process.
            check_recipe: called with what `--recipe` names.

        Returns:
            Values by name, for :meth:`build`.

        Raises:
            UserError: an unknown flag or key (names the nearest) or a wrong type.
        """
        words = sys.argv[1:] if argv is None else list(argv)
        # Once to find the recipe, whose values become the defaults of the second time.
        recipe = self.parse_known_args(words)[0].recipe
        if recipe is not None:
            if check_recipe is not None:
                check_recipe(recipe)
            self.set_defaults(**load_recipe(recipe, self._field_types(), packaged=RECIPES))
        namespace, unknown = self.parse_known_args(words)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            raise UserError(f"{unknown[0]} is no argument{nearest(_underscored(unknown[0]), flags)}; see --help")
        values = vars(namespace)
        if values["device"] != "auto":
            values["use_cpu"] = choose_device(values["device"]).type == "cpu"
        return values

    def build(self, values: dict[str, Any]) -> tuple[Any, ...]:
        """Makes one object of each class."""
        return tuple(
            kind(**{field.name: values[field.name] for field in fields(kind) if field.init}) for kind in self.kinds
        )

    def _field_types(self) -> dict[str, Any]:
        types: dict[str, Any] = {}
        for kind in self.kinds:
            hints = get_type_hints(kind)
            types |= {field.name: hints[field.name] for field in fields(kind) if field.init}
        return types


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        unsaid = action.default is None or action.default == [] or action.nargs == 0
        return action.help if unsaid else super()._get_help_string(action)


def _underscored(word: str) -> str:
    flag = word.partition("=")[0]
    return flag[:2] + flag[2:].replace("-", "_")


def own_fields(kind: type) -> set[str]:
    """Names of the fields that are ours: defined, or defined anew, in a class that is none of the library's."""
    ours = [each for each in kind.__mro__ if each not in TrainingArguments.__mro__]
    annotated = set().union(*map(inspect.get_annotations, ours))
    return {field.name for field in fields(kind)} & annotated


def recipe_values(parts: Sequence[Any], local: frozenset[str]) -> dict[str, Any]:
    """The values of our own fields that, as a recipe, repeat a run on the same data.

    Args:
        parts: objects of the argument classes.
        local: fields that belong to a machine or a place.

    Returns:
        Plain data by key; what is not set is left out.
    """
    values = {
        field.name: getattr(part, field.name)
        for part in parts
        for field in fields(part)
        if field.name in own_fields(type(part)) and field.name not in local
    }
    values = {name: getattr(value, "value", value) for name, value in values.items()}  # of an enumeration
    return {name: value for name, value in values.items() if value is not None and (name, value) != ("max_steps", -1)}


def settle_device(arguments: TrainingArguments) -> None:
    """Takes the CPU where there is nothing else, and bfloat16 on GPUs that have it where nothing is said."""
    # Said explicitly: without it processes on CPUs do not find each other, and bfloat16 is refused there.
    arguments.use_cpu = arguments.use_cpu or not torch.accelerator.is_available()
    if arguments.bf16 is None:
        gpu = torch.cuda.is_available() and not arguments.use_cpu and not arguments.fp16
        arguments.bf16 = gpu and has_fast_bfloat16(torch.device("cuda"))


def settle_library(arguments: TrainingArguments, library_post_init: Callable[[], None]) -> None:
    """Lets the library settle its part, in the words of ours, on one GPU.

    Args:
        arguments: being made.
        library_post_init: `__post_init__` of `TrainingArguments`.

    Raises:
        UserError: values that do not fit together.
    """
    try:
        library_post_init()
    except ValueError as error:
        raise UserError(f"the arguments do not fit together: {' '.join(str(error).split())}") from error
    # Without a launcher one process takes one GPU; the library would copy the model to all of them at every step.
    arguments._n_gpu = min(1, arguments._n_gpu)


def describe_batch(arguments: Any, unit: str) -> str:
    """The effective batch and who shares it, in one line.

    Args:
        arguments: with `effective_batch` and what shares it settled.
        unit: what a batch holds, such as "crops".
    """
    processes = f"{arguments.world_size} process{'es' if arguments.world_size > 1 else ''}"
    return (
        f"effective batch {arguments.effective_batch} = {processes} x {arguments.per_device_train_batch_size} {unit} "
        f"x {arguments.gradient_accumulation_steps} accumulated"
    )


def at_least(least: int, **values: int) -> None:
    """Refuses values below a bound, by their names.

    Raises:
        UserError: names the first of them.

    Example:
        >>> at_least(1, checks=3)
    """
    for name, value in values.items():
        if value < least:
            raise UserError(f"{name} is {value}; give {least} or more")
