"""The scores of images by methods: a table of them, a cache of them, and which methods differ."""

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
from stedfm_hf.metrics.statistics import compare_paired, holm
from stedfm_hf.runs import UserError
from stedfm_hf.runs.parts import PartStore

_COUNTS = ("true_positives", "false_positives", "false_negatives", "iou_sum")
"""Attributes of `ObjectScores`, and columns of the table."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of one image by one method.

    Args:
        method: its key.
        image: name of the image in its data set.
        source: its source image.
        pixels: scores of the pixels.
        objects: of the objects; None by the reference's rules, which know none.
    """

    method: str
    image: str
    source: str
    pixels: ImageScores
    objects: ObjectScores | None


@dataclass(frozen=True)
class Scoring:
    """By which rules maps are scored.

    Args:
        threshold: of a predicted pixel; None: 0.5, by the reference's rules 0.25. Of images of one class a pixel the
            most probable class is predicted, whatever the threshold.
        protocol: "default" or "reference".
        min_area_px: components of fewer pixels are no objects.

    Example:
        >>> from stedfm_hf.labels.annotated import from_arrays
        >>> data = from_arrays("cells", [np.eye(4)], [np.eye(4, dtype=np.uint8)], classes=["rings"])
        >>> found = Scoring()(data, 0, np.stack([1 - np.eye(4), np.eye(4)]), "perfect")
        >>> found.pixels.plain()["iou"], found.objects.plain()["f1"]
        ([1.0, 1.0], [None, 1.0])
    """

    threshold: float | None = None
    protocol: ScoringProtocol = "default"
    min_area_px: int = 1

    @property
    def cut(self) -> float:
        """The threshold that is used."""
        if self.threshold is not None:
            return self.threshold
        return REFERENCE_THRESHOLD if self.protocol == "reference" else THRESHOLD

    def __call__(self, data: AnnotatedImages, number: int, maps: np.ndarray, method: str) -> Scored:
        """Score the maps (L, H, W) of an image.

        Raises:
            UserError: they do not fit its annotation.
        """
        exclusive = data.target_type == "single_label"
        planes, inside = annotated_planes(data, number)
        pixels = score_image(
            maps, planes, inside, threshold=self.threshold, exclusive=exclusive, protocol=self.protocol
        )
        objects = None
        if self.protocol == "default":
            predicted = predicted_pixels(maps, threshold=self.cut, exclusive=exclusive)
            objects = score_objects(predicted, planes, inside, min_area_px=self.min_area_px)
            if data.background is not None:
                objects = _without(objects, data.background)
        return Scored(method, str(data.image_ids[number]), str(data.sources[number]), pixels, objects)


def annotated_planes(data: AnnotatedImages, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Planes of the target of an image (L, H, W), and where they count (H, W) bool."""
    target, region = data.annotation(number)
    planes, counted = planes_of(target, data.target_type, len(data.classes))
    return planes, counted if region is None else counted & region


def check_rules(scoring: Scoring, data: AnnotatedImages) -> None:
    """Refuses rules that cannot be applied to these images, before anything is predicted."""
    if scoring.threshold is not None and not 0 < scoring.threshold < 1:
        raise UserError(f"threshold {scoring.threshold:g} is no probability; give a number between 0 and 1")
    if scoring.min_area_px < 1:
        raise UserError(f"objects of {scoring.min_area_px} pixels are too small; the least is 1 pixel")
    if data.target_type != "single_label":
        return
    if scoring.protocol == "reference":
        raise UserError(
            f"{data.name}: has one class for each pixel, and --protocol reference knows planes of classes that may "
            "overlap; read the masks as such: --target-type multi_label"
        )
    if scoring.threshold is not None:
        raise UserError(
            f"{data.name}: has one class for each pixel, the most probable one is taken; leave --threshold out"
        )


def table_of(scored: Sequence[Scored], classes: Sequence[str]) -> pa.Table:
    """One row for each method, image and class.

    Columns: `method, image_id, source, class`, the scores (null where undefined; by the reference's rules -1), and of
    objects `f1, pq, sq` with the counts they come from.
    """
    ours = not scored or scored[0].pixels.protocol == "default"
    names = PIXEL_METRICS if ours else REFERENCE_METRICS
    columns: dict[str, Any] = {
        "method": [each.method for each in scored for _ in classes],
        "image_id": [each.image for each in scored for _ in classes],
        "source": [each.source for each in scored for _ in classes],
        "class": [name for _ in scored for name in classes],
    }
    for name in names:
        columns[name] = _column([each.pixels.values[name] for each in scored])
    if ours:
        objects = [each.objects for each in scored if each.objects is not None]
        for name in OBJECT_METRICS:
            columns[name] = _column([each.values[name] for each in objects])
        for name in _COUNTS:
            columns[name] = _column([getattr(each, name) for each in objects])
    texts = ("method", "image_id", "source", "class")
    schema = pa.schema([(name, pa.string() if name in texts else pa.float64()) for name in columns])
    return pa.table(columns, schema=schema)


def scored_of(table: pa.Table, classes: Sequence[str], scoring: Scoring) -> list[Scored]:
    """The scores that a table of :func:`table_of` holds."""
    rows, count, found = table.to_pylist(), len(classes), []
    names = PIXEL_METRICS if scoring.protocol == "default" else REFERENCE_METRICS
    for start in range(0, len(rows), count):
        some = rows[start : start + count]
        values = {name: _numbers(some, name) for name in names}
        counts = [_numbers(some, name) for name in _COUNTS if name in some[0]]
        method, image, source = (some[0][name] for name in ("method", "image_id", "source"))
        objects = ObjectScores(*counts) if counts else None
        found.append(Scored(method, image, source, ImageScores(values, scoring.protocol, scoring.cut), objects))
    return found


def _without(objects: ObjectScores, background: int) -> ObjectScores:
    """Objects without those of the background, whose regions are none: undefined."""
    kept = np.arange(len(objects.true_positives)) != background
    return ObjectScores(*(np.where(kept, getattr(objects, name), np.nan) for name in _COUNTS))


def _numbers(rows: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """A column of rows as numbers, null as NaN."""
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)


def _column(values: Sequence[np.ndarray]) -> pa.Array:
    """Numbers of all images and classes; NaN is null."""
    flat = np.concatenate([np.asarray(each, np.float64) for each in values]) if values else np.zeros(0)
    return pa.array(flat, pa.float64(), mask=np.isnan(flat))


PARTS = "scores.parts"
SECONDS = 30.0
"""Between two times that scores are written."""


class ScoreCache:
    """Scores by method and image, and the parts they are kept in.

    Args:
        folder: Folder of the report. The caller has checked that its settings are the same.
        table: Name of the table that a finished run leaves there.
        classes: Names of the classes.
        scoring: ScoringProtocol of the scores.
    """

    def __init__(self, folder: Path, table: str, classes: Sequence[str], scoring: Scoring) -> None:
        self.classes, self.scoring, self.store = classes, scoring, PartStore(folder / PARTS)
        self._scored: dict[tuple[str, str], Scored] = {}
        self._unsaved: list[Scored] = []
        if (folder / table).is_file():
            try:
                self._take(pq.read_table(folder / table))
            except (pa.ArrowInvalid, KeyError):  # written by another program, or cut off by a full disk
                self._scored = {}
        for part in self.store:
            self._take(part.table())
        self._saved = time.monotonic()

    def _take(self, table: pa.Table) -> None:
        self._scored |= {(each.method, each.image): each for each in scored_of(table, self.classes, self.scoring)}

    def has(self, method: str, image: str) -> bool:
        """Whether an image is scored."""
        return (method, image) in self._scored

    def add(self, scored: Scored) -> None:
        """Keep the scores of an image; they are written now and then."""
        self._scored[scored.method, scored.image] = scored
        self._unsaved.append(scored)
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def of(self, method: str, images: Sequence[str]) -> list[Scored]:
        """Return the scores of a method, in the order of the images."""
        return [self._scored[method, image] for image in images]

    def save(self) -> None:
        """Write the scores that are not written yet."""
        if self._unsaved:
            self.store.write(self.store.next_name(), table_of(self._unsaved, self.classes), {})
        self._unsaved, self._saved = [], time.monotonic()


def image_means(scored: Sequence[Scored], background: int | None, score: str = "iou") -> np.ndarray:
    """Mean of a score over the classes of each image (n,), the background left out; NaN where none has a value."""
    means = np.full(len(scored), np.nan)
    for number, each in enumerate(scored):
        values, undefined = each.pixels.values[score].copy(), each.pixels.undefined(score)
        if background is not None:
            undefined = undefined | (np.arange(len(values)) == background)
        if not undefined.all():
            means[number] = values[~undefined].mean()
    return means


def compare(
    scores: Mapping[str, Sequence[Scored]], models: Sequence[str], background: int | None
) -> list[dict[str, Any]]:
    """Mean IoU of each model against all others: paired, over source images, corrected together by Holm's method.

    Images of which a method has no score are left out of its pairs.

    Args:
        scores: of every method, of the same images in the same order.
        models: keys of those that are compared with all others; baselines are not compared with each other.
        background: number of the class that is left out.

    Returns:
        One row for each pair: `model, other, images, sources, difference, low, high, p, p_holm`. A pair with fewer
        than two sources in common has none.
    """
    means = {key: image_means(each, background) for key, each in scores.items()}
    rows: list[dict[str, Any]] = []
    for place, model in enumerate(models):
        for other in [key for key in scores if key not in models[: place + 1]]:
            both = np.isfinite(means[model]) & np.isfinite(means[other])
            sources = np.array([each.source for each in scores[model]])[both]
            if len(set(sources.tolist())) < 2:
                continue
            row: dict[str, Any] = {"model": model, "other": other, "images": int(both.sum())}
            row["sources"] = len(set(sources.tolist()))
            rows.append(row | compare_paired(means[model][both], means[other][both], sources))
    corrected = holm([row["p"] for row in rows]).tolist() if rows else []
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]
