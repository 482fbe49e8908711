"""Scores of the neighbours of each image: graph connectivity, kBET and LISI.

Neighbours are exact, by cosine similarity; each row is its own first neighbour. For the same neighbours, the scores
equal those of scib-metrics, except that `kbet_per_label` uses the nearest neighbours within the class, where
scib-metrics uses diffusion distances.

Source:
    Luecken et al., Benchmarking atlas-level data integration in single-cell genomics, 2022 (scaling, as in scib).
    Büttner et al., A test metric for assessing single-cell RNA-seq batch correction, 2019 (kBET).
    Korsunsky et al., Fast, sensitive and accurate integration of single-cell data with Harmony, 2019 (LISI).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2

from stedfm_hf.metrics.neighbours import nearest


class UndefinedScoreError(ValueError):
    """Reason why a score is undefined for the data, for example because there is only one batch."""


def neighbour_graph(
    embeddings: np.ndarray, k: int = 25, *, device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest neighbours of each embedding, the first of which is the embedding.

    Args:
        embeddings: Embeddings (n, d).
        k: Number of neighbours, with the row itself; at most n.
        device: Device of the search.

    Returns:
        Rows (n, k) int64, and their cosine distances 1 - similarity (n, k).

    Raises:
        ValueError: If k is below 2, or a value is not finite.

    Example:
        >>> rows, distances = neighbour_graph(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), 2)
        >>> rows.tolist(), distances.round(2).tolist()
        ([[0, 1], [1, 0], [2, 1]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.9]])
    """
    if k < 2:
        raise ValueError(f"k counts the row itself and must be 2 or more, not {k}")
    n = len(embeddings)
    own = np.arange(n)
    rows, similarity = nearest(
        embeddings, embeddings, k=min(k, n) - 1, gallery_sources=own, query_sources=own, device=device
    )
    return (
        np.concatenate([own[:, None], rows], axis=1),
        np.concatenate([np.zeros((n, 1)), np.maximum(1.0 - similarity, 0.0)], axis=1),
    )


def graph_connectivity(
    rows: np.ndarray, labels: np.ndarray, *, connection: Literal["strong", "weak"] = "strong"
) -> float:
    """Compute how far the images of each class are connected: the fraction in the largest component of its graph.

    Args:
        rows: Neighbours of each row (n, k); edges point from a row to its neighbours.
        labels: Class of each row (n,).
        connection: "strong" follows edges in their direction, as scib-metrics does; "weak" in both directions, as
            scib does with the symmetric graph of scanpy.

    Returns:
        Mean over classes, in (0, 1].

    Example:
        >>> graph_connectivity(np.array([[0, 1], [1, 0], [2, 3], [3, 2]]), np.array([0, 0, 0, 0]))
        0.5
    """
    n, k = rows.shape
    graph = csr_array((np.ones(n * k), rows.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    fractions = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        components = connected_components(graph[members][:, members], directed=True, connection=connection)[1]
        fractions.append(np.bincount(components).max() / len(members))
    return float(np.mean(fractions))


def kbet(rows: np.ndarray, batches: np.ndarray, *, level: float = 0.05) -> float:
    """Compute the acceptance rate of kBET: are the batches of the neighbours distributed like those of all images?

    For each image, a chi-squared test compares the batches of its neighbours with those of all images.

    Args:
        rows: Neighbours of each row, with the row itself (n, k).
        batches: Batch of each row (n,).
        level: P-value below which a neighbourhood is rejected.

    Returns:
        Fraction of neighbourhoods that are not rejected, in [0, 1].

    Raises:
        UndefinedScoreError: If there is only one batch.

    Example:
        >>> kbet(np.tile(np.arange(20), (20, 1)), np.repeat(["a", "b"], 10))
        1.0
    """
    names, numbers = np.unique(batches, return_inverse=True)
    need_two(names, "batch")
    n, k = rows.shape
    cells = (np.arange(n)[:, None] * len(names) + numbers[rows]).ravel()
    observed = np.bincount(cells, minlength=n * len(names)).reshape(n, len(names))
    expected = k * np.bincount(numbers) / n
    statistic = ((observed - expected) ** 2 / expected).sum(axis=1)
    return float((chi2.sf(statistic, len(names) - 1) >= level).mean())


def kbet_per_label(
    embeddings: np.ndarray,
    labels: np.ndarray,
    batches: np.ndarray,
    *,
    level: float = 0.05,
    device: str | torch.device = "cpu",
) -> float:
    """Compute kBET within each class, so that different classes in the batches do not count as a batch effect.

    The neighbourhood is a quarter of the mean batch size of the class, at least 10 and at most 70 images, as in scib.
    Neighbours are those within the class. Classes with fewer than 10 images, or in one batch only, are left out. No
    class counts as 0 because its score cannot be computed; scib-metrics does so if the graph of a class falls apart.

    Args:
        embeddings: Embeddings (n, d).
        labels: Class of each embedding (n,).
        batches: Batch of each embedding (n,).
        level: P-value below which a neighbourhood is rejected.
        device: Device of the neighbour search.

    Returns:
        Mean acceptance rate over classes, in [0, 1].

    Raises:
        UndefinedScoreError: If no class has 10 images and two batches.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> kbet_per_label(rng.normal(size=(100, 4)), np.zeros(100), np.arange(100) % 2) > 0.9
        True
    """
    rates = []
    for label in np.unique(labels):
        members = labels == label
        counts = np.unique(batches[members], return_counts=True)[1]
        if counts.sum() >= 10 and len(counts) > 1:
            k = min(70, max(10, int(counts.mean() // 4)))
            rows, _ = neighbour_graph(embeddings[members], k, device=device)
            rates.append(kbet(rows, batches[members], level=level))
    if not rates:
        raise UndefinedScoreError("no class has 10 images and two batches")
    return float(np.mean(rates))


def lisi(rows: np.ndarray, distances: np.ndarray, names: np.ndarray, *, perplexity: float | None = None) -> np.ndarray:
    """Compute the local inverse Simpson index: the effective number of batches, or classes, around each image.

    Neighbours are weighted by exp(-beta distance), with the beta for which the weights have the given perplexity.

    Args:
        rows: Neighbours of each row, with the row itself, which does not count (n, k).
        distances: Their distances (n, k), of any unit.
        names: Batch or class of each row (n,).
        perplexity: Effective number of neighbours; None uses k // 3.

    Returns:
        Effective number of batches or classes (n,), from 1 to the number of names.

    Raises:
        UndefinedScoreError: If there are too few neighbours for the perplexity.

    Example:
        >>> rows = np.tile(np.arange(8), (8, 1))
        >>> lisi(rows, np.ones((8, 8)), np.array([0, 0, 0, 0, 1, 1, 1, 1])).round(2).tolist()
        [1.96, 1.96, 1.96, 1.96, 1.96, 1.96, 1.96, 1.96]
    """
    n, k = rows.shape
    target = perplexity or k // 3
    if not 1 < target < k - 1:
        raise UndefinedScoreError(f"{k - 1} neighbours are too few for a perplexity of {target:g}")
    other = rows != np.arange(n)[:, None]
    relative = distances - np.min(distances, axis=1, where=other, initial=np.inf, keepdims=True)
    scale = np.mean(relative, axis=1, where=other, keepdims=True)
    relative = np.where(other, relative / np.where(scale > 0, scale, 1.0), np.inf)
    # Bisection: the entropy of the weights falls with beta.
    low, high = np.full((n, 1), -40.0), np.full((n, 1), 40.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = _entropy(_weights(relative, middle)) > np.log(target)
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    weights = _weights(relative, (low + high) / 2)
    numbers = np.unique(names, return_inverse=True)[1]
    cells = (np.arange(n)[:, None] * (numbers.max() + 1) + numbers[rows]).ravel()
    sums = np.bincount(cells, weights.ravel(), n * (numbers.max() + 1)).reshape(n, -1)
    return 1 / (sums**2).sum(axis=1)


def _weights(relative: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Return normalised weights exp(-2^exponent relative) of each row (n, k)."""
    with np.errstate(invalid="ignore"):
        weights = np.exp(-(2.0**exponent) * relative)
    return weights / weights.sum(axis=1, keepdims=True)


def _entropy(weights: np.ndarray) -> np.ndarray:
    """Return the entropy of the weights of each row (n, 1)."""
    return -(weights * np.log(np.where(weights > 0, weights, 1.0))).sum(axis=1, keepdims=True)


def lisi_batch(
    rows: np.ndarray, distances: np.ndarray, batches: np.ndarray, *, perplexity: float | None = None
) -> float:
    """Compute the scaled LISI of batches (iLISI): 0 if every image has neighbours of one batch only, 1 if all mix.

    Args:
        rows: Neighbours of each row, with the row itself (n, k).
        distances: Their distances (n, k).
        batches: Batch of each row (n,).
        perplexity: Effective number of neighbours; None uses k // 3.

    Returns:
        (median LISI - 1) / (batches - 1).

    Raises:
        UndefinedScoreError: If there is only one batch, or there are too few neighbours.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> lisi_batch(*neighbour_graph(rng.normal(size=(100, 4))), np.arange(100) % 2) > 0.7
        True
    """
    names = np.unique(batches)
    need_two(names, "batch")
    return float((np.median(lisi(rows, distances, batches, perplexity=perplexity)) - 1) / (len(names) - 1))


def lisi_label(
    rows: np.ndarray, distances: np.ndarray, labels: np.ndarray, *, perplexity: float | None = None
) -> float:
    """Compute the scaled LISI of classes (cLISI): 1 if every image has neighbours of one class only, 0 if all mix.

    Args:
        rows: Neighbours of each row, with the row itself (n, k).
        distances: Their distances (n, k).
        labels: Class of each row (n,).
        perplexity: Effective number of neighbours; None uses k // 3.

    Returns:
        (classes - median LISI) / (classes - 1).

    Raises:
        UndefinedScoreError: If there is only one class, or there are too few neighbours.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> lisi_label(*neighbour_graph(rng.normal(size=(100, 4))), np.arange(100) % 2) < 0.3
        True
    """
    names = np.unique(labels)
    need_two(names, "class")
    median = np.median(lisi(rows, distances, labels, perplexity=perplexity))
    return float((len(names) - median) / (len(names) - 1))


def need_two(names: np.ndarray, what: str) -> None:
    """Refuse a single batch or class.

    Args:
        names: Names of the batches or classes.
        what: "batch" or "class".

    Raises:
        UndefinedScoreError: If there is only one.

    Example:
        >>> need_two(np.array(["a", "b"]), "batch")
    """
    if len(names) < 2:
        raise UndefinedScoreError(f"there is only one {what}")
