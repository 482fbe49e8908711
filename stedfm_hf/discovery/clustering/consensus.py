"""Consensus over resamples: labels, and how stable they are."""

from __future__ import annotations

import numpy as np

from stedfm_hf.discovery.clustering.kmeans import assign, fit_centres


def resampled_sources(sources: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Sample sources without replacement, and return the numbers of their items.

    Args:
        sources: Number of the source of each item (n,), from 0.
        fraction: Fraction of the sources.
        rng: Random generator.
    """
    count = int(sources.max()) + 1
    chosen = np.zeros(count, bool)
    chosen[rng.choice(count, max(1, int(fraction * count)), replace=False, shuffle=False)] = True
    return np.flatnonzero(chosen[sources])


def consensus_labels(
    Y: np.ndarray,
    weights: np.ndarray,
    sources: np.ndarray,
    groups: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    resamples: int,
    fraction: float,
    max_items: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut resamples into k pieces and let each item vote for a group.

    In each resample, every piece joins the group that it overlaps most, and every item of the resample votes for the
    group of its piece.

    Args:
        Y: Items (n, p), float32.
        weights: Weights (n,).
        sources: Number of the source of each item (n,), from 0; a resample takes a source whole or not at all.
        groups: Proposed group of each item (n,).
        k: Number of pieces.
        rng: Random generator.
        resamples: Number of resamples.
        fraction: Fraction of the sources in a resample.
        max_items: Largest number of items that k-means is fitted to.

    Returns:
        Group of each item by majority (n,), and its stability (n,): the fraction of the item's resamples that vote for
        this group. An item in no resample keeps its proposed group, with stability NaN.
    """
    count = int(groups.max()) + 1
    votes = np.zeros((len(Y), count), np.int32)
    for _ in range(resamples):
        rows = resampled_sources(sources, fraction, rng)
        part = Y[rows]
        pieces = assign(part, fit_centres(part, weights[rows], k, rng, max_items=max_items))
        overlap = np.bincount(pieces * count + groups[rows], weights[rows], k * count).reshape(k, count)
        votes[rows, overlap.argmax(axis=1)[pieces]] += 1
    total = votes.sum(axis=1)
    labels = np.where(total, votes.argmax(axis=1), groups)
    with np.errstate(invalid="ignore"):
        return labels, np.where(total, votes.max(axis=1) / total, np.nan)


def consensus_matrix(
    Y: np.ndarray, k: int, rng: np.random.Generator, *, resamples: int = 30, fraction: float = 0.8, starts: int = 1
) -> np.ndarray:
    """Compute how often two items are in one piece, for the resamples that hold both.

    Args:
        Y: Items (n, p), float32; a few thousand at most, because the matrix is dense.
        k: Number of pieces.
        rng: Random generator.
        resamples: Number of resamples.
        fraction: Fraction of the items in a resample.
        starts: Number of k-means++ starts.

    Returns:
        Consensus (n, n) in [0, 1], float32. The diagonal is 1; pairs in no common resample are NaN.

    Source:
        Monti et al., Machine Learning 52 (2003).

    Example:
        >>> Y = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]], np.float32)
        >>> M = consensus_matrix(Y, 2, np.random.default_rng(0))
        >>> float(M[0, 1]), float(M[0, 3])
        (1.0, 0.0)
    """
    together = np.zeros((len(Y), len(Y)), np.float32)
    both = np.zeros_like(together)
    items = np.arange(len(Y))
    for _ in range(resamples):
        rows = resampled_sources(items, fraction, rng)
        part = Y[rows]
        pieces = assign(part, fit_centres(part, np.ones(len(rows)), k, rng, starts=starts, max_items=len(rows)))
        member = np.zeros((len(Y), k), np.float32)
        member[rows, pieces] = 1
        together += member @ member.T
        present = member.sum(axis=1)
        both += present[:, None] * present
    with np.errstate(invalid="ignore"):
        together /= both
    np.fill_diagonal(together, 1)
    return together
