"""Coverage of confidence intervals, levels of tests, and resampling over source images."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from sklearn.metrics import balanced_accuracy_score

from stedfm_hf.metrics import statistics
from stedfm_hf.metrics.statistics import (
    accuracy_interval,
    bootstrap_interval,
    holm,
    permutation_test,
)

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


@given(n=st.integers(1, 300), seed=st.integers(0, 1000))
def test_the_interval_contains_the_accuracy_and_stays_in_bounds(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < rng.random()
    for sources in (None, [str(number // 4) for number in range(n)]):
        low, high = accuracy_interval(correct, sources)
        assert 0.0 <= low <= correct.mean() + 1e-12
        assert correct.mean() - 1e-12 <= high <= 1.0


def test_the_interval_depends_on_the_number_of_sources_not_of_crops() -> None:
    correct = np.repeat(np.arange(20) % 2 == 0, 50)
    by_crop = accuracy_interval(correct)
    by_source = accuracy_interval(correct, [str(number // 50) for number in range(1000)])
    assert by_source[1] - by_source[0] > 4 * (by_crop[1] - by_crop[0])


def test_the_bootstrap_interval_has_about_its_nominal_coverage() -> None:
    """Forty sources of unequal size whose items agree with each other."""
    rng, held = np.random.default_rng(0), []
    for _ in range(200):
        sources = np.repeat(np.arange(40), rng.integers(1, 6, 40))
        values = rng.normal(size=40)[sources] + 0.3 * rng.normal(size=len(sources))
        low, high = bootstrap_interval(values, sources, n_resamples=300)
        held.append(low <= 0.0 <= high)
    assert 0.88 <= np.mean(held) <= 0.99


def test_the_fast_path_for_means_equals_the_general_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values, sources = rng.random(60), rng.choice(["s", "t", "u", "v", "w"], 60)
    fast = bootstrap_interval(values, sources, n_resamples=200)
    general = bootstrap_interval(values, sources, n_resamples=200, statistic=lambda rows: float(rows.mean()))
    assert fast == pytest.approx(general, abs=0.03)
    monkeypatch.setattr(statistics, "_CHUNK_NUMBERS", 13)
    assert bootstrap_interval(values, sources, n_resamples=200) == fast
    assert bootstrap_interval(values, sources, n_resamples=200, confidence_level=0.5)[0] > fast[0]


def test_a_statistic_of_several_columns_receives_the_resampled_rows() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 90)
    pairs = np.stack([truth, np.where(rng.random(90) < 0.8, truth, (truth + 1) % 3)], axis=1)
    sources = np.arange(90) // 3

    def balanced_accuracy(rows: np.ndarray) -> float:
        return float(balanced_accuracy_score(rows[:, 0], rows[:, 1]))

    low, high = bootstrap_interval(pairs, sources, statistic=balanced_accuracy, n_resamples=100)
    assert 0.6 < low < balanced_accuracy(pairs) < high < 0.95


def test_the_mean_of_the_means_of_classes_equals_that_statistic() -> None:
    """One class occurs in two sources only, so that some resamples lack it."""
    rng = np.random.default_rng(0)
    values, sources, classes = rng.random(60), np.arange(60) // 6, rng.integers(0, 3, 60)
    classes[12:] %= 2

    def mean_of_means(rows: np.ndarray) -> float:
        return float(np.mean([rows[rows[:, 1] == each, 0].mean() for each in np.unique(rows[:, 1])]))

    found = bootstrap_interval(values, sources, classes=classes, n_resamples=200)
    pairs = np.stack([values, classes], axis=1)
    assert found == pytest.approx(bootstrap_interval(pairs, sources, statistic=mean_of_means, n_resamples=200))


def test_resamples_in_which_the_statistic_is_undefined_are_ignored() -> None:
    """Recall of a class that occurs in one source only."""
    pairs = np.array([[0, 0], [0, 0], [1, 1]])

    def recall(rows: np.ndarray) -> float:
        positives = rows[rows[:, 0] == 1]
        return float((positives[:, 1] == 1).mean()) if len(positives) else float("nan")

    assert bootstrap_interval(pairs, list("stu"), statistic=recall, n_resamples=50) == (1.0, 1.0)
    with pytest.raises(ValueError, match="undefined for every resample"):
        bootstrap_interval(pairs[:2], list("st"), statistic=recall, n_resamples=50)


def test_the_permutation_test_agrees_with_the_exact_test() -> None:
    rng = np.random.default_rng(0)
    one, other, sources = rng.random(40), rng.random(40) + 0.1, np.arange(40) // 4
    by_source = np.bincount(sources, weights=one - other)
    every = np.array([abs(np.dot(signs, by_source)) for signs in product((-1, 1), repeat=10)])
    exact = np.mean(every >= abs(by_source.sum()) - 1e-12)
    assert permutation_test(one, other, sources) == pytest.approx(exact, abs=0.02)


@given(seed=st.integers(0, 10_000), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_the_p_value_is_invariant_to_units_and_order_of_the_methods(seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.random((2, 12))
    sources = np.arange(12) // 2
    p = permutation_test(one, other, sources, n_resamples=200)
    assert p == permutation_test(other, one, sources, n_resamples=200)
    assert p == permutation_test(scale * one + shift, scale * other + shift, sources, n_resamples=200)
    assert 1 / 201 <= p <= 1.0


def test_the_p_value_is_never_zero_and_one_for_identical_methods() -> None:
    better = np.ones(500)
    assert permutation_test(better, 0 * better, n_resamples=99) == 0.01
    assert permutation_test(better, better, n_resamples=99) == 1.0


def test_few_sources_bound_the_p_value_from_below() -> None:
    """Four sources have sixteen ways to swap, two of them as extreme."""
    better, sources = np.ones(4000), np.repeat(np.arange(4), 1000)
    assert permutation_test(better, 0 * better, sources) == pytest.approx(2 / 16, abs=0.02)
    assert permutation_test(better, 0 * better) < 1e-3


def test_p_values_are_uniform_under_the_null_hypothesis() -> None:
    rng, found = np.random.default_rng(0), []
    for number in range(300):
        sources = np.repeat(np.arange(20), 3)
        common = rng.normal(size=20)[sources]
        one, other = (common + rng.normal(size=20)[sources] + 0.2 * rng.normal(size=60) for _ in range(2))
        found.append(permutation_test(one, other, sources, n_resamples=199, seed=number))
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) < 0.08


def test_permuting_crops_instead_of_sources_inflates_false_positives() -> None:
    """The same data, treated as independent crops, are significant far too often."""
    rng, rejected = np.random.default_rng(0), []
    for number in range(100):
        sources = np.repeat(np.arange(12), 20)
        one, other = (rng.normal(size=12)[sources] for _ in range(2))
        rejected.append(
            [permutation_test(one, other, by, n_resamples=99, seed=number) <= 0.05 for by in (sources, None)]
        )
    by_source, by_crop = np.mean(rejected, axis=0)
    assert by_source < 0.12 and by_crop > 0.4


@given(p_values=P_VALUES)
def test_holm_never_lowers_p_values_and_keeps_their_order(p_values: list[float]) -> None:
    given_ones, corrected = np.array(p_values), holm(p_values)
    assert (corrected >= given_ones).all() and (corrected <= np.minimum(1.0, len(p_values) * given_ones) + 1e-15).all()
    order = np.argsort(given_ones, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()


@given(p_values=P_VALUES, level=st.floats(0.001, 0.5))
def test_holm_rejects_the_same_hypotheses_as_the_step_down_procedure(p_values: list[float], level: float) -> None:
    rejected = set()
    for step, number in enumerate(np.argsort(p_values, kind="stable").tolist()):
        if p_values[number] * (len(p_values) - step) > level:
            break
        rejected.add(number)
    assert set(np.flatnonzero(holm(p_values) <= level).tolist()) == rejected


def test_invalid_arguments_raise_errors() -> None:
    values = np.ones(4)
    with pytest.raises(ValueError, match="no items"):
        bootstrap_interval(values[:0])
    with pytest.raises(ValueError, match="4 items but 3 sources"):
        bootstrap_interval(values, list("abc"))
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval(values, confidence_level=95)
    with pytest.raises(ValueError, match="same items"):
        permutation_test(values, values[:3])
    with pytest.raises(ValueError, match="n_resamples must be 1 or more"):
        permutation_test(values, values, n_resamples=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, 1.1])
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, float("nan")])
