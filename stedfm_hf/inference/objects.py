"""Objects in a mask of any size: connected components found band by band, and their measures.

Pixels are connected by edges and corners (8 neighbours). Sums are computed for the pieces in a band and added up over
the pieces of an object, so that memory depends on the number of pieces and not on the size of the field.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage, sparse
from scipy.spatial import ConvexHull

NEIGHBOURS = np.ones((3, 3), dtype=bool)
MOST_RUNS = 5_000_000
"""Largest number of pixel runs for which the solidity is computed; more would dominate the time of the command."""


class GrowingColumns:
    """Growing array of columns (rows, n) in one block of memory.

    Many small arrays between large temporary ones would fragment the memory: a field of 20,000 rows left 2 GiB
    unused.

    Example:
        >>> held = GrowingColumns(2, np.int64)
        >>> for n in (1, 2):
        ...     held.add(np.full((2, n), n))
        >>> held.values.tolist()
        [[1, 2, 2], [1, 2, 2]]
    """

    def __init__(self, rows: int, dtype: type[np.generic]) -> None:
        self._held, self._count = np.empty((rows, 2**14), dtype), 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> np.ndarray:
        """All columns (rows, n), as a view until columns are added."""
        return self._held[:, : self._count]

    def add(self, columns: np.ndarray) -> None:
        """Add columns (rows, m)."""
        end = self._count + columns.shape[1]
        if end > self._held.shape[1]:
            larger = np.empty((len(self._held), max(end, 3 * self._held.shape[1] // 2)), self._held.dtype)
            larger[:, : self._count] = self.values
            self._held = larger
        self._held[:, self._count : end] = columns
        self._count = end


@dataclass
class Components:
    """Connected components of one class.

    Example:
        >>> found = Components()
        >>> for top in (0, 2):
        ...     band = np.array([[1, 0, 0, 1], [1, 0, 0, 0]], dtype=bool)
        ...     found.add(top, band, band.astype(np.float32), np.full((1, 2, 4), 7.0))
        >>> found.finish()["area_px"].tolist()
        [4, 1, 1]
    """

    _names: list[str] = field(default_factory=list)
    _sums: GrowingColumns | None = None
    _joined: GrowingColumns = field(default_factory=lambda: GrowingColumns(2, np.int64))
    _offsets: dict[int, int] = field(default_factory=dict)
    _last: np.ndarray | None = None
    _count: int = 0
    _numbers: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))

    def add(self, top: int, mask: np.ndarray, probability: np.ndarray, pixels: np.ndarray) -> None:
        """Add the next band.

        Args:
            top: Number of its first row.
            mask: Mask (n, W) bool.
            probability: Probability (n, W).
            pixels: Pixels of the file (C, n, W); non-finite values are ignored.
        """
        labels, count = ndimage.label(mask, NEIGHBOURS)
        self._offsets[top] = self._count
        first, last = (np.where(row > 0, row.astype(np.int64) + self._count, 0) for row in (labels[0], labels[-1]))
        if self._last is not None:
            self._join(self._last, first)
        self._last = last
        self._count += count
        positions = np.flatnonzero(mask)
        piece = labels.ravel()[positions] - 1
        y, x = (axis.astype(np.float64) for axis in np.divmod(positions, mask.shape[1]))
        y += top
        # bincount counts the pixels where there are no values: the area.
        summands = {"area": None, "y": y, "x": x, "yy": y * y, "xx": x * x, "yx": y * x}
        summands["probability"] = probability.ravel()[positions].astype(np.float64)
        sums = {name: np.bincount(piece, values, count) for name, values in summands.items()}
        sums |= {name: _extreme(np.fmin, piece, values, count) for name, values in (("top", y), ("left", x))}
        sums |= {name: _extreme(np.fmax, piece, values, count) for name, values in (("bottom", y), ("right", x))}
        for channel, plane in enumerate(pixels):
            values = plane.ravel()[positions].astype(np.float64)
            is_finite = np.isfinite(values)
            sums[f"known_{channel}"] = np.bincount(piece[is_finite], None, count)
            sums[f"intensity_{channel}"] = np.bincount(piece[is_finite], values[is_finite], count)
            sums[f"highest_{channel}"] = _extreme(np.fmax, piece[is_finite], values[is_finite], count)
        if self._sums is None:
            self._names, self._sums = list(sums), GrowingColumns(len(sums), np.float64)
        self._sums.add(np.stack(list(sums.values())))

    def _join(self, above: np.ndarray, below: np.ndarray) -> None:
        """Join pieces that touch across the border of two bands; both arguments are (W,), 0 for no piece."""
        width = len(above)
        for shift in (-1, 0, 1):
            upper, lower = above[max(0, shift) : width + min(0, shift)], below[max(0, -shift) : width - max(0, shift)]
            both = (upper > 0) & (lower > 0)
            self._joined.add(np.unique(np.stack([upper[both], lower[both]]), axis=1))

    def finish(self, min_area_px: int = 1) -> dict[str, np.ndarray]:
        """Combine the pieces, and number the objects from 1 in raster order.

        Args:
            min_area_px: Area of the smallest object, in pixels.

        Returns:
            Column for each measure: `number`, `area_px`, `centroid_y_px`, `centroid_x_px`, `top_px`, `left_px`,
            `bottom_px`, `right_px` (excluded), `equivalent_diameter_px`, `eccentricity` (as in scikit-image),
            `mean_probability`, and `mean_intensity_<c>`, `max_intensity_<c>` for every channel, NaN if no pixel is
            finite.
        """
        pairs = self._joined.values - 1
        graph = sparse.coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), (self._count, self._count))
        groups = (
            sparse.csgraph.connected_components(graph, directed=False)[1] if self._count else np.empty(0, np.int64)
        )
        # Components are renumbered by their first piece, which gives raster order.
        _, first_piece, inverse = np.unique(groups, return_index=True, return_inverse=True)
        rank = np.empty(len(first_piece), np.int64)
        rank[np.argsort(first_piece)] = np.arange(len(first_piece))
        object_of_piece = rank[inverse]
        total: dict[str, np.ndarray] = defaultdict(lambda: np.empty(0))
        for name, values in zip(self._names, [] if self._sums is None else self._sums.values, strict=True):
            if name in ("top", "left"):
                total[name] = _extreme(np.fmin, object_of_piece, values, len(first_piece))
            elif name in ("bottom", "right") or name.startswith("highest"):
                total[name] = _extreme(np.fmax, object_of_piece, values, len(first_piece))
            else:
                total[name] = np.bincount(object_of_piece, values, len(first_piece))
        self._names, self._sums = [], None
        is_large = total["area"] >= min_area_px
        number = np.where(is_large, np.cumsum(is_large), 0)
        self._numbers = np.concatenate([[0], number[object_of_piece]]) if self._count else np.zeros(1, np.int64)
        return _measures({name: values[is_large] for name, values in total.items()}, number[is_large])

    def numbers(self, top: int, mask: np.ndarray) -> np.ndarray:
        """Return the numbers of the objects at the pixels of a band (n, W); 0 is background."""
        labels, _ = ndimage.label(mask, NEIGHBOURS)
        return self._numbers[np.where(labels > 0, labels.astype(np.int64) + self._offsets[top], 0)]


def _extreme(which: np.ufunc, piece: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Return the smallest or largest value of every piece; NaN if it has none."""
    extremes = np.full(count, np.inf if which is np.fmin else -np.inf)
    which.at(extremes, piece, values)
    extremes[np.isinf(extremes)] = np.nan
    return extremes


def _measures(total: dict[str, np.ndarray], number: np.ndarray) -> dict[str, np.ndarray]:
    """Convert the sums over the pixels of each object to its measures.

    The eccentricity is that of the ellipse with the same second moments, whose squared half axes are proportional to
    `long` and `short`.

    Args:
        total: Sums, (objects,) each: `area`, `y`, `x`, `yy`, `xx`, `yx`, `probability`, and for each channel c the
            number of finite pixels `known_c` and their sum `intensity_c`; and the extremes `top`, `left`, `bottom`,
            `right` and `highest_c`.
        number: Number of each object, (objects,).
    """
    if not len(number):
        total = defaultdict(lambda: np.empty(0), total)
    area = total["area"]
    y, x = total["y"] / area, total["x"] / area
    yy, xx, yx = total["yy"] / area - y * y, total["xx"] / area - x * x, total["yx"] / area - y * x
    middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    long, short = middle + half, np.maximum(middle - half, 0)
    # Sums over a large field leave rounding errors of this size: a single pixel has no length at all.
    long = np.where(long < 1e-6, 0, long)
    measures = {
        "number": number,
        "area_px": area.astype(np.int64),
        "centroid_y_px": y,
        "centroid_x_px": x,
        "top_px": total["top"].astype(np.int64),
        "left_px": total["left"].astype(np.int64),
        "bottom_px": total["bottom"].astype(np.int64) + 1,
        "right_px": total["right"].astype(np.int64) + 1,
        "equivalent_diameter_px": np.sqrt(4 * area / np.pi),
        "eccentricity": np.sqrt(np.where(long > 0, 1 - short / np.where(long > 0, long, 1), 0)),
        "mean_probability": total["probability"] / area,
    }
    for name in [name for name in total if name.startswith("known_")]:
        channel = name.removeprefix("known_")
        known = np.where(total[name] > 0, total[name], np.nan)
        measures[f"mean_intensity_{channel}"] = total[f"intensity_{channel}"] / known
        measures[f"max_intensity_{channel}"] = total[f"highest_{channel}"]
    return measures


@dataclass
class Hulls:
    """Convex hulls of numbered objects, computed from the ends of their rows."""

    _runs: GrowingColumns = field(default_factory=lambda: GrowingColumns(4, np.int32))
    _too_many: bool = False

    def add(self, top: int, numbers: np.ndarray) -> None:
        """Add the next band of object numbers (n, W)."""
        if self._too_many:
            return
        edges = np.pad(numbers, ((0, 0), (1, 1)))
        change = edges[:, 1:] != edges[:, :-1]
        y, x = np.nonzero(change & (edges[:, 1:] > 0))
        _, end = np.nonzero(change & (edges[:, :-1] > 0))
        if len(self._runs) + len(y) > MOST_RUNS:
            self._runs, self._too_many = GrowingColumns(4, np.int32), True
        else:
            self._runs.add(np.stack([numbers[y, x], y + top, x, end]))

    def solidity(self, area: np.ndarray) -> np.ndarray:
        """Compute the area of each object divided by that of its convex hull; 1 for a rectangle.

        Args:
            area: Areas of the objects 1, 2, ..., in pixels.

        Returns:
            Solidity of each object; NaN if there are too many pixel runs.
        """
        if self._too_many or not len(area):
            return np.full(len(area), np.nan)
        runs = self._runs.values
        runs = runs[:, np.argsort(runs[0], kind="stable")]
        run_offsets = np.searchsorted(runs[0], np.arange(1, len(area) + 2))
        hulls = area.astype(np.float64)
        for number, (begin, end) in enumerate(zip(run_offsets[:-1], run_offsets[1:], strict=True)):
            _, y, left, right = runs[:, begin:end]
            # Most objects of a noisy mask are specks that fill their box; a hull takes a hundred times as long.
            if (y[-1] + 1 - y[0]) * (right.max() - left.min()) > area[number]:
                corners = np.concatenate([[y, left], [y, right], [y + 1, left], [y + 1, right]], axis=1)
                hulls[number] = ConvexHull(corners.T).volume
        return area / hulls
