from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from stedfm_hf.runs import UserError
from stedfm_hf.studies.power import measure_power, simulate_p_values
from stedfm_hf.studies.raters import Raters, resized, simulate_answers
from stedfm_hf.studies.study import RANK, TYPES
from tests.studies.examples import study

NULL = Raters(rater_sd=0.5, null=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_p_values_are_uniform_without_preferences(kind: str) -> None:
    p_values, _ = simulate_p_values(study(kind, 20), 10, 40 if kind != RANK else 20, NULL, repeats=500)
    assert kstest(p_values, "uniform").pvalue > 0.01


@pytest.mark.parametrize("kind", TYPES)
def test_few_studies_without_preferences_are_significant(kind: str) -> None:
    p_values, _ = simulate_p_values(study(kind, 12), 8, 24, NULL, repeats=40)
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
