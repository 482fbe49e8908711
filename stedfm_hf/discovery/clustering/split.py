"""Split one node, or say why it is a leaf."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stedfm_hf.discovery.clustering.consensus import consensus_labels
from stedfm_hf.discovery.clustering.continuity import is_continuous
from stedfm_hf.discovery.clustering.evidence import LevelEvidence, NodeEvidence
from stedfm_hf.discovery.clustering.items import Items
from stedfm_hf.discovery.clustering.kmeans import assign
from stedfm_hf.discovery.clustering.rule import ValleyRule
from stedfm_hf.discovery.clustering.spaces import spaces
from stedfm_hf.discovery.clustering.valley import Level, find_levels, in_order


@dataclass(frozen=True, eq=False)
class Split:
    """Groups of a node.

    Attributes:
        evidence: Everything that was tested.
        labels: Group of each item (n,), by decreasing size; all 0 if the node is a leaf.
        stability: Fraction of an item's resamples that agree with its group (n,); 1 if the node is a leaf.
    """

    evidence: NodeEvidence
    labels: np.ndarray
    stability: np.ndarray


def split_node(items: Items, rule: ValleyRule, rng: np.random.Generator) -> Split:
    """Test a node, and split it by consensus if held-out items show a valley.

    Args:
        items: Items of the node.
        rule: Parameters.
        rng: Random generator.

    Returns:
        The groups, or one group, with the evidence.
    """
    weights = items.weights()
    leaf = (np.zeros(len(items), int), np.ones(len(items)))
    if weights.sum() + 1e-6 < rule.min_node:
        result = f"not tested: fewer than {rule.min_node} different sources"
        return Split(NodeEvidence(len(items), items.n_sources, (), result), *leaf)
    cut = spaces(items.X, weights, rule.dimensions)
    if not cut:
        return Split(NodeEvidence(len(items), items.n_sources, (), "not tested: all items are equal"), *leaf)
    tested, rows = items, np.arange(len(items))
    if len(items) > rule.max_items:
        rows = np.sort(rng.choice(len(items), rule.max_items, replace=False, shuffle=False))
        tested = items.take(rows)
    levels = find_levels({name: Y[rows] for name, Y in cut.items()}, tested.weights(), tested.sources, rule, rng)
    judged: dict[int, LevelEvidence] = {}
    labels, stability = leaf
    result = "no significant groups"
    for level in in_order(levels, rule.similar_separation):
        evidence, found = _confirm(level, cut[level.evidence.space], weights, items.sources, rule, rng)
        judged[id(level)] = evidence
        if found:
            result, (labels, stability) = "split", found
            break
    tests = tuple(
        judged.get(id(level), replace(level.evidence, result="not chosen") if _proposes(level) else level.evidence)
        for level in levels
    )
    return Split(NodeEvidence(len(items), items.n_sources, tests, result), labels, stability)


def _proposes(level: Level) -> bool:
    return level.evidence.result == "proposed"


def _confirm(
    level: Level,
    Y: np.ndarray,
    weights: np.ndarray,
    sources: np.ndarray,
    rule: ValleyRule,
    rng: np.random.Generator,
) -> tuple[LevelEvidence, tuple[np.ndarray, np.ndarray] | None]:
    """Look closer at the groups of a level, and compute their consensus; `Y` are all items (n, p) in its space."""
    if is_continuous(level, rule, rng):
        return replace(level.evidence, result="groups are continuous where they meet"), None
    groups = np.array(level.evidence.group_of_piece)[assign(Y, level.centres)]
    labels, stability = consensus_labels(
        Y,
        weights,
        sources,
        groups,
        level.evidence.k,
        rng,
        resamples=rule.resamples,
        fraction=rule.fraction,
        max_items=rule.max_items,
    )
    sizes = np.bincount(labels, weights, level.evidence.groups)
    known = np.nan_to_num(stability, nan=0.0)
    least = float((np.bincount(labels, weights * known, len(sizes)) / np.maximum(sizes, 1e-12)).min())
    evidence = replace(level.evidence, stability=least)
    if sizes.min() + 1e-6 < rule.min_group:
        return replace(evidence, result=f"a group of fewer than {rule.min_group} sources after consensus"), None
    if least < rule.min_stability:
        return replace(evidence, result="groups are unstable over resamples"), None
    order = np.argsort(-sizes, kind="stable")
    return replace(evidence, result="accepted"), (np.argsort(order)[labels], stability)
