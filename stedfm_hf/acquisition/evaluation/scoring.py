"""Scores of images: average precision and curves of each class, and their store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.acquisition.collecting import AnnotatedField
from stedfm_hf.acquisition.evaluation.maps import Maps
from stedfm_hf.acquisition.evaluation.precision import (
    RECALLS,
    REFERENCE_RECALLS,
    Curve,
    RankedRegions,
    rank_regions,
    region_curve,
    score_curve,
)
from stedfm_hf.acquisition.examples import BACKGROUND
from stedfm_hf.runs.parts import PartStore

LEVELS = ("patches", "pixels", "regions")
"""What is ranked by its score."""
POOLED = ("patches", "regions")
"""Levels that are also ranked over all images together."""
PARTS = "scores.parts"
"""Folder of the scores of an interrupted run."""
SECONDS = 20.0
"""Interval at which scores are written."""
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("method", "image_id", "source")]
    + [("fold", pa.int64()), ("class", pa.string()), ("level", pa.string()), ("average_precision", pa.float64())]
    + [("positive_fraction", pa.float64()), ("objects", pa.int64())]
)
"""Columns of `per_image.parquet`."""
_STORED = pa.schema(
    [
        *SCHEMA,
        ("curve", pa.list_(pa.float64())),
        ("scores", pa.list_(pa.float32())),
        ("outcomes", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True)
class Scorer:
    """Function that scores the maps of an image.

    Attributes:
        region_size: Height and width of a region, in pixels.
        min_area_px: Area of the smallest annotated object, in pixels.
        reference: Whether only pixels are scored, with the published interpolation.
    """

    region_size: float
    min_area_px: int = 1
    reference: bool = False

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels that are scored, the one that is reported first at the start."""
        return ("pixels",) if self.reference else LEVELS

    @property
    def recalls(self) -> np.ndarray:
        """Values of recall of the curves."""
        return REFERENCE_RECALLS if self.reference else RECALLS

    def __call__(self, field: AnnotatedField, maps: Sequence[Maps], classes: Sequence[str]) -> list[dict[str, Any]]:
        """Score the maps of an image; those of a random baseline are averaged.

        Args:
            field: Annotated image.
            maps: Score maps.
            classes: Names of the classes.

        Returns:
            One row of `per_image.parquet` for each class and level, without method and image.
        """
        return [
            {"class": name, "level": level} | self._row(level, number, field, maps)
            for number, name in enumerate(classes)
            for level in self.levels
        ]

    def _row(self, level: str, number: int, field: AnnotatedField, maps: Sequence[Maps]) -> dict[str, Any]:
        """Score one class on one level."""
        facts: dict[str, Any] = {"positive_fraction": None, "objects": None}
        curves: list[Curve | None] = []
        scores, outcomes = np.zeros(0), np.zeros(0, np.int64)
        if level == "regions":
            ranked = [self.regions(field, each, number) for each in maps]
            curves = [region_curve(each) for each in ranked]
            facts["objects"] = ranked[0].objects
            scores, outcomes = ranked[0].scores, ranked[0].outcomes
        else:
            kept = field.labels >= BACKGROUND if level == "patches" else field.annotated
            truth = (field.labels == number + 1 if level == "patches" else field.planes[number])[kept]
            planes = [_plane(each, level)[number][kept] for each in maps]
            curves = [score_curve(each, truth) for each in planes]
            facts["positive_fraction"] = float(truth.mean()) if len(truth) else None
            if level in POOLED:
                scores, outcomes = planes[0], truth.astype(np.int64)
        found = [each for each in curves if each is not None]
        precision = [each.interpolated_at(self.recalls) if self.reference else each.at(self.recalls) for each in found]
        return facts | {
            "average_precision": float(np.mean([each.average_precision for each in found])) if found else None,
            "curve": np.mean(precision, axis=0) if found else [],
            "scores": scores.astype(np.float32),
            "outcomes": outcomes,
        }

    def regions(self, field: AnnotatedField, maps: Maps, number: int) -> RankedRegions:
        """Return the regions of a class, and the objects that they show."""
        assert maps.patches is not None
        return rank_regions(
            maps.patches[number],
            field.planes[number],
            field.annotated,
            patch_size=field.patch_size,
            size=self.region_size,
            min_area_px=self.min_area_px,
        )


def _plane(maps: Maps, level: str) -> np.ndarray:
    """Return the scores (L, ...) of a level."""
    found = maps.pixels if level == "pixels" else maps.patches
    assert found is not None
    return found


class ScoreCache:
    """Scores of images by method; those of an interrupted run are read again.

    Args:
        folder: Folder of the report.
    """

    def __init__(self, folder: Path) -> None:
        self.store = PartStore(folder / PARTS)
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._unsaved: list[dict[str, Any]] = []
        for part in self.store:
            for row in part.table().to_pylist():
                self._rows.setdefault((row["method"], row["image_id"]), []).append(row)
        self._saved = time.monotonic()

    def has(self, method: str, image_id: str) -> bool:
        """Return whether an image is scored."""
        return (method, image_id) in self._rows

    def add(self, method: str, image_id: str, rows: Sequence[Mapping[str, Any]], **facts: Any) -> None:
        """Add the scores of an image; they are written at intervals.

        Args:
            method: Key of the method.
            image_id: Image id.
            rows: Rows of `Scorer`.
            facts: Other columns.
        """
        whole = [{"method": method, "image_id": image_id, **facts, **row} for row in rows]
        self._rows[method, image_id] = whole
        self._unsaved += whole
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def of(self, method: str, image_ids: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Return the rows of each image for a method."""
        return [self._rows[method, image_id] for image_id in image_ids]

    def save(self) -> None:
        """Write new scores."""
        if self._unsaved:
            self.store.write(self.store.next_name(), pa.Table.from_pylist(self._unsaved, _STORED), {})
        self._unsaved, self._saved = [], time.monotonic()


@dataclass(frozen=True, eq=False)
class ImagePrecision:
    """Average precision of the classes of an image.

    Attributes:
        values: Average precision (L,) by level; NaN where undefined.
    """

    values: dict[str, np.ndarray]

    def undefined(self, name: str) -> np.ndarray:
        """Return whether the average precision of each class is undefined (L,) bool."""
        return np.isnan(self.values[name])

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> ImagePrecision:
        """Collect the values of the rows of an image."""
        found = {(row["level"], row["class"]): row["average_precision"] for row in rows}
        levels = dict.fromkeys(level for level, _ in found)
        return cls({level: np.array([found[level, name] for name in classes], np.float64) for level in levels})


def pooled_precision(images: Sequence[Sequence[Mapping[str, Any]]], level: str, name: str) -> float | None:
    """Compute the average precision over the patches or regions of all images together.

    Unlike the mean over images, it also counts false positives in images without the class, and needs scores that mean
    the same in all images.

    Args:
        images: Rows of each image.
        level: `patches` or `regions`.
        name: Name of the class.

    Returns:
        Average precision; None if the class is in no image.
    """
    rows = [row for each in images for row in each if (row["level"], row["class"]) == (level, name)]
    scores = np.concatenate([np.asarray(row["scores"], np.float32) for row in rows])
    outcomes = np.concatenate([np.asarray(row["outcomes"], np.int64) for row in rows])
    if level == "regions":
        curve = region_curve(RankedRegions(scores, outcomes, sum(row["objects"] for row in rows)))
    else:
        curve = score_curve(scores, outcomes != 0)
    return None if curve is None else curve.average_precision
