"""`stedfm VERB ...`: one thin function a verb; the work is done by library functions of the same name.

Exit status: 0 done, 1 some or all items failed (each is named), 2 wrong arguments or input, 130 interrupted. What a
user can mend is told in one line; `STEDFM_DEBUG=1` shows the traceback instead.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stedfm_hf.cli.data import data
from stedfm_hf.cli.evaluation import evaluate
from stedfm_hf.cli.shared import (
    AsJson,
    Device,
    OnDevice,
    chosen_model,
    complain,
    index_or_name,
    one_line,
    print_json,
    print_table,
)
from stedfm_hf.cli.training import FORWARDED, finetune, pretrain
from stedfm_hf.runs import counted, some_of
from stedfm_hf.runs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_ITEMS_FAILED, EXIT_USAGE, UserError
from stedfm_hf.runs.threads import wait_passively

if TYPE_CHECKING:
    from stedfm_hf.inference import ClassifyResult, EmbedResult

app = typer.Typer(
    name="stedfm",
    help="STED-FM, the foundation model for STED microscopy: embeddings of microscope images from the command line.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data)
app.add_typer(evaluate)

# The options that `embed` and `classify` share.
Inputs = Annotated[list[str], typer.Argument(metavar="INPUT", help="Files, folders, globs, dataset repositories.")]
Output = Annotated[Path, typer.Option(help="The table to write, *.parquet or *.csv.")]
Precision = Annotated[
    str, typer.Option(help="float32 (the same everywhere), bfloat16, float16 or auto (fastest safe one).")
]
TileSide = Annotated[str, typer.Option(help="Side of a tile in pixels, auto (the model's crop) or none.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Tiles in one forward pass.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads that read images.")]
OneSeries = Annotated[str | None, typer.Option(help="Take this series of every file; by default all.")]
OneChannel = Annotated[str | None, typer.Option(help="Take this channel of every image; by default all.")]
Normalization = Annotated[
    str | None, typer.Option(help="percentile, minmax, fixed or none; by default as the model says.")
]
IntensityRange = Annotated[
    tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Intensities that become 0 and 1 (fixed).")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin an existing table anew.")]


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        args: The words after `stedfm`; by default those of the process.
    """
    wait_passively()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that cannot show a letter shall not end the command
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args, prog_name="stedfm")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else EXIT_DONE if end.code is None else EXIT_ITEMS_FAILED
        if status == EXIT_INTERRUPTED:
            complain("interrupted; the same command goes on where it stopped")
        return status
    except (ValueError, OSError, ImportError) as error:
        # An OSError is the world's doing (no permission, no room, no network), an ImportError the installation's;
        # any other ValueError is a fault of ours, whose traceback is wanted.
        if os.environ.get("STEDFM_DEBUG") or not isinstance(error, OSError | ImportError | UserError | _image_error()):
            raise
        hint = " (`stedfm doctor` looks for the cause)" if isinstance(error, ImportError) else ""
        complain(f"error: {one_line(error)}{hint}")
        return EXIT_USAGE
    return EXIT_DONE


def _image_error() -> type[ValueError]:
    from stedfm_hf.modeling.io_stedfm import ImageReadError

    return ImageReadError


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


@app.command(epilog="Example: stedfm embed images/ --model ./stedfm-vit-small --output emb.parquet")
def embed(
    inputs: Inputs,
    output: Output = Path("embeddings.parquet"),
    model: Annotated[
        str | None, typer.Option(help="A model folder, Hub id or demo; by default the official one.")
    ] = None,
    pooling: Annotated[str, typer.Option(help="avg (mean of the patches), token (class token) or patch.")] = "avg",
    precision: Precision = "float32",
    device: OnDevice = Device.auto,
    tile: TileSide = "auto",
    batch_size: BatchSize = 32,
    workers: Workers = None,
    series: OneSeries = None,
    channel: OneChannel = None,
    normalization: Normalization = None,
    intensity_range: IntensityRange = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Embed images into a table: one row per image and channel.

    Stopped, the same command goes on where it was. Files that cannot be read are named, the others are done.
    """
    side = _tile_side(tile)
    from stedfm_hf.inference import embed as embed_images

    _without_foreign_bars()
    result = embed_images(
        inputs,
        model=chosen_model(model),
        output=output,
        pooling=pooling,
        precision=precision,
        device=device.value,
        tile=side,
        batch_size=batch_size,
        workers=workers,
        series=index_or_name(series),
        channel=index_or_name(channel),
        normalization=normalization,
        intensity_range=intensity_range,
        overwrite=overwrite,
    )
    _tell(output, result, as_json)


@app.command(epilog="Example: stedfm classify images/ --model ./my-classifier --output classes.parquet --maps maps")
def classify(
    inputs: Inputs,
    model: Annotated[str, typer.Option(help="A folder of `stedfm finetune classification`, or a Hub id.")],
    output: Output = Path("classes.parquet"),
    maps: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for a map of every image larger than the model's crop.")
    ] = None,
    map_stride: Annotated[
        int | None, typer.Option(min=1, help="Pixels from window to window of a map; by default half a window.")
    ] = None,
    precision: Precision = "float32",
    device: OnDevice = Device.auto,
    tile: TileSide = "auto",
    batch_size: BatchSize = 32,
    workers: Workers = None,
    series: OneSeries = None,
    channel: OneChannel = None,
    normalization: Normalization = None,
    intensity_range: IntensityRange = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Classify images into a table, and large fields into maps.

    Stopped, the same command goes on where it was. Files that cannot be read are named, the others are done.
    """
    side = _tile_side(tile)
    from stedfm_hf.inference import classify as classify_images

    _without_foreign_bars()
    result = classify_images(
        inputs,
        model=model,
        output=output,
        maps=maps,
        map_stride=map_stride,
        precision=precision,
        device=device.value,
        tile=side,
        batch_size=batch_size,
        workers=workers,
        series=index_or_name(series),
        channel=index_or_name(channel),
        normalization=normalization,
        intensity_range=intensity_range,
        overwrite=overwrite,
    )
    more: dict[str, Any] = {}
    if "label" in result.table.column_names:
        more["labels"] = dict(Counter(result.table["label"].to_pylist()).most_common())
    if maps is not None:
        more["maps"] = sum(name is not None for name in result.table["map"].to_pylist())
    _tell(output, result, as_json, **more)


@app.command(epilog="Example: stedfm segment images/ --model ./my-segmenter --output segmented")
def segment(
    inputs: Inputs,
    model: Annotated[str, typer.Option(help="A folder of `stedfm finetune segmentation`, or a Hub id.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.")] = Path("segmented"),
    threshold: Annotated[
        float | None,
        typer.Option(help="Where classes may overlap: probability above which a pixel is of one [0.5]."),
    ] = None,
    min_area_px: Annotated[int, typer.Option(min=1, help="Objects of fewer pixels are left out.")] = 1,
    window: Annotated[
        int | None, typer.Option(help="Side of a window in pixels; by default that of the crops.")
    ] = None,
    halo: Annotated[
        int | None, typer.Option(help="Half of what windows overlap by, in pixels; by default an eighth of a window.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows in one forward pass.")] = 8,
    probabilities: Annotated[
        bool, typer.Option("--probabilities/--no-probabilities", help="Whether the maps of probability are written.")
    ] = True,
    probability_type: Annotated[str, typer.Option(help="float32, or uint8 (255 is 1).")] = "float32",
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write no pictures.")] = False,
    precision: Precision = "float32",
    device: OnDevice = Device.auto,
    series: Annotated[
        str | None, typer.Option(help="Take this series of every file; all takes each, so every plane of a stack.")
    ] = None,
    channel: OneChannel = None,
    normalization: Normalization = None,
    intensity_range: IntensityRange = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Segment fields of any size into maps and a table of objects.

    Stopped, the same command goes on where it was. Files that cannot be read are named, the others are done.
    """
    from stedfm_hf.inference import segment as segment_images
    from stedfm_hf.inference.field_records import count_found

    _without_foreign_bars()
    manifest = segment_images(
        inputs,
        output,
        model=model,
        threshold=threshold,
        min_area_px=min_area_px,
        window=window,
        halo=halo,
        batch_size=batch_size,
        probabilities=probability_type if probabilities else None,
        overlay=not no_overlay,
        precision=precision,
        device=device.value,
        series=index_or_name(series),
        channel=index_or_name(channel),
        normalization=normalization,
        intensity_range=intensity_range,
        overwrite=overwrite,
    )
    counts, (fields, objects) = manifest.counts(), count_found(output)
    total = sum(objects.values())
    if as_json:
        rows = {"fields": fields, "objects": total, "objects_of": objects}
        print_json({"output": str(output), "manifest": str(output / "manifest.json"), **rows, **counts})
    else:
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        each = f" ({', '.join(f'{name} {count:,}' for name, count in objects.items())})" if len(objects) > 1 else ""
        found = f"{counted(total, 'object')}{each} in {counted(fields, 'field')}"
        print(f"{output}: {found} from {counted(counts['done'], 'file')}{failed}")
    if fields and not total:
        if min_area_px > 1:
            complain(f"no object has {min_area_px} pixels or more (--min-area-px); the labels show the smaller ones")
        else:
            complain("no pixel is of a class; maps of probability show how near the model came")
    if manifest.exit_status:
        raise typer.Exit(manifest.exit_status)


def _tile_side(tile: str) -> int | str | None:
    if tile not in ("auto", "none") and not tile.isdecimal():
        raise UserError(f"--tile {tile!r} is no tile size; give auto, none or a number of pixels")
    return {"auto": "auto", "none": None}[tile] if not tile.isdecimal() else int(tile)


def _tell(output: Path, result: EmbedResult | ClassifyResult, as_json: bool, **more: Any) -> None:
    """Say what a table holds and how many files failed, and end with the exit status of that."""
    from stedfm_hf.runs import manifest_path

    counts, rows = result.manifest.counts(), result.table.num_rows
    if as_json:
        record = manifest_path(output, folder=False)
        print_json({"output": str(output), "manifest": str(record), "rows": rows, **counts, **more})
    else:
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        print(f"{output}: {counted(rows, 'row')} from {counted(counts['done'], 'file')}{failed}")
        if more.get("labels"):
            print(", ".join(f"{label}: {count}" for label, count in more["labels"].items()))
        if "maps" in more:
            print(f"maps: {more['maps']}, of images larger than the model's crop")
    if result.manifest.exit_status:
        raise typer.Exit(result.manifest.exit_status)


def _without_foreign_bars() -> None:
    """Silence the bars of transformers: a verb has its own, and loading a model takes a moment only."""
    import transformers

    transformers.logging.disable_progress_bar()


app.command(add_help_option=False, context_settings=FORWARDED)(pretrain)
app.add_typer(finetune)


@app.command(epilog="Example: stedfm demo --output demo")
def demo(
    output: Annotated[Path, typer.Option(help="The folder to write; report.html in it shows the results.")] = Path(
        "demo"
    ),
    images: Annotated[Path | None, typer.Option(help="A folder of your own images to embed as well.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder, Hub id or demo: a trained model, instead of training one.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time for the training.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: OnDevice = Device.auto,
) -> None:
    """Simulate images, train a small model, embed, write a report.

    Compares the trained model with an untrained one and with trivial baselines; takes a few minutes on two cores.
    """
    from stedfm_hf.demo import run_demo

    _without_foreign_bars()
    result = run_demo(
        output,
        images=images,
        model=chosen_model(model) if model else None,
        seconds=seconds,
        seed=seed,
        device=device.value,
    )
    if result.manifest.exit_status:
        raise typer.Exit(result.manifest.exit_status)


@app.command(epilog="Example: stedfm doctor")
def doctor(as_json: AsJson = False) -> None:
    """Find out what is wrong with this installation."""
    from stedfm_hf.doctor import diagnose

    checks = diagnose()
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            print(f"{check.status:<5} {check.name}: {check.detail}")
            if check.mend is not None:
                print(f"      -> {check.mend}")
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(EXIT_ITEMS_FAILED)
