"""Held-out coordinates: how densely items lie between two pieces, on a direction that other items chose.

The centre of one piece is at -1, that of the other at +1, and the valley between them at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from stedfm_hf.discovery.clustering.kmeans import assign, piece_means, refine_centres

MIN_JACCARD = 0.5
"""Overlap of a piece of a fold with the piece of all items, below which the fold says nothing about the piece."""
MOST_SKIPPED = 2
"""Largest number of folds without a coordinate of a pair."""
SHRINKAGE = 0.2
"""Part of the mean variance that is added to every variance of the pooled covariance."""
HALF_WINDOW = 0.25
"""Half of the width in which the items of the valley and of the shoulders are counted."""
GAP_WIDTH = 3
"""Width of the whole gap between the shoulders, divided by that of the valley."""
_WINDOWS = ((0, HALF_WINDOW), (0, GAP_WIDTH * HALF_WINDOW), (-1, HALF_WINDOW), (1, HALF_WINDOW))
ITEMS_PER_PIECE = 2000
"""Largest number of items per piece that k-means is fitted to in a fold."""
PROFILE_EDGES = np.linspace(-1.5, 1.5, 31)
"""Edges of the bins of a profile of density."""
_GRID = np.linspace(-0.6, 0.6, 41, dtype=np.float32)
_EDGES = (-2.0, 2.0)
_BINS = 120
_BIN_CENTRES = (np.arange(_BINS, dtype=np.float32) + 0.5) * ((_EDGES[1] - _EDGES[0]) / _BINS) + _EDGES[0]


@dataclass(frozen=True, eq=False)
class Counts:
    """Weights of the held-out items of each of m pairs of pieces, by their coordinate t.

    Attributes:
        folds: Number of folds with a coordinate (m,).
        total: Weight of all items (m,).
        valley: Weight with abs(t) < 0.25 (m,).
        gap: Weight with abs(t) < 0.75 (m,).
        left: Weight with abs(t + 1) < 0.25 (m,).
        right: Weight with abs(t - 1) < 0.25 (m,).
        d_prime: Distance of the means of t below and above 0, divided by their pooled standard deviation (m,).
        profile: Weight per bin of `PROFILE_EDGES` (m, 30).
    """

    folds: np.ndarray
    total: np.ndarray
    valley: np.ndarray
    gap: np.ndarray
    left: np.ndarray
    right: np.ndarray
    d_prime: np.ndarray
    profile: np.ndarray


def fold_of_sources(sources: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each item (n,): all items of a source are in one fold."""
    return (rng.permutation(int(sources.max()) + 1) % folds)[sources]


def count_held_out(
    Y: np.ndarray,
    weights: np.ndarray,
    fold: np.ndarray,
    pieces: np.ndarray,
    pairs: np.ndarray,
    rng: np.random.Generator | None,
) -> Counts:
    """Project held-out items onto the line between the centres of two pieces, and count them.

    In each fold the training items choose the direction, by a shrunk linear discriminant, and the position of the
    valley, by a kernel density estimate; the held-out items are counted.

    Args:
        Y: Items (n, p), float32.
        weights: Weights (n,).
        fold: Fold of each item (n,).
        pieces: Piece of each item (n,), from 0.
        pairs: Pairs of pieces (m, 2).
        rng: Random generator. None: the training items keep their pieces, without Lloyd's iterations.

    Returns:
        The counts of each pair; all 0 if more than two folds have no coordinate of it.
    """
    k = int(pieces.max()) + 1
    centres, _ = piece_means(Y, weights, pieces, k)
    sums = _Sums(len(pairs))
    for number in range(int(fold.max()) + 1):
        held = fold == number
        train = _Part(Y[~held], weights[~held], pieces[~held])
        if rng is None:
            start, _ = piece_means(train.Y, train.weights, train.pieces, k)
        else:
            start = refine_centres(train.Y, train.weights, centres, rng, max_items=ITEMS_PER_PIECE * k)
        nearest = assign(train.Y, start)
        name, known = _matched(nearest, train.pieces, train.weights, k)
        train = _Part(train.Y, train.weights, name[nearest])
        test = _Part(Y[held], weights[held], name[assign(Y[held], start)])
        rows = np.flatnonzero(known[pairs].all(axis=1))
        if len(rows):
            _count_fold(train, test, pairs[rows], rows, k, sums)
    return sums.counts(int(fold.max()) + 1 - MOST_SKIPPED)


@dataclass(frozen=True, eq=False)
class _Part:
    """Items of a fold: coordinates (n, p), weights (n,) and pieces (n,)."""

    Y: np.ndarray
    weights: np.ndarray
    pieces: np.ndarray


class _Sums:
    """Sums over the folds."""

    def __init__(self, pairs: int) -> None:
        self.folds = np.zeros(pairs, int)
        self.windows = np.zeros((len(_WINDOWS), pairs))
        self.profile = np.zeros((pairs, len(PROFILE_EDGES) - 1))
        self.moments = np.zeros((3, pairs, 2))
        """Weight, sum and sum of squares of t, below and above 0."""

    def add(self, t: np.ndarray, pair: np.ndarray, weights: np.ndarray) -> None:
        """Add coordinates (c,) of items, with the number of their pair (c,) and their weight (c,)."""
        for window, (centre, half_width) in enumerate(_WINDOWS):
            inside = np.flatnonzero(np.abs(t - centre) < half_width)
            self.windows[window] += np.bincount(pair[inside], weights[inside], len(self.folds))
        side = 2 * pair + (t >= 0)
        for power, each in enumerate((weights, weights * t, weights * t * t)):
            self.moments[power] += np.bincount(side, each, 2 * len(self.folds)).reshape(-1, 2)
        edges = (PROFILE_EDGES[0], PROFILE_EDGES[-1])
        self.profile += _histograms(t, pair, weights, edges, self.profile.shape)

    def counts(self, least_folds: int) -> Counts:
        """Return the counts; those of pairs with fewer folds are 0."""
        kept = self.folds >= least_folds
        n, first, second = self.moments
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = first / n
            within = (second - n * mean**2).sum(axis=1) / n.sum(axis=1)
            d_prime = (mean[:, 1] - mean[:, 0]) / np.sqrt(np.maximum(within, 1e-12))
        valley, gap, left, right = self.windows * kept
        d_prime = np.where(kept & np.isfinite(d_prime), d_prime, 0.0)
        return Counts(
            self.folds, n.sum(axis=1) * kept, valley, gap, left, right, d_prime, self.profile * kept[:, None]
        )


def _matched(found: np.ndarray, pieces: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Match pieces of a fold to pieces of all items; return their names (k,), and which are found again (k,)."""
    overlap = np.bincount(found * k + pieces, weights, k * k).reshape(k, k)
    union = overlap.sum(axis=1)[:, None] + overlap.sum(axis=0)[None] - overlap
    jaccard = overlap / np.maximum(union, 1e-12)
    rows, columns = linear_sum_assignment(-overlap)
    known = np.zeros(k, bool)
    known[columns] = jaccard[rows, columns] >= MIN_JACCARD
    return columns, known


def _count_fold(train: _Part, test: _Part, pairs: np.ndarray, rows: np.ndarray, k: int, sums: _Sums) -> None:
    """Add the coordinates of the held-out items of one fold; `rows` are the numbers of the pairs (m, 2)."""
    p = train.Y.shape[1]
    centres, weight = piece_means(train.Y, train.weights, train.pieces, k)
    scatter = np.empty((k, p, p), np.float32)
    for piece in range(k):
        inside = train.pieces == piece
        away = train.Y[inside] - centres[piece]
        scatter[piece] = (away * train.weights[inside, None]).T @ away
    u, v = pairs.T
    pooled = (scatter[u] + scatter[v]).astype(np.float64) / (weight[u] + weight[v])[:, None, None]
    ridge = SHRINKAGE * np.trace(pooled, axis1=1, axis2=2) / p + 1e-12
    pooled[:, np.arange(p), np.arange(p)] += ridge[:, None]
    apart = centres[v] - centres[u]
    direction = np.linalg.solve(pooled, apart[:, :, None])[:, :, 0]
    half = np.maximum((direction * apart).sum(axis=1) / 2, 1e-12)
    middle = ((direction * (centres[u] + centres[v])).sum(axis=1) / 2 / half).astype(np.float32)
    direction = (direction / half[:, None]).astype(np.float32)
    variance = [_quadratic(direction, scatter[side]) / weight[side] for side in (u, v)]
    bandwidth = np.maximum(0.05, 0.9 * np.sqrt(np.minimum(*variance)) * (weight[u] + weight[v]) ** -0.2)
    histogram = _histograms(*_projected(train, pairs, direction, middle), _EDGES, (len(pairs), _BINS))
    valley = _minimum(histogram, bandwidth)
    t, pair, weights = _projected(test, pairs, direction, middle)
    t -= valley[pair]
    # Stretch each side linearly, so that the centres stay at -1 and +1.
    t /= 1 - np.sign(t) * valley[pair]
    sums.folds[rows] += 1
    sums.add(t, rows[pair], weights)


def _projected(
    part: _Part, pairs: np.ndarray, direction: np.ndarray, middle: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the coordinates (c,) of the items of both pieces of each pair, the number of the pair, and the weight."""
    found = []
    for piece in np.unique(pairs):
        mine, inside = np.flatnonzero((pairs == piece).any(axis=1)), np.flatnonzero(part.pieces == piece)
        t = part.Y[inside] @ direction[mine].T - middle[mine]
        found.append((t.ravel(), np.tile(mine, len(inside)), np.repeat(part.weights[inside], len(mine))))
    t, pair, weights = (np.concatenate(each) for each in zip(*found, strict=True))
    return t, pair, weights


def _quadratic(direction: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the squared length (m,) of directions (m, p) in the metrics (m, p, p)."""
    squared = ((matrix @ direction[:, :, None])[:, :, 0] * direction).sum(axis=1)
    return np.maximum(squared, 0)


def _histograms(
    t: np.ndarray, pair: np.ndarray, weights: np.ndarray, edges: tuple[float, float], shape: tuple[int, int]
) -> np.ndarray:
    """Return the weight per pair and bin, of this shape, of the coordinates (c,) between the edges."""
    pairs, bins = shape
    place = np.floor((t - edges[0]) * (bins / (edges[1] - edges[0]))).astype(np.intp)
    inside = np.flatnonzero((place >= 0) & (place < bins))
    return np.bincount(pair[inside] * bins + place[inside], weights[inside], pairs * bins).reshape(shape)


def _minimum(histogram: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    """Return the coordinate (m,) of the minimum of a kernel density estimate between the centres.

    Of the positions within 5 % of the minimum, it is the one nearest to 0.
    """
    distance = (_GRID[:, None] - _BIN_CENTRES) ** 2
    kernel = np.exp(distance / (-2 * bandwidth[:, None, None] ** 2).astype(np.float32))
    density = (kernel @ histogram[:, :, None].astype(np.float32))[:, :, 0]
    low = density <= 1.05 * density.min(axis=1, keepdims=True)
    return _GRID[np.where(low, np.abs(_GRID), np.inf).argmin(axis=1)]
