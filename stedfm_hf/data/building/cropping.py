"""Cutting a field into crops: quantile scaling to 8 bit, Otsu foreground, a grid (the reference's procedure).

Pure functions on one plane (H, W). Fields may be large: apart from the crops themselves, integers of 8 and 16 bit need
no copy of the plane, since a histogram holds all that scaling and threshold depend on; other types need one.
(Reference protocol; the share of foreground that is asked for by default is ours.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from stedfm_hf.runs.errors import UserError

QUANTILES = (0.001, 0.999)
"""Quantiles of the whole field that become 0 and 1."""
MIN_FOREGROUND = 0.01
"""Least share of foreground of a crop."""
REFERENCE_MIN_FOREGROUND = 0.001
"""That of the reference: 50 pixels of a crop of 224 x 224, so that nearly empty crops pass."""
_BLOCK = 2**20
"""Pixels that are converted at a time."""


@dataclass(frozen=True)
class CropRule:
    """How a field is cut.

    Args:
        size: side of a crop in pixels.
        stride: pixels from one crop to the next; None takes the size.
        min_foreground: a crop is kept if more than this share of it is foreground.
        quantiles: of the whole field, that become 0 and 1.

    Raises:
        UserError: a number makes no sense.
    """

    size: int = 224
    stride: int | None = None
    min_foreground: float = MIN_FOREGROUND
    quantiles: tuple[float, float] = QUANTILES

    def __post_init__(self) -> None:
        if self.size < 1 or (self.stride is not None and self.stride < 1):
            raise UserError(f"a crop of {self.size} pixels every {self.stride} is none; give whole numbers from 1")
        if not 0 <= self.min_foreground < 1:
            raise UserError(f"a foreground of {self.min_foreground} is no share; give a number from 0 to below 1")

    @property
    def step(self) -> int:
        """Pixels from one crop to the next."""
        return self.size if self.stride is None else self.stride


@dataclass(frozen=True)
class Place:
    """Where a crop that is kept lies.

    Args:
        y: row of its top left corner.
        x: column of its top left corner.
        foreground_fraction: fraction of its pixels that are foreground, 0 to 1.
    """

    y: int
    x: int
    foreground_fraction: float


def grid(length: int, rule: CropRule) -> list[int]:
    """Where crops begin along one side of a field: every step, the last ones shifted inward to end at the border.

    Args:
        length: of the side, at least the size of a crop.
        rule: size and step.

    Returns:
        Positions in order, each once.

    Example:
        >>> grid(1024, CropRule(size=224))
        [0, 224, 448, 672, 800]
    """
    return sorted({min(start, length - rule.size) for start in range(0, length, rule.step)})


@dataclass(frozen=True, eq=False)
class IntensityScale:
    """How one field becomes 8 bit, and what of it is foreground.

    Args:
        low: intensity that becomes 0.
        high: intensity that becomes 255.
        threshold: Otsu's, of the 8-bit field; foreground is above it.
        snr: mean of the foreground over the standard deviation of the background, both of the field clipped to `low`
            and `high`; None where the background is flat.
    """

    low: float
    high: float
    threshold: int
    snr: float | None
    _table: np.ndarray | None = field(default=None, repr=False)

    def to_8bit(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) of the field's dtype as uint8: `clip((pixels - low) / (high - low), 0, 1) * 255`, cut off.

        Computed in float64; NaN becomes 0.
        """
        if self._table is not None:
            return self._table[_codes(pixels)]
        return _scaled(pixels, self.low, self.high)

    def is_foreground(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) of the field's dtype as truth values."""
        return self.to_8bit(pixels) > self.threshold


def fit_scale(plane: np.ndarray, quantiles: tuple[float, float] = QUANTILES) -> IntensityScale | None:
    """Finds the scaling and the foreground of a field.

    Args:
        plane: (H, W), any real dtype; values that are not finite do not count for the quantiles.
        quantiles: that become 0 and 1, interpolated as `numpy.quantile` does it in float64.

    Returns:
        The scale, or None for a field without contrast: the two quantiles are the same, or nothing is finite.

    Example:
        >>> scale = fit_scale(np.arange(100, dtype=np.uint16).reshape(10, 10), quantiles=(0.0, 1.0))
        >>> scale.low, scale.high, scale.threshold
        (0.0, 99.0, 126)
        >>> scale.to_8bit(np.array([[0, 50, 99, 200]], np.uint16)).tolist()
        [[0, 128, 255, 255]]
    """
    if plane.dtype.kind in "iu" and plane.dtype.itemsize <= 2:
        return _fit_by_histogram(plane, quantiles)
    return _fit_by_sorting(plane, quantiles)


def places(plane: np.ndarray, scale: IntensityScale, rule: CropRule) -> Iterator[Place]:
    """The crops of a field that have enough foreground, row by row.

    Args:
        plane: (H, W), both sides at least the size of a crop.
        scale: of the whole field.
        rule: how it is cut.
    """
    area = rule.size * rule.size
    for y in grid(plane.shape[0], rule):
        for x in grid(plane.shape[1], rule):
            count = np.count_nonzero(scale.is_foreground(plane[y : y + rule.size, x : x + rule.size]))
            if count > rule.min_foreground * area:
                yield Place(y, x, count / area)


# ------------------------------------------------------------------------------- integers of 8 and 16 bit


def _codes(pixels: np.ndarray) -> np.ndarray:
    """The same bytes as unsigned numbers, which index tables."""
    return pixels.view(np.dtype(f"u{pixels.dtype.itemsize}"))


def _fit_by_histogram(plane: np.ndarray, quantiles: tuple[float, float]) -> IntensityScale | None:
    bins = 256**plane.dtype.itemsize
    counts = np.zeros(bins, np.int64)
    for block in _blocks(_codes(plane)):
        counts += np.bincount(block.ravel(), minlength=bins)
    # Into the order of the values: as unsigned numbers, negative ones come last. What does not occur is left out.
    shift = bins // 2 if plane.dtype.kind == "i" else 0
    counts = np.roll(counts, shift)
    occurring = np.flatnonzero(counts)
    first, last = int(occurring[0]), int(occurring[-1])
    counts = counts[first : last + 1]
    values = np.arange(first, last + 1, dtype=np.float64) - shift
    ends = np.cumsum(counts)

    def nth(place: int) -> float:
        return float(values[np.searchsorted(ends, place, side="right")])

    low, high = (_interpolated(nth, plane.size, quantile) for quantile in quantiles)
    if low >= high:
        return None
    scaled = _scaled(values, low, high)
    threshold = _otsu(np.bincount(scaled, weights=counts, minlength=256))
    if threshold is None:
        return None
    moments = _Moments()
    moments.add(np.clip(values, low, high) - low, scaled > threshold, counts)
    table = np.zeros(bins, np.uint8)
    table[first : last + 1] = scaled
    table[last + 1 :] = 255
    return IntensityScale(low, high, threshold, moments.snr(low), np.roll(table, -shift))


# ------------------------------------------------------------------------------- other types


def _fit_by_sorting(plane: np.ndarray, quantiles: tuple[float, float]) -> IntensityScale | None:
    values = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane.flatten()
    if not values.size:
        return None
    spots = {spot for quantile in quantiles for spot in _neighbours(values.size, quantile)[:2]}
    values.partition(sorted(spots))
    nth = {spot: float(values[spot]) for spot in spots}.__getitem__
    low, high = (_interpolated(nth, values.size, quantile) for quantile in quantiles)
    del values
    if low >= high:
        return None
    counts = np.zeros(256)
    for block in _blocks(plane):
        counts += np.bincount(_scaled(block, low, high).ravel(), minlength=256)
    threshold = _otsu(counts)
    if threshold is None:
        return None
    moments = _Moments()
    for block in _blocks(plane):
        clipped = np.clip(np.nan_to_num(block.astype(np.float64), nan=low), low, high)
        moments.add(clipped - low, _scaled(block, low, high) > threshold, None)
    return IntensityScale(low, high, threshold, moments.snr(low))


# ------------------------------------------------------------------------------- both


def _blocks(plane: np.ndarray) -> Iterator[np.ndarray]:
    """Runs of rows."""
    rows = max(1, _BLOCK // plane.shape[1])
    for start in range(0, plane.shape[0], rows):
        yield plane[start : start + rows]


def _neighbours(count: int, quantile: float) -> tuple[int, int, float]:
    """The two places in the sorted values between which a quantile lies, and how far behind the first."""
    place = (count - 1) * quantile
    below = math.floor(place)
    return below, min(below + 1, count - 1), place - below


def _interpolated(nth: Callable[[int], float], count: int, quantile: float) -> float:
    below, above, share = _neighbours(count, quantile)
    # NumPy's own rule on the two neighbours alone: equal to the last bit.
    return float(np.quantile(np.array([nth(below), nth(above)]), share))


def _scaled(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.clip((pixels.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    scaled *= 255.0
    return np.nan_to_num(scaled, copy=False, nan=0.0).astype(np.uint8)


def _otsu(counts: np.ndarray) -> int | None:
    """Otsu's threshold of an 8-bit image by its histogram (256,); None where only one value occurs."""
    from skimage.filters import threshold_otsu

    if np.count_nonzero(counts) < 2:
        return None
    return int(threshold_otsu(hist=(counts, np.arange(256))))


class _Moments:
    """Sums over foreground and background, of values that begin near 0."""

    def __init__(self) -> None:
        self._foreground = self._foreground_count = self._count = self._sum = self._squares = 0.0

    def add(self, values: np.ndarray, foreground: np.ndarray, counts: np.ndarray | None) -> None:
        weights = np.ones_like(values) if counts is None else counts.astype(np.float64)
        above, below = weights * foreground, weights * ~foreground
        self._foreground += float(np.vdot(above, values))
        self._foreground_count += float(above.sum())
        self._count += float(below.sum())
        self._sum += float(np.vdot(below, values))
        self._squares += float(np.vdot(below * values, values))

    def snr(self, low: float) -> float | None:
        mean = self._sum / self._count
        variance = self._squares / self._count - mean * mean
        if not variance > 1e-12 * max(mean * mean, 1e-300):
            return None
        return (low + self._foreground / self._foreground_count) / math.sqrt(variance)
