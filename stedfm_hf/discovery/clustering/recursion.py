"""Recursive consensus clustering: split a node where the valley rule finds groups, then each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from threadpoolctl import threadpool_limits

from stedfm_hf.discovery.clustering.items import Items, prepare
from stedfm_hf.discovery.clustering.rule import ValleyRule
from stedfm_hf.discovery.clustering.split import split_node
from stedfm_hf.discovery.clustering.tree import Node, Tree


def cluster_tree(
    X: np.ndarray,
    *,
    sources: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
    rule: ValleyRule | None = None,
    standardise: bool = True,
) -> Tree:
    """Cluster items recursively by the valley rule.

    A node is split only where held-out items show a valley of density between groups. The labels come from a consensus
    over resamples. If there are no significant groups, the tree is one leaf and holds the evidence. Sources are
    counted, not items, so that crops of one image, and copies of an item, make no group. The result depends on the
    seed alone, not on the number of threads, and a subtree does not depend on its siblings.

    Args:
        X: Features (n, d), float or int: embeddings or morphology, never coordinates of UMAP.
        sources: Source image of each item (n,). None: each distinct row is a source.
        seed: Random seed.
        rule: Parameters.
        standardise: Whether to z-score the columns over all items.

    Returns:
        The tree.

    Raises:
        ValueError: If X is not a finite matrix, or the number of sources does not match.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> tree = cluster_tree(np.concatenate([rng.normal(0, 1, (60, 5)), rng.normal(9, 1, (60, 5))]))
        >>> [(leaf.id, len(leaf.items)) for leaf in tree.leaves]
        [('0.0', 60), ('0.1', 60)]
    """
    rule = rule or ValleyRule()
    items = prepare(X, sources, standardise=standardise)
    rows = np.arange(len(items))
    # A second thread makes small matrix products several times slower, and could change their rounding.
    with threadpool_limits(1):
        root = _grow(items, rows, np.ones(len(rows)), (), seed, rule)
    return Tree(root, "valley", seed, {**asdict(rule), "standardise": standardise})


def _grow(
    items: Items, rows: np.ndarray, stability: np.ndarray, path: tuple[int, ...], seed: int, rule: ValleyRule
) -> Node:
    """Split some rows of all items, and their groups; the random numbers depend on the seed and the path alone."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=path))
    split = split_node(items if not path else items.take(rows), rule, rng)
    groups = range(int(split.labels.max(initial=0)) + 1) if split.evidence.result == "split" else ()
    children = []
    for group in groups:
        inside = split.labels == group
        children.append(_grow(items, rows[inside], split.stability[inside], (*path, group), seed, rule))
    return Node(".".join(map(str, (0, *path))), rows, stability, split.evidence, tuple(children))
