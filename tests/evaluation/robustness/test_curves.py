"""Curves, their bootstrap over source images, and tolerances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import r2_score

from stedfm_hf.evaluation.robustness.counts import Calibration
from stedfm_hf.evaluation.robustness.curves import crossing, score_curve, tolerance
from stedfm_hf.evaluation.robustness.families import default_families
from stedfm_hf.evaluation.robustness.probes import Predictions
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.labelled.images import from_arrays

FAMILIES = {each.name: each for each in default_families(Calibration())}


def labelled(labels: Sequence[object], per_source: int = 2) -> LabelledImages:
    sources = [f"s{number // per_source}" for number in range(len(labels))]
    return from_arrays("d", [np.full((4, 4), number) for number in range(len(labels))], labels, sources=sources)


def predictions(name: str, labels: np.ndarray, correct: list[float], seeds: int = 2) -> Predictions:
    """Predictions of which this fraction is correct at each level, evenly over the images."""
    found: Predictions = {}
    for level, fraction in zip(FAMILIES[name].levels, correct, strict=True):
        rank = np.argsort(np.argsort((np.arange(len(labels)) * 0.618034) % 1))
        wrong = rank >= round(fraction * len(labels))
        for seed in range(seeds):
            found[name, level, seed] = np.where(wrong, 1 - labels, labels)
    return found


def test_crossings_are_interpolated_and_never_extrapolated() -> None:
    values = [[0.9, 0.9, 0.8, 0.9], [0.9, 0.88, 0.87, 0.86], [0.9, 0.5, 0.9, 0.9], [0.9, 0.85, 0.85, 0.85]]
    np.testing.assert_allclose(crossing([0, 10, 20, 40], np.array(values)), [15.0, math.inf, 1.25, math.inf])
    assert np.isnan(crossing([0, 1], np.array([np.nan, 1.0])))


def test_the_tolerance_of_a_known_curve() -> None:
    test = labelled(list("ab") * 200)
    curve = score_curve(
        "m",
        FAMILIES["background"],
        predictions("background", test.labels, [0.95, 0.95, 0.95, 0.85, 0.5, 0.5]),
        test,
        [0, 1],
        "accuracy",
    )
    np.testing.assert_allclose(curve.means, [0.95, 0.95, 0.95, 0.85, 0.5, 0.5])
    row = tolerance(curve, 0.5)
    assert row["tolerance"] == pytest.approx(3 + 7 * 0.5) and row["unit"] == "counts"
    assert row["low"] < row["tolerance"] < row["high"] and not row["beyond"]
    first = curve.rows()[3]
    assert first["loss"] == pytest.approx(0.1) and first["loss_low"] < 0.1 < first["loss_high"] and first["sd"] == 0
    loss, ends = curve.mean_loss()
    assert loss == pytest.approx(0.2) and ends is not None and ends[0] < loss < ends[1]


def test_photons_are_interpolated_in_shot_noise() -> None:
    test = labelled(list("ab") * 200)
    found = predictions("photons", test.labels, [1.0, 1.0, 1.0, 1.0, 0.9, 0.9])
    row = tolerance(score_curve("m", FAMILIES["photons"], found, test, [0], "accuracy"), 0.5)
    middle = (1 / math.sqrt(10) + 1 / math.sqrt(5)) / 2
    assert row["tolerance"] == pytest.approx(1 / middle**2) and 5 < row["tolerance"] < 10


def test_a_tolerance_beyond_the_last_level_and_one_at_chance() -> None:
    test = labelled(list("ab") * 50)
    found = predictions("gain", test.labels, [0.9, 0.9, 0.9])
    row = tolerance(score_curve("m", FAMILIES["gain"], found, test, [0], "accuracy"), 0.5)
    assert row["beyond"] and row["high_beyond"] and row["tolerance"] is None and row["last"] == 200
    low = predictions("gain", test.labels, [0.52, 0.5, 0.5])
    row = tolerance(score_curve("m", FAMILIES["gain"], low, test, [0], "accuracy"), 0.5)
    assert not row["beyond"] and row["tolerance"] is None and "not clearly above chance" in row["reason"]
    found = predictions("flip", test.labels, [0.9, 0.9, 0.9])
    row = tolerance(score_curve("m", FAMILIES["flip"], found, test, [0], "accuracy"), 0.5)
    assert row["reason"] == "the levels have no order"


def test_regression_metrics_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(100.0, 5.0, 40)
    test = labelled([float(each) for each in labels])
    found = {("gain", level, 0): labels + rng.normal(0, 2 + n, 40) for n, level in enumerate((0.0, 50.0, 200.0))}
    r2 = score_curve("m", FAMILIES["gain"], found, test, [0], "r2")
    r = score_curve("m", FAMILIES["gain"], found, test, [0], "pearson_r")
    for number, predicted in enumerate(found.values()):
        assert r2.means[number] == pytest.approx(r2_score(labels, predicted))
        assert r.means[number] == pytest.approx(np.corrcoef(labels, predicted)[0, 1])
        ends = r2.interval(r2.resampled[:, number])
        assert ends is not None and ends[0] < r2.means[number] < ends[1]
