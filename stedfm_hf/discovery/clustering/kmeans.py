"""K-means in float32, with weights and a bounded number of items to fit to."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

ITERATIONS = 100
"""Largest number of Lloyd's iterations."""


def fit_centres(
    Y: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator, *, starts: int = 1, max_items: int
) -> np.ndarray:
    """Fit k-means with k-means++ starts, and return the centres.

    Args:
        Y: Items (n, p), float32.
        weights: Weights of the items (n,).
        k: Number of pieces.
        rng: Random generator.
        starts: Number of starts, of which the best is taken.
        max_items: Largest number of items; more are sampled without replacement.

    Returns:
        Centres (min(k, n), p), float32.
    """
    Y, weights = _sampled(Y, weights, rng, max_items)
    fitted = KMeans(min(k, len(Y)), n_init=starts, max_iter=ITERATIONS, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        # Fewer distinct items than pieces: groups of a few sources are rejected later.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(Y, sample_weight=weights)
    return fitted.cluster_centers_


def refine_centres(
    Y: np.ndarray, weights: np.ndarray, centres: np.ndarray, rng: np.random.Generator, *, max_items: int
) -> np.ndarray:
    """Run Lloyd's iterations from given centres.

    `KMeans` with given centres does the same, but needs ten times as long for a few hundred items.

    Args:
        Y: Items (n, p), float32.
        weights: Weights of the items (n,).
        centres: Centres (k, p) to start from.
        rng: Random generator.
        max_items: Largest number of items; more are sampled without replacement.

    Returns:
        Centres (k, p), float32. A centre without items stays where it is.
    """
    Y, weights = _sampled(Y, weights, rng, max_items)
    pieces = assign(Y, centres)
    for _ in range(ITERATIONS):
        means, weight = piece_means(Y, weights, pieces, len(centres))
        centres = np.where(weight[:, None] > 0, means, centres)
        before, pieces = pieces, assign(Y, centres)
        if (pieces == before).all():
            break
    return centres


def assign(Y: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the nearest centre of each item (n,)."""
    return ((centres**2).sum(axis=1) / 2 - Y @ centres.T).argmin(axis=1)


def piece_means(Y: np.ndarray, weights: np.ndarray, pieces: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean (k, p) of each piece, and its weight (k,)."""
    member = np.zeros((k, len(Y)), np.float32)
    member[pieces, np.arange(len(Y))] = weights
    weight = member.sum(axis=1)
    return member @ Y / np.maximum(weight, 1e-12)[:, None], weight


def _sampled(Y: np.ndarray, weights: np.ndarray, rng: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample items without replacement if there are more than `most`."""
    if len(Y) <= most:
        return Y, weights
    rows = np.sort(rng.choice(len(Y), most, replace=False, shuffle=False))
    return Y[rows], weights[rows]
