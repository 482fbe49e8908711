"""Probes: what they predict, and on what the strength of their penalty is chosen."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from stedfm_hf.evaluation.probe import C_GRID, DEFAULT_C, fit_predict, select_C

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 3
VECTORS = RNG.normal(size=(3, 8))[LABELS] + 0.7 * RNG.normal(size=(60, 8))
SOURCES = np.array([f"cell {number // 2}" for number in range(60)])


def test_classes_are_predicted_as_by_scikit_learn() -> None:
    found = fit_predict(VECTORS[:30], LABELS[:30], VECTORS[30:], task="classes", classes=3, C=0.1)
    expected = LogisticRegression(C=0.1, max_iter=1000).fit(VECTORS[:30], LABELS[:30]).predict_proba(VECTORS[30:])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_class_that_was_not_drawn_has_no_probability() -> None:
    some = LABELS != 1
    found = fit_predict(VECTORS[some], LABELS[some], VECTORS[:5], task="classes", classes=4, C=1.0)
    assert found.shape == (5, 4) and (found[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    only = fit_predict(VECTORS[:2], np.array([2, 2]), VECTORS[:5], task="classes", classes=3, C=1.0)
    assert (only == [0, 0, 1]).all()


def test_several_classes_and_numbers() -> None:
    table = np.stack([LABELS == 0, LABELS > 0, np.ones(60)], axis=1).astype(np.int64)
    found = fit_predict(VECTORS, table, VECTORS, task="multilabel", classes=3, C=10.0)
    assert ((found >= 0.5) == table).mean() > 0.95 and (found[:, 2] == 1).all()
    numbers = VECTORS @ np.arange(8.0)
    predicted = fit_predict(VECTORS, numbers, VECTORS, task="regression", classes=0, C=2.0)
    np.testing.assert_allclose(predicted, Ridge(alpha=0.5).fit(VECTORS, numbers).predict(VECTORS))


def test_a_probe_is_the_same_every_time() -> None:
    first, second = (
        fit_predict(VECTORS, LABELS, VECTORS, task="classes", classes=3, C=1.0).tobytes() for _ in range(2)
    )
    assert first == second


def test_the_strength_is_that_with_the_least_loss_on_the_validation_part() -> None:
    noise = np.random.default_rng(1).integers(0, 3, 60)
    strong = select_C(VECTORS, noise, SOURCES, task="classes", classes=3, validation=(VECTORS, LABELS), C_grid=C_GRID)
    weak = select_C(VECTORS, LABELS, SOURCES, task="classes", classes=3, validation=(VECTORS, LABELS))
    assert strong.selected_on == weak.selected_on == "validation" and strong.C < weak.C == max(C_GRID)
    assert weak.losses[-1] == min(weak.losses)


def test_without_a_validation_part_folds_share_no_source() -> None:
    """Crops of a source are copies here: with one of them in a training, its twin would be no test."""
    twins = np.repeat(RNG.normal(size=(30, 200)), 2, axis=0)
    labels = np.repeat(np.random.default_rng(3).integers(0, 2, 30), 2)
    honest = select_C(twins, labels, SOURCES, task="classes", classes=2)
    leaking = select_C(twins, labels, np.arange(60).astype(str), task="classes", classes=2)
    assert honest.selected_on == "cross-validation"
    # The labels are drawn at random: whoever finds them has seen the twin.
    assert min(honest.losses) > 0.6 and min(leaking.losses) < 0.4 and leaking.C > honest.C


def test_with_too_few_sources_nothing_is_chosen() -> None:
    found = select_C(VECTORS[:3], LABELS[:3], SOURCES[:3], task="classes", classes=3)
    assert (found.C, found.selected_on, found.losses) == (DEFAULT_C, "fixed", ())
