"""Items to cluster: checks, z-score, and the weight of every item.

Crops of one source image are not independent, and copies of a crop carry no further evidence. Every source therefore
weighs 1 in the counts of a node: each of its n crops there weighs 1/n. The sum of such weights in a region has at most
the variance of a count of independent sources, so that a binomial test of the rounded sum is conservative. Compared
with one random crop per source, it has the same expectation and less variance, and needs no random choice. Identical
rows are handled in the same way: without sources, copies are one source; with sources, m sources that have the same
row share the weight of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Items:
    """Items of a node.

    Attributes:
        X: Features (n, d), float32.
        sources: Number of the source of each item (n,), from 0.
        copies: Number of the distinct row of each item (n,), from 0.
    """

    X: np.ndarray
    sources: np.ndarray
    copies: np.ndarray

    def __len__(self) -> int:
        return len(self.X)

    def take(self, rows: np.ndarray) -> Items:
        """Return some of the items, with sources and rows numbered from 0 again."""
        return Items(self.X[rows], _numbered(self.sources[rows]), _numbered(self.copies[rows]))

    @property
    def n_sources(self) -> int:
        """Number of different sources."""
        return int(self.sources.max(initial=-1)) + 1

    def weights(self) -> np.ndarray:
        """Return the weight of each item (n,): a source, and a set of identical rows, weighs 1 at most."""
        weights = 1 / np.bincount(self.sources)[self.sources]
        pairs = np.unique(np.stack([self.copies, self.sources]), axis=1)
        return (weights / np.bincount(pairs[0])[self.copies]).astype(np.float32)


def prepare(X: np.ndarray, sources: Sequence[str] | np.ndarray | None = None, *, standardise: bool = True) -> Items:
    """Check and standardise features.

    Args:
        X: Features (n, d), float or int.
        sources: Source image of each item (n,), any type that can be sorted. None: every distinct row is a source.
        standardise: Whether to divide the centred columns by their standard deviation. Constant columns become 0.

    Returns:
        The items, in float32.

    Raises:
        ValueError: If X is not a matrix, a value is not finite, or the number of sources differs from that of rows.

    Example:
        >>> prepare(np.array([[0, 7], [2, 7]])).X.tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(f"features must be a matrix (items, columns), not of shape {X.shape}")
    if sources is not None and len(sources) != len(X):
        raise ValueError(f"{len(sources)} sources do not match {len(X)} items")
    made = np.array(X, np.float32, order="C")
    wrong = int((~np.isfinite(made).all(axis=1)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {len(X)} rows hold NaN or infinite values; remove or recompute them")
    copies = _numbered(made.view(np.dtype((np.void, made.itemsize * made.shape[1])))[:, 0])
    if standardise and len(made):
        mean, deviation = made.mean(axis=0, dtype=np.float64), made.std(axis=0, dtype=np.float64)
        # Rounding leaves a tiny standard deviation in a constant column.
        varies = deviation > 1e-6 * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
        made -= mean.astype(np.float32)
        made *= np.where(varies, 1 / np.where(varies, deviation, 1), 0).astype(np.float32)
    return Items(made, copies if sources is None else _numbered(np.asarray(sources)), copies)


def _numbered(values: np.ndarray) -> np.ndarray:
    """Return the number of each value among the distinct values."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)
