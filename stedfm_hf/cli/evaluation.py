"""`stedfm evaluate VERB ...`: how well models know labelled images, beside what they must beat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stedfm_hf.cli.shared import (
    AsJson,
    Device,
    OnDevice,
    chosen_model,
    complain,
    index_or_name,
    print_json,
    print_table,
)
from stedfm_hf.runs.errors import UserError

if TYPE_CHECKING:
    from stedfm_hf.evaluation.protocol import Outcome, Request
    from stedfm_hf.evaluation.segmentation.protocol import SegmentationOutcome

evaluate = typer.Typer(
    name="evaluate",
    help="Compare models on labelled or annotated images.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="A data set (folder or Hub id), or a folder with one folder a class.")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A folder, Hub id or demo; may be given several times. By default the official one."),
]
Report = Annotated[Path, typer.Option("--report", "--output", help="The folder to write; report.html shows it all.")]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        help="Put only this beside the models (may be given several times): untrained, histogram, texture, pixels, "
        "log-spectrum, imagenet, chance or none. By default all.",
    ),
]
Split = Annotated[str | None, typer.Option(help="Take this split of the data set only.")]
Target = Annotated[str | None, typer.Option(help="Column of the labels, or entry of the metadata; by default label.")]
Series = Annotated[str | None, typer.Option(help="Take this series of every file.")]
Channel = Annotated[str | None, typer.Option(help="Take this channel of every file.")]
Pattern = Annotated[
    str | None,
    typer.Option(help="Regular expression that finds the source image in the path of a file; by default each is one."),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed of the untrained network.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in one forward pass.")]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps vectors; by default one in the user's cache.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no vectors, and take none that are kept.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace other results in the folder.")]


@evaluate.command(epilog="Example: stedfm evaluate knn my-crops --model demo --report my-knn")
def knn(
    data: Data,
    report: Report,
    model: Models = None,
    k: Annotated[list[int] | None, typer.Option(min=1, help="Neighbours that vote; by default 1, 5 and 20.")] = None,
    protocol: Annotated[
        str, typer.Option(help="ours (train is asked about test), or reference (validation is, for k from 3 to 10).")
    ] = "ours",
    zscore: Annotated[bool, typer.Option("--zscore", help="Scale every feature by its spread first.")] = False,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Query every image against images of other sources.")
    ] = False,
    baseline: Baselines = None,
    split: Split = None,
    target: Target = None,
    series: Series = None,
    channel: Channel = None,
    source_pattern: Pattern = None,
    seed: Seed = 0,
    device: OnDevice = Device.auto,
    batch_size: BatchSize = 32,
    cache: Cache = None,
    no_cache: NoCache = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Let the nearest neighbours of each image say its label: nothing is trained."""
    from stedfm_hf.evaluation.protocol import KS, evaluate_knn

    request = _request(locals())
    options: dict[str, Any] = {"protocol": protocol, "zscore": zscore, "one_out": leave_one_out}
    _answer(evaluate_knn(request, k=k or KS, say=complain_plainly, **options), as_json)


@evaluate.command(
    epilog="Example: stedfm evaluate probe my-crops --model demo --labels-per-class 10 --report my-probe"
)
def probe(
    data: Data,
    report: Report,
    model: Models = None,
    labels_per_class: Annotated[
        list[str] | None,
        typer.Option(help="Labelled images of each class, or all; may be given several times. By default 10 to all."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of each number of labelled images.")] = 5,
    baseline: Baselines = None,
    split: Split = None,
    target: Target = None,
    series: Series = None,
    channel: Channel = None,
    source_pattern: Pattern = None,
    seed: Seed = 0,
    device: OnDevice = Device.auto,
    batch_size: BatchSize = 32,
    cache: Cache = None,
    no_cache: NoCache = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Read the labels off the vectors of frozen models, with few labels and with all.

    Classes, several classes at once, or numbers. Vectors are computed once and kept.
    """
    from stedfm_hf.evaluation.protocol import evaluate_probe

    request = _request(locals())
    found = evaluate_probe(request, labels_per_class=labels_per_class, seeds=seeds, say=complain_plainly)
    _answer(found, as_json)


@evaluate.command(epilog="Example: stedfm evaluate segmentation annotated/ --model my-segmenter --report my-masks")
def segmentation(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A data set with masks (folder or Hub id), or images and masks.")
    ],
    report: Report,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A folder or Hub id; may be given several times.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Score this split; by default test. Without splits, a hash of each source id makes them."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Otsu, wavelet spots, a forest of pixels, a constant answer and chance beside them.")
    ] = True,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Without --model: cross-validate the baselines over source images.")
    ] = None,
    legacy: Annotated[
        bool, typer.Option("--legacy", help="Score by the reference's rules: IoU at > 0.25, weak AUPR, -1 undefined.")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="A pixel above this probability is predicted, where classes may overlap; 0.5.")
    ] = None,
    min_area_px: Annotated[int, typer.Option(min=1, help="Smaller regions are no objects.")] = 1,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of the masks, if they are not in masks/ or beside.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a class, in the order of their numbers or planes; or NUMBER=NAME; the flag before each."
        ),
    ] = None,
    target_type: Annotated[str | None, typer.Option(help="single_label, multi_label or soft; by the masks.")] = None,
    series: Annotated[
        str | None,
        typer.Option(help="Take this series of every file; all takes each, with the plane of its mask."),
    ] = None,
    channel: Channel = None,
    source_pattern: Pattern = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of folds and baselines.")] = 0,
    device: OnDevice = Device.auto,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows in one forward pass.")] = 8,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score the masks of models on annotated images, by pixels and objects.

    The same command goes on where it was stopped.
    """
    import transformers

    from stedfm_hf.evaluation.segmentation import BASELINES
    from stedfm_hf.evaluation.segmentation.protocol import SegmentationRequest, evaluate_segmentation
    from stedfm_hf.labels.annotated import parse_classes

    transformers.logging.disable_progress_bar()
    request = SegmentationRequest(
        data=data,
        models=model or [],
        report=report,
        split=split,
        baselines=BASELINES if baselines else (),
        masks=masks,
        classes=parse_classes(classes),
        target_type=target_type,
        series=index_or_name(series),
        channel=index_or_name(channel),
        source_pattern=source_pattern,
        threshold=threshold,
        legacy=legacy,
        folds=folds,
        least_pixels=min_area_px,
        seed=seed,
        device=device.value,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    _answer_masks(evaluate_segmentation(request, say=complain_plainly), as_json)


def _request(given: dict[str, Any]) -> Request:
    import transformers

    from stedfm_hf.evaluation.extractors import BASELINES
    from stedfm_hf.evaluation.features import features_folder
    from stedfm_hf.evaluation.protocol import Request

    transformers.logging.disable_progress_bar()
    if given["no_cache"] and given["cache"] is not None:
        raise UserError("--cache and --no-cache exclude each other; give one of them")
    chosen = given["baseline"] or BASELINES
    if "none" in chosen and len(chosen) > 1:
        raise UserError("--baseline none excludes all others; give it alone")
    return Request(
        data=given["data"],
        models=[chosen_model(model) for model in given["model"] or [None]],
        report=given["report"],
        baselines=() if "none" in chosen else tuple(chosen),
        split=given["split"],
        target=given["target"],
        series=index_or_name(given["series"]),
        channel=index_or_name(given["channel"]),
        source_pattern=given["source_pattern"],
        seed=given["seed"],
        device=given["device"].value,
        batch_size=given["batch_size"],
        cache=None if given["no_cache"] else given["cache"] or features_folder(),
        overwrite=given["overwrite"],
    )


def complain_plainly(text: str) -> None:
    """Lines about what is done go to standard error: the answer alone is on standard output."""
    complain(text.removeprefix("stedfm: "))


def _answer(outcome: Outcome, as_json: bool) -> None:
    """The main figures, as JSON all of them.

    Raises:
        Exit: with status 1 if some images could not be read.
    """
    record = outcome.record
    if as_json:
        print_json({"report": str(outcome.folder / "report.html"), **record})
    else:
        metric = record["metric_of_intervals"]
        names = {each["key"]: each["name"] for each in record["models"]}
        settings = list(dict.fromkeys(row["setting"] for row in record["summary"]))
        cells = {
            (row["model"], row["setting"]): _cell(
                row[metric], row["interval"] if row["setting"] == settings[-1] else None
            )
            for row in record["summary"]
        }
        rows = [(names[key], *(cells[key, setting] for setting in settings)) for key in names]
        print_table((metric, *settings), rows)
        for note in record["notes"]:
            complain(f"note: {note}")
        for doubt in record["conclusion"]["doubts"]:
            complain(f"note: no conclusion can be drawn: {doubt}")
        if record["data"]["simulated"]:
            complain("note: the images are simulated; this is no statement about real ones")
        print(f"{outcome.folder / 'report.html'}")
    if outcome.manifest.exit_status:
        raise typer.Exit(outcome.manifest.exit_status)


def _answer_masks(outcome: SegmentationOutcome, as_json: bool) -> None:
    """The means of every method, as JSON all figures.

    Raises:
        Exit: with status 1 if some images failed.
    """
    record, status = outcome.record, outcome.manifest.exit_status
    if as_json:
        print_json({"report": str(outcome.folder / "report.html"), **record})
    else:
        from stedfm_hf.labels.annotated.stored import BACKGROUND
        from stedfm_hf.metrics.summary import ALL

        means = {(row["method"], row["score"]): row for row in record["scores"] if row["class"] == ALL}
        scores = [name for name in dict.fromkeys(name for _, name in means) if name != "sq"]
        rows = [
            (each["name"], *(_mean_cell(means[each["key"], name], name == scores[0]) for name in scores))
            for each in record["methods"]
        ]
        print_table(("mean", *scores), rows)
        # A class that is never marked is hidden in a mean.
        of_class = {(row["method"], row["class"]): row for row in record["scores"] if row["score"] == scores[0]}
        classes = [name for name in dict.fromkeys(name for _, name in of_class) if name not in (ALL, BACKGROUND)]
        if len(classes) > 1:
            rows = [
                (each["name"], *(_mean_cell(of_class[each["key"], name], False) for name in classes))
                for each in record["methods"]
            ]
            print_table((scores[0], *classes), rows)
        for note in (*record["warnings"], *record["notes"]):
            complain(f"note: {note}")
        for doubt in record["conclusion"]["doubts"]:
            complain(f"note: no conclusion can be drawn: {doubt}")
        if record["data"]["simulated"]:
            complain("note: the images are simulated; this is no statement about real ones")
        print(f"{outcome.folder / 'report.html'}")
    if status:
        raise typer.Exit(status)


def _mean_cell(row: dict[str, Any], with_interval: bool) -> str:
    if row["mean"] is None:
        return "–"
    ends = f" ({row['low']:.3f} to {row['high']:.3f})" if with_interval and row["low"] is not None else ""
    return f"{row['mean']:.3f}{ends}"


def _cell(found: dict[str, Any], interval: list[float] | None) -> str:
    text = f"{found['mean']:.3f}" + ("" if found["sd"] is None else f" ± {found['sd']:.3f}")
    return text if interval is None else f"{text} ({interval[0]:.3f} to {interval[1]:.3f})"
