"""From the scores of images to what a report tells."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stedfm_hf.evaluation.report import Contestant
from stedfm_hf.evaluation.report.segmentation import Example, Findings
from stedfm_hf.evaluation.segmentation.methods import FoldedMethod, Method
from stedfm_hf.evaluation.segmentation.scored import (
    ScoreCache,
    Scored,
    Scoring,
    annotated_planes,
    compare,
    image_means,
)
from stedfm_hf.labels.annotated import AnnotatedImages, class_warnings
from stedfm_hf.labels.splits import Splits, limitations_of
from stedfm_hf.metrics.mask_scores import predicted_pixels
from stedfm_hf.metrics.objects import ObjectScores
from stedfm_hf.metrics.summary import pool_objects, summarise
from stedfm_hf.runs import Manifest


def gather(
    splits: Splits[AnnotatedImages],
    methods: Sequence[Method],
    cache: ScoreCache,
    scoring: Scoring,
    *,
    kept: np.ndarray,
    manifest: Manifest,
    notes: Sequence[str],
    seconds: float,
) -> Findings:
    """Makes findings of scores: means, objects, comparisons, limitations and examples.

    Args:
        splits: what was scored and learned from.
        methods: models first.
        cache: the scores.
        scoring: their rules.
        kept: which images were scored by all methods (n,) bool.
        manifest: of the run.
        notes: what must be said of it.
        seconds: that segmenting and scoring took.
    """
    began = time.monotonic()
    whole = splits.test
    test = whole.take(kept)
    scores = {each.key: cache.of(each.key, test.image_ids.tolist()) for each in methods}
    # Baselines are fitted on train, and nothing is selected on validation.
    used = {"train": splits.train, "test": test} if len(splits.train) else {"test": test}
    models = [each.key for each in methods if each.kind == "model"]
    return Findings(
        test=test,
        split=splits.tested,
        how=splits.how,
        splits={name: _facts(images) for name, images in used.items()},
        contestants=[Contestant(each.key, each.name, each.kind, each.weights_sha256) for each in methods],
        scores=scores,
        scoring=scoring,
        threshold=scoring.cut,
        summary=[row for key, each in scores.items() for row in _summary(key, each, test)],
        objects=[row for key, each in scores.items() for row in _objects(key, each, test)],
        comparisons=compare(scores, models, test.background),
        limitations=limitations_of(test),
        warnings=class_warnings(used),
        notes=[*notes, *_notes(whole, methods)],
        examples=_examples(methods, whole, test, scores, scoring),
        settings=json.loads(json.dumps(manifest.settings)),
        failed=manifest.failures(),
        seconds={"segmentation_and_scoring": seconds, "summary": time.monotonic() - began},
    )


def _summary(key: str, scored: Sequence[Scored], test: AnnotatedImages) -> list[dict[str, Any]]:
    left_out = [] if test.background is None else [test.classes[test.background]]
    sources = [each.source for each in scored]
    rows = summarise([each.pixels for each in scored], test.classes, sources, exclude=left_out)
    objects, names = _of_shown(scored, test)
    if objects:
        rows += summarise(objects, names, sources)
    return [{"method": key, **row} for row in rows]


def _objects(key: str, scored: Sequence[Scored], test: AnnotatedImages) -> list[dict[str, Any]]:
    objects, names = _of_shown(scored, test)
    if not objects:
        return []
    return [{"method": key, **row} for row in pool_objects(objects, names, [each.source for each in scored])]


def _of_shown(scored: Sequence[Scored], test: AnnotatedImages) -> tuple[list[ObjectScores], list[str]]:
    """Objects of the classes that are no background: its regions are no objects."""
    shown = [number for number in range(len(test.classes)) if number != test.background]
    found = [each.objects for each in scored if each.objects is not None]
    return [
        ObjectScores(
            each.true_positives[shown], each.false_positives[shown], each.false_negatives[shown], each.iou_sum[shown]
        )
        for each in found
    ], [test.classes[number] for number in shown]


def _facts(images: AnnotatedImages) -> dict[str, Any]:
    """Images, source images and pixels of every class, plain data."""
    return {
        "images": len(images),
        "sources": images.source_count,
        "pixels": images.counts(),
        "total_pixels": int(images.sizes.sum()),
    }


def _notes(test: AnnotatedImages, methods: Sequence[Method]) -> list[str]:
    found = [each.note for each in methods if each.note]
    if test.are_own_sources:
        found.append(
            "Every image counts as a source of its own. If several were cut from one field of view, or are of one "
            "sample, give their sources: otherwise intervals are too narrow, and splits may leak."
        )
    if any(isinstance(each, FoldedMethod) for each in methods):
        found.append("Images of different folds were scored by fits that share images: intervals do not know this.")
    return found


def _examples(
    methods: Sequence[Method],
    whole: AnnotatedImages,
    test: AnnotatedImages,
    scores: Mapping[str, Sequence[Scored]],
    scoring: Scoring,
) -> list[Example]:
    """The best, the median and the worst image of the method that is told first, with the outlines of some."""
    shown = _shown(methods, scores, test)
    means = image_means(scores[shown[0].key], test.background)
    order = np.argsort(-means, kind="stable")[: int(np.isfinite(means).sum())].tolist()
    if not order:
        return []
    chosen = {order[len(order) // 2]: "median", order[-1]: "worst", order[0]: "best"}
    for method in shown:
        method.prepare()
    planes = [number for number in range(len(test.classes)) if number != test.background]
    number_of = {place: number for number, place in enumerate(whole.image_ids.tolist())}
    found = []
    for number in sorted(chosen, key=order.index):
        place = str(test.image_ids[number])
        there = number_of[place]
        stored = whole.stored(there)
        truth, counted = annotated_planes(whole, there)
        predicted = {
            method.name: predicted_pixels(
                method.maps(whole, there),
                threshold=scoring.cut,
                exclusive=whole.target_type == "single_label",
            )[planes]
            for method in shown
        }
        found.append(
            Example(
                place=place,
                word=chosen[number],
                score=float(means[number]),
                image=whole.image(there)[0],
                truth=truth[planes] > 0.5,
                predicted=predicted,
                region=None if counted.all() else counted,
                pixel_size_nm=None if stored.pixel_size_nm is None else stored.pixel_size_nm[1],
            )
        )
    return found


def _shown(methods: Sequence[Method], scores: Mapping[str, Sequence[Scored]], test: AnnotatedImages) -> list[Method]:
    """At most three: two models, and the baseline with the highest mean IoU, guessing left out."""
    models = [each for each in methods if each.kind == "model"]
    others = [each for each in methods if each.kind == "baseline" and each.key not in ("constant", "chance")]
    means = {each.key: image_means(scores[each.key], test.background) for each in others}
    ranked = sorted(
        (each for each in others if np.isfinite(means[each.key]).any()),
        key=lambda each: -float(np.nanmean(means[each.key])),
    )
    found = [*models[:2], *ranked[: 1 if models else 3]]
    return found or list(methods[:1])
