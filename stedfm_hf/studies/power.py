"""Power analysis: how often simulated studies find the planted preferences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from stedfm_hf.metrics.statistics import accuracy_interval
from stedfm_hf.studies.answers import frame_of
from stedfm_hf.studies.bradley_terry import fit_bradley_terry
from stedfm_hf.studies.comparisons import primary_p_value, stimuli_p_value
from stedfm_hf.studies.raters import DEFAULT_RATERS, Raters, SimulatedStudy, resized, simulate_answers
from stedfm_hf.studies.scores import losers, scores_of
from stedfm_hf.studies.study import RANK, Study

PERMUTATIONS = 999
"""Number of permutations of each simulated study."""
TAU = 0.95
"""Rank correlation with the planted order from which an order counts as recovered."""


@dataclass(frozen=True)
class PowerRow:
    """Power of a study of one size.

    Attributes:
        participants: Number of participants.
        trials: Number of stimuli that each sees; for `rank`, number of images.
        power: Fraction of the simulated studies that are significant; NaN for a ranking without groups.
        low: Lower bound of the 95 % interval of the power (Wilson).
        high: Upper bound.
        tau: Mean of Kendall's rank correlation of found and planted preferences; NaN for one group.
        studies: Number of simulated studies.
        recovered: Fraction of the simulated studies whose rank correlation is at least `TAU`; NaN for one group.
    """

    participants: int
    trials: int
    power: float
    low: float
    high: float
    tau: float
    studies: int
    recovered: float = float("nan")


def measure_power(
    study: Study,
    participants: int,
    trials: int,
    raters: Raters = DEFAULT_RATERS,
    *,
    repeats: int = 200,
    alpha: float = 0.05,
    seed: int = 0,
) -> PowerRow:
    """Measure the power of a study of one size.

    Args:
        study: The study, with an expectation for each group.
        participants: Number of participants.
        trials: Number of stimuli that each sees; for `rank`, number of images.
        raters: Population of the raters.
        repeats: Number of studies to simulate.
        alpha: Significance level.
        seed: Random seed.

    Returns:
        The power.
    """
    p_values, taus = simulate_p_values(study, participants, trials, raters, repeats=repeats, seed=seed)
    known = p_values[np.isfinite(p_values)]
    power, low, high = (float("nan"),) * 3
    if len(known):
        power = float((known <= alpha).mean())
        low, high = accuracy_interval(known <= alpha)
    tau, recovered = (float("nan"),) * 2
    if len(ordered := taus[np.isfinite(taus)]):
        tau, recovered = float(ordered.mean()), float((ordered >= TAU).mean())
    return PowerRow(participants, trials, power, low, high, tau, repeats, recovered)


def simulate_p_values(
    study: Study, participants: int, trials: int, raters: Raters = DEFAULT_RATERS, *, repeats: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate studies and test each.

    Args:
        study: The study.
        participants: Number of participants.
        trials: Number of stimuli that each sees.
        raters: Population of the raters.
        repeats: Number of studies to simulate.
        seed: Random seed.

    Returns:
        P-values (repeats,), and Kendall's rank correlations of found and planted preferences (repeats,).
    """
    study = resized(study, trials)
    p_values, taus = np.empty(repeats), np.empty(repeats)
    for number in range(repeats):
        # Every simulated study has its own order of trials, preferences and answers.
        each = dataclasses.replace(study, seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        simulated = simulate_answers(each, participants, raters, seed=each.seed)
        p_values[number], taus[number] = _test(each, simulated)
    return p_values, taus


def recommend(rows: Iterable[PowerRow], power: float, *, order: bool = False) -> PowerRow | None:
    """Return the size with the fewest trials in total that reaches a power, or None.

    Args:
        rows: Power of each size. Sizes without a defined power need no power.
        power: Power to reach.
        order: Whether this fraction of the studies must recover the planted order as well.

    Example:
        >>> small = PowerRow(5, 20, 0.6, 0.5, 0.7, 1.0, 100)
        >>> large = PowerRow(10, 20, 0.9, 0.8, 0.95, 1.0, 100)
        >>> recommend([small, large], 0.8).participants
        10
    """
    reached = [each for each in rows if not each.power < power and (not order or each.recovered >= power)]
    return min(reached, key=lambda each: (each.participants * each.trials, each.participants), default=None)


def _test(study: Study, simulated: SimulatedStudy) -> tuple[float, float]:
    """Return the p-value of a simulated study, and the rank correlation of found and planted preferences."""
    answers = frame_of(simulated.rows)
    answers = answers[answers["kind"] == "trial"].reset_index(drop=True)
    planted = np.array(list(simulated.planted.values()))
    if study.type == RANK:
        found = fitted_strengths(study, answers)
        p = stimuli_p_value(study, answers, found, n_resamples=PERMUTATIONS, seed=study.seed)
        return p, _tau(planted, np.array(list(found.values())))
    scores = scores_of(study, answers)
    p = primary_p_value(study, scores, float("nan"), n_resamples=PERMUTATIONS, seed=study.seed)
    return p, _tau(planted, np.nanmean(scores.values, axis=0))


def fitted_strengths(study: Study, answers: pd.DataFrame) -> dict[str, float]:
    """Return the Bradley-Terry strength of each image.

    Args:
        study: Study of the type `rank`.
        answers: Analysed answers.
    """
    fitted = fit_bradley_terry(
        [each.id for each in study.stimuli],
        answers["answer"].to_list(),
        losers(answers),
        answers["participant"].to_list(),
    )
    return dict(zip(fitted.items, fitted.strength.tolist(), strict=True))


def _tau(planted: np.ndarray, found: np.ndarray) -> float:
    return float(kendalltau(planted, found).statistic) if len(np.unique(planted)) > 1 else float("nan")
