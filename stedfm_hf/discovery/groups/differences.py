"""Compare numbers, such as features of morphology, between sibling nodes: effect sizes over source images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from stedfm_hf.discovery.clustering import Tree
from stedfm_hf.metrics.statistics import holm


@dataclass(frozen=True)
class Difference:
    """Difference of a feature between a node and its siblings.

    Attributes:
        node: Id of the node.
        feature: Name of the feature.
        mean: Mean of the node, over source images.
        other_mean: Mean of its siblings, over source images.
        effect_size: Difference of the means in pooled standard deviations (Cohen's d); NaN if the feature is constant.
        p: p value of the Mann-Whitney test over source images.
        p_corrected: p value corrected for all nodes and features by Holm's method.
    """

    node: str
    feature: str
    mean: float
    other_mean: float
    effect_size: float
    p: float
    p_corrected: float


def differences(
    tree: Tree, features: Mapping[str, np.ndarray], sources: Sequence[str] | np.ndarray
) -> list[Difference]:
    """Compare features between every node and its siblings.

    Each source image counts once: the mean of its items in the node. p values describe: groups that were found by a
    feature differ in it.

    Args:
        tree: Tree of groups.
        features: Values of each feature for the items (n,), by name; NaN is left out.
        sources: Source image of each item (n,).

    Returns:
        The differences; features of a node by decreasing absolute effect size.

    Example:
        >>> from stedfm_hf.discovery.clustering import partition
        >>> X = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
        >>> found = differences(partition(X, 2), {"area": X[:, 0]}, [str(n) for n in range(6)])
        >>> [(each.node, each.effect_size > 10) for each in found]
        [('0.0', False), ('0.1', True)]
    """
    names = np.unique(np.asarray(sources).astype(str), return_inverse=True)[1]
    rows = []
    for parent in tree.nodes:
        for child in parent.children:
            others = np.concatenate([each.items for each in parent.children if each is not child])
            made = [(name, *_compare(values, names, child.items, others)) for name, values in features.items()]
            made.sort(key=lambda row: -np.nan_to_num(abs(row[3])))
            rows += [(child.id, *row) for row in made]
    corrected = holm([row[-1] for row in rows])
    return [Difference(*row, float(p)) for row, p in zip(rows, corrected, strict=True)]


def _compare(
    values: np.ndarray, sources: np.ndarray, inside: np.ndarray, outside: np.ndarray
) -> tuple[float, float, float, float]:
    """Return both means, the effect size and the p value of a feature."""
    a, b = (_means(values[rows], sources[rows]) for rows in (inside, outside))
    if not len(a) or not len(b):
        return float("nan"), float("nan"), float("nan"), 1.0
    pooled = np.sqrt((a.var() * len(a) + b.var() * len(b)) / (len(a) + len(b)))
    effect = float((a.mean() - b.mean()) / pooled) if pooled > 0 else float("nan")
    p = float(mannwhitneyu(a, b).pvalue) if np.ptp(np.concatenate([a, b])) > 0 else 1.0
    return float(a.mean()), float(b.mean()), effect, p


def _means(values: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Return the mean of the known values of each source image that has one."""
    known = np.isfinite(values)
    count = np.bincount(sources[known])
    total = np.bincount(sources[known], values[known])
    return total[count > 0] / count[count > 0]
