"""Results of `evaluate segmentation`, computed from the scores of images."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stedfm_hf.evaluation.report import MethodInfo
from stedfm_hf.evaluation.report.segmentation import Example, SegmentationEvaluation
from stedfm_hf.evaluation.segmentation.methods import CrossValidatedMethod, Method
from stedfm_hf.evaluation.segmentation.scores import (
    ScoreCache,
    ScoredImage,
    Scorer,
    compare,
    image_means,
    target_masks,
)
from stedfm_hf.labels.annotated import AnnotatedImages, class_warnings
from stedfm_hf.labels.splits import Splits, limitations_of
from stedfm_hf.metrics.mask_scores import predicted_pixels
from stedfm_hf.metrics.objects import ObjectScores
from stedfm_hf.metrics.summary import pool_objects, summarise
from stedfm_hf.runs import Manifest


def collect_results(
    splits: Splits[AnnotatedImages],
    methods: Sequence[Method],
    cache: ScoreCache,
    scorer: Scorer,
    *,
    kept: np.ndarray,
    manifest: Manifest,
    notes: Sequence[str],
    seconds: float,
) -> SegmentationEvaluation:
    """Compute means, object metrics, comparisons, limitations and examples from the scores of images.

    Args:
        splits: Training and test images.
        methods: Models, zero-shot masks, then baselines.
        cache: Scores of all images.
        scorer: Scorer of the scores.
        kept: Whether each test image was scored for all methods (n,) bool.
        manifest: Manifest of the run.
        notes: Notes on the protocol, in sentences.
        seconds: Duration of segmentation and scoring, in seconds.
    """
    began = time.monotonic()
    whole = splits.test
    test = whole.take(kept)
    scores = {each.key: cache.of(each.key, test.image_ids.tolist()) for each in methods}
    # Baselines are fitted on train; validation is not used.
    used = {"train": splits.train, "test": test} if len(splits.train) else {"test": test}
    models = [each.key for each in methods if each.kind != "baseline"]
    return SegmentationEvaluation(
        test=test,
        split=splits.test_split,
        split_description=splits.description,
        splits={name: _facts(images) for name, images in used.items()},
        methods=[MethodInfo(each.key, each.name, each.kind, each.weights_sha256) for each in methods],
        scores=scores,
        scorer=scorer,
        threshold=scorer.effective_threshold,
        summary=[row for key, each in scores.items() for row in _summary(key, each, test)],
        objects=[row for key, each in scores.items() for row in _objects(key, each, test)],
        comparisons=compare(scores, models, test.background),
        limitations=limitations_of(test),
        warnings=class_warnings(used),
        notes=[*notes, *_notes(whole, methods)],
        examples=_examples(methods, whole, test, scores, scorer),
        settings=json.loads(json.dumps(manifest.settings)),
        failed=manifest.failures(),
        seconds={"segmentation_and_scoring": seconds, "summary": time.monotonic() - began},
    )


def _summary(key: str, scored: Sequence[ScoredImage], test: AnnotatedImages) -> list[dict[str, Any]]:
    """Return the means of a method."""
    excluded = [] if test.background is None else [test.classes[test.background]]
    sources = [each.source for each in scored]
    rows = summarise([each.pixels for each in scored], test.classes, sources, exclude=excluded)
    objects, names = _foreground_objects(scored, test)
    if objects:
        rows += summarise(objects, names, sources)
    return [{"method": key, **row} for row in rows]


def _objects(key: str, scored: Sequence[ScoredImage], test: AnnotatedImages) -> list[dict[str, Any]]:
    """Return the pooled object metrics of a method."""
    objects, names = _foreground_objects(scored, test)
    if not objects:
        return []
    return [{"method": key, **row} for row in pool_objects(objects, names, [each.source for each in scored])]


def _foreground_objects(scored: Sequence[ScoredImage], test: AnnotatedImages) -> tuple[list[ObjectScores], list[str]]:
    """Return the object scores without the background, and the names of the remaining classes."""
    shown = [number for number in range(len(test.classes)) if number != test.background]
    scores = [each.objects for each in scored if each.objects is not None]
    return [
        ObjectScores(
            each.true_positives[shown], each.false_positives[shown], each.false_negatives[shown], each.iou_sum[shown]
        )
        for each in scores
    ], [test.classes[number] for number in shown]


def _facts(images: AnnotatedImages) -> dict[str, Any]:
    """Return the numbers of images, source images and pixels of each class, as JSON data."""
    return {
        "images": len(images),
        "sources": images.source_count,
        "pixels": images.counts(),
        "total_pixels": int(images.sizes.sum()),
    }


def _notes(test: AnnotatedImages, methods: Sequence[Method]) -> list[str]:
    """Return notes on methods and source images."""
    notes = [each.note for each in methods if each.note]
    if test.sources_unknown:
        each = "image" if test.source_count == len(test) else "file"
        notes.append(
            f"Every {each} is treated as a separate source image. If several {each}s are from one field of view or "
            "sample, set their sources (--source-pattern): otherwise intervals are too narrow and splits may leak."
        )
    if any(each.kind == "zero-shot" for each in methods) and len(test.class_presence()) > 1:
        notes.append(
            "Zero-shot masks do not know the classes: each class is scored with the mask of all structures, so that "
            "its IoU is low. Join the classes (--classes 1=structure 2=structure ...) to compare foreground with "
            "background."
        )
    if any(isinstance(each, CrossValidatedMethod) for each in methods):
        notes.append("The fits of different folds share training images. Confidence intervals do not include this.")
    return notes


def _examples(
    methods: Sequence[Method],
    whole: AnnotatedImages,
    test: AnnotatedImages,
    scores: Mapping[str, Sequence[ScoredImage]],
    scorer: Scorer,
) -> list[Example]:
    """Return the best, median and worst image of the first method, with the predictions of at most three methods.

    The images are segmented again, because only scores are cached. Images without a defined score are left out.

    Args:
        methods: All methods.
        whole: Images as the methods know them, by which they predict.
        test: The scored images.
        scores: Scores of each method, in the order of `test`.
        scorer: Scorer, for its threshold.
    """
    shown = _shown_methods(methods, scores, test)
    means = image_means(scores[shown[0].key], test.background)
    best_first = np.argsort(-means, kind="stable")[: int(np.isfinite(means).sum())].tolist()
    if not best_first:
        return []
    title_of = {best_first[len(best_first) // 2]: "median", best_first[-1]: "worst", best_first[0]: "best"}
    for method in shown:
        method.prepare()
    planes = [number for number in range(len(test.classes)) if number != test.background]
    number_of = {image_id: number for number, image_id in enumerate(whole.image_ids.tolist())}
    examples = []
    for number in sorted(title_of, key=best_first.index):
        image_id = str(test.image_ids[number])
        index = number_of[image_id]
        stored = whole.stored(index)
        truth, annotated = target_masks(whole, index)
        predicted = {
            method.name: predicted_pixels(
                method.maps(whole, index),
                threshold=scorer.effective_threshold,
                exclusive=method.predicts_exclusive(whole),
            )[planes]
            for method in shown
        }
        examples.append(
            Example(
                image_id=image_id,
                title=title_of[number],
                score=float(means[number]),
                image=whole.image(index)[0],
                truth=truth[planes] > 0.5,
                predicted=predicted,
                region=None if annotated.all() else annotated,
                pixel_size_nm=None if stored.pixel_size_nm is None else stored.pixel_size_nm[1],
            )
        )
    return examples


def _shown_methods(
    methods: Sequence[Method], scores: Mapping[str, Sequence[ScoredImage]], test: AnnotatedImages
) -> list[Method]:
    """Return at most two models and the best baseline, or the three best baselines without models."""
    models = [each for each in methods if each.kind != "baseline"]
    others = [each for each in methods if each.kind == "baseline" and each.key not in ("constant", "chance")]
    means = {each.key: image_means(scores[each.key], test.background) for each in others}
    ranked = sorted(
        (each for each in others if np.isfinite(means[each.key]).any()),
        key=lambda each: -float(np.nanmean(means[each.key])),
    )
    shown = [*models[:2], *ranked[: 1 if models else 3]]
    return shown or list(methods[:1])
