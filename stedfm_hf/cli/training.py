"""`stedfm pretrain`: the same words as the script that torchrun starts, read by the same parser."""

from __future__ import annotations

from typing import Any

import typer

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
