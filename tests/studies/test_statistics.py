"""Statistics equal scipy, statsmodels and published worked examples."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from statsmodels.stats.multitest import multipletests

from stedfm_hf.studies.agreement import fleiss_kappa, krippendorff_alpha, measure_agreement
from stedfm_hf.studies.analysis import analyse_answers
from stedfm_hf.studies.answers import frame_of
from stedfm_hf.studies.comparisons import between_p_value, compare_groups, t_interval, within_p_value
from stedfm_hf.studies.mixed import fit_mixed_model
from stedfm_hf.studies.raters import Raters, simulate_answers
from stedfm_hf.studies.scores import Scores, confusion_matrices, detection, scores_of
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL_OR_GENERATED
from tests.studies.examples import row, single_images, study


def scores(values: np.ndarray, chance: float | None = None) -> Scores:
    unknown = np.full(values.shape, np.nan)
    people, groups = (tuple(f"{name}{i}" for i in range(n)) for name, n in zip("pg", values.shape, strict=True))
    return Scores("score", people, groups, values, unknown, unknown, chance)


def test_fleiss_kappa_of_the_worked_example() -> None:
    """Fleiss, 1971, as in textbooks: 14 raters, 10 subjects, 5 categories; kappa 0.210."""
    counts = """0 0 0 0 14 / 0 2 6 4 2 / 0 0 3 5 6 / 0 3 9 2 0 / 2 2 8 1 1
                / 7 7 0 0 0 / 3 2 6 3 0 / 2 5 3 2 2 / 6 5 2 1 0 / 0 2 2 3 7"""
    table = np.array([[int(each) for each in line.split()] for line in counts.split("/")])
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)


def test_krippendorff_alpha_of_the_worked_example() -> None:
    """Krippendorff, 2011, example C: 4 observers, 12 units, missing data, nominal; alpha 0.743."""
    data = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    counts = np.array(
        [[column.count(value) for value in range(1, 6)] for column in map(list, zip(*data, strict=True))]
    )
    assert krippendorff_alpha(counts) == pytest.approx(0.743, abs=5e-4)


def test_agreement_without_variation_is_undefined() -> None:
    same = frame_of([row(name, 0, "c0", "A", ("A", "B")) for name in "pq"])
    found = measure_agreement(same)
    assert found is not None and np.isnan([found.fleiss, found.alpha, found.alpha_low]).all()
    assert found.distinct == (1,) and measure_agreement(same[:1]) is None


def test_the_published_rank_tests_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).random((8, 3)) + np.array([0.0, 0.4, 0.8])
    found = compare_groups(scores(values, 0.5), n_resamples=200)
    reference = compare_groups(scores(values, 0.5), reference=True, n_resamples=200)
    assert (reference.kruskal, reference.p_kruskal) == pytest.approx(tuple(stats.kruskal(*values.T)))
    assert found.kruskal == reference.kruskal and reference.p_kruskal < 0.05
    raw = [stats.mannwhitneyu(values[:, a], values[:, b]).pvalue for a, b in ((0, 1), (0, 2), (1, 2))]
    assert [each.p_mann_whitney for each in reference.pairs] == pytest.approx(raw)
    interval = stats.ttest_1samp(values[:, 0], 0).confidence_interval()
    assert t_interval(values[:, 0]) == pytest.approx((interval.low, interval.high))
    mean = reference.means[0]
    assert (mean.low, mean.high) == pytest.approx((mean.mean - values[:, 0].std(), mean.mean + values[:, 0].std()))


def test_intervals_are_left_out_or_clipped_where_they_would_be_wrong() -> None:
    nowhere = [np.array([0.2, 0.4]), np.full(5, 1 / 3)]
    assert np.isnan([t_interval(each) for each in nowhere]).all()
    pair = compare_groups(scores(np.array([[1, 0], [1, 0], [0, 1], [1, 0.0]]), 0.5), n_resamples=50).pairs[0]
    assert pair.difference == 0.5 and pair.high == 1 and -1 <= pair.low < 0


def test_permutation_tests_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    values, labels = rng.random(9) + np.repeat([0, 0.3, 0.6], 3), np.repeat([0, 1, 2], 3)
    exact = stats.permutation_test(
        [values[labels == each] for each in range(3)],
        lambda *samples: stats.f_oneway(*samples).statistic,
        alternative="greater",
        vectorized=False,
        n_resamples=2000,
        rng=2,
    )
    assert between_p_value(values, labels) == pytest.approx(exact.pvalue, abs=0.03)
    # Two columns: the exact test flips the sign of each difference.
    paired = rng.random((7, 2)) + np.array([0, 0.25])
    exact = stats.permutation_test(
        (paired[:, 0], paired[:, 1]),
        lambda a, b: abs((a - b).mean()),
        permutation_type="samples",
        alternative="greater",
    )
    assert within_p_value(paired) == pytest.approx(exact.pvalue, abs=0.02)


def test_permutation_tests_of_three_groups_and_of_chance_are_those_of_scipy() -> None:
    values = np.random.default_rng(3).random((6, 3)) + np.array([0.0, 0.15, 0.3])
    found = compare_groups(scores(values, 0.5))

    def exact(samples: tuple[np.ndarray, ...], statistic: Any) -> float:
        """P-value of permutations within participants, or of signs for one sample."""
        return float(
            stats.permutation_test(
                samples,
                statistic,
                permutation_type="samples",
                alternative="greater",
                vectorized=False,
                n_resamples=1999,
                rng=0,
            ).pvalue
        )

    columns = tuple(values.T)
    assert found.p_participants == pytest.approx(exact(columns, lambda *each: np.var(np.mean(each, axis=1))), abs=0.03)
    assert found.p_kruskal == pytest.approx(exact(columns, lambda *each: stats.kruskal(*each).statistic), abs=0.03)
    chance = [exact((column - 0.5,), lambda each: abs(each.mean())) for column in columns]
    corrected = multipletests(chance, method="holm")[1]
    assert [each.p_chance for each in found.means] == pytest.approx(corrected, abs=0.03)
    assert [each.sd for each in found.means] == pytest.approx(values.std(axis=0, ddof=1))
    pairs = list(itertools.combinations(columns, 2))
    middle = 6 * 6 / 2
    ranked = [exact(each, lambda a, b: abs(stats.mannwhitneyu(a, b).statistic - middle)) for each in pairs]
    means = [exact(each, lambda a, b: abs((a - b).mean())) for each in pairs]
    assert [each.p for each in found.pairs] == pytest.approx(multipletests(means, method="holm")[1], abs=0.03)
    corrected = multipletests(ranked, method="holm")[1]
    assert [each.p_mann_whitney for each in found.pairs] == pytest.approx(corrected, abs=0.04)
    intervals = [stats.ttest_rel(*each).confidence_interval() for each in pairs]
    assert [(each.low, each.high) for each in found.pairs] == [pytest.approx(tuple(each)) for each in intervals]


def test_the_interval_of_alpha_is_that_of_scipy() -> None:
    rng = np.random.default_rng(4)
    answers = frame_of(
        [
            row(f"p{person}", number, f"c{number}", str(rng.choice(["A", "B"], p=[0.8, 0.2])), ("A", "B"))
            for person in range(5)
            for number in range(20)
        ]
    )
    found = measure_agreement(answers)
    counts = pd.crosstab(answers["stimulus"], answers["answer"]).to_numpy(float)
    other = stats.bootstrap(
        (np.arange(20),),
        lambda rows: krippendorff_alpha(counts[rows]),
        method="percentile",
        vectorized=False,
        n_resamples=2000,
        rng=5,
    ).confidence_interval
    assert found is not None
    assert (found.alpha_low, found.alpha_high) == pytest.approx((other.low, other.high), abs=0.04)
    assert found.fleiss == pytest.approx(fleiss_kappa(counts))


def test_agreement_by_stimulus_is_compared_with_shuffled_answers() -> None:
    answers = {"c0": "AAAA", "c1": "AABB", "c2": "BBBB"}
    rows = [row(f"p{i}", 0, name, each, ("A", "B")) for name, given in answers.items() for i, each in enumerate(given)]
    found = measure_agreement(frame_of(rows))
    assert found is not None and found.majority == (1.0, 1.0, 0.5)
    # Six answers A and six B: the exact expectation of the mean over three stimuli of four answers.
    hypergeometric = stats.hypergeom(12, 6, 4)
    expected = sum(hypergeometric.pmf(k) * max(k, 4 - k) / 4 for k in range(5))
    assert np.mean(found.majority_by_chance) == pytest.approx(expected, abs=0.02)


def test_d_prime_of_the_worked_example() -> None:
    """Macmillan and Creelman, 2005, chapter 1: hits 20 of 25, false alarms 10 of 25; d' 1.095, criterion -0.294."""
    single, times = single_images(), 100  # the correction for few trials vanishes with many
    rows = [
        row("p", 0, name, each, single.answers)
        for name, given in (
            ("A0", ["generated"] * 20 * times + ["real"] * 5 * times),
            ("r0", ["generated"] * 10 * times + ["real"] * 15 * times),
        )
        for each in given
    ]
    (found,) = detection(single, frame_of(rows)).itertuples()
    assert (found.d_prime, found.criterion) == pytest.approx((1.095, -0.294), abs=2e-3)


def test_confusion_and_recall_are_those_of_scikit_learn() -> None:
    of = study(CLASSIFY, 12)
    answers = frame_of(simulate_answers(of, 1).rows)
    truth = np.array([str(of.by_id[each].truth) for each in answers["stimulus"]])
    group = np.array([of.by_id[each].group for each in answers["stimulus"]])
    found = scores_of(of, answers)
    for number, name in enumerate(of.groups):
        own = group == name
        given = answers["answer"].to_numpy()[own]
        counts = confusion_matrix(truth[own], given, labels=list(of.classes))
        np.testing.assert_array_equal(confusion_matrices(of, answers)[name].to_numpy(), counts)
        assert found.values[0, number] == pytest.approx(balanced_accuracy_score(truth[own], given))


def test_rankings_are_compared_by_kendalls_tau() -> None:
    of = study(RANK, 6)
    found = analyse_answers(of, frame_of(simulate_answers(of, 3).rows))
    positions = pd.DataFrame(
        {name: {item: at for at, item in enumerate(order)} for name, order in found.rankings.items()}
    )
    taus = positions.corr(method="kendall").to_numpy()[np.triu_indices(3, 1)]
    assert found.rank_agreement == pytest.approx(taus.mean())


def test_d_prime_of_pairs_and_single_images() -> None:
    pairs = study(REAL_OR_GENERATED, 10)
    right = [True] * 8 + [False] * 2
    rows = [
        row("p", i, f"A{i}", "real" if ok else "generated", ("real", "generated") if i % 2 else ("generated", "real"))
        for i, ok in enumerate(right)
    ]
    (found,) = detection(pairs, frame_of(rows)).itertuples()
    assert found.d_prime == pytest.approx(np.sqrt(2) * stats.norm.ppf(8.5 / 11)) and found.trials == 10
    single = single_images()
    answers = [("r", "generated", 2), ("r", "real", 4), ("A", "generated", 5), ("A", "real", 1)]
    rows, counts = [], {"r": 0, "A": 0}
    for name, answer, times in answers:
        for _ in range(times):
            rows.append(row("p", len(rows), f"{name}{counts[name]}", answer, single.answers))
            counts[name] += 1
    (found,) = detection(single, frame_of(rows)).itertuples()
    assert (found.group, found.hits, found.false_alarms) == ("A", 5, 2)
    assert found.d_prime == pytest.approx(stats.norm.ppf(5.5 / 7) - stats.norm.ppf(2.5 / 7))
    assert scores_of(single, frame_of(rows)).values[0, 0] == pytest.approx((5 / 6 + 4 / 6) / 2)
    reference = scores_of(single, frame_of(rows), reference=True)
    assert reference.values[0, 0] == pytest.approx(1 / 6) and "taken for real" in reference.name


def test_confusion_has_all_classes_and_recalls_are_averaged() -> None:
    classes = ["x", "y", "z", "Other", "Unclassifiable"]
    shown = [{"id": f"c{i}", "image": "a.png", "truth": t} for i, t in enumerate(["x", "x", "y", "Other"])]
    of = study(CLASSIFY, classes=classes, stimuli=shown, expect={})
    answers = frame_of(
        [row("p", i, f"c{i}", a, tuple(classes)) for i, a in enumerate(["x", "y", "y", "Unclassifiable"])]
    )
    (counts,) = confusion_matrices(of, answers).values()
    assert counts.shape == (5, 5) and list(counts.index) == classes
    cells: Any = counts.loc
    assert cells["x", "x"] == cells["x", "y"] == cells["Other", "Unclassifiable"] == 1
    assert scores_of(of, answers).values[0, 0] == pytest.approx((0.5 + 1 + 0) / 3)
    assert scores_of(of, answers, reference=True).values[0, 0] == pytest.approx((0.5 + 1) / 2)


def test_shares_of_choices_and_of_the_top_ten() -> None:
    of = study(CHOOSE, 4)
    found = scores_of(of, frame_of([row("p", i, f"c{i}", "AAAB"[i], ("A", "B")) for i in range(4)]))
    assert found.values.tolist() == [[0.75, 0.25]]
    wilson = stats.binomtest(3, 4).proportion_ci(method="wilson")
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx((wilson.low, wilson.high), abs=1e-6)
    ranked = study(RANK, 10, expect={"A": 60.0, "B": 0.0})
    answers = frame_of(simulate_answers(ranked, 2, Raters(0.0, 0.0)).rows)
    assert scores_of(ranked, answers).values.tolist() == [[1.0, 0.0]] * 2
    # A participant who did not finish has no ranking.
    assert scores_of(ranked, answers[:-1]).values.tolist() == [[1.0, 0.0]]


def test_the_mixed_model_finds_the_planted_odds() -> None:
    of = study(CLASSIFY, 12)
    answers = frame_of(simulate_answers(of, 12, Raters(0.3, 0.3)).rows)
    found = fit_mixed_model(of, answers)
    assert found is not None and found.baseline == "A" and found.answers == 288
    planted = np.log(0.6 / 0.4) - np.log(0.9 / 0.1)
    (effect,) = found.effects
    assert effect.low < planted < effect.high and effect.high < 0
    assert found.participant_sd > 0 and found.preference_sd > 0 and found.stimulus_sd > 0
    assert fit_mixed_model(of, answers[answers["participant"] == "simulated-001"]) is None
    assert fit_mixed_model(study(RANK), pd.DataFrame({"stimulus": [], "participant": []})) is None


@pytest.mark.slow
def test_intervals_of_the_mixed_model_contain_the_planted_difference() -> None:
    """Raters and images differ. Intervals that ignore it contain the difference in half of the studies."""
    of, inside = study(CHOOSE, 20, expect={"A": 0.6, "B": 0.4}), 0
    for seed in range(20):
        found = fit_mixed_model(of, frame_of(simulate_answers(of, 8, seed=seed).rows))
        assert found is not None and np.isnan(found.participant_sd)
        inside += found.effects[0].low < np.log(0.4 / 0.6) < found.effects[0].high
    assert inside >= 17


def test_the_mixed_model_of_single_images_compares_the_generators() -> None:
    of = single_images()
    answers = frame_of(simulate_answers(of, 4).rows)
    found = fit_mixed_model(of, answers)
    assert found is not None and [each.group for each in found.effects] == ["B"]
    assert found == fit_mixed_model(of, answers)


def test_errors_of_the_mixed_model_are_those_of_a_logistic_regression_without_random_effects() -> None:
    """Raters and images do not differ: their fitted standard deviations are small, and the errors nearly the same."""
    of = study(CHOOSE, 40, expect={"A": 0.7, "B": 0.3})
    answers = frame_of(simulate_answers(of, 20, Raters(0.0, 0.0)).rows)
    found = fit_mixed_model(of, answers)
    assert found is not None
    (effect,) = found.effects
    fraction = float((answers["answer"] == "B").mean())
    assert effect.log_odds == pytest.approx(np.log(fraction / (1 - fraction)), abs=0.1)
    error = 1 / np.sqrt(len(answers) * fraction * (1 - fraction))
    assert error < (effect.high - effect.low) / 2 / 1.96 < 2 * error


def test_rankings_of_participants_are_compared_by_image() -> None:
    of = study(RANK, 10, expect={"A": 60.0, "B": 0.0})
    found = analyse_answers(of, frame_of(simulate_answers(of, 3, Raters(0.0, 20.0)).rows))
    assert found.rank_agreement > 0.9 and found.strengths is not None
    assert found.strengths.ranking[0] == next(iter(found.rankings.values()))[0]
