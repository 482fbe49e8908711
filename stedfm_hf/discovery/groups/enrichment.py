"""Test whether a condition is enriched in a node, over source images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import permutation_test

from stedfm_hf.discovery.clustering import Node, Tree
from stedfm_hf.metrics.statistics import holm

RESAMPLES = 9_999
"""Number of permutations: the smallest p value is 0.0001."""
LEAST_SOURCES = 2
"""Smallest number of source images of a condition, and of the others; the p value is 1 for fewer."""


@dataclass(frozen=True)
class Enrichment:
    """Test of a condition in a node.

    Attributes:
        node: Id of the node.
        condition: Condition.
        fraction: Mean fraction of the items of a source image in the node, over the source images of the condition.
        other_fraction: The same over the source images of the other conditions.
        sources: Number of source images of the condition.
        other_sources: Number of other source images.
        p: p value of the two-sided permutation test.
        p_corrected: p value corrected for all nodes and conditions by Holm's method.
    """

    node: str
    condition: str
    fraction: float
    other_fraction: float
    sources: int
    other_sources: int
    p: float
    p_corrected: float


def enrichments(
    tree: Tree,
    conditions: Sequence[str] | np.ndarray,
    sources: Sequence[str] | np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Enrichment]:
    """Test every condition in every node below the root.

    The unit is the source image, because crops of one image are not independent: the fraction of the items of each
    source image in the node is compared between the source images of the condition and all others. Under the null
    hypothesis the conditions of the source images are exchangeable. Of two conditions one is tested, because the other
    is its mirror image.

    Args:
        tree: Tree of groups.
        conditions: Condition of each item (n,); items without one ("") are left out.
        sources: Source image of each item (n,).
        seed: Random seed of the permutations.
        resamples: Number of permutations; all are computed if there are not more.

    Returns:
        The tests, nodes in the order of the tree.

    Raises:
        ValueError: If a source image has two conditions, or lengths differ.

    Example:
        >>> import numpy as np
        >>> from stedfm_hf.discovery.clustering import partition
        >>> X = np.repeat([[0.0], [9.0]], 10, axis=0)
        >>> found = enrichments(partition(X, 2), ["a"] * 10 + ["b"] * 10, [str(n) for n in range(20)])
        >>> [(each.node, each.condition, each.p_corrected < 0.01) for each in found]
        [('0.0', 'a', True), ('0.1', 'a', True)]
    """
    values, names = np.asarray(conditions).astype(str), np.asarray(sources).astype(str)
    if not len(values) == len(names) == len(tree.root.items):
        raise ValueError("give one condition and one source for each item of the tree")
    known = values != ""
    ids, source = np.unique(names[known], return_inverse=True)
    levels, level = np.unique(values[known], return_inverse=True)
    first = np.zeros(len(ids), int)
    first[source] = level
    if (first[source] != level).any():
        wrong = ids[source[np.flatnonzero(first[source] != level)[0]]]
        raise ValueError(f"source image {wrong} has two conditions; conditions are compared between source images")
    nodes = tree.nodes[1:]
    if len(levels) < 2 or not nodes:
        return []
    tested = range(1 if len(levels) == 2 else len(levels))
    found = [
        (node, number, *each)
        for node in nodes
        for number, each in zip(tested, _tests(node, known, source, first, tested, resamples, seed), strict=True)
    ]
    corrected = holm([p for *_, p in found])
    counts = np.bincount(first, minlength=len(levels))
    return [
        Enrichment(
            node.id, str(levels[number]), inside, outside, int(counts[number]), len(ids) - int(counts[number]), p, c
        )
        for (node, number, inside, outside, p), c in zip(found, corrected.tolist(), strict=True)
    ]


def _tests(
    node: Node,
    known: np.ndarray,
    source: np.ndarray,
    condition: np.ndarray,
    tested: range,
    resamples: int,
    seed: int,
) -> Iterator[tuple[float, float, float]]:
    """Yield the mean fractions with and without each condition, and the p value.

    Args:
        node: Node.
        known: Whether each item has a condition (n,).
        source: Number of the source image of the items with a condition.
        condition: Number of the condition of each source image.
        tested: Numbers of the conditions to test.
        resamples: Number of permutations.
        seed: Random seed.
    """
    inside = np.zeros(len(known), bool)
    inside[node.items] = True
    fraction = np.bincount(source, inside[known]) / np.bincount(source)
    for number in tested:
        with_it, others = fraction[condition == number], fraction[condition != number]
        p = (
            1.0
            if min(len(with_it), len(others)) < LEAST_SOURCES
            else permutation_test(
                (with_it, others),
                lambda a, b, axis: a.mean(axis) - b.mean(axis),
                permutation_type="independent",
                vectorized=True,
                n_resamples=resamples,
                batch=1_000,
                rng=np.random.default_rng(seed),
            ).pvalue
        )
        yield float(with_it.mean()), float(others.mean()), float(p)
