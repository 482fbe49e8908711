"""`stedfm COMMAND ...`: every command is generated from its settings, and calls the library function of its name.

Exit status: 0 done, 1 some or all items failed (each is listed), 2 wrong arguments or input, 130 interrupted. Errors
that a user can fix are printed on one line; `STEDFM_DEBUG=1` shows the traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.main import get_command

from stedfm_hf.cli.acquisition import add_acquisition
from stedfm_hf.cli.data import data
from stedfm_hf.cli.discovery import add_discovery
from stedfm_hf.cli.evaluation import evaluate
from stedfm_hf.cli.generation import add_generation
from stedfm_hf.cli.inference import add_inference
from stedfm_hf.cli.studies import study
from stedfm_hf.cli.training import add_training
from stedfm_hf.demo.settings import DemoSettings
from stedfm_hf.doctor import DoctorSettings
from stedfm_hf.hub.export_settings import ExportSettings
from stedfm_hf.hub.publish_settings import PublishSettings
from stedfm_hf.info.settings import InfoSettings
from stedfm_hf.runs.command_line import CommandGroup, add_command, run_app
from stedfm_hf.runs.memory import keep_freed_memory
from stedfm_hf.runs.threads import limit_spinning
from stedfm_hf.weights.settings import ConvertSettings

app = typer.Typer(
    name="stedfm",
    cls=CommandGroup,
    help="STED-FM, the foundation model for STED microscopy: embed, classify and segment images, train and evaluate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        args: Words after `stedfm`; by default those of the process.
    """
    limit_spinning()
    keep_freed_memory()
    return run_app(_command(), args)


@cache
def _command() -> Callable[..., Any]:
    """Build all commands once in a process, which takes most of the time of a short command."""
    return get_command(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"stedfm {metadata.version('stedfm-hf')}")
        except metadata.PackageNotFoundError:
            print("stedfm (not installed: runs from a source tree)")
        raise typer.Exit


@app.callback()
def _stedfm(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


add_command(app, "info", "stedfm_hf.info.info:info", settings=InfoSettings, example="stedfm info images/")
add_command(
    app,
    "convert",
    "stedfm_hf.weights.convert:convert",
    settings=ConvertSettings,
    example="stedfm convert MAE_SMALL_STED ./stedfm-vit-small",
)
add_inference(app)
add_discovery(app)
add_acquisition(app)
add_command(
    app,
    "publish",
    "stedfm_hf.hub.publish:publish",
    settings=PublishSettings,
    example="stedfm publish ./my-classifier my-lab/my-classifier --licence mit",
)
add_training(app)
add_generation(app)
add_command(
    app,
    "export",
    "stedfm_hf.hub.export:export",
    settings=ExportSettings,
    example="stedfm export demo --format onnx --output demo-onnx",
)
app.add_typer(data)
app.add_typer(evaluate)
app.add_typer(study)
add_command(app, "demo", "stedfm_hf.demo.run:demo", settings=DemoSettings, example="stedfm demo --output demo")
add_command(app, "doctor", "stedfm_hf.doctor:check_installation", settings=DoctorSettings, example="stedfm doctor")
