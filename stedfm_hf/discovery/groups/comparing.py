"""Compare two trees of the same items: recovery of leaves by neighbours, distances, mapping of leaves, agreement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

from stedfm_hf.discovery.clustering import Tree
from stedfm_hf.discovery.groups.comparison import Leaves, Mapping, Metric, Purity, SpaceComparison, TreeComparison
from stedfm_hf.discovery.groups.tables import majority
from stedfm_hf.metrics.neighbours import KnnVote, nearest

NEIGHBOURS = 9
MAPPED = 0.497
"""Share of a leaf's items that must be nearest to one leaf of the other tree. Source: reference protocol."""
SHUFFLES = 20
"""Number of random assignments of the leaves whose mean recovery is the chance level."""
MOST_SILHOUETTE = 10_000
"""Largest number of items of the silhouette; of more, a random sample is taken."""
NO_DIRECTION = 1e-5
"""Length of a mean, relative to that of its items, below which it is 0 up to rounding and has no direction."""
ONE_LEAF = "the tree has one leaf"


def compare_trees(
    first: Tree,
    second: Tree,
    X_first: np.ndarray,
    X_second: np.ndarray,
    *,
    labels: Sequence[str] | np.ndarray | None = None,
    sources: Sequence[str] | np.ndarray | None = None,
    neighbours: int = NEIGHBOURS,
    mapped: float = MAPPED,
    seed: int = 0,
) -> TreeComparison:
    """Compare two trees of the same items, in the features of each.

    Metrics that need two leaves are not defined for a tree with one leaf.

    Args:
        first: First tree.
        second: Second tree of the same items, in the same order.
        X_first: Features (n, d) that the first tree was made of, standardised if the tree was.
        X_second: Features (n, e) of the second tree.
        labels: Label of each item (n,) for the purity; "" is unknown.
        sources: Source image of each item (n,). Neighbours of the same source do not vote; None: only the item itself.
        neighbours: Number of neighbours that vote.
        mapped: Share of a leaf's items above which the leaf is mapped to a leaf of the other tree.
        seed: Random seed of the chance level and of the sample of the silhouette.

    Returns:
        The comparison.

    Raises:
        ValueError: If numbers of items differ, or features are not finite.

    Source:
        Comparison of deep and manual features in the STED-FM paper. New are the chance level by shuffled leaves, the
        exclusion of the same source, and values that are not defined instead of 0.

    Example:
        >>> from stedfm_hf.discovery.clustering import partition
        >>> X = np.array([[0.0, 1], [0.1, 1], [9, -1], [9.1, -1]])
        >>> found = compare_trees(partition(X, 2), partition(X, 3), X, X)
        >>> found.first, found.first_space.mappings["first to first"].fraction.value, round(found.ari.value, 2)
        (('0.0', '0.1'), 1.0, 0.57)
    """
    n = len(first.root.items)
    if not n == len(second.root.items) == len(X_first) == len(X_second):
        raise ValueError("the trees and their features must be of the same items")
    numbers = first.labels, second.labels
    counts = len(first.leaves), len(second.leaves)
    known = None if labels is None else np.asarray(labels).astype(str)
    owners = np.arange(n) if sources is None else np.asarray(sources)
    both = min(counts) > 1
    spaces = [
        _space(np.asarray(X, np.float64), numbers, counts, owners, neighbours, mapped, seed)
        for X in (X_first, X_second)
    ]
    return TreeComparison(
        items=n,
        first=tuple(leaf.id for leaf in first.leaves),
        second=tuple(leaf.id for leaf in second.leaves),
        ari=Metric(float(adjusted_rand_score(*numbers))) if both else _one_leaf(counts),
        nmi=Metric(float(normalized_mutual_info_score(*numbers))) if both else _one_leaf(counts),
        first_purity=None if known is None else _purity(first, known),
        second_purity=None if known is None else _purity(second, known),
        first_space=spaces[0],
        second_space=spaces[1],
    )


def _one_leaf(counts: tuple[int, int]) -> Metric:
    """Return the reason why an agreement is not defined."""
    words = {
        (True, True): "both trees have",
        (True, False): "the first tree has",
        (False, True): "the second tree has",
    }
    return Metric(None, f"{words[counts[0] == 1, counts[1] == 1]} one leaf")


def _purity(tree: Tree, labels: np.ndarray) -> Purity:
    leaves = tuple(majority(labels[leaf.items])[1] for leaf in tree.leaves)
    known = [(labels[leaf.items] != "").sum() for leaf in tree.leaves]
    chance = majority(labels)[1]
    if chance is None:
        return Purity(leaves, *[Metric(None, "no label is known")] * 2)
    mean = sum(each * count for each, count in zip(leaves, known, strict=True) if each is not None) / sum(known)
    return Purity(leaves, Metric(float(mean)), Metric(chance))


def _space(
    X: np.ndarray,
    numbers: tuple[np.ndarray, np.ndarray],
    counts: tuple[int, int],
    sources: np.ndarray,
    neighbours: int,
    mapped: float,
    seed: int,
) -> SpaceComparison:
    """Compare two trees in one feature space (n, d); `numbers` are the leaves of the items (n,) in both trees."""
    found = nearest(X, X, k=neighbours, gallery_sources=sources, query_sources=sources)
    means = [_means(X, labels, count) for labels, count in zip(numbers, counts, strict=True)]
    names = ("first", "second")
    mappings = {
        f"{names[a]} to {names[b]}": _mapping(X, numbers[a], counts[a], means[b], mapped)
        for a, b in ((0, 1), (1, 0), (0, 0), (1, 1))
    }
    first, second = (_leaves(X, numbers[own], means[own], means[1 - own], found, neighbours, seed) for own in (0, 1))
    return SpaceComparison(first, second, mappings)


def _leaves(
    X: np.ndarray,
    labels: np.ndarray,
    own: np.ndarray,
    other: np.ndarray,
    found: tuple[np.ndarray, np.ndarray],
    neighbours: int,
    seed: int,
) -> Leaves:
    """Measure the leaves (n,) of one tree; `own` and `other` are leaf means, `found` the neighbours of the items."""
    recovery = chance = silhouette = Metric(None, ONE_LEAF)
    rng = np.random.default_rng(seed)
    if len(own) > 1:
        rows, similarity = found
        voted = np.isfinite(similarity[:, 0])
        recovery = chance = Metric(None, "no item has a neighbour of another source image")
        if voted.any():
            vote = KnnVote(neighbours)

            def recovered(leaf: np.ndarray) -> float:
                return float((vote.predict(leaf[rows], similarity) == leaf)[voted].mean())

            recovery = Metric(recovered(labels))
            chance = Metric(float(np.mean([recovered(rng.permutation(labels)) for _ in range(SHUFFLES)])))
        silhouette = _silhouette(X, labels, rng)
    distance = 1 - own @ own.T
    np.fill_diagonal(distance, np.inf)
    within = np.full(len(own), np.nan) if len(own) == 1 else _smallest(distance)
    return Leaves(recovery, chance, silhouette, within, _smallest(1 - own @ other.T))


def _silhouette(X: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Metric:
    if len(labels) > MOST_SILHOUETTE:
        rows = rng.choice(len(labels), MOST_SILHOUETTE, replace=False)
        X, labels = X[rows], labels[rows]
    if not 1 < len(np.unique(labels)) < len(labels):
        return Metric(None, "every leaf has one item")
    return Metric(float(silhouette_score(X, labels, metric="cosine")))


def _smallest(distance: np.ndarray) -> np.ndarray:
    """Return the smallest known distance of each row; NaN if none is known."""
    smallest = np.where(np.isnan(distance), np.inf, distance).min(axis=1)
    return np.where(np.isfinite(smallest), np.maximum(smallest, 0), np.nan)


def _means(X: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the direction of the mean of each leaf (leaves, d), with length 1; NaN where the mean is 0."""
    means = np.stack([X[labels == label].mean(axis=0) for label in range(count)])
    length = np.linalg.norm(means, axis=1, keepdims=True)
    scale = np.sqrt((X**2).sum(axis=1).mean())
    return np.where(length > NO_DIRECTION * scale, means / np.where(length > 0, length, 1), np.nan)


def _mapping(X: np.ndarray, labels: np.ndarray, count: int, means: np.ndarray, mapped: float) -> Mapping:
    """Assign the items to the nearest leaf means of a tree (columns), and count them by their own leaf (rows)."""
    similarity = X @ means.T
    nearest_leaf = np.where(np.isnan(similarity), -np.inf, similarity).argmax(axis=1)
    shares = np.zeros((count, len(means)))
    np.add.at(shares, (labels, nearest_leaf), 1)
    shares /= shares.sum(axis=1, keepdims=True)
    is_mapped = shares.max(axis=1) > mapped
    fraction = Metric(float(is_mapped.mean())) if len(means) > 1 else Metric(None, "the target tree has one leaf")
    return Mapping(shares, is_mapped, fraction)
