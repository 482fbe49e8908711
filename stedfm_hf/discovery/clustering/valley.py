"""Test one node for valleys of density, and propose groups.

K-means cuts the node into pieces. Two pieces stay together unless held-out items show a valley between them; pieces
that stay together form a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import bdtr

from stedfm_hf.discovery.clustering.coordinates import GAP_WIDTH, Counts, count_held_out, fold_of_sources
from stedfm_hf.discovery.clustering.evidence import LevelEvidence, PairEvidence
from stedfm_hf.discovery.clustering.kmeans import assign, fit_centres
from stedfm_hf.discovery.clustering.rule import ValleyRule


@dataclass(frozen=True, eq=False)
class Level:
    """One number of pieces in one space, and the groups that it proposes.

    Attributes:
        evidence: Test of all pairs of pieces.
        Y: Items (n, p) in the space.
        weights: Weights of the items (n,).
        fold: Fold of each item (n,).
        pieces: Piece of each item (n,).
        centres: Centres of the pieces (k, p).
    """

    evidence: LevelEvidence
    Y: np.ndarray
    weights: np.ndarray
    fold: np.ndarray
    pieces: np.ndarray
    centres: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """Group of each item (n,)."""
        return np.array(self.evidence.group_of_piece)[self.pieces]


def valley_p(counts: Counts, ratio: float, least: float) -> np.ndarray:
    """Test whether the valley is less dense than `ratio` times both shoulders.

    Two windows are tested, each at half of the level: the valley alone, which finds groups that are close, and the
    whole gap between the shoulders, three times as wide, which finds small groups that are far apart.

    Args:
        counts: Weights of m pairs. Those of the valley are rounded up, those of the shoulders down.
        ratio: Density of the valley divided by that of the shoulder, under the null hypothesis.
        least: Weight of all items of a pair below which p is 1.

    Returns:
        Twice the smaller p value of the two windows, at most 1 (m,). The p value of a window is the larger one of two
        one-sided binomial tests, one for each shoulder.
    """
    shoulders = [np.floor(each + 1e-6) for each in (counts.left, counts.right)]
    windows = []
    for weight, width in ((counts.valley, 1), (counts.gap, GAP_WIDTH)):
        count = np.ceil(weight - 1e-6)
        expected = width * ratio / (1 + width * ratio)
        windows.append(np.maximum(*(bdtr(count, (count + each).astype(int), expected) for each in shoulders)))
    p = np.minimum(1, 2 * np.minimum(*windows))
    return np.where(counts.total + 1e-6 < least, 1.0, p)


def find_levels(
    cut: dict[str, np.ndarray], weights: np.ndarray, sources: np.ndarray, rule: ValleyRule, rng: np.random.Generator
) -> list[Level]:
    """Cut the items into 2 to `k_max` pieces in each space, and test all pairs of pieces.

    Args:
        cut: Name of each space, and the coordinates (n, p) of the items in it.
        weights: Weights of the items (n,).
        sources: Number of the source of each item (n,), from 0.
        rule: Parameters.
        rng: Random generator.

    Returns:
        All levels; those whose evidence has the result "proposed" propose at least two groups.
    """
    numbers = [k for k in range(2, rule.k_max + 1) if weights.sum() / k + 1e-6 >= rule.min_group]
    levels = []
    for space, Y in cut.items():
        fold = fold_of_sources(sources, rule.folds, rng)
        for k in numbers:
            centres = fit_centres(Y, weights, k, rng, starts=rule.starts, max_items=rule.max_items)
            pieces = assign(Y, centres)
            pairs = np.stack(np.triu_indices(k, 1), axis=1)
            counts = count_held_out(Y, weights, fold, pieces, pairs, rng)
            threshold = rule.alpha / len(cut) / (len(numbers) * (k - 1))
            sizes = np.bincount(pieces, weights, k)
            evidence = _judge(space, k, pairs, counts, sizes, threshold, rule)
            levels.append(Level(evidence, Y, weights, fold, pieces, centres))
    return levels


def _judge(
    space: str, k: int, pairs: np.ndarray, counts: Counts, sizes: np.ndarray, threshold: float, rule: ValleyRule
) -> LevelEvidence:
    """Merge pieces without a valley between them; `sizes` are the weights of the pieces (k,)."""
    p = valley_p(counts, rule.ratio, rule.min_group)
    merged = pairs[p >= threshold]
    links = coo_array((np.ones(len(merged)), (merged[:, 0], merged[:, 1])), shape=(k, k))
    count, group = connected_components(links, directed=False)
    apart = group[pairs[:, 0]] != group[pairs[:, 1]]
    smallest = np.bincount(group, sizes).min()
    decides = int(np.where(apart, p, -1).argmax()) if count > 1 else _weakest_link(pairs, p, k)
    if count == 1:
        result = "no valley"
    elif smallest + 1e-6 < rule.min_group:
        result = f"a group of less than {rule.min_group} sources"
    else:
        result = "proposed"
    return LevelEvidence(
        space=space,
        k=k,
        threshold=threshold,
        pairs=_pair_evidence(pairs, counts, p),
        group_of_piece=tuple(group.tolist()),
        decides=decides,
        profile=tuple(np.round(counts.profile[decides], 3).tolist()),
        p=float(p[apart].max()) if count > 1 else None,
        separation=float(counts.d_prime[apart].min()) if count > 1 else None,
        stability=None,
        result=result,
    )


def _weakest_link(pairs: np.ndarray, p: np.ndarray, k: int) -> int:
    """Return the pair with the largest p that joins the last two parts, when pairs join pieces by decreasing p."""
    part, last = np.arange(k), 0
    for row in np.argsort(-p, kind="stable"):
        first, second = part[pairs[row]]
        if first != second:
            part[part == second] = first
            last = int(row)
    return last


def _pair_evidence(pairs: np.ndarray, counts: Counts, p: np.ndarray) -> tuple[PairEvidence, ...]:
    """Return the evidence of each pair, with the ratio of the valley to the thinner shoulder."""
    shoulder = np.minimum(counts.left, counts.right)
    columns = (p, counts.d_prime, counts.valley, counts.gap, counts.left, counts.right)
    return tuple(
        PairEvidence(
            first=int(pairs[row, 0]),
            second=int(pairs[row, 1]),
            ratio=float(counts.valley[row] / shoulder[row]) if shoulder[row] > 0 else None,
            folds=int(counts.folds[row]),
            **{name: float(each[row]) for name, each in zip(_COLUMNS, columns, strict=True)},
        )
        for row in range(len(pairs))
    )


_COLUMNS = ("p", "d_prime", "valley", "gap", "left", "right")


def in_order(levels: list[Level], similar_separation: float) -> list[Level]:
    """Return the levels that propose groups, the preferred one first.

    Of the levels whose separation is similar to the largest, the one with the most groups comes first: equidistant
    groups become siblings, and nested groups become levels of the tree. The others follow by separation.

    Args:
        levels: All levels.
        similar_separation: Fraction of the largest separation from which a separation is similar.
    """
    proposed = [each for each in levels if each.evidence.result == "proposed"]
    best = max((each.evidence.separation or 0 for each in proposed), default=0)

    def key(level: Level) -> tuple[bool, float, float]:
        separation, p = level.evidence.separation or 0, level.evidence.p or 0
        similar = separation >= similar_separation * best
        return (not similar, -level.evidence.groups if similar else -separation, p)

    return sorted(proposed, key=key)
