from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import kendalltau

from stedfm_hf.runs import UserError
from stedfm_hf.studies.answers import frame_of
from stedfm_hf.studies.bradley_terry import fit_bradley_terry
from stedfm_hf.studies.power import TAU, fitted_strengths
from stedfm_hf.studies.raters import Raters, simulate_answers
from stedfm_hf.studies.study import RANK
from tests.studies.examples import study

INFINITE = float("inf")


def compared(strength: np.ndarray, number: int, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """Items, and winners and losers of random comparisons."""
    rng, items = np.random.default_rng(seed), [f"i{number}" for number in range(len(strength))]
    pairs = np.array([rng.choice(len(items), 2, replace=False) for _ in range(number)])
    won = rng.random(number) < expit(strength[pairs[:, 0]] - strength[pairs[:, 1]])
    winners, losers = np.where(won, pairs[:, 0], pairs[:, 1]), np.where(won, pairs[:, 1], pairs[:, 0])
    return items, [items[each] for each in winners], [items[each] for each in losers]


def test_strengths_and_errors_are_those_of_a_logistic_regression() -> None:
    from statsmodels.discrete.discrete_model import Logit

    items, winners, losers = compared(np.array([1.0, 0.2, -0.4, -0.8]), 300)
    fitted = fit_bradley_terry(items, winners, losers, prior_sd=INFINITE)
    design = np.array(
        [[(w == item) - (other == item) for item in items] for w, other in zip(winners, losers, strict=True)]
    )
    # The intercept is none; half of the rows are turned around, so that both outcomes occur.
    sign = np.where(np.arange(len(design)) % 2, 1, -1)
    other = Logit((sign > 0).astype(int), (design * sign[:, None])[:, 1:]).fit(disp=False)
    np.testing.assert_allclose(fitted.strength[1:] - fitted.strength[0], other.params, atol=1e-5)
    # Mean 0 instead of the first item at 0: the same model in other coordinates.
    to_mean = np.eye(4)[:, 1:] - np.full((4, 3), 0.25)
    errors = np.sqrt(np.diag(to_mean @ other.cov_params() @ to_mean.T))
    np.testing.assert_allclose(fitted.error, errors, rtol=1e-4)
    assert fitted.wins.sum() == 300 and fitted.comparisons.sum() == 600


def test_strengths_of_the_worked_example() -> None:
    """Agresti, Categorical data analysis, 2002, section 10.6: baseball, 1987; strengths compared with Baltimore."""
    teams = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
    won = np.array(
        [
            [0, 7, 9, 7, 7, 9, 11],
            [6, 0, 7, 5, 11, 9, 9],
            [4, 6, 0, 7, 7, 8, 12],
            [6, 8, 6, 0, 6, 7, 10],
            [6, 2, 6, 7, 0, 7, 12],
            [4, 4, 5, 6, 6, 0, 6],
            [2, 4, 1, 3, 1, 7, 0],
        ]
    )
    games = [(teams[a], teams[b]) for (a, b), number in np.ndenumerate(won) for _ in range(number)]
    fitted = fit_bradley_terry(teams, *zip(*games, strict=True), prior_sd=INFINITE)
    published = [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0]
    np.testing.assert_allclose(fitted.strength - fitted.strength[-1], published, atol=0.006)


def test_intervals_over_participants_cover_the_truth() -> None:
    """Raters differ: intervals that ignore it would be too narrow."""
    of, inside, total = study(RANK, 4), 0, 0
    for seed in range(20):
        simulated = simulate_answers(of, 15, Raters(rater_sd=1.0), seed=seed)
        answers = frame_of(simulated.rows)
        pairs = zip(answers["options"], answers["answer"], strict=True)
        losers = [b if winner == a else a for (a, b), winner in pairs]
        fitted = fit_bradley_terry(
            list(simulated.planted), answers["answer"].to_list(), losers, answers["participant"].to_list()
        )
        # Preferences that vary between raters shrink strengths of the population by 1 / sqrt(1 + 0.35 * 2).
        truth = np.array(list(simulated.planted.values())) / np.sqrt(1 + 0.346 * 2)
        truth -= truth.mean()
        inside += int(((fitted.low < truth) & (truth < fitted.high)).sum())
        total += len(truth)
    assert inside / total > 0.85


@pytest.mark.slow
def test_fifty_planted_images_are_recovered() -> None:
    """At 40 participants the order of 50 images with a standard deviation of 3 is recovered."""
    of = study(RANK, 25, expect={"A": 0.0, "B": 0.0})
    simulated = simulate_answers(of, 40, Raters(rater_sd=0.5, image_sd=3.0))
    found = fitted_strengths(of, frame_of(simulated.rows))
    assert kendalltau(list(found.values()), list(simulated.planted.values())).statistic >= TAU


def test_planted_images_are_recovered() -> None:
    of = study(RANK, 5, expect={"A": 0.0, "B": 0.0})
    simulated = simulate_answers(of, 30, Raters(rater_sd=0.3, image_sd=2.0))
    found = fitted_strengths(of, frame_of(simulated.rows))
    assert kendalltau(list(found.values()), list(simulated.planted.values())).statistic >= TAU


def test_items_that_always_win_need_the_prior() -> None:
    fitted = fit_bradley_terry(["a", "b"], ["a"] * 9, ["b"] * 9)
    assert fitted.ranking == ("a", "b") and np.isfinite(fitted.strength).all()
    with pytest.raises(UserError, match="strengths are infinite or undefined"):
        fit_bradley_terry(["a", "b"], ["a"] * 9, ["b"] * 9, prior_sd=INFINITE)
    with pytest.raises(UserError, match="there are no comparisons"):
        fit_bradley_terry(["a", "b"], [], [])
    with pytest.raises(UserError, match="c was compared but is not an item"):
        fit_bradley_terry(["a", "b"], ["c"], ["a"])
