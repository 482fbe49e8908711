"""The published rule of recursive consensus clustering, seeded and in bounded memory.

Its statistic for the number of clusters compares an area with relative gains of areas, and therefore chooses 2: the
tree is binary, and noise is split too. `cluster_tree` has a rule without these faults.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from stedfm_hf.discovery.clustering.consensus import resampled_sources
from stedfm_hf.discovery.clustering.evidence import ReferenceEvidence
from stedfm_hf.discovery.clustering.items import prepare
from stedfm_hf.discovery.clustering.tree import Node, Tree

NUMBERS = range(2, 10)
"""Numbers of clusters."""
RESAMPLES = 30
FRACTION = 0.8
MIN_INTRA = 0.8
"""Mean consensus inside the clusters, below which a node is a leaf."""
MAX_INTER = 0.2
"""Mean consensus between clusters, above which a node is a leaf."""
MIN_ITEMS = 10 / FRACTION
"""Number of items below which a node is a leaf."""
MAX_BYTES = 4 * 2**30
"""Limit of the memory for the dense matrices of the root."""
_BYTES_PER_PAIR = 16
_ROWS = 1024


def reference_tree(X: np.ndarray, *, seed: int = 42, standardise: bool = False, max_bytes: int = MAX_BYTES) -> Tree:
    """Cluster items recursively by the published rule.

    Args:
        X: Features (n, d), float or int.
        seed: Random seed. Resample h of a node uses k-means with the seed plus h, as in the published code.
        standardise: Whether to z-score the columns over all items. The published code does so for morphology only.
        max_bytes: Limit of the memory for dense matrices.

    Returns:
        The tree, which is never called significant. The stability of an item is its mean consensus with its cluster.

    Raises:
        ValueError: If X is not a finite matrix, or the matrices need more memory than the limit.

    Source:
        Published code (experiments/clustering-experiments/recursive_clustering.py).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> reference_tree(np.concatenate([rng.normal(0, 1, (6, 2)), rng.normal(9, 1, (6, 2))])).root.shape
        '1'
    """
    items = prepare(X, standardise=standardise)
    needed = _BYTES_PER_PAIR * len(items) ** 2
    if needed > max_bytes:
        most = int((max_bytes / _BYTES_PER_PAIR) ** 0.5)
        raise ValueError(
            f"the reference protocol needs {needed / 2**30:.1f} GiB for {len(items)} items: cluster at most {most} "
            "items, or use the default protocol"
        )
    rows = np.arange(len(items))
    with threadpool_limits(1):
        root = _grow(items.X, rows, np.ones(len(rows)), (), seed)
    return Tree(root, "reference", seed, {"standardise": standardise})


def reference_counts(X: np.ndarray, k: int, seed: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Count how often two items are in one cluster, and in one resample.

    Args:
        X: Features (n, d).
        k: Number of clusters.
        seed: Seed of the first k-means.
        rng: Random generator of the resamples.

    Returns:
        Both counts (n, n), float32.
    """
    together, both = np.zeros((2, len(X), len(X)), np.float32)
    for number in range(RESAMPLES):
        rows = resampled_sources(np.arange(len(X)), FRACTION, rng)
        member = np.zeros((len(X), k), np.float32)
        member[rows, KMeans(k, n_init=10, random_state=seed + number).fit_predict(X[rows])] = 1
        present = member.sum(axis=1, keepdims=True)
        for start in range(0, len(X), _ROWS):
            part = slice(start, start + _ROWS)
            together[part] += member[part] @ member.T
            both[part] += present[part] @ present.T
    return together, both


def consensus_area(together: np.ndarray, both: np.ndarray) -> float:
    """Return the area statistic A_k: the sum of the cumulative histogram of the consensus over 10 bins.

    Args:
        together: Number of resamples in which two items are in one cluster (n, n).
        both: Number of resamples that hold both (n, n).
    """

    def parts() -> list[tuple[int, int]]:
        return [(start, min(start + _ROWS, len(together))) for start in range(0, len(together), _ROWS)]

    def consensus(start: int, end: int) -> np.ndarray:
        ratio = together[start:end] / (both[start:end].astype(np.float64) + 1e-8)
        ratio[np.arange(end - start), np.arange(start, end)] = 1
        return ratio

    edges = np.linspace(min(float(consensus(*part).min()) for part in parts()), 1, 11)
    if edges[0] == 1:
        # NumPy widens an empty range by 0.5 on both sides.
        edges = np.linspace(0.5, 1.5, 11)
    counts = np.sum([np.histogram(consensus(*part), edges)[0] for part in parts()], axis=0)
    return float((np.cumsum(counts) / counts.sum()).sum())


def best_number(areas: list[float]) -> int:
    """Return the number of clusters that the published statistic chooses, from the areas for 2, 3, ... clusters.

    The entry of 2 is the area itself, that of k > 2 is the relative gain from k to k + 1; the last k has no entry.

    Example:
        >>> best_number([4.9, 5.1, 5.3])
        2
    """
    gains = [areas[0]] + [(after - area) / area for area, after in zip(areas[1:], areas[2:], strict=False)]
    return NUMBERS[int(np.argmax(gains))]


def _grow(X: np.ndarray, rows: np.ndarray, stability: np.ndarray, path: tuple[int, ...], seed: int) -> Node:
    """Split some rows of all items, and their clusters."""
    name, n = ".".join(map(str, (0, *path))), len(rows)
    if n < MIN_ITEMS:
        return Node(name, rows, stability, ReferenceEvidence(n, (), None, None, None, "not tested: too few items"))

    def counted(k: int) -> tuple[np.ndarray, np.ndarray]:
        stream = np.random.default_rng(np.random.SeedSequence([seed, k], spawn_key=path))
        return reference_counts(X[rows], k, seed, stream)

    # One matrix at a time: that of the chosen k is computed again.
    areas = [consensus_area(*counted(k)) for k in NUMBERS]
    k = best_number(areas)
    consensus, both = counted(k)
    consensus /= both + np.float32(1e-8)
    del both
    np.fill_diagonal(consensus, 1)
    intra, inter, _ = _stability(consensus, _clusters_of_rows(consensus, k, seed), k)
    evidence = ReferenceEvidence(n, tuple(areas), k, intra, inter, "split")
    if intra < MIN_INTRA or inter > MAX_INTER:
        return Node(name, rows, stability, replace(evidence, result="unstable: intra < 0.8 or inter > 0.2"))
    labels = _clusters_of_rows(consensus, k, seed + 1)
    *_, agreement = _stability(consensus, labels, k)
    del consensus
    groups = [np.flatnonzero(labels == label) for label in range(k)]
    children = [
        _grow(X, rows[each], agreement[each], (*path, number), seed)
        for number, each in enumerate(sorted(groups, key=len, reverse=True))
    ]
    return Node(name, rows, stability, evidence, tuple(children))


def _clusters_of_rows(consensus: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Cluster the rows of the dissimilarity, 1 minus the consensus, as features."""
    return KMeans(k, random_state=seed, n_init=1).fit_predict(1 - consensus)


def _stability(consensus: np.ndarray, labels: np.ndarray, k: int) -> tuple[float, float, np.ndarray]:
    """Return the mean consensus inside and between clusters, and of each item with its cluster (n,)."""
    member = (labels == np.arange(k)[:, None]).astype(np.float32)
    mean = member @ consensus / member.sum(axis=1, keepdims=True)
    blocks = mean @ member.T / member.sum(axis=1)
    return (
        float(np.diag(blocks).mean()),
        float(blocks[np.triu_indices(k, 1)].mean()),
        mean[labels, np.arange(len(labels))].astype(float),
    )
