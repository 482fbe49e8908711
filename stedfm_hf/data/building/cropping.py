"""Cropping of a field: quantile scaling to 8 bit, Otsu foreground, and a grid of crops.

All functions are pure and work on one plane (H, W). Scaling and threshold of 8-bit and 16-bit integers are computed
from the histogram, without a copy of the plane; other dtypes need one copy.

Source:
    Reference protocol, except for the default of `MIN_FOREGROUND`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from stedfm_hf.runs.errors import UserError

QUANTILES = (0.001, 0.999)
"""Quantiles of the whole field that are scaled to 0 and 1."""
MIN_FOREGROUND = 0.01
"""Fraction of foreground above which a crop is kept."""
REFERENCE_MIN_FOREGROUND = 0.001
"""Fraction of the reference protocol: 50 of 224 x 224 pixels, so that nearly empty crops are kept."""
_BLOCK = 2**20
"""Pixels that are converted at once."""


@dataclass(frozen=True)
class CropRule:
    """Size, stride, foreground and scaling of crops.

    Attributes:
        size: Height and width of a crop, in pixels.
        stride: Distance between neighbouring crops, in pixels; None uses `size`.
        min_foreground: Fraction of foreground above which a crop is kept, in [0, 1).
        quantiles: Quantiles of the whole field that are scaled to 0 and 1.

    Raises:
        UserError: A value is out of range.
    """

    size: int = 224
    stride: int | None = None
    min_foreground: float = MIN_FOREGROUND
    quantiles: tuple[float, float] = QUANTILES

    def __post_init__(self) -> None:
        if self.size < 1 or (self.stride is not None and self.stride < 1):
            raise UserError(
                f"crop size {self.size} and stride {self.stride} must be 1 or more; give whole numbers of pixels"
            )
        if not 0 <= self.min_foreground < 1:
            raise UserError(f"min_foreground is {self.min_foreground}; give a fraction from 0 to below 1")

    @property
    def step(self) -> int:
        """Distance between neighbouring crops, in pixels."""
        return self.size if self.stride is None else self.stride


@dataclass(frozen=True)
class CropPosition:
    """Position of a crop in its field.

    Attributes:
        y: Row of the top left corner.
        x: Column of the top left corner.
        foreground_fraction: Fraction of the pixels of the crop that are foreground, 0 to 1.
    """

    y: int
    x: int
    foreground_fraction: float


def grid(length: int, rule: CropRule) -> list[int]:
    """Return the first rows or columns of the crops along one axis; the last crops are shifted inward to the border.

    Args:
        length: Height or width of the field, at least the crop size.
        rule: Size and stride of the crops.

    Returns:
        Sorted positions without repetition.

    Example:
        >>> grid(1024, CropRule(size=224))
        [0, 224, 448, 672, 800]
    """
    return sorted({min(start, length - rule.size) for start in range(0, length, rule.step)})


@dataclass(frozen=True, eq=False)
class IntensityScale:
    """Scaling of one field to 8 bit, and its foreground threshold.

    Attributes:
        low: Intensity that is scaled to 0.
        high: Intensity that is scaled to 255.
        threshold: Otsu's threshold of the 8-bit field; pixels above it are foreground.
        snr: Mean of the foreground divided by the standard deviation of the background, both of the field clipped to
            `low` and `high`; None if the background is constant.
    """

    low: float
    high: float
    threshold: int
    snr: float | None
    _table: np.ndarray | None = field(default=None, repr=False)

    def to_8bit(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pixels to 8 bit: `clip((pixels - low) / (high - low), 0, 1) * 255`, truncated.

        Args:
            pixels: Part of the field (H, W), in the dtype of the field.

        Returns:
            (H, W) uint8, computed in float64; NaN becomes 0.
        """
        if self._table is not None:
            return self._table[_unsigned(pixels)]
        return _scale_to_8bit(pixels, self.low, self.high)

    def is_foreground(self, pixels: np.ndarray) -> np.ndarray:
        """Return which pixels of a part of the field are foreground, (H, W) bool."""
        return self.to_8bit(pixels) > self.threshold


def fit_scale(plane: np.ndarray, quantiles: tuple[float, float] = QUANTILES) -> IntensityScale | None:
    """Compute the scaling and the foreground threshold of a field.

    Args:
        plane: Field (H, W) of any real dtype; quantiles ignore values that are not finite.
        quantiles: Quantiles that are scaled to 0 and 1, interpolated as in `numpy.quantile`, in float64.

    Returns:
        The scaling, or None for a field without contrast: the two quantiles are equal, or no value is finite.

    Example:
        >>> scale = fit_scale(np.arange(100, dtype=np.uint16).reshape(10, 10), quantiles=(0.0, 1.0))
        >>> scale.low, scale.high, scale.threshold
        (0.0, 99.0, 126)
        >>> scale.to_8bit(np.array([[0, 50, 99, 200]], np.uint16)).tolist()
        [[0, 128, 255, 255]]
    """
    if plane.dtype.kind in "iu" and plane.dtype.itemsize <= 2:
        return _fit_integers(plane, quantiles)
    return _fit_any_dtype(plane, quantiles)


def crop_positions(plane: np.ndarray, scale: IntensityScale, rule: CropRule) -> Iterator[CropPosition]:
    """Find the crops of a field that have enough foreground.

    Args:
        plane: Field (H, W), at least as large as a crop.
        scale: Scaling and threshold of the whole field.
        rule: Size, stride and foreground of the crops.

    Yields:
        Positions, row by row.
    """
    area = rule.size * rule.size
    for y in grid(plane.shape[0], rule):
        for x in grid(plane.shape[1], rule):
            count = np.count_nonzero(scale.is_foreground(plane[y : y + rule.size, x : x + rule.size]))
            if count > rule.min_foreground * area:
                yield CropPosition(y, x, count / area)


# ------------------------------------------------------------------------------- integers of 8 and 16 bit


def _unsigned(pixels: np.ndarray) -> np.ndarray:
    """Return integers as unsigned ones with the same bytes, which can index tables."""
    return pixels.view(np.dtype(f"u{pixels.dtype.itemsize}"))


def _fit_integers(plane: np.ndarray, quantiles: tuple[float, float]) -> IntensityScale | None:
    """Compute quantiles, Otsu's threshold and signal-to-noise ratio of 8-bit or 16-bit integers from their histogram.

    The scale has a table with the 8-bit value of every integer. None means a field without contrast.
    """
    bins = 256**plane.dtype.itemsize
    counts = np.zeros(bins, np.int64)
    for block in _blocks(_unsigned(plane)):
        counts += np.bincount(block.ravel(), minlength=bins)
    # Sort by value: as unsigned integers, negative values come last. Values that do not occur at the ends are dropped.
    shift = bins // 2 if plane.dtype.kind == "i" else 0
    counts = np.roll(counts, shift)
    occurring = np.flatnonzero(counts)
    first, last = int(occurring[0]), int(occurring[-1])
    counts = counts[first : last + 1]
    values = np.arange(first, last + 1, dtype=np.float64) - shift
    cumulative = np.cumsum(counts)

    def value_at(rank: int) -> float:
        return float(values[np.searchsorted(cumulative, rank, side="right")])

    low, high = (_quantile(value_at, plane.size, quantile) for quantile in quantiles)
    if low >= high:
        return None
    scaled = _scale_to_8bit(values, low, high)
    threshold = _otsu(np.bincount(scaled, weights=counts, minlength=256))
    if threshold is None:
        return None
    moments = _Moments()
    moments.add(np.clip(values, low, high) - low, scaled > threshold, counts)
    table = np.zeros(bins, np.uint8)
    table[first : last + 1] = scaled
    table[last + 1 :] = 255
    return IntensityScale(low, high, threshold, moments.snr(low), np.roll(table, -shift))


# ------------------------------------------------------------------------------- other dtypes


def _fit_any_dtype(plane: np.ndarray, quantiles: tuple[float, float]) -> IntensityScale | None:
    """Compute quantiles, Otsu's threshold and signal-to-noise ratio of a field of any real dtype.

    The plane is converted in blocks, which limits the use of memory. None means a field without contrast, or without a
    finite value.
    """
    limits = _finite_quantiles(plane, quantiles)
    if limits is None or limits[0] >= limits[1]:
        return None
    low, high = limits
    counts = np.zeros(256)
    for block in _blocks(plane):
        counts += np.bincount(_scale_to_8bit(block, low, high).ravel(), minlength=256)
    threshold = _otsu(counts)
    if threshold is None:
        return None
    moments = _Moments()
    for block in _blocks(plane):
        clipped = np.clip(np.nan_to_num(block.astype(np.float64), nan=low), low, high)
        moments.add(clipped - low, _scale_to_8bit(block, low, high) > threshold, None)
    return IntensityScale(low, high, threshold, moments.snr(low))


def _finite_quantiles(plane: np.ndarray, quantiles: tuple[float, float]) -> tuple[float, float] | None:
    """Compute two quantiles of the finite values of a plane, with one copy in memory; None if no value is finite."""
    # Both are copies, because `partition` changes the array.
    values = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane.flatten()
    if not values.size:
        return None
    values.partition(sorted({rank for each in quantiles for rank in _surrounding_ranks(values.size, each)[:2]}))

    def value_at(rank: int) -> float:
        return float(values[rank])

    return _quantile(value_at, values.size, quantiles[0]), _quantile(value_at, values.size, quantiles[1])


# ------------------------------------------------------------------------------- both


def _blocks(plane: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of a plane in blocks of about `_BLOCK` pixels, which limits the memory of conversions."""
    rows = max(1, _BLOCK // plane.shape[1])
    for start in range(0, plane.shape[0], rows):
        yield plane[start : start + rows]


def _surrounding_ranks(count: int, quantile: float) -> tuple[int, int, float]:
    """Return the two ranks in the sorted values around a quantile, and its fraction of the distance between them."""
    rank = (count - 1) * quantile
    below = math.floor(rank)
    return below, min(below + 1, count - 1), rank - below


def _quantile(value_at: Callable[[int], float], count: int, quantile: float) -> float:
    """Compute a quantile of `count` values; `value_at` returns the value at a rank in their sorted order."""
    below, above, fraction = _surrounding_ranks(count, quantile)
    # numpy.quantile of the two values gives the same bits as numpy.quantile of all values.
    return float(np.quantile(np.array([value_at(below), value_at(above)]), fraction))


def _scale_to_8bit(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale pixels of any shape from [low, high] to uint8, clipped and truncated; NaN becomes 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.clip((pixels.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    scaled *= 255.0
    return np.nan_to_num(scaled, copy=False, nan=0.0).astype(np.uint8)


def _otsu(counts: np.ndarray) -> int | None:
    """Return Otsu's threshold of an 8-bit image from its histogram (256,), or None if only one value occurs."""
    from skimage.filters import threshold_otsu

    if np.count_nonzero(counts) < 2:
        return None
    return int(threshold_otsu(hist=(counts, np.arange(256))))


class _Moments:
    """Sums over the foreground and the background of a field, for its signal-to-noise ratio.

    Intensities are added minus `low`, so that the variance of the background loses no digits.
    """

    def __init__(self) -> None:
        self._foreground_sum = self._foreground_count = 0.0
        self._background_sum = self._background_squares = self._background_count = 0.0

    def add(self, values: np.ndarray, foreground: np.ndarray, counts: np.ndarray | None) -> None:
        """Add intensities minus `low`.

        Args:
            values: Intensities, of any shape.
            foreground: Whether each intensity is foreground, bool of the same shape.
            counts: Number of pixels with each intensity; None counts each once.
        """
        weights = np.ones_like(values) if counts is None else counts.astype(np.float64)
        above, below = weights * foreground, weights * ~foreground
        self._foreground_sum += float(np.vdot(above, values))
        self._foreground_count += float(above.sum())
        self._background_count += float(below.sum())
        self._background_sum += float(np.vdot(below, values))
        self._background_squares += float(np.vdot(below * values, values))

    def snr(self, low: float) -> float | None:
        """Return the mean of the foreground divided by the standard deviation of the background, None if that is 0."""
        mean = self._background_sum / self._background_count
        variance = self._background_squares / self._background_count - mean * mean
        if not variance > 1e-12 * max(mean * mean, 1e-300):
            return None
        return (low + self._foreground_sum / self._foreground_count) / math.sqrt(variance)
