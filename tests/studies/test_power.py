from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from stedfm_hf.runs import UserError
from stedfm_hf.studies.power import PowerRow, measure_power, recommend, simulate_p_values
from stedfm_hf.studies.raters import Raters, resized, simulate_answers
from stedfm_hf.studies.study import CLASSIFY, RANK, TYPES
from tests.studies.examples import study

NULL = Raters(rater_sd=0.5, null=True)


@pytest.mark.parametrize("kind", TYPES)
def test_few_studies_without_preferences_are_significant(kind: str) -> None:
    p_values, _ = simulate_p_values(study(kind, 12), 8, 24, NULL, repeats=40)
    assert kstest(p_values, "uniform").pvalue > 0.001 and np.mean(p_values < 0.05) < 0.2


def test_raters_without_a_preference_guess_if_there_is_one_group() -> None:
    """Its main question is whether structures are named better than by chance."""
    shown = [{"id": f"c{i}", "image": "a.png", "truth": "xyz"[i % 3]} for i in range(30)]
    of = study(CLASSIFY, stimuli=shown, expect={"all images": 0.9})
    p_values, _ = simulate_p_values(of, 8, 30, NULL, repeats=40)
    assert kstest(p_values, "uniform").pvalue > 0.001 and np.mean(p_values < 0.05) < 0.2


@pytest.mark.parametrize("kind", TYPES)
def test_strong_preferences_are_found(kind: str) -> None:
    found = measure_power(study(kind, 12), 12, 24, Raters(0.1, 0.1), repeats=5)
    assert found.power >= 0.8 and found.low < found.power <= found.high and found.tau > 0.5


def test_more_stimuli_are_copies_and_fewer_are_of_all_groups() -> None:
    of = study(RANK, 4)
    assert {each.group for each in resized(of, 2).stimuli} == {"A", "B"}
    assert len({each.id for each in resized(of, 30).stimuli}) == 30
    with pytest.raises(UserError, match="at least two images"):
        resized(of, 1)


def test_the_same_seed_gives_the_same_answers() -> None:
    of = study()
    assert simulate_answers(of, 2, seed=1).rows == simulate_answers(of, 2, seed=1).rows
    assert simulate_answers(of, 2, seed=1).rows != simulate_answers(of, 2, seed=2).rows


def test_an_expectation_is_needed() -> None:
    with pytest.raises(UserError, match="expect is missing"):
        simulate_answers(study(expect={}), 2)


def test_a_recommended_ranking_recovers_the_order_in_most_studies() -> None:
    rows = [PowerRow(size, 50, 1.0, 1.0, 1.0, 0.96, 10, recovered) for size, recovered in ((10, 0.6), (20, 0.8))]
    best = recommend(rows, 0.8, order=True)
    assert best is not None and best.participants == 20 and recommend(rows[:1], 0.8, order=True) is None
    assert recommend(rows, 0.8) == rows[0]
    found = measure_power(study(RANK, 4), 10, 8, Raters(0.1, 2.0), repeats=4)
    assert 0 <= found.recovered <= 1
