"""`stedfm COMMAND ...`: every command is generated from its settings, and calls the library function of its name.

Exit status: 0 done, 1 some or all items failed (each is named), 2 wrong arguments or input, 130 interrupted. Errors
that a user can correct are one line; `STEDFM_DEBUG=1` shows the traceback instead.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from stedfm_hf.cli.data import data
from stedfm_hf.cli.evaluation import evaluate
from stedfm_hf.cli.inference import add_inference
from stedfm_hf.cli.shared import (
    AsJson,
    complain,
    one_line,
    print_json,
    print_table,
)
from stedfm_hf.cli.training import add_training
from stedfm_hf.demo.settings import DemoSettings
from stedfm_hf.doctor import DoctorSettings
from stedfm_hf.runs import some_of
from stedfm_hf.runs.command_line import add_command, run_app
from stedfm_hf.runs.errors import EXIT_ITEMS_FAILED
from stedfm_hf.runs.threads import wait_passively

app = typer.Typer(
    name="stedfm",
    help="STED-FM, the foundation model for STED microscopy: embeddings of microscope images from the command line.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_inference(app)
app.add_typer(data)
app.add_typer(evaluate)


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        args: Words after `stedfm`; by default those of the process.
    """
    wait_passively()
    return run_app(app, args)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"stedfm {metadata.version('stedfm-hf')}")
        except metadata.PackageNotFoundError:
            print("stedfm (runs from a source tree without being installed)")
        raise typer.Exit


@app.callback()
def _stedfm(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: stedfm info cell.tif stack.msr")
def info(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Image files.")],
    as_json: AsJson = False,
) -> None:
    """Show series, channels, size, type and pixel size of image files.

    A file that cannot be read is named, and the others are shown.
    """
    from stedfm_hf.images import list_series
    from stedfm_hf.modeling.io_stedfm import ImageReadError

    found: list[dict[str, Any]] = []
    failed = 0
    for path in files:
        try:
            found += [{"path": str(path), **asdict(series)} for series in list_series(path)]
        except (ImageReadError, OSError) as error:
            if len(files) == 1:
                raise
            failed += 1
            complain(f"error: {one_line(error)}")
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("file", "series", "channels", "height x width", "type", "pixel size (y x)"),
            [
                (
                    series["path"],
                    series["name"],
                    f"{series['shape'][0]}: {', '.join(series['channel_names'])}",
                    f"{series['shape'][1]} x {series['shape'][2]}",
                    series["dtype"],
                    _pixel_size(series["pixel_size_nm"]),
                )
                for series in found
            ],
        )
    if failed:
        raise typer.Exit(EXIT_ITEMS_FAILED)


def _pixel_size(nanometres: tuple[float, float] | None) -> str:
    return "not in the file" if nanometres is None else "{:.4g} x {:.4g} nm".format(*nanometres)


@app.command(epilog="Example: stedfm convert MAE_SMALL_STED ./stedfm-vit-small")
def convert(
    source: Annotated[
        str,
        typer.Argument(help="Name of official weights (MAE_SMALL_STED), a .zip or .pth file, or the URL of one."),
    ],
    dest: Annotated[Path, typer.Argument(help="The folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a STED-FM checkpoint into a folder for transformers.

    The folder holds safetensors, configuration, image processor and the code of the models: the Hub takes it as it is.
    """
    from stedfm_hf.weights.convert import convert as convert_checkpoint

    _without_foreign_bars()
    report = convert_checkpoint(source, dest, overwrite=overwrite)
    if as_json:
        print_json(asdict(report) | {"dest": str(report.dest)})
        return
    print(f"{report.architecture} ({report.kind}) written to {report.dest}")
    print(f"sha256 of the weights: {report.weights_sha256}")
    reasons: dict[str, list[str]] = {}
    for key, why in report.dropped.items():
        reasons.setdefault(why, []).append(key)
    for why, keys in reasons.items():
        print(f"left out: {some_of(keys)}: {why}")
    if report.placeholders:
        print(f"named in the file and not run: {', '.join(report.placeholders)}")


def _without_foreign_bars() -> None:
    """Silence the bars of transformers: a verb has its own, and loading a model takes a moment only."""
    import transformers

    transformers.logging.disable_progress_bar()


add_training(app)


add_command(app, "demo", "stedfm_hf.demo.run:demo", settings=DemoSettings, example="stedfm demo --output demo")


add_command(app, "doctor", "stedfm_hf.doctor:check_installation", settings=DoctorSettings, example="stedfm doctor")
