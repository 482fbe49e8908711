"""Run of `evaluate find`: fit the finders of each fold, score the images, and write the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from stedfm_hf.acquisition.annotations import foreground_classes
from stedfm_hf.acquisition.evaluation.collecting import collect_report
from stedfm_hf.acquisition.evaluation.fitted import FINDERS_FOLDER, assign_folds, fit_group
from stedfm_hf.acquisition.evaluation.maps import make_baselines
from stedfm_hf.acquisition.evaluation.report import FILES, write_find_report
from stedfm_hf.acquisition.evaluation.results import FindEvaluation
from stedfm_hf.acquisition.evaluation.scoring import PARTS, ScoreCache, Scorer
from stedfm_hf.acquisition.evaluation.work import Work, load_groups, methods_of
from stedfm_hf.acquisition.finders import import_skops
from stedfm_hf.acquisition.settings import EvaluateFindSettings
from stedfm_hf.evaluation.report.files import PAGE, RESULTS
from stedfm_hf.evaluation.splits import exclude_training_images, searched_split
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.labels.reading import read_annotated_images
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import Progress, UserError, counted, print_note, read_json
from stedfm_hf.runs.failures import record_failures
from stedfm_hf.runs.files import remove_path
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.weights.models import ModelSource

REGION_PATCHES = 4
"""Default height and width of a region, in patches."""


def run_evaluation(settings: EvaluateFindSettings, models: Sequence[ModelSource]) -> FindEvaluation:
    """Run `evaluate find`; see `stedfm_hf.acquisition.evaluate_find`.

    Args:
        settings: Settings of the command.
        models: Models to fit finders with.
    """
    if "forest" in settings.methods:
        import_skops()  # a missing package is reported before the images are embedded
    read = read_annotated_images(settings)
    splits = searched_split(read, settings.split)
    classes = foreground_classes(splits.test)
    groups = load_groups(settings, models, splits.test, classes)
    used = {each.name: each.given for each in models} | {f"finder {Path(each).name}": each for each in settings.finder}
    keep, notes = exclude_training_images(used, splits.test)
    excluded = splits.test.image_ids[~keep].tolist()
    data = splits.test.take(keep)
    presence = np.stack(list(data.class_presence().values()), axis=1)
    if settings.methods:
        _check_presence(data, presence)
    fold = assign_folds(presence, data.sources, settings.folds, settings.seed)
    reference, folds = settings.protocol == REFERENCE, int(fold.max()) + 1
    size = settings.region_size_px or REGION_PATCHES * groups[0].tiles.patch_size
    scorer = Scorer(float(size), settings.min_area_px, reference)
    baselines = make_baselines(settings.baseline_names, folds, settings.seed, reference=reference)
    with open_output(
        settings.output,
        "evaluate find",
        settings,
        results=(RESULTS, PAGE),
        temporary=(PARTS, FINDERS_FOLDER, *FILES),
        resolved={
            "data": data.name,
            "split": splits.test_split,
            "data_checksum": data.fingerprint,
            "classes": list(classes),
            "methods": {each.key: each.weights_sha256 for each in methods_of(groups, baselines)},
            "folds": folds,
            "region_size_px": scorer.region_size,
        },
        model=", ".join(dict.fromkeys(each.encoder.name for each in groups if each.encoder.weights_sha256)),
        weights_sha256=groups[0].encoder.weights_sha256,
        seed=settings.seed,
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            output.report_finished()
        else:
            for image_id in excluded:
                output.manifest.skipped(image_id, "a model or a finder was fitted to its source image")
            work = Work(data, classes, fold, groups, baselines, scorer, output.manifest)
            _run(output, settings, work, splits, notes)
    return FindEvaluation(output.path, output.manifest, dict(read_json(output.path / RESULTS)))


def _check_presence(data: AnnotatedImages, presence: np.ndarray) -> None:
    """Refuse a class that less than two source images show.

    Raises:
        UserError: If finders of a class cannot be evaluated in other images than those they are fitted to.
    """
    for name, shown in zip(data.class_presence(), presence.T, strict=True):
        count = len(set(data.sources[shown].tolist()))
        if count < 2:
            raise UserError(
                f"{data.name}: the class {name} is in {counted(count, 'source image')}, and finders are evaluated on "
                "other images than those they are fitted to; annotate the class in two images or more"
            )


def _run(
    output: Output,
    settings: EvaluateFindSettings,
    work: Work,
    splits: Splits[AnnotatedImages],
    notes: Sequence[str],
) -> None:
    """Fit the finders, score all images that are not scored yet, and write the report into `output`.

    Raises:
        UserError: If no image can be scored.
    """
    data, manifest, began = work.data, work.manifest, time.monotonic()
    record_failures(data.failed, manifest)
    print_note(
        f"{data.name}: {counted(len(data), 'annotated image')} of {counted(data.source_count, 'source')} to score"
    )
    for group in work.groups:
        fit_group(
            group,
            partial(work.in_folds, group),
            work.folds,
            output.path,
            rotations=settings.rotations,
            seed=settings.seed,
        )
    for baseline in work.baselines.values():
        baseline.fit(
            (field, int(work.fold[number]), str(data.image_ids[number]))
            for field, number in work.fields(work.groups[0])
        )
    cache = ScoreCache(output.path)
    _score(work, cache)
    kept = np.array([image_id not in manifest.failures() for image_id in data.image_ids.tolist()])
    if not kept.any():
        raise UserError(f"{data.name}: no image could be scored; the manifest lists the reasons")
    for image_id in data.image_ids[kept].tolist():
        manifest.done(image_id)
    report = collect_report(work, splits, cache, kept, notes=notes, seconds=time.monotonic() - began)
    write_find_report(report, output.path)
    cache.store.remove()
    remove_path(output.path / FINDERS_FOLDER)


def _score(work: Work, cache: ScoreCache) -> None:
    """Score the images that are not in the cache, and save the cache, even after an error."""
    image_ids = work.data.image_ids.tolist()
    missing = {
        number: [
            each
            for each, image_id in enumerate(image_ids)
            if not all(cache.has(key, image_id) for key in work.keys(group))
        ]
        for number, group in enumerate(work.groups)
    }
    total = len(work.groups) * len(image_ids)
    done = total - sum(map(len, missing.values()))
    try:
        with Progress(total, description="evaluate find", unit="images", done=done) as progress:
            for each, group in enumerate(work.groups):
                for field, number in work.fields(group, missing[each]):
                    facts = {"source": str(work.data.sources[number]), "fold": int(work.fold[number])}
                    for key, maps in work.maps(group, field, number).items():
                        cache.add(key, image_ids[number], work.scorer(field, maps, work.classes), **facts)
                    progress.update()
    finally:
        cache.save()
