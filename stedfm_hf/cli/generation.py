"""`stedfm generate` and `stedfm attribute`."""

from __future__ import annotations

import typer

from stedfm_hf.generation.settings import (
    AttributeFitSettings,
    AttributeMeasureSettings,
    AttributeWalkSettings,
    GenerateSettings,
)
from stedfm_hf.runs.command_line import add_command


def add_generation(app: typer.Typer) -> None:
    """Add the commands that generate images."""
    add_command(
        app,
        "generate",
        "stedfm_hf.generation.generate:generate",
        settings=GenerateSettings,
        example="stedfm generate cells/ --model my-pipeline --output like-cells",
    )
    attribute = typer.Typer(
        name="attribute",
        help="Show what an attribute looks like.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    add_command(
        attribute,
        "fit",
        "stedfm_hf.generation.fit:fit_attribute",
        settings=AttributeFitSettings,
        example="stedfm attribute fit --model my-pipeline --dataset my-crops --classes rest active --output activity",
    )
    add_command(
        attribute,
        "walk",
        "stedfm_hf.generation.walk:walk_attribute",
        settings=AttributeWalkSettings,
        example="stedfm attribute walk cells/ --model my-pipeline --direction activity --output walks",
    )
    add_command(
        attribute,
        "measure",
        "stedfm_hf.generation.measure:measure_attribute",
        settings=AttributeMeasureSettings,
        example="stedfm attribute measure walks --dataset my-crops --output measured",
    )
    app.add_typer(attribute)
