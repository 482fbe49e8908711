"""Partitions with a given number of groups, and flat clusterings: descriptions, without a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans
from threadpoolctl import threadpool_limits

from stedfm_hf.discovery.clustering.consensus import consensus_labels
from stedfm_hf.discovery.clustering.evidence import PartitionEvidence
from stedfm_hf.discovery.clustering.items import prepare
from stedfm_hf.discovery.clustering.kmeans import assign, fit_centres
from stedfm_hf.discovery.clustering.rule import ValleyRule
from stedfm_hf.discovery.clustering.spaces import spaces
from stedfm_hf.discovery.clustering.tree import Node, Tree

Method = Literal["kmeans", "ward", "hdbscan"]


def partition(
    X: np.ndarray,
    k: int,
    *,
    sources: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
    rule: ValleyRule | None = None,
    standardise: bool = True,
) -> Tree:
    """Describe items by k groups: a consensus of k-means over resamples.

    The groups are not tested. `Tree.significant` is False, and every table and figure must say so.

    Args:
        X: Features (n, d), float or int.
        k: Number of groups.
        sources: Source image of each item (n,). A resample takes a source whole or not at all.
        seed: Random seed.
        rule: Parameters of k-means and of the consensus.
        standardise: Whether to z-score the columns.

    Returns:
        A tree with one level. It has fewer than k groups if there are fewer distinct items.

    Raises:
        ValueError: If X is not a finite matrix, or k is below 2 or above the number of items.

    Example:
        >>> X = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2], [9.3]])
        >>> tree = partition(X, 2)
        >>> [leaf.items.tolist() for leaf in tree.leaves], tree.significant
        ([[3, 4, 5, 6], [0, 1, 2]], False)
    """
    rule, items = rule or ValleyRule(), prepare(X, sources, standardise=standardise)
    n = len(items)
    if not 2 <= k <= n:
        raise ValueError(f"the number of groups must be between 2 and the number of items, {n}; not {k}")
    rng, weights = np.random.default_rng(seed), items.weights()
    with threadpool_limits(1):
        Y = spaces(items.X, weights, rule.dimensions).get("raw", np.zeros((n, 1), np.float32))
        groups = assign(Y, fit_centres(Y, weights, k, rng, starts=rule.starts, max_items=rule.max_items))
        labels, stability = consensus_labels(
            Y,
            weights,
            items.sources,
            groups,
            k,
            rng,
            resamples=rule.resamples,
            fraction=rule.fraction,
            max_items=rule.max_items,
        )
    parts = sorted((np.flatnonzero(labels == label) for label in np.unique(labels)), key=len, reverse=True)
    children = tuple(
        Node(f"0.{number}", part, stability[part], PartitionEvidence(len(part), None, (), "group of a partition"))
        for number, part in enumerate(parts)
    )
    means = tuple(float(np.nanmean(stability[part])) for part in parts)
    root = Node("0", np.arange(n), np.ones(n), PartitionEvidence(n, k, means, "partition"), children)
    return Tree(root, "partition", seed, {"k": k, "standardise": standardise})


def flat_labels(
    X: np.ndarray, method: Method, *, k: int | None = None, min_size: int = 8, seed: int = 0, standardise: bool = True
) -> np.ndarray:
    """Cluster items by k-means, Ward or HDBSCAN of scikit-learn, without a test.

    Args:
        X: Features (n, d), float or int.
        method: "kmeans", "ward" or "hdbscan".
        k: Number of clusters of k-means and Ward; HDBSCAN chooses it.
        min_size: Smallest cluster of HDBSCAN.
        seed: Random seed of k-means.
        standardise: Whether to z-score the columns.

    Returns:
        Cluster of each item (n,); -1 for items that HDBSCAN leaves out.

    Raises:
        ValueError: If X is not a finite matrix, the method is unknown, or k is missing or out of range.

    Example:
        >>> flat_labels(np.array([[0.0], [0.1], [9.0]]), "ward", k=2).tolist()
        [0, 0, 1]
    """
    if method not in ("kmeans", "ward", "hdbscan"):
        raise ValueError(f"method {method!r} is unknown; choose kmeans, ward or hdbscan")
    items = prepare(X, standardise=standardise).X
    if method != "hdbscan" and (k is None or not 1 <= k <= len(items)):
        raise ValueError(f"{method} needs k between 1 and the number of items, {len(items)}; not {k}")
    with threadpool_limits(1):
        if method == "hdbscan":
            if len(items) < min_size:
                return np.full(len(items), -1)
            return HDBSCAN(min_cluster_size=min_size, copy=True).fit_predict(items)
        if method == "ward":
            return AgglomerativeClustering(k).fit_predict(items) if len(items) > 1 else np.zeros(1, int)
        return KMeans(k, n_init=10, random_state=seed).fit_predict(items)
