"""Look closer at proposed groups: a curve that a straight cut parts is continuous where its parts meet.

The projection of a bent, thin curve has a valley where the curve runs along the direction of projection. Short parts
of the two groups that meet there are nearly straight, and show no valley between them.
"""

from __future__ import annotations

import numpy as np
from scipy.special import bdtrc

from stedfm_hf.discovery.clustering.coordinates import Counts, count_held_out
from stedfm_hf.discovery.clustering.kmeans import assign, fit_centres
from stedfm_hf.discovery.clustering.rule import ValleyRule
from stedfm_hf.discovery.clustering.valley import Level

PARTS = 4
"""Largest number of parts that a group is cut into."""
PART_SIZE = 30
"""Smallest mean size of a part, in sources."""
MOST_PROBABLE = 0.35
"""p value of continuity below which a pair of parts rejects the groups.

It is not corrected for the number of pairs, because the burden of proof lies with the split: parts of a curve that
meet hold too few items for more (p of 0.1 to 0.3 at 600 items); between parts of separate groups p is above 0.4.
"""


def continuity_p(counts: Counts, ratio: float) -> np.ndarray:
    """Test whether the valley is denser than `ratio` times the thinner shoulder.

    Args:
        counts: Weights of m pairs. Those of the valley are rounded down, those of the shoulders up.
        ratio: Density of the valley divided by that of the shoulder, under the null hypothesis.

    Returns:
        The smaller p value of two one-sided binomial tests, one for each shoulder (m,).
    """
    valley = np.floor(counts.valley + 1e-6)
    p = []
    for shoulder in (counts.left, counts.right):
        total = (valley + np.ceil(shoulder - 1e-6)).astype(int)
        p.append(np.where(valley > 0, bdtrc(np.maximum(valley - 1, 0), total, ratio / (1 + ratio)), 1.0))
    return np.minimum(*p)


def is_continuous(level: Level, rule: ValleyRule, rng: np.random.Generator) -> bool:
    """Cut each group into parts, and test whether two parts of different groups are continuous.

    Args:
        level: Level that proposes groups.
        rule: Parameters.
        rng: Random generator.
    """
    groups, parts = level.groups, np.zeros(len(level.Y), int)
    owner: list[int] = []
    for group in range(level.evidence.groups):
        rows = np.flatnonzero(groups == group)
        weights = level.weights[rows]
        count = min(PARTS, max(1, int(weights.sum() / PART_SIZE)))
        centres = fit_centres(level.Y[rows], weights, count, rng, starts=rule.starts, max_items=rule.max_items)
        parts[rows] = len(owner) + assign(level.Y[rows], centres)
        owner += [group] * count
    pairs = np.stack(np.triu_indices(len(owner), 1), axis=1)
    pairs = pairs[np.array(owner)[pairs[:, 0]] != np.array(owner)[pairs[:, 1]]]
    counts = count_held_out(level.Y, level.weights, level.fold, parts, pairs, None)
    return bool((continuity_p(counts, rule.ratio) < MOST_PROBABLE).any())
