"""`stedfm pretrain`, `stedfm finetune`: the words of the scripts that torchrun starts, read by the same parsers."""

from __future__ import annotations

from typing import Any

import typer

from stedfm_hf.runs.errors import EXIT_ITEMS_FAILED

FORWARDED: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a verb whose options are those of transformers' arguments."""


def pretrain(context: typer.Context) -> None:
    """Pretrain a masked autoencoder on data sets of crops.

    Stopped, the same command goes on where it was. `stedfm pretrain --help` shows the options.
    """
    from stedfm_hf.training.arguments import parse_arguments

    parsed = parse_arguments(context.args)
    from stedfm_hf.training.pretrain import pretrain as pretrain_model

    result = pretrain_model(*parsed)
    print(result.summary())


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
