"""Tests of the differences between groups, with participants or stimuli as the independent units."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from stedfm_hf.metrics.statistics import holm, permutation_p_value, permutation_test, resample_chunks
from stedfm_hf.studies.scores import Scores, truths
from stedfm_hf.studies.study import CHOOSE, GENERATED, REAL_OR_GENERATED, Study

N_RESAMPLES = 10_000
"""Number of permutations."""
LEVEL = 0.05
"""P-value below which the published code made pairwise tests."""


@dataclass(frozen=True)
class GroupMean:
    """Mean score of a group.

    Attributes:
        group: Name of the group.
        participants: Number of participants with a score.
        mean: Mean over participants.
        sd: Standard deviation over participants (n - 1; n for the reference protocol).
        low: Lower bound: 95 % confidence interval of the mean (Student's t; NaN with fewer than three participants or
            equal scores), or mean - sd for the reference protocol.
        high: Upper bound.
        p_chance: P-value of the difference from chance, corrected by Holm's method; NaN without a chance level.
    """

    group: str
    participants: int
    mean: float
    sd: float
    low: float
    high: float
    p_chance: float


@dataclass(frozen=True)
class Pairwise:
    """Comparison of two groups; all p-values but those of the reference protocol are corrected by Holm's method.

    Attributes:
        first: First group.
        second: Second group.
        difference: Mean difference of the scores, first - second, over participants with both.
        low: Lower bound of its 95 % confidence interval (Student's t of paired differences).
        high: Upper bound.
        p: P-value of the permutation test: paired, or of independent samples for the reference protocol.
        p_mann_whitney: P-value of the statistic of the Mann-Whitney test, permuted within participants; for the
            reference protocol that of independent samples.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_mann_whitney: float


@dataclass(frozen=True)
class GroupTests:
    """Tests of the differences between groups.

    Attributes:
        means: Mean score of each group.
        p_participants: P-value of the permutation test of all groups: labels are permuted within each participant, or
            for the reference protocol among all scores (F statistic).
        kruskal: Statistic of the Kruskal-Wallis test, of the participants with a score of every group; for the
            reference protocol of all scores.
        p_kruskal: P-value of this statistic, permuted within participants; for the reference protocol that of
            independent samples.
        p_stimuli: P-value of the permutation test with stimuli as the units: small if the difference also holds for
            other stimuli like these.
        pairs: Comparisons of two groups; for the reference protocol only if `p_kruskal` is below 0.05.
    """

    means: tuple[GroupMean, ...]
    p_participants: float
    kruskal: float
    p_kruskal: float
    p_stimuli: float
    pairs: tuple[Pairwise, ...]


def compare_groups(
    scores: Scores,
    p_stimuli: float = float("nan"),
    *,
    reference: bool = False,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> GroupTests:
    """Compare the groups of a study.

    Args:
        scores: Scores of the participants.
        p_stimuli: P-value of `stimuli_p_value`.
        reference: Whether to test as the published code did.
        n_resamples: Number of permutations.
        seed: Random seed of the permutations.

    Returns:
        The tests; values that are not defined are NaN.
    """
    columns = [column[np.isfinite(column)] for column in scores.values.T]
    if reference:
        kruskal, p_kruskal = _kruskal(columns)
        p = _pooled_p_value(columns, n_resamples, seed)
    else:
        complete = scores.values[np.isfinite(scores.values).all(axis=1)]
        kruskal, _ = _kruskal(list(complete.T))
        # Scores of a participant are not independent: fractions of choices sum to 1.
        p_kruskal = within_p_value(_ranks(complete), n_resamples=n_resamples, seed=seed)
        p = within_p_value(complete, n_resamples=n_resamples, seed=seed)
    pairs: list[Pairwise] = []
    if not reference or p_kruskal < LEVEL:
        pairs = _pairs(scores, columns, reference, n_resamples, seed)
    return GroupTests(_means(scores, columns, reference), p, kruskal, p_kruskal, p_stimuli, tuple(pairs))


def within_p_value(values: np.ndarray, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> float:
    """Test whether columns differ, by permuting the values within each row.

    Under the null hypothesis, the groups are exchangeable for each participant.

    Args:
        values: Scores (rows, columns); rows with NaN are left out.
        n_resamples: Number of permutations.
        seed: Random seed of the permutations.

    Returns:
        The p-value, or NaN with fewer than two rows or columns.

    Example:
        >>> within_p_value(np.array([[0.6, 0.2, 0.2]] * 8)) < 0.01
        True
    """
    values = values[np.isfinite(values).all(axis=1)]
    if min(values.shape) < 2:
        return float("nan")
    centred = values - values.mean(axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    permuted = [
        (rng.permuted(np.broadcast_to(centred, (chunk, *centred.shape)), axis=2).mean(axis=1) ** 2).sum(axis=1)
        for chunk in resample_chunks(n_resamples, centred.size)
    ]
    observed = float((centred.mean(axis=0) ** 2).sum())
    return permutation_p_value(np.concatenate(permuted), observed, float((centred**2).sum()) or 1.0)


def between_p_value(values: np.ndarray, labels: np.ndarray, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> float:
    """Test whether groups of values differ, by permuting the labels.

    The statistic is the sum of squares between groups, which orders permutations as the F statistic does.

    Args:
        values: Values (n,).
        labels: Group of each value (n,).
        n_resamples: Number of permutations.
        seed: Random seed of the permutations.

    Returns:
        The p-value, or NaN with fewer than two groups or three values.
    """
    names, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2 or len(values) < 3:
        return float("nan")
    centred = values - values.mean()
    member = (numbers[:, None] == np.arange(len(names))) / np.sqrt(counts)
    rng = np.random.default_rng(seed)
    permuted = [
        ((rng.permuted(np.broadcast_to(centred, (chunk, len(centred))), axis=1) @ member) ** 2).sum(axis=1)
        for chunk in resample_chunks(n_resamples, len(centred))
    ]
    observed = float(((centred @ member) ** 2).sum())
    return permutation_p_value(np.concatenate(permuted), observed, float((centred**2).sum()) or 1.0)


def stimuli_p_value(
    study: Study,
    answers: pd.DataFrame,
    strengths: dict[str, float] | None = None,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> float:
    """Test whether groups differ, with stimuli as the independent units.

    Args:
        study: The study.
        answers: Analysed answers.
        strengths: Strength of each image, for the type `rank`.
        n_resamples: Number of permutations.
        seed: Random seed of the permutations.

    Returns:
        The p-value, or NaN with fewer than two groups.
    """
    if study.type == CHOOSE:
        by_stimulus = pd.crosstab(answers["stimulus"], answers["answer"], normalize="index")
        values = by_stimulus.reindex(columns=list(study.groups), fill_value=0.0).to_numpy(float)
        return within_p_value(values, n_resamples=n_resamples, seed=seed)
    if strengths is None:
        pairs = zip(answers["answer"], truths(study, answers["stimulus"]), strict=True)
        right = pd.Series([None if truth is None else float(answer == truth) for answer, truth in pairs], dtype=float)
        mean = right.groupby(answers["stimulus"].to_numpy()).mean().dropna()
        strengths = {str(name): float(value) for name, value in mean.items()}
        if study.type == REAL_OR_GENERATED and not study.is_paired:
            strengths = {name: each for name, each in strengths.items() if study.by_id[name].truth == GENERATED}
    labels = np.array([study.by_id[name].group for name in strengths])
    return between_p_value(np.array(list(strengths.values())), labels, n_resamples=n_resamples, seed=seed)


def primary_p_value(
    study: Study, scores: Scores, p_stimuli: float, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> float:
    """Return the p-value that the power analysis counts.

    It tests whether participants prefer a group (`choose`), name the structures of one group better (`classify`), tell
    real from generated images (`real-or-generated`), or whether the images of one group rank higher (`rank`). The
    units are participants; for `rank`, images. A classification of one group is compared with chance.

    Args:
        study: The study.
        scores: Scores of the participants.
        p_stimuli: P-value of `stimuli_p_value`, which is used for `rank`.
        n_resamples: Number of permutations.
        seed: Random seed of the permutations.
    """
    if scores.chance is None:
        return p_stimuli
    if study.type == REAL_OR_GENERATED or len(scores.groups) == 1:
        means = np.nanmean(scores.values, axis=1)
        return permutation_test(means, np.full_like(means, scores.chance), n_resamples=n_resamples, seed=seed)
    return within_p_value(scores.values, n_resamples=n_resamples, seed=seed)


def _means(scores: Scores, columns: list[np.ndarray], reference: bool) -> tuple[GroupMean, ...]:
    """Return the mean of each group, with its interval within [0, 1] and its test against chance."""
    chance = scores.chance
    p_values = np.full(len(columns), np.nan)
    if chance is not None:
        known = [number for number, values in enumerate(columns) if len(values)]
        p_values[known] = holm(
            [permutation_test(columns[number], np.full(len(columns[number]), chance)) for number in known]
        )
    found = []
    for group, values, p in zip(scores.groups, columns, p_values, strict=True):
        mean, sd = _mean_sd(values, 0 if reference else 1)
        low, high = (mean - sd, mean + sd) if reference else np.clip(t_interval(values), 0.0, 1.0)
        found.append(GroupMean(group, len(values), mean, sd, float(low), float(high), float(p)))
    return tuple(found)


def _pairs(scores: Scores, columns: list[np.ndarray], reference: bool, n_resamples: int, seed: int) -> list[Pairwise]:
    """Compare all pairs of groups that have scores."""
    found, numbers = [], [number for number, values in enumerate(columns) if len(values) > 1]
    for first, second in itertools.combinations(numbers, 2):
        both = scores.values[:, [first, second]]
        both = both[np.isfinite(both).all(axis=1)]
        difference = both[:, 0] - both[:, 1]
        if reference:
            p = _pooled_p_value([columns[first], columns[second]], n_resamples, seed)
            p_ranks = float(stats.mannwhitneyu(columns[first], columns[second]).pvalue)
        elif len(both):
            p, p_ranks = (
                permutation_test(*values.T, n_resamples=n_resamples, seed=seed) for values in (both, _ranks(both))
            )
        else:
            continue
        low, high = np.clip(t_interval(difference), -1.0, 1.0)  # scores are fractions
        mean = float(difference.mean()) if len(difference) else float("nan")
        found.append((scores.groups[first], scores.groups[second], mean, float(low), float(high), p, p_ranks))
    if not found:
        return []
    corrected = np.array([row[5:] for row in found], float)
    if not reference:
        corrected = np.stack([holm(column) for column in corrected.T], axis=1)
    return [Pairwise(*row[:5], float(p), float(q)) for row, (p, q) in zip(found, corrected, strict=True)]


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a mean by Student's t.

    It is NaN with fewer than three values, and with equal values, whose variance says nothing about that of others.

    Example:
        >>> [round(each, 3) for each in t_interval(np.array([1.0, 2.0, 3.0]))]
        [-0.484, 4.484]
    """
    if len(values) < 3 or np.ptp(values) < 1e-9:
        return float("nan"), float("nan")
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * error)
    return float(values.mean()) - half, float(values.mean()) + half


def _mean_sd(values: np.ndarray, ddof: int) -> tuple[float, float]:
    mean = float(values.mean()) if len(values) else float("nan")
    return mean, float(values.std(ddof=ddof)) if len(values) > ddof else float("nan")


def _kruskal(columns: list[np.ndarray]) -> tuple[float, float]:
    """Return the statistic and the p-value of the Kruskal-Wallis test; NaN where it is not defined."""
    known = [values for values in columns if len(values)]
    if len(known) < 2 or len(np.unique(np.concatenate(known))) < 2:
        return float("nan"), float("nan")
    found = stats.kruskal(*known)
    return float(found.statistic), float(found.pvalue)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values of any shape among all of them."""
    return stats.rankdata(values).reshape(values.shape)


def _pooled_p_value(columns: list[np.ndarray], n_resamples: int, seed: int) -> float:
    known = [values for values in columns if len(values)]
    labels = np.repeat(np.arange(len(known)), [len(values) for values in known])
    values = np.concatenate(known) if known else np.empty(0)
    return between_p_value(values, labels, n_resamples=n_resamples, seed=seed)
