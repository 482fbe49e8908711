"""Scores of images: protocol, table, cache, and comparison of methods."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.metrics.mask_scores import (
    PIXEL_METRICS,
    THRESHOLD,
    ImageScores,
    ScoringProtocol,
    planes_of,
    predicted_pixels,
    score_image,
)
from stedfm_hf.metrics.objects import OBJECT_METRICS, ObjectScores, score_objects
from stedfm_hf.metrics.reference import REFERENCE_METRICS
from stedfm_hf.metrics.reference import THRESHOLD as REFERENCE_THRESHOLD
from stedfm_hf.metrics.statistics import compare_methods
from stedfm_hf.runs import UserError
from stedfm_hf.runs.parts import PartStore

_COUNTS = ("true_positives", "false_positives", "false_negatives", "iou_sum")
"""Attributes of `ObjectScores`, and columns of the table."""


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """Scores of one image for one method.

    Attributes:
        method: Key of the method.
        image_id: Image id.
        source: Source image.
        pixels: Pixel scores.
        objects: Object scores; None in the reference protocol.
    """

    method: str
    image_id: str
    source: str
    pixels: ImageScores
    objects: ObjectScores | None


@dataclass(frozen=True)
class Scorer:
    """Scorer of probability maps.

    Attributes:
        threshold: Probability above which a pixel is predicted; None is 0.5, or 0.25 in the reference protocol. It is
            not used for single-label masks, where the most probable class is predicted.
        protocol: Scoring protocol, "default" or "reference".
        min_area_px: Area of the smallest object, in pixels.

    Example:
        >>> from stedfm_hf.labels.annotated import from_arrays
        >>> data = from_arrays("cells", [np.eye(4)], [np.eye(4, dtype=np.uint8)], classes=["rings"])
        >>> found = Scorer()(data, 0, np.stack([1 - np.eye(4), np.eye(4)]), "perfect")
        >>> found.pixels.plain()["iou"], found.objects.plain()["f1"]
        ([1.0, 1.0], [None, 1.0])
    """

    threshold: float | None = None
    protocol: ScoringProtocol = "default"
    min_area_px: int = 1

    @property
    def effective_threshold(self) -> float:
        """Threshold, including its default."""
        if self.threshold is not None:
            return self.threshold
        return REFERENCE_THRESHOLD if self.protocol == "reference" else THRESHOLD

    def __call__(
        self, data: AnnotatedImages, number: int, maps: np.ndarray, method: str, *, exclusive: bool | None = None
    ) -> ScoredImage:
        """Score the maps of an image.

        Args:
            data: Annotated images.
            number: Number of the image.
            maps: Probability maps (L, H, W).
            method: Key of the method.
            exclusive: Whether each pixel belongs to its most probable class; None means that of single-label masks.

        Raises:
            UserError: If the maps do not match the annotation.
        """
        exclusive = data.target_type == "single_label" if exclusive is None else exclusive
        planes, inside = target_masks(data, number)
        pixels = score_image(
            maps, planes, inside, threshold=self.threshold, exclusive=exclusive, protocol=self.protocol
        )
        objects = None
        if self.protocol == "default":
            predicted = predicted_pixels(maps, threshold=self.effective_threshold, exclusive=exclusive)
            objects = score_objects(predicted, planes, inside, min_area_px=self.min_area_px)
            if data.background is not None:
                objects = _without_class(objects, data.background)
        return ScoredImage(method, str(data.image_ids[number]), str(data.sources[number]), pixels, objects)


def target_masks(data: AnnotatedImages, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the target of an image as masks.

    Args:
        data: Annotated images.
        number: Number of the image.

    Returns:
        Masks of all classes (L, H, W) float32, and the mask of the pixels to score (H, W) bool.
    """
    target, region = data.annotation(number)
    planes, annotated = planes_of(target, data.target_type, len(data.classes))
    return planes, annotated if region is None else annotated & region


def check_scorer(scorer: Scorer, data: AnnotatedImages) -> None:
    """Check that a scorer can be applied to images.

    Args:
        scorer: Scorer.
        data: Annotated images.

    Raises:
        UserError: If the threshold, the area or the protocol is not valid for these images.
    """
    if scorer.threshold is not None and not 0 < scorer.threshold < 1:
        raise UserError(f"threshold {scorer.threshold:g} is not a probability; choose a number between 0 and 1")
    if scorer.min_area_px < 1:
        raise UserError(f"min_area_px must be 1 or more, not {scorer.min_area_px}")
    if data.target_type != "single_label":
        return
    if scorer.protocol == "reference":
        raise UserError(
            f"{data.name}: the masks have exclusive classes, but --protocol reference needs classes that may overlap. "
            "Read the masks with --target-type multi_label"
        )
    if scorer.threshold is not None:
        raise UserError(
            f"{data.name}: the masks have exclusive classes, so that the most probable class is predicted. Leave out "
            "--threshold"
        )


def scores_to_table(scores: Sequence[ScoredImage], classes: Sequence[str]) -> pa.Table:
    """Convert scores to a table with one row for each method, image and class.

    Args:
        scores: Scores.
        classes: Names of the classes (L,).

    Returns:
        Table with the columns `method`, `image_id`, `source`, `class`, the pixel metrics (null where undefined, or -1
        in the reference protocol), and in the default protocol the object metrics and counts.
    """
    default = not scores or scores[0].pixels.protocol == "default"
    names = PIXEL_METRICS if default else REFERENCE_METRICS
    columns: dict[str, Any] = {
        "method": [each.method for each in scores for _ in classes],
        "image_id": [each.image_id for each in scores for _ in classes],
        "source": [each.source for each in scores for _ in classes],
        "class": [name for _ in scores for name in classes],
    }
    for name in names:
        columns[name] = _column([each.pixels.values[name] for each in scores])
    if default:
        objects = [each.objects for each in scores if each.objects is not None]
        for name in OBJECT_METRICS:
            columns[name] = _column([each.values[name] for each in objects])
        for name in _COUNTS:
            columns[name] = _column([getattr(each, name) for each in objects])
    strings = ("method", "image_id", "source", "class")
    schema = pa.schema([(name, pa.string() if name in strings else pa.float64()) for name in columns])
    return pa.table(columns, schema=schema)


def scores_from_table(table: pa.Table, classes: Sequence[str], scorer: Scorer) -> list[ScoredImage]:
    """Convert a table of `scores_to_table` to scores.

    Args:
        table: Table.
        classes: Names of the classes (L,).
        scorer: Scorer with which the table was computed.
    """
    rows, count, scores = table.to_pylist(), len(classes), []
    names = PIXEL_METRICS if scorer.protocol == "default" else REFERENCE_METRICS
    for start in range(0, len(rows), count):
        group = rows[start : start + count]
        values = {name: _numbers(group, name) for name in names}
        counts = [_numbers(group, name) for name in _COUNTS if name in group[0]]
        method, image_id, source = (group[0][name] for name in ("method", "image_id", "source"))
        objects = ObjectScores(*counts) if counts else None
        scores.append(
            ScoredImage(
                method, image_id, source, ImageScores(values, scorer.protocol, scorer.effective_threshold), objects
            )
        )
    return scores


def _without_class(objects: ObjectScores, background: int) -> ObjectScores:
    """Set the counts of the background to NaN, because it has no objects."""
    kept = np.arange(len(objects.true_positives)) != background
    return ObjectScores(*(np.where(kept, getattr(objects, name), np.nan) for name in _COUNTS))


def _numbers(rows: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """Return a column of rows as numbers; null is NaN."""
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)


def _column(values: Sequence[np.ndarray]) -> pa.Array:
    """Return numbers of all images and classes as a column; NaN is null."""
    flat = np.concatenate([np.asarray(each, np.float64) for each in values]) if values else np.zeros(0)
    return pa.array(flat, pa.float64(), mask=np.isnan(flat))


PARTS = "scores.parts"
"""Folder of the scores of an interrupted run."""
SECONDS = 30.0
"""Interval between two writes of the scores, in seconds."""


class ScoreCache:
    """Scores by method and image, stored in a folder, so that an interrupted run can resume.

    Args:
        folder: Folder of the report. The caller must check that its settings are the same.
        table: File name of the table of a finished run.
        classes: Names of the classes.
        scorer: Scorer of the scores.
    """

    def __init__(self, folder: Path, table: str, classes: Sequence[str], scorer: Scorer) -> None:
        self.classes, self.scorer, self.store = classes, scorer, PartStore(folder / PARTS)
        self._scored: dict[tuple[str, str], ScoredImage] = {}
        self._unsaved: list[ScoredImage] = []
        if (folder / table).is_file():
            try:
                self._read(pq.read_table(folder / table))
            except (pa.ArrowInvalid, KeyError):  # damaged, or written by another program
                self._scored = {}
        for part in self.store:
            self._read(part.table())
        self._saved = time.monotonic()

    def _read(self, table: pa.Table) -> None:
        """Add the scores of a table."""
        self._scored |= {
            (each.method, each.image_id): each for each in scores_from_table(table, self.classes, self.scorer)
        }

    def has(self, method: str, image_id: str) -> bool:
        """Return whether an image is scored.

        Args:
            method: Key of the method.
            image_id: Image id.
        """
        return (method, image_id) in self._scored

    def add(self, scored: ScoredImage) -> None:
        """Add the scores of an image; they are written at intervals.

        Args:
            scored: Scores of the image.
        """
        self._scored[scored.method, scored.image_id] = scored
        self._unsaved.append(scored)
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def of(self, method: str, image_ids: Sequence[str]) -> list[ScoredImage]:
        """Return the scores of a method, in the order of the images.

        Args:
            method: Key of the method.
            image_ids: Image ids.
        """
        return [self._scored[method, image_id] for image_id in image_ids]

    def save(self) -> None:
        """Write new scores."""
        if self._unsaved:
            self.store.write(self.store.next_name(), scores_to_table(self._unsaved, self.classes), {})
        self._unsaved, self._saved = [], time.monotonic()


def image_means(scores: Sequence[ScoredImage], background: int | None, metric: str = "iou") -> np.ndarray:
    """Average a metric over the classes of each image, without the background.

    Args:
        scores: Scores of each image.
        background: Number of the background class, if there is one.
        metric: Name of the metric.

    Returns:
        Means (n,) float64; NaN if undefined for all classes.
    """
    means = np.full(len(scores), np.nan)
    for number, each in enumerate(scores):
        values, undefined = each.pixels.values[metric].copy(), each.pixels.undefined(metric)
        if background is not None:
            undefined = undefined | (np.arange(len(values)) == background)
        if not undefined.all():
            means[number] = values[~undefined].mean()
    return means


def compare(
    scores: Mapping[str, Sequence[ScoredImage]], models: Sequence[str], background: int | None
) -> list[dict[str, Any]]:
    """Compare the mean IoU of each model with that of the other methods by paired permutation tests.

    P-values are corrected for all pairs by Holm's method. Images without a defined IoU of both methods are excluded.

    Args:
        scores: Scores of the same images in the same order, by key of the method.
        models: Keys of the models. Baselines are not compared with each other.
        background: Number of the background class, if there is one.

    Returns:
        One row for each pair with at least two common source images: `model`, `other`, `images` and `sources`
        (numbers), `difference` (mean IoU of model minus other), `low` and `high` (its 95 % confidence interval), `p`,
        and `p_holm` (corrected).
    """
    means = {key: image_means(each, background) for key, each in scores.items()}
    return compare_methods(means, [each.source for each in next(iter(scores.values()), ())], models)
