"""A whole evaluation of segmentation: models on annotated images, beside what they must beat (ours)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.evaluation.report import is_finished, prepare_folder
from stedfm_hf.evaluation.report.segmentation import PER_IMAGE, RESULTS, write_findings
from stedfm_hf.evaluation.segmentation.crossvalidation import Folded, assign_folds
from stedfm_hf.evaluation.segmentation.fitting import (
    BASELINES,
    MOST_IMAGES,
    make_baselines,
    without_training,
)
from stedfm_hf.evaluation.segmentation.gathering import gather
from stedfm_hf.evaluation.segmentation.ledger import Ledger
from stedfm_hf.evaluation.segmentation.methods import BaselineMethod, FoldedMethod, Method, load_models
from stedfm_hf.evaluation.segmentation.scored import Scoring, check_rules
from stedfm_hf.evaluation.splits import chosen_split, unused_by
from stedfm_hf.labels.annotated import AnnotatedImages, read_annotated
from stedfm_hf.labels.annotated.targets import Classes
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import Manifest, Progress, UserError, counted, read_json


@dataclass(frozen=True)
class SegmentationRequest:
    """What is compared, on what, and where the report goes.

    Args:
        data: a data set repository with masks, or a folder of images and masks.
        models: folders or Hub ids of models that segment.
        report: folder to write.
        split: Split to score; None: test, else validation. Of a data set without splits, one that is made by the rule
            of :mod:`stedfm_hf.labels.splits`, or `all`.
        baselines: of :data:`~stedfm_hf.evaluation.segmentation.fitting.BASELINES`.
        masks: of a folder: another one with the masks.
        classes: as of :func:`~stedfm_hf.labels.annotated.read_annotated`, like all down to `source_pattern`.
        target_type: `single_label`, `multi_label` or `soft`.
        series: of image files: the one to take.
        channel: of image files: the one to take.
        source_pattern: of image files: regular expression that finds the source image in the path.
        threshold: of a predicted pixel, where classes may overlap; None: 0.5, by the reference's rules 0.25.
        legacy: whether scores follow the reference's rules.
        folds: without models: cross-validation of the baselines over source images.
        least_pixels: components of fewer pixels are no objects.
        seed: Random seed of folds and baselines.
        device: where models run.
        precision: they run in.
        batch_size: windows in one forward pass.
        overwrite: whether other results in `report` are replaced.
    """

    data: str | os.PathLike[str]
    models: Sequence[str | Path]
    report: Path
    split: str | None = None
    baselines: Sequence[str] = BASELINES
    masks: str | os.PathLike[str] | None = None
    classes: Classes | None = None
    target_type: str | None = None
    series: str | int | None = None
    channel: str | int | None = None
    source_pattern: str | None = None
    threshold: float | None = None
    legacy: bool = False
    folds: int | None = None
    least_pixels: int = 1
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    batch_size: int = 8
    overwrite: bool = False


@dataclass(frozen=True, eq=False)
class SegmentationOutcome:
    """What came out.

    Args:
        record: all figures, as they stand in `metrics.json`.
        manifest: versions, settings and the status of every image.
        folder: where the report is.
    """

    record: dict[str, Any]
    manifest: Manifest
    folder: Path


def evaluate_segmentation(request: SegmentationRequest, *, say: Callable[[str], None] = print) -> SegmentationOutcome:
    """Scores the masks of models, and of baselines beside them, on annotated images.

    Written are `metrics.json`, `per_image.parquet` (a row for each method, image and class), `report.html`, `figures/`
    and `manifest.json`. The same call goes on where it was stopped, and finds its results when it was not.

    Args:
        request: what is compared.
        say: called with a line about what is done.

    Returns:
        The outcome; the report is written.

    Raises:
        UserError: bad input; the classes of a model are not those of the data; the folder holds other results.

    Example:
        >>> evaluate_segmentation(
        ...     SegmentationRequest("annotated", ["my-segmenter"], Path("report"))
        ... )  # doctest: +SKIP
    """
    _check_request(request)
    scoring = Scoring(request.threshold, "reference" if request.legacy else "ours", request.least_pixels)
    splits = read_splits(request)
    check_rules(scoring, splits.test)
    models = load_models(
        request.models, splits.test, device=request.device, precision=request.precision, batch_size=request.batch_size
    )
    make_baselines(splits.test, request.baselines)  # complains before anything is begun
    named = {each.key: str(model) for each, model in zip(models, request.models, strict=True)}
    unused, training = unused_by(named, splits.test)
    left_out = splits.test.places[~unused].tolist()
    splits = splits.take({"test": unused})
    test = splits.test
    manifest = Manifest(
        "evaluate segmentation",
        settings={
            "data": test.name,
            "split": splits.tested,
            "fingerprint": {name: images.fingerprint for name, images in splits.named().items()},
            "classes": list(test.classes),
            "models": {each.key: each.weights_sha256 for each in models},
            "baselines": list(request.baselines),
            "rules": scoring.rules,
            "threshold": request.threshold,
            "least_object_pixels": request.least_pixels,
            "folds": request.folds,
            "precision": request.precision,
        },
        options={"device": request.device, "batch_size": request.batch_size},
        model=", ".join(each.name for each in models) or None,
        weights_sha256=models[0].weights_sha256 if models else None,
        seed=request.seed,
    )
    if request.overwrite:
        (Path(request.report) / PER_IMAGE).unlink(missing_ok=True)  # or the scores of other settings would be kept
    folder = prepare_folder(request.report, manifest, overwrite=request.overwrite)
    if (old := is_finished(folder, RESULTS)) is not None:
        say(f"{folder}: these results are there already")
        return SegmentationOutcome(read_json(folder / RESULTS), old, folder)
    for place, reason in test.failed.items():
        say(f"stedfm: error: {place}: {reason}")
        manifest.failed(place, reason)
    for place in left_out:
        manifest.skipped(place, "a model was trained or selected on its source image")
    say(f"{test.name}: {counted(len(test), 'annotated image')} of {counted(test.source_count, 'source')} to score")
    began = time.monotonic()
    baselines, notes = _baselines(request, splits)
    methods: list[Method] = [*models, *baselines]
    ledger = Ledger(folder / PER_IMAGE, test.classes, scoring)
    _score_all(methods, test, scoring, ledger, manifest, say)
    kept = np.array([place not in manifest.failures() for place in test.places.tolist()])
    if not kept.any():
        raise UserError(f"{test.name}: none of {len(test)} images could be scored; the first: {_first(manifest)}")
    scored_seconds = time.monotonic() - began
    notes = [*training, *notes]
    findings = gather(
        splits, methods, ledger, scoring, kept=kept, manifest=manifest, notes=notes, seconds=scored_seconds
    )
    for place in findings.test.places.tolist():
        manifest.done(place)
    record = write_findings(findings, folder, manifest)
    others = counted(len(methods) - len(models), "baseline")
    say(f"{folder / 'report.html'}: {counted(len(models), 'model')} and {others}")
    return SegmentationOutcome(record, manifest, folder)


def _check_request(request: SegmentationRequest) -> None:
    if request.folds is not None and request.models:
        raise UserError("a model is not trained here, and folds are of baselines alone; leave out --folds or --model")
    if not request.models and not request.baselines:
        raise UserError("there is nothing to score; name a model (--model), or leave --no-baselines out")
    if not request.models and request.folds is None:
        raise UserError("no model to evaluate; name one (--model), or cross-validate the baselines alone (--folds 5)")


def read_splits(request: SegmentationRequest) -> Splits[AnnotatedImages]:
    """Read the images of a comparison and split them into what is scored and what baselines are fitted on.

    Raises:
        UserError: Bad input.
    """
    read = read_annotated(
        request.data,
        masks=request.masks,
        classes=request.classes,
        target_type=request.target_type,
        series=request.series,
        channel=request.channel,
        source_pattern=request.source_pattern,
    )
    if request.folds is None:
        return chosen_split(read, request.split)
    if request.split is None and len(read) > 1:
        first = next(iter(read.values()))
        raise UserError(f"{first.name}: has the splits {', '.join(read)}; name the one to cut into folds (--split)")
    splits = chosen_split(read, request.split or next(iter(read)))
    data = splits.test
    assign_folds(data, request.folds, request.seed)  # complains before anything is begun
    how = (
        f"{request.folds}-fold cross-validation over source images (seed {request.seed}): each image is scored once, "
        "by what was fitted on the other folds."
    )
    return replace(splits, train=data.take([]), how=how)


def _baselines(request: SegmentationRequest, splits: Splits[AnnotatedImages]) -> tuple[list[Method], list[str]]:
    """Baselines that are ready to be asked, and what must be said of how they came about."""
    test, names = splits.test, request.baselines
    if request.folds is not None:
        fold = assign_folds(test, request.folds, request.seed)
        return [
            FoldedMethod(
                key=key, name=_titled(each.name), kind="baseline", folded=Folded(each, test, fold, request.seed)
            )
            for key, each in make_baselines(test, names, seed=request.seed).items()
        ], []
    if len(splits.train):
        found = make_baselines(test, names, seed=request.seed)
        if not found:
            return [], []
        train, used = splits.train, min(len(splits.train), MOST_IMAGES)
        drawn = f", drawn of {len(train)}" if used < len(train) else ""
        notes = [
            f"Baselines were fitted on {counted(used, 'image')} of train{drawn}, and saw nothing of what was scored."
        ]
    else:
        train, found, notes = None, without_training(test, names), []
        if left_out := [name for name in names if name not in found]:
            notes = [
                f"There is no train split to fit baselines on: {', '.join(left_out)} were left out, and the others "
                "have fixed settings."
            ]
    methods: list[Method] = [
        BaselineMethod(
            key=key, name=_titled(each.name), kind="baseline", baseline=each, train=train, seed=request.seed
        )
        for key, each in found.items()
    ]
    return methods, notes


def _titled(name: str) -> str:
    return name[0].upper() + name[1:]


def _score_all(
    methods: Sequence[Method],
    data: AnnotatedImages,
    scoring: Scoring,
    ledger: Ledger,
    manifest: Manifest,
    say: Callable[[str], None],
) -> None:
    """Scores what is not scored yet; an image that fails is left out of all methods."""
    places = data.places.tolist()
    known = sum(ledger.has(method.key, place) for method in methods for place in places)
    failed: set[str] = set()
    try:
        with Progress(len(methods) * len(data), description="evaluate", unit="images", done=known) as progress:
            for method in methods:
                if not all(ledger.has(method.key, place) for place in places):
                    method.prepare()
                for number in method.order(data):
                    place = places[number]
                    if ledger.has(method.key, place):
                        continue
                    progress.update()
                    if place in failed:
                        continue
                    try:
                        ledger.add(scoring(data, number, method.maps(data, number), method.key))
                    except (ValueError, OSError, MemoryError) as error:
                        failed.add(place)
                        manifest.failed(place, f"{method.name}: {str(error) or type(error).__name__}")
                        progress.note(f"stedfm: error: {place}: {manifest.items[place].reason}")
                    ledger.save_at_times()
    finally:
        ledger.save()


def _first(manifest: Manifest) -> str:
    place, reason = next(iter(manifest.failures().items()))
    return f"{place}: {reason}"
