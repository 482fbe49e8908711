"""Run of `evaluate segmentation`: score models and baselines, compare them, and write the report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stedfm_hf.evaluation.report.files import PAGE
from stedfm_hf.evaluation.report.segmentation import PER_IMAGE, RESULTS, write_segmentation_report
from stedfm_hf.evaluation.results import MaskResult
from stedfm_hf.evaluation.segmentation.collecting import collect_results
from stedfm_hf.evaluation.segmentation.fitting import (
    MAX_TRAIN_IMAGES,
    CrossValidatedBaseline,
    assign_folds,
    make_baselines,
    untrained_baselines,
)
from stedfm_hf.evaluation.segmentation.methods import (
    BaselineMethod,
    CrossValidatedMethod,
    Method,
    load_models,
)
from stedfm_hf.evaluation.segmentation.scores import PARTS, ScoreCache, Scorer, check_scorer
from stedfm_hf.evaluation.segmentation.zero_shot import load_zero_shot
from stedfm_hf.evaluation.settings import MaskSettings
from stedfm_hf.evaluation.splits import exclude_training_images, select_split
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.labels.reading import read_annotated_images
from stedfm_hf.labels.splits import ONE_SPLIT, Splits
from stedfm_hf.runs import Manifest, Progress, UserError, counted, print_note, read_json, some_of
from stedfm_hf.runs.failures import record_failures
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.weights.models import ModelSource


def run_segmentation(
    settings: MaskSettings, sources: Sequence[ModelSource], encoders: Sequence[ModelSource] = ()
) -> MaskResult:
    """Run `evaluate segmentation`; see `stedfm_hf.evaluation.evaluate_segmentation`.

    Args:
        settings: Settings of the command.
        sources: Models to evaluate.
        encoders: Encoders whose zero-shot masks to evaluate.
    """
    scorer = Scorer(
        settings.threshold, "reference" if settings.protocol == "reference" else "default", settings.min_area_px
    )
    splits = read_splits(settings)
    check_scorer(scorer, splits.test)
    loading: dict[str, Any] = {
        "device": settings.device,
        "precision": settings.precision,
        "batch_size": settings.batch_size,
    }
    trained = load_models(sources, splits.test, **loading)
    zero_shot = load_zero_shot(encoders, splits.test, protocol=scorer.protocol, **loading)
    models: list[Method] = [*trained, *zero_shot]
    names = baseline_names(settings)
    named = {each.key: source.given for each, source in zip(trained, sources, strict=True)}
    named |= {each.given: each.given for each in encoders if each.given not in named.values()}
    keep, training = exclude_training_images(named, splits.test)
    excluded = splits.test.image_ids[~keep].tolist()
    splits = splits.take({"test": keep})
    with open_output(
        settings.output,
        "evaluate segmentation",
        settings,
        results=(RESULTS, PER_IMAGE, PAGE),
        temporary=(PARTS, "figures"),
        resolved={
            "data": splits.test.name,
            "split": splits.test_split,
            "data_checksums": {name: images.fingerprint for name, images in splits.named().items()},
            "classes": list(splits.test.classes),
            "models": {each.key: each.weights_sha256 for each in models},
            "baselines": list(names),
            "protocol": scorer.protocol,
        },
        model=", ".join(each.name for each in models) or None,
        weights_sha256=models[0].weights_sha256 if models else None,
        seed=settings.seed,
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            output.report_finished()
        else:
            for image_id in excluded:
                output.manifest.skipped(image_id, "a model was trained or selected on its source image")
            _run(output, settings, splits, models, scorer, training)
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
    models: Sequence[Method],
    scorer: Scorer,
    notes: Sequence[str],
) -> None:
    """Score all images that are not scored yet, and write the report into `output`.

    Images that cannot be read or scored are recorded in the manifest and left out for all methods. Scores are cached,
    so that an interrupted run resumes; the cache is removed at the end. `notes` are sentences for the report.

    Raises:
        UserError: If no image can be scored.
    """
    test, manifest, began = splits.test, output.manifest, time.monotonic()
    record_failures(test.failed, manifest)
    without_mask = test.without_mask
    skipped = (
        f"; skipped {counted(len(without_mask), 'image')} without a mask: {some_of(without_mask)}"
        if without_mask
        else ""
    )
    print_note(
        f"{test.name}: {counted(len(test), 'annotated image')} of {counted(test.source_count, 'source')} to score"
        f"{skipped}"
    )
    baselines, baseline_notes = _baselines(settings, splits)
    methods: list[Method] = [*models, *baselines]
    cache = ScoreCache(output.path, PER_IMAGE, test.classes, scorer)
    _score_all(methods, test, scorer, cache, manifest)
    kept = np.array([image_id not in manifest.failures() for image_id in test.image_ids.tolist()])
    if not kept.any():
        raise UserError(
            f"{test.name}: none of {len(test)} images could be scored. First error: {_first_error(manifest)}"
        )
    evaluation = collect_results(
        splits,
        methods,
        cache,
        scorer,
        kept=kept,
        manifest=manifest,
        notes=[*notes, *baseline_notes],
        seconds=time.monotonic() - began,
    )
    for image_id in evaluation.test.image_ids.tolist():
        manifest.done(image_id)
    write_segmentation_report(evaluation, output.path)
    cache.store.remove()
    kinds = [each.kind for each in methods]
    zero_shot = [counted(kinds.count("zero-shot"), "zero-shot method")] if "zero-shot" in kinds else []
    first = ", ".join([counted(kinds.count("model"), "model"), *zero_shot])
    print_note(f"{first} and {counted(kinds.count('baseline'), 'baseline')} scored")


def read_splits(settings: MaskSettings) -> Splits[AnnotatedImages]:
    """Read the annotated images and split them into training and test images.

    Args:
        settings: Settings of the command.

    Raises:
        UserError: If the images cannot be read or split.
    """
    read = read_annotated_images(settings)
    if settings.folds is None:
        return _split_of(read, settings.split)
    if settings.split is None and len(read) > 1:
        first = next(iter(read.values()))
        raise UserError(
            f"{first.name}: has the splits {', '.join(read)}; select the split to cross-validate with --split"
        )
    splits = select_split(read, settings.split or next(iter(read)))
    data = splits.test
    assign_folds(data, settings.folds, settings.seed)  # raises an error before any computation
    description = (
        f"{settings.folds}-fold cross-validation over source images (seed {settings.seed}): each image is scored "
        "once, after fitting on the other folds."
    )
    return replace(splits, train=data.take([]), description=description)


def _split_of(read: Mapping[str, AnnotatedImages], split: str | None) -> Splits[AnnotatedImages]:
    """Select a split; if a data set without splits has too few images, name the options that need none.

    Raises:
        UserError: If the images cannot be split.
    """
    try:
        return select_split(read, split)
    except UserError as error:
        if split is not None or set(read) != {ONE_SPLIT}:
            raise
        raise UserError(
            f"{error}; or score every image with --folds 5, or with --split all without baselines that are trained"
        ) from error


def _baselines(settings: MaskSettings, splits: Splits[AnnotatedImages]) -> tuple[list[Method], list[str]]:
    """Return the baselines, and notes for the report on how they are fitted.

    With `folds` they are cross-validated on the test images, else fitted on train. Without train, only those with
    fixed settings remain.
    """
    test, names = splits.test, baseline_names(settings)
    if settings.folds is not None:
        fold = assign_folds(test, settings.folds, settings.seed)
        return [
            CrossValidatedMethod(
                key=key,
                name=_titled(each.name),
                kind="baseline",
                cross_validated=CrossValidatedBaseline(each, test, fold, settings.seed),
            )
            for key, each in make_baselines(test, names, seed=settings.seed).items()
        ], []
    if len(splits.train):
        baselines = make_baselines(test, names, seed=settings.seed)
        if not baselines:
            return [], []
        train, used = splits.train, min(len(splits.train), MAX_TRAIN_IMAGES)
        sampled = f", sampled from {len(train)}" if used < len(train) else ""
        notes = [f"Baselines are fitted on {counted(used, 'training image')}{sampled}, not on the scored images."]
    else:
        train, baselines, notes = None, untrained_baselines(test, names), []
        if excluded := [name for name in names if name not in baselines]:
            fixed = " The other baselines have fixed settings." if baselines else ""
            notes = [f"Baselines without training images to fit them on are skipped: {', '.join(excluded)}.{fixed}"]
    methods: list[Method] = [
        BaselineMethod(
            key=key, name=_titled(each.name), kind="baseline", baseline=each, train=train, seed=settings.seed
        )
        for key, each in baselines.items()
    ]
    return methods, notes


def _titled(name: str) -> str:
    """Convert the first letter to upper case."""
    return name[0].upper() + name[1:]


def _score_all(
    methods: Sequence[Method],
    data: AnnotatedImages,
    scorer: Scorer,
    cache: ScoreCache,
    manifest: Manifest,
) -> None:
    """Add the score of each method and image that is missing in the cache, and save the cache, even after an error.

    An image that fails with one method is recorded as failed and not scored with the methods after it.
    """
    image_ids = data.image_ids.tolist()
    cached_count = sum(cache.has(method.key, image_id) for method in methods for image_id in image_ids)
    failed: set[str] = set()
    try:
        with Progress(len(methods) * len(data), description="evaluate", unit="images", done=cached_count) as progress:
            for method in methods:
                if not all(cache.has(method.key, image_id) for image_id in image_ids):
                    method.prepare()
                for number in method.order(data):
                    image_id = image_ids[number]
                    if cache.has(method.key, image_id):
                        continue
                    progress.update()
                    if image_id in failed:
                        continue
                    try:
                        maps, exclusive = method.maps(data, number), method.predicts_exclusive(data)
                        cache.add(scorer(data, number, maps, method.key, exclusive=exclusive))
                    except (ValueError, OSError, MemoryError) as error:
                        failed.add(image_id)
                        manifest.failed(image_id, f"{method.name}: {str(error) or type(error).__name__}")
                        progress.note(f"stedfm: error: {image_id}: {manifest.items[image_id].reason}")
    finally:
        cache.save()


def _first_error(manifest: Manifest) -> str:
    """Describe the first failed image."""
    image_id, reason = next(iter(manifest.failures().items()))
    return f"{image_id}: {reason}"
