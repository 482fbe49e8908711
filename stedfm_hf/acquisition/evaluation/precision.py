"""Precision and recall of score maps: of patches, of pixels and of regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects
from skimage.segmentation import relabel_sequential
from sklearn.metrics import precision_recall_curve

from stedfm_hf.acquisition.regions import find_regions
from stedfm_hf.discovery.search.regions import Box
from stedfm_hf.evaluation.patches import COVERED, block_means
from stedfm_hf.metrics.objects import components

RECALLS = np.linspace(0, 1, 101)
"""Values of recall at which curves are stored."""
REFERENCE_RECALLS = np.linspace(0, 1, 100)
"""Values of recall of the published curves."""
REPEATED = -1
"""Mark of a region that shows only objects that a better region shows, or that is mostly not annotated."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision-recall curve.

    Attributes:
        recall: Recall at each threshold, ascending (n,).
        precision: Precision at each threshold (n,).
    """

    recall: np.ndarray
    precision: np.ndarray

    @property
    def average_precision(self) -> float:
        """Area below the curve as a sum of steps: the precision at each threshold times the increase of recall."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    def at(self, recalls: np.ndarray) -> np.ndarray:
        """Return the precision at the highest threshold that reaches each recall; 0 where none does.

        Example:
            >>> Curve(np.array([0.5, 0.5]), np.array([1.0, 0.5])).at(np.array([0.0, 0.5, 0.6])).tolist()
            [1.0, 1.0, 0.0]
        """
        first = np.searchsorted(self.recall, recalls - 1e-9, side="left")
        return np.append(self.precision, 0.0)[first]

    def interpolated_at(self, recalls: np.ndarray) -> np.ndarray:
        """Interpolate the precision linearly, from 1 at a recall of 0.

        Source: reference protocol.
        """
        return np.interp(recalls, np.append(0.0, self.recall), np.append(1.0, self.precision))


def score_curve(scores: np.ndarray, truth: np.ndarray) -> Curve | None:
    """Compute the precision-recall curve of scores.

    Args:
        scores: Scores (n,), finite.
        truth: Whether each score is of a positive (n,) bool.

    Returns:
        The curve; None without a positive.

    Example:
        >>> curve = score_curve(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]))
        >>> round(curve.average_precision, 3)
        0.833
    """
    if not truth.any():
        return None
    precision, recall, _ = precision_recall_curve(truth, scores)
    return Curve(recall[:-1][::-1], precision[:-1][::-1])


@dataclass(frozen=True, eq=False)
class RankedRegions:
    """Regions of one class in one image, the highest score first.

    Attributes:
        scores: Scores (n,).
        outcomes: Number of annotated objects that a region shows and that no better region does, 0 for a region that
            shows no object, or `REPEATED` (n,) int64.
        objects: Number of annotated objects.
        boxes: Rectangles of the regions, in pixels.
    """

    scores: np.ndarray
    outcomes: np.ndarray
    objects: int
    boxes: Sequence[Box] = ()


def region_curve(regions: RankedRegions) -> Curve | None:
    """Compute the precision of regions and the recall of objects, at each score.

    Precision is the fraction of regions that show a new object; repeated regions do not count. Recall is the fraction
    of objects that a region shows.

    Args:
        regions: Regions, in any order.

    Returns:
        The curve; None without an object.

    Example:
        >>> curve = region_curve(RankedRegions(np.array([3.0, 2, 1]), np.array([1, 0, 2]), 4))
        >>> curve.recall.tolist(), curve.precision.round(2).tolist()
        ([0.25, 0.25, 0.75], [1.0, 0.5, 0.67])
    """
    if not regions.objects:
        return None
    counted = regions.outcomes != REPEATED
    scores, found = regions.scores[counted], regions.outcomes[counted]
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], found[order]
    last = np.append(scores[:-1] != scores[1:], True)[: len(scores)]  # regions of equal score have no order
    recall = np.cumsum(found) / regions.objects
    precision = np.cumsum(found > 0) / np.arange(1, len(found) + 1)
    return Curve(recall[last], precision[last])


def rank_regions(
    values: np.ndarray,
    mask: np.ndarray,
    annotated: np.ndarray,
    *,
    patch_size: int,
    size: float,
    min_area_px: int = 1,
) -> RankedRegions:
    """Find the regions of a score map, and the annotated objects that they show.

    Objects are connected components. A region shows an object if it contains at least half as much of it as a region
    of this size can contain.

    Args:
        values: Score map (rows, cols).
        mask: Mask of the class (H, W) bool.
        annotated: Pixels that were annotated (H, W) bool.
        patch_size: Size of a cell of the map, in pixels.
        size: Height and width of a region, in pixels.
        min_area_px: Area of the smallest object, in pixels.
    """
    known = block_means(annotated[None], patch_size)[..., 0] >= COVERED
    regions = find_regions(
        np.where(known, values, -np.inf),
        cell=(patch_size, patch_size),
        shape=(mask.shape[0], mask.shape[1]),
        size=(size, size),
        min_score=-np.inf,
        count=values.size,
    )
    numbers, _, _ = relabel_sequential(components(mask & annotated, min_area_px))
    needed = _most_in_a_region(numbers, (round(size), round(size))) / 2
    seen = np.zeros(len(needed), bool)
    outcomes = np.zeros(len(regions), np.int64)
    for rank, region in enumerate(regions):
        part = _slices(region.box)
        covered = np.bincount(numbers[part].ravel(), minlength=len(needed))
        shown = (covered > 0) & (covered >= needed)
        shown[0] = False
        outcomes[rank] = np.count_nonzero(shown & ~seen)
        if (shown.any() and not outcomes[rank]) or annotated[part].mean() < COVERED:
            outcomes[rank] = REPEATED
        else:
            seen |= shown
    scores = np.array([each.score for each in regions], np.float64)
    return RankedRegions(scores, outcomes, len(needed) - 1, [each.box for each in regions])


def _slices(box: Box) -> tuple[slice, slice]:
    """Return the rows and columns of the pixels of a box."""
    top, left = round(box.y), round(box.x)
    return slice(top, top + max(1, round(box.height))), slice(left, left + max(1, round(box.width)))


def _most_in_a_region(numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return for each object the largest number of its pixels that a region can contain (objects + 1,)."""
    most = np.bincount(numbers.ravel()).astype(np.float64)
    for number, part in enumerate(find_objects(numbers), 1):
        inside = numbers[part] == number
        if inside.shape[0] <= size[0] and inside.shape[1] <= size[1]:
            continue
        sums = np.pad(inside.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        down, across = min(size[0], inside.shape[0]), min(size[1], inside.shape[1])
        windows = sums[down:, across:] - sums[:-down, across:] - sums[down:, :-across] + sums[:-down, :-across]
        most[number] = windows.max()
    return most
