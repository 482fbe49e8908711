"""`stedfm pretrain`, `stedfm finetune`: the words of the scripts that torchrun starts, read by the same parsers."""

from __future__ import annotations

from typing import Any

import typer

from stedfm_hf.runs.command_line import add_command
from stedfm_hf.runs.errors import EXIT_ITEMS_FAILED
from stedfm_hf.training.settings import RECIPES, PretrainSettings

FORWARDED: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a verb whose options are those of transformers' arguments."""


def add_pretrain(app: typer.Typer) -> None:
    """Add `stedfm pretrain`."""
    add_command(
        app,
        "pretrain",
        "stedfm_hf.training.pretrain:pretrain",
        settings=PretrainSettings,
        example="stedfm pretrain --recipe small --dataset my-crops --output run",
        recipes=RECIPES,
    )


finetune = typer.Typer(
    name="finetune",
    help="Train a model for a task.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@finetune.callback()
def _several_tasks() -> None:
    """Train a model for a task."""


@finetune.command(add_help_option=False, context_settings=FORWARDED)
def classification(context: typer.Context) -> None:
    """Train a classifier, or a regression, on labelled images.

    Stopped, the same command goes on where it was. `stedfm finetune classification --help` shows the options.
    """
    from stedfm_hf.training.classification.arguments import parse_arguments

    parsed = parse_arguments(context.args)
    from stedfm_hf.training.classify import finetune_classification

    result = finetune_classification(*parsed)
    print(result.summary())
    if result.failed:
        raise typer.Exit(EXIT_ITEMS_FAILED)


@finetune.command(add_help_option=False, context_settings=FORWARDED)
def segmentation(context: typer.Context) -> None:
    """Train a segmenter on images with masks.

    Stopped, the same command goes on where it was. `stedfm finetune segmentation --help` shows the options.
    """
    from stedfm_hf.training.segmentation.arguments import parse_arguments

    parsed = parse_arguments(context.args)
    from stedfm_hf.training.segment import finetune_segmentation

    result = finetune_segmentation(*parsed)
    print(result.summary())
    if result.failed:
        raise typer.Exit(EXIT_ITEMS_FAILED)
