"""The run of `evaluate segmentation`: score models and baselines on annotated images, compare and report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stedfm_hf.evaluation.report.segmentation import PER_IMAGE, RESULTS, write_findings
from stedfm_hf.evaluation.report.shared import PAGE
from stedfm_hf.evaluation.results import MaskResult
from stedfm_hf.evaluation.segmentation.fitting import (
    MOST_IMAGES,
    Folded,
    assign_folds,
    make_baselines,
    without_training,
)
from stedfm_hf.evaluation.segmentation.gathering import gather
from stedfm_hf.evaluation.segmentation.methods import BaselineMethod, FoldedMethod, Method, ModelMethod, load_models
from stedfm_hf.evaluation.segmentation.scored import PARTS, ScoreCache, Scoring, check_rules
from stedfm_hf.evaluation.settings import MaskSettings
from stedfm_hf.evaluation.splits import chosen_split, unused_by
from stedfm_hf.labels.annotated import AnnotatedImages, parse_classes, read_annotated
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import Manifest, Progress, UserError, counted, print_note, read_json
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.weights.models import ModelSource


def run_segmentation(settings: MaskSettings, sources: Sequence[ModelSource]) -> MaskResult:
    """Run `evaluate segmentation`; see `stedfm_hf.evaluation.evaluate_segmentation`."""
    scoring = Scoring(
        settings.threshold, "reference" if settings.protocol == "reference" else "default", settings.min_area_px
    )
    splits = read_splits(settings)
    check_rules(scoring, splits.test)
    models = load_models(
        sources,
        splits.test,
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
    )
    names = baseline_names(settings)
    named = {each.key: source.given for each, source in zip(models, sources, strict=True)}
    unused, training = unused_by(named, splits.test)
    left_out = splits.test.image_ids[~unused].tolist()
    splits = splits.take({"test": unused})
    with open_output(
        settings.output,
        "evaluate segmentation",
        settings,
        results=(RESULTS, PER_IMAGE, PAGE),
        temporary=(PARTS, "figures"),
        resolved={
            "data": splits.test.name,
            "split": splits.tested,
            "fingerprint": {name: images.fingerprint for name, images in splits.named().items()},
            "classes": list(splits.test.classes),
            "models": {each.key: each.weights_sha256 for each in models},
            "baselines": list(names),
            "protocol": scoring.protocol,
        },
        model=", ".join(each.name for each in models) or None,
        weights_sha256=models[0].weights_sha256 if models else None,
        seed=settings.seed,
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            print_note(f"{output.path}: is finished")
        else:
            for place in left_out:
                output.manifest.skipped(place, "a model was trained or selected on its source image")
            _run(output, settings, splits, models, scoring, training)
    result = MaskResult(output.path, output.manifest, dict(read_json(output.path / RESULTS)))
    result.print_notes()
    return result


def baseline_names(settings: MaskSettings) -> tuple[str, ...]:
    """Return the baselines to compare with."""
    return () if settings.baselines == ["none"] else tuple(settings.baselines)


def _run(
    output: Output,
    settings: MaskSettings,
    splits: Splits[AnnotatedImages],
    models: Sequence[ModelMethod],
    scoring: Scoring,
    training: Sequence[str],
) -> None:
    """Score what is not scored yet, and write the report."""
    test, manifest, began = splits.test, output.manifest, time.monotonic()
    for place, reason in test.failed.items():
        print_note(f"error: {place}: {reason}")
        manifest.failed(place, reason)
    print_note(
        f"{test.name}: {counted(len(test), 'annotated image')} of {counted(test.source_count, 'source')} to score"
    )
    baselines, notes = _baselines(settings, splits)
    methods: list[Method] = [*models, *baselines]
    cache = ScoreCache(output.path, PER_IMAGE, test.classes, scoring)
    _score_all(methods, test, scoring, cache, manifest)
    kept = np.array([place not in manifest.failures() for place in test.image_ids.tolist()])
    if not kept.any():
        raise UserError(f"{test.name}: none of {len(test)} images could be scored; the first: {_first(manifest)}")
    findings = gather(
        splits,
        methods,
        cache,
        scoring,
        kept=kept,
        manifest=manifest,
        notes=[*training, *notes],
        seconds=time.monotonic() - began,
    )
    for place in findings.test.image_ids.tolist():
        manifest.done(place)
    write_findings(findings, output.path)
    cache.store.remove()
    print_note(f"{counted(len(models), 'model')} and {counted(len(methods) - len(models), 'baseline')} scored")


def read_splits(settings: MaskSettings) -> Splits[AnnotatedImages]:
    """Read the images of a comparison and split them into what is scored and what baselines are fitted on."""
    read = read_annotated(
        settings.dataset,
        masks=settings.masks,
        classes=parse_classes(settings.classes),
        target_type=settings.target_type,
        series=settings.series,
        channel=settings.channel,
        source_pattern=settings.source_pattern,
    )
    if settings.folds is None:
        return chosen_split(read, settings.split)
    if settings.split is None and len(read) > 1:
        first = next(iter(read.values()))
        raise UserError(f"{first.name}: has the splits {', '.join(read)}; name the one to cut into folds (--split)")
    splits = chosen_split(read, settings.split or next(iter(read)))
    data = splits.test
    assign_folds(data, settings.folds, settings.seed)  # complains before anything is begun
    how = (
        f"{settings.folds}-fold cross-validation over source images (seed {settings.seed}): each image is scored "
        "once, by what was fitted on the other folds."
    )
    return replace(splits, train=data.take([]), how=how)


def _baselines(settings: MaskSettings, splits: Splits[AnnotatedImages]) -> tuple[list[Method], list[str]]:
    """Baselines that are ready to be asked, and what must be said of how they came about."""
    test, names = splits.test, baseline_names(settings)
    if settings.folds is not None:
        fold = assign_folds(test, settings.folds, settings.seed)
        return [
            FoldedMethod(
                key=key, name=_titled(each.name), kind="baseline", folded=Folded(each, test, fold, settings.seed)
            )
            for key, each in make_baselines(test, names, seed=settings.seed).items()
        ], []
    if len(splits.train):
        found = make_baselines(test, names, seed=settings.seed)
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
            key=key, name=_titled(each.name), kind="baseline", baseline=each, train=train, seed=settings.seed
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
    cache: ScoreCache,
    manifest: Manifest,
) -> None:
    """Score what is not scored yet; an image that fails is left out of all methods."""
    places = data.image_ids.tolist()
    known = sum(cache.has(method.key, place) for method in methods for place in places)
    failed: set[str] = set()
    try:
        with Progress(len(methods) * len(data), description="evaluate", unit="images", done=known) as progress:
            for method in methods:
                if not all(cache.has(method.key, place) for place in places):
                    method.prepare()
                for number in method.order(data):
                    place = places[number]
                    if cache.has(method.key, place):
                        continue
                    progress.update()
                    if place in failed:
                        continue
                    try:
                        cache.add(scoring(data, number, method.maps(data, number), method.key))
                    except (ValueError, OSError, MemoryError) as error:
                        failed.add(place)
                        manifest.failed(place, f"{method.name}: {str(error) or type(error).__name__}")
                        progress.note(f"stedfm: error: {place}: {manifest.items[place].reason}")
    finally:
        cache.save()


def _first(manifest: Manifest) -> str:
    place, reason = next(iter(manifest.failures().items()))
    return f"{place}: {reason}"
