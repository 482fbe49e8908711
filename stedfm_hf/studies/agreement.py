"""Agreement of participants who answered about the same stimuli."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stedfm_hf.metrics.statistics import bootstrap_interval

SHUFFLES = 200
"""Number of shuffles of the answers that show agreement by chance."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of participants; values are NaN where they are not defined.

    Attributes:
        fleiss: Fleiss' kappa over the stimuli that the largest number of participants answered.
        fleiss_stimuli: Number of these stimuli.
        alpha: Krippendorff's alpha for nominal answers, over all stimuli with two answers or more.
        alpha_low: Lower bound of the 95 % bootstrap interval of alpha over stimuli.
        alpha_high: Upper bound.
        stimuli: Number of stimuli with two answers or more.
        majority: Fraction of the answers to each of these stimuli that are its most frequent answer, in descending
            order.
        majority_by_chance: The same if all answers are shuffled between the stimuli; mean over shuffles.
        distinct: Number of different answers to each of these stimuli, in ascending order.
    """

    fleiss: float
    fleiss_stimuli: int
    alpha: float
    alpha_low: float
    alpha_high: float
    stimuli: int
    majority: tuple[float, ...]
    majority_by_chance: tuple[float, ...]
    distinct: tuple[int, ...]


def measure_agreement(answers: pd.DataFrame) -> Agreement | None:
    """Measure how far participants agree.

    Args:
        answers: Analysed answers with the columns `stimulus` and `answer`.

    Returns:
        The agreement, or None if no stimulus has two answers.
    """
    counts = pd.crosstab(answers["stimulus"], answers["answer"]).to_numpy(float)
    raters = counts.sum(axis=1)
    several = counts[raters > 1]
    if not len(several):
        return None
    complete = several[several.sum(axis=1) == several.sum(axis=1).max()]
    alpha = krippendorff_alpha(several)
    low, high = (float("nan"),) * 2
    if np.isfinite(alpha) and len(several) > 1:
        low, high = bootstrap_interval(several, statistic=krippendorff_alpha)
    distinct = np.sort((several > 0).sum(axis=1)).tolist()
    return Agreement(
        fleiss_kappa(complete),
        len(complete),
        alpha,
        low,
        high,
        len(several),
        tuple(_majority(several).tolist()),
        tuple(_majority_by_chance(several).tolist()),
        tuple(distinct),
    )


def fleiss_kappa(counts: np.ndarray) -> float:
    """Compute Fleiss' kappa.

    Args:
        counts: Number of participants who gave each answer to each stimulus (stimuli, answers); the same
            number of participants for every stimulus.

    Returns:
        1 for perfect agreement, 0 for agreement by chance; NaN if all answers are the same.
    """
    from statsmodels.stats.inter_rater import fleiss_kappa as kappa

    with np.errstate(invalid="ignore", divide="ignore"):
        return float(kappa(counts))


def krippendorff_alpha(counts: np.ndarray) -> float:
    """Compute Krippendorff's alpha for nominal answers; stimuli with fewer than two answers are ignored.

    Args:
        counts: Number of participants who gave each answer to each stimulus (stimuli, answers).

    Returns:
        1 for perfect agreement, 0 for agreement by chance; NaN if all answers are the same.

    Source:
        Krippendorff, Computing Krippendorff's alpha-reliability, 2011.

    Example:
        >>> krippendorff_alpha(np.array([[2, 0], [0, 2], [2, 0]]))
        1.0
    """
    counts = counts[counts.sum(axis=1) > 1]
    raters, totals = counts.sum(axis=1), counts.sum(axis=0)
    n = totals.sum()
    expected = n**2 - (totals**2).sum()
    if n == 0 or expected == 0:
        return float("nan")
    observed = ((raters**2 - (counts**2).sum(axis=1)) / (raters - 1)).sum()
    return float(1 - (n - 1) * observed / expected)


def _majority(counts: np.ndarray) -> np.ndarray:
    """Return the fraction of the most frequent answer to each stimulus, in descending order."""
    return np.sort(counts.max(axis=1) / counts.sum(axis=1))[::-1]


def _majority_by_chance(counts: np.ndarray) -> np.ndarray:
    """Return the mean of `_majority` over shuffles of all answers between the stimuli."""
    numbers = counts.astype(int)
    stimulus = np.repeat(np.arange(len(numbers)), numbers.sum(axis=1))
    answer = np.repeat(np.arange(numbers.shape[1]), numbers.sum(axis=0))
    rng, total = np.random.default_rng(0), np.zeros(len(numbers))
    for _ in range(SHUFFLES):
        shuffled = np.zeros_like(counts)
        np.add.at(shuffled, (stimulus, rng.permutation(answer)), 1)
        total += _majority(shuffled)
    return total / SHUFFLES
