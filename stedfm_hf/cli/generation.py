"""`stedfm attribute`."""

from __future__ import annotations

import typer

from stedfm_hf.generation.settings import AttributeFitSettings
from stedfm_hf.runs.command_line import add_command

attribute = typer.Typer(
    name="attribute",
    help="Find directions of attributes in embeddings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
attribute.callback()(lambda: None)
add_command(
    attribute,
    "fit",
    "stedfm_hf.generation.fit:fit_attribute",
    settings=AttributeFitSettings,
    example="stedfm attribute fit --model demo --dataset my-crops --classes rest active --output activity",
)
