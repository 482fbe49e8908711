"""Bradley-Terry model: strengths of items from comparisons of two, with intervals over participants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from stedfm_hf.runs.errors import UserError

PRIOR_SD = 3.0
"""Standard deviation of the prior of a strength, in log odds: keeps items finite that always win or always lose."""


@dataclass(frozen=True, eq=False)
class BradleyTerry:
    """Fitted strengths.

    Attributes:
        items: Names of the items (n,).
        strength: Strength of each item in log odds (n,), with mean 0: an item beats another with the probability
            1 / (1 + exp(other - item)).
        error: Standard error of each strength (n,).
        low: Lower bound of the 95 % confidence interval of each strength (n,).
        high: Upper bound (n,).
        wins: Number of comparisons that each item won (n,).
        comparisons: Number of comparisons of each item (n,).
    """

    items: tuple[str, ...]
    strength: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    wins: np.ndarray
    comparisons: np.ndarray

    @property
    def ranking(self) -> tuple[str, ...]:
        """Items from the strongest to the weakest."""
        return tuple(self.items[number] for number in np.argsort(-self.strength, kind="stable"))


def fit_bradley_terry(
    items: Sequence[str],
    winners: Sequence[str] | np.ndarray,
    losers: Sequence[str] | np.ndarray,
    participants: Sequence[str] | np.ndarray | None = None,
    *,
    prior_sd: float = PRIOR_SD,
) -> BradleyTerry:
    """Fit a Bradley-Terry model by penalised maximum likelihood.

    The standard error of a strength is the larger of that of the model and that of the sandwich estimator, whose
    independent units are the participants. With few participants it is a rough guide.

    Args:
        items: Names of the items (n,).
        winners: Preferred item of each comparison (m,).
        losers: Other item of each comparison (m,).
        participants: Participant of each comparison (m,); None treats comparisons as independent.
        prior_sd: Standard deviation of the normal prior of the strengths, in log odds; infinity fits without a prior.

    Returns:
        Strengths with intervals.

    Raises:
        UserError: If there are no comparisons, an item is unknown, or strengths are infinite without a prior.

    Source:
        Bradley and Terry, Rank analysis of incomplete block designs, 1952.

    Example:
        >>> fitted = fit_bradley_terry(["a", "b"], ["a", "a", "a", "b"], ["b", "b", "b", "a"], prior_sd=float("inf"))
        >>> round(float(fitted.strength[0] - fitted.strength[1]), 4)  # log(3)
        1.0986
    """
    number_of = {name: number for number, name in enumerate(items)}
    if len(winners) == 0:
        raise UserError("there are no comparisons to fit strengths to")
    if unknown := {*winners, *losers} - set(number_of):
        raise UserError(f"{min(unknown)} was compared but is not an item")
    n = len(items)
    first = np.array([number_of[each] for each in winners])
    second = np.array([number_of[each] for each in losers])
    won = np.zeros((n, n))
    np.add.at(won, (first, second), 1.0)
    strength, hessian = _newton(won, 0.0 if np.isinf(prior_sd) else prior_sd**-2)
    inverse = np.linalg.inv(hessian)
    variance = np.diag(inverse) - 1.0 / n**2  # the constraint of the mean adds this constant
    if participants is not None and len(names := np.unique(np.asarray(participants))) > 1:
        residual = 1.0 - expit(strength[first] - strength[second])
        unit = np.searchsorted(names, np.asarray(participants))
        scores = np.zeros((len(names), n))
        np.add.at(scores, (unit, first), residual)
        np.add.at(scores, (unit, second), -residual)
        spread = scores @ inverse
        variance = np.maximum(variance, (spread**2).sum(axis=0) * len(names) / (len(names) - 1))
    error = np.sqrt(variance)
    half = norm.ppf(0.975) * error
    total = won.sum(axis=1)
    return BradleyTerry(
        tuple(items), strength, error, strength - half, strength + half, total, total + won.sum(axis=0)
    )


def _newton(won: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the strengths (n,) at the maximum, and the negative Hessian (n, n) with the constraint of the mean."""
    n = len(won)
    counts, total = won + won.T, won.sum(axis=1)
    strength = np.zeros(n)
    for _ in range(100):
        expected = expit(strength[:, None] - strength[None, :])
        weight = counts * expected * (1.0 - expected)
        # Strengths are defined up to a constant: a term in their sum makes the Hessian invertible and their mean 0.
        hessian = np.diag(weight.sum(axis=1) + penalty) - weight + 1.0
        gradient = total - (counts * expected).sum(axis=1) - penalty * strength - strength.sum()
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            break
        # Long steps overshoot far from the maximum.
        strength += step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(strength).max() > 50:
            break
        if np.abs(step).max() < 1e-10:
            return strength - strength.mean(), hessian
    raise UserError("the strengths are infinite or undefined; fit with a prior, or compare more items")
