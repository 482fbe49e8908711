"""Whole comparisons of models on labelled images, each beside what it must beat (ours)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.evaluation.extractors import BASELINES, Extractor, load_extractors
from stedfm_hf.evaluation.features import Vectors, features_folder, keep_usable, vectors_of
from stedfm_hf.evaluation.report import Contestant, Evaluation, is_finished, prepare_folder, write_report
from stedfm_hf.evaluation.scoring import Run, compare, summarise
from stedfm_hf.evaluation.splits import leave_one_out, splits_to_test, unused_by
from stedfm_hf.evaluation.trials import ALL, knn_runs, probe_runs
from stedfm_hf.inference.loading import choose_device
from stedfm_hf.labels.labelled import LabelledImages, draw_per_class, read_labelled
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import Manifest, UserError, read_json

USUAL_COUNTS = (10, 25, 50, 100)
"""Labels per class of the paper's figures."""
KS = (1, 5, 20)


@dataclass(frozen=True)
class Request:
    """What is compared, on what, and where the report goes.

    Args:
        data: a data set repository, or a folder with one folder for each class.
        models: folders, Hub ids or packaged encoders.
        report: folder to write.
        baselines: of :data:`~stedfm_hf.evaluation.extractors.BASELINES`.
        split: the only split to take, or None for all.
        target: column of the labels, or entry of the metadata; None: `label`.
        series: of files: the one to take.
        channel: of files: the one to take.
        source_pattern: of files: regular expression that finds the source image in the path.
        seed: Random seed of the untrained network.
        device: where models run and neighbours are searched.
        precision: they run in.
        batch_size: images in one forward pass.
        cache: folder vectors are kept in; None keeps none.
        overwrite: whether other results in `report` are replaced.
    """

    data: str | os.PathLike[str]
    models: Sequence[str]
    report: Path
    baselines: Sequence[str] = BASELINES
    split: str | None = None
    target: str | None = None
    series: str | int | None = None
    channel: str | int | None = None
    source_pattern: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    batch_size: int = 32
    cache: Path | None = field(default_factory=features_folder)
    overwrite: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came out.

    Args:
        record: all figures, as they stand in `results.json`.
        manifest: versions, settings and the status of every image.
        folder: where the report is.
    """

    record: dict[str, Any]
    manifest: Manifest
    folder: Path


def evaluate_probe(
    request: Request,
    *,
    labels_per_class: Sequence[int | str] | None = None,
    seeds: int = 5,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Compares models by linear probes on their vectors, with few labels and with all.

    Args:
        request: what is compared.
        labels_per_class: numbers of labelled images of every class (for a regression: in all), and `"all"`. None: of
            10, 25, 50 and 100 what there is, and all.
        seeds: draws of each number; `all` has one run, as there is nothing to draw.
        say: called with a line about what is done.

    Returns:
        The outcome; the report is written.

    Raises:
        UserError: bad input; a class has fewer images than asked for; the folder holds other results.

    Example:
        >>> evaluate_probe(Request("benchmark-v1", ["demo"], Path("report")))  # doctest: +SKIP
    """
    if seeds < 1:
        raise UserError(f"{seeds} seeds are too few; the least is 1")
    splits = read_splits(request)
    counts = _counts(splits.train, labels_per_class)

    def run(splits: Splits[LabelledImages], vectors: Mapping[str, Vectors], found: Sequence[Extractor]) -> list[Run]:
        return probe_runs(splits, vectors, found, counts, seeds, chance="chance" in request.baselines)

    settings = {"labels_per_class": [str(count) for count in counts], "seeds": seeds}
    return _evaluate("evaluate probe", request, splits, settings, run, say)


def evaluate_knn(
    request: Request,
    *,
    k: Sequence[int] = KS,
    protocol: str = "ours",
    zscore: bool = False,
    one_out: bool = False,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Compares models by the labels of nearest neighbours (cosine): nothing is trained.

    Args:
        request: what is compared.
        k: numbers of neighbours of plain votes; the largest votes by similarity as well (T = 0.07).
        protocol: `"ours"`: neighbours are of the train split; `"reference"`: of the validation split, for every k
            from 3 to 10, and a prediction needs two votes.
        zscore: scale every feature by the spread of the images that are asked. Texture features, which have different
            units, always are; principal components never.
        one_out: Whether every image of one split is tested with all images of other source images (leave one out).
        say: called with a line about what is done.

    Returns:
        The outcome; the report is written.

    Raises:
        UserError: bad input; labels are no classes; the folder holds other results.
    """
    if protocol not in ("ours", "reference"):
        raise UserError(f"protocol {protocol!r} is unknown; choose ours or reference")
    if not k or min(k) < 1:
        raise UserError("numbers of neighbours are 1 or more")
    if one_out and protocol == "reference":
        raise UserError("the reference protocol asks the validation split; leave out --leave-one-out or --protocol")
    splits = read_splits(request, one_out=one_out)
    if splits.test.task != "classes":
        raise UserError(f"{splits.test.name}: neighbours vote on one class for each image; use stedfm evaluate probe")
    if protocol == "reference" and not len(splits.validation):
        raise UserError(f"{splits.test.name}: the reference protocol asks the validation split, and there is none")

    def run(splits: Splits[LabelledImages], vectors: Mapping[str, Vectors], found: Sequence[Extractor]) -> list[Run]:
        chance, device = "chance" in request.baselines, choose_device(request.device)
        # The search falls back on double precision, which Apple's GPUs do not have.
        searching = device if device.type == "cuda" else "cpu"
        return knn_runs(splits, vectors, found, k, protocol, zscore, chance=chance, device=searching)

    settings = {"k": list(k), "protocol": protocol, "zscore": zscore, "leave_one_out": one_out}
    return _evaluate("evaluate knn", request, splits, settings, run, say)


def read_splits(request: Request, *, one_out: bool = False) -> Splits[LabelledImages]:
    """Read the images of a comparison and split them.

    Args:
        request: What is compared, on what.
        one_out: Whether every image is tested with all images of other source images.

    Raises:
        UserError: No model is named, or bad input.
    """
    if not request.models:
        raise UserError("no model to evaluate; name one (--model), such as demo")
    read = read_labelled(
        request.data,
        request.split,
        target=request.target,
        series=request.series,
        channel=request.channel,
        source_pattern=request.source_pattern,
    )
    return leave_one_out(read) if one_out else splits_to_test(read)


def _counts(train: LabelledImages, asked: Sequence[int | str] | None) -> list[int | str]:
    """Labels per class, from few to all; refuses what there is not."""
    if asked is None:
        least = len(train) if train.task == "regression" else min(train.counts().values())
        return [*(count for count in USUAL_COUNTS if count < least), ALL]
    found: list[int | str] = []
    for each in dict.fromkeys(map(str, asked)):
        if each != ALL and not each.isdecimal():
            raise UserError(f"--labels-per-class {each!r} is no number of images; give numbers, or all")
        found.append(each if each == ALL else int(each))
    for count in found:
        if isinstance(count, int):
            draw_per_class(train, count, 0)  # complains before anything is embedded
    return sorted(found, key=lambda count: count if isinstance(count, int) else len(train) + 1)


Runs = Callable[[Splits[LabelledImages], Mapping[str, Vectors], Sequence[Extractor]], list[Run]]


def _evaluate(
    verb: str,
    request: Request,
    splits: Splits[LabelledImages],
    settings: dict[str, Any],
    run: Runs,
    say: Callable[[str], None],
) -> Outcome:
    """What both protocols share: load, check the folder, embed, run, compare, write."""
    extractors = load_extractors(
        request.models,
        request.baselines,
        data=splits.train,
        device=request.device,
        precision=request.precision,
        batch_size=request.batch_size,
        seed=request.seed,
        say=say,
    )
    models = {each.key: each.key for each in extractors if each.kind == "model"}
    kept, notes = unused_by(models, splits.test, least_classes=2 * (splits.test.task != "regression"))
    tested = splits.take({"test": kept})
    manifest = Manifest(
        verb,
        settings={
            "data": splits.train.name,
            "fingerprint": {name: data.fingerprint for name, data in tested.named().items()},
            "models": {each.key: each.identity.get("weights") for each in extractors},
            "chance": "chance" in request.baselines,
            "precision": request.precision,
            **settings,
        },
        options={"device": request.device, "batch_size": request.batch_size},
        model=", ".join(each.name for each in extractors if each.kind == "model"),
        weights_sha256=extractors[0].identity.get("weights"),
        seed=request.seed,
    )
    folder = prepare_folder(request.report, manifest, overwrite=request.overwrite)
    if (old := is_finished(folder)) is not None:
        say(f"{folder}: these results are there already")
        return Outcome(read_json(folder / "results.json"), old, folder)
    began = time.monotonic()
    for place, reason in splits.failed().items():
        say(f"stedfm: error: {place}: {reason}")
        manifest.failed(place, reason)
    say(f"{splits.train.name}: {splits.counts()}")
    vectors: dict[str, dict[str, np.ndarray]] = {}
    for extractor in extractors:
        vectors[extractor.key], failed = vectors_of(splits, extractor, request.cache)
        for place, reason in failed.items():
            if place not in manifest.items:
                say(f"stedfm: error: {place}: {reason}")
                manifest.failed(place, reason)
    embedded = time.monotonic()
    for place in splits.test.places[~kept].tolist():
        manifest.skipped(place, "a model was trained or selected on its source image")
    splits, usable = keep_usable(splits, vectors, kept)
    runs = run(splits, usable, extractors)
    contestants = [Contestant(each.key, each.name, each.kind, each.identity.get("weights")) for each in extractors]
    if "chance" in request.baselines:
        contestants.append(Contestant("chance", "Chance", "baseline", None))
    evaluation = Evaluation(
        verb=verb,
        splits=splits,
        training=notes,
        contestants=contestants,
        runs=runs,
        summary=summarise(splits.test, runs, population=settings.get("protocol") == "reference"),
        comparisons=compare(splits.test, runs, list(models)),
        settings=json.loads(json.dumps(manifest.settings)),
        failed=manifest.failures(),
        seconds={"embedding": embedded - began, "evaluation": time.monotonic() - embedded},
    )
    for data in splits.named().values():
        for place in data.places.tolist():
            manifest.done(place)
    record = write_report(evaluation, folder, manifest)
    say(f"{folder / 'report.html'}: {len(runs)} runs of {len(contestants)} models and baselines")
    return Outcome(record, manifest, folder)
