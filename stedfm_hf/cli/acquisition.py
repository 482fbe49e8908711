"""`stedfm finder fit`, `find`, `serve`, `evaluate find` and `evaluate acquisition`."""

from __future__ import annotations

import typer

from stedfm_hf.acquisition.loop.settings import LoopSettings
from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.acquisition.settings import EvaluateFindSettings, FindSettings, FitFinderSettings
from stedfm_hf.cli.evaluation import evaluate
from stedfm_hf.runs.command_line import add_command

finder = typer.Typer(
    name="finder",
    help="Fit finders of structures, for `stedfm find`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
add_command(
    finder,
    "fit",
    "stedfm_hf.acquisition.fitting:fit_finder",
    settings=FitFinderSettings,
    example="stedfm finder fit --dataset annotated/ --model demo --output my-finder",
)
add_command(
    evaluate,
    "acquisition",
    "stedfm_hf.acquisition.loop.evaluating:evaluate_acquisition",
    settings=LoopSettings,
    example="stedfm evaluate acquisition --model demo --output my-loop",
)
add_command(
    evaluate,
    "find",
    "stedfm_hf.acquisition.evaluation.command:evaluate_find",
    settings=EvaluateFindSettings,
    example="stedfm evaluate find --dataset annotated/ --model demo --output my-evaluation",
)


def add_acquisition(app: typer.Typer) -> None:
    """Add the commands that find structures while images are acquired."""
    app.add_typer(finder)
    add_command(
        app,
        "find",
        "stedfm_hf.acquisition.finding:find",
        settings=FindSettings,
        example="stedfm find fields/ --finder my-finder --output found",
    )
    add_command(
        app,
        "serve",
        "stedfm_hf.acquisition.serving.command:serve",
        settings=ServeSettings,
        example="stedfm serve --model ./stedfm-vit-small --state finders",
    )
