"""Linear probes: predictions, and selection of C."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge

from stedfm_hf.evaluation.probe import C_GRID, DEFAULT_C, fit_layer, fit_predict, select_C

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 3
FEATURES = RNG.normal(size=(3, 8))[LABELS] + 0.7 * RNG.normal(size=(60, 8))
SOURCES = np.array([f"cell {number // 2}" for number in range(60)])


def test_classes_are_predicted_as_by_scikit_learn() -> None:
    found = fit_predict(FEATURES[:30], LABELS[:30], FEATURES[30:], task="classes", classes=3, C=0.1)
    expected = LogisticRegression(C=0.1, max_iter=1000).fit(FEATURES[:30], LABELS[:30]).predict_proba(FEATURES[30:])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_classes_without_training_images_have_probability_zero() -> None:
    present = LABELS != 1
    found = fit_predict(FEATURES[present], LABELS[present], FEATURES[:5], task="classes", classes=4, C=1.0)
    assert found.shape == (5, 4) and (found[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    only = fit_predict(FEATURES[:2], np.array([2, 2]), FEATURES[:5], task="classes", classes=3, C=1.0)
    assert (only == [0, 0, 1]).all()


def test_multilabel_and_regression() -> None:
    table = np.stack([LABELS == 0, LABELS > 0, np.ones(60)], axis=1).astype(np.int64)
    found = fit_predict(FEATURES, table, FEATURES, task="multilabel", classes=3, C=10.0)
    assert ((found >= 0.5) == table).mean() > 0.95 and (found[:, 2] == 1).all()
    numbers = FEATURES @ np.arange(8.0)
    predicted = fit_predict(FEATURES, numbers, FEATURES, task="regression", classes=0, C=2.0)
    np.testing.assert_allclose(predicted, Ridge(alpha=0.5).fit(FEATURES, numbers).predict(FEATURES))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_layer_gives_the_probabilities_of_the_probe(classes: int) -> None:
    labels = LABELS % classes
    weight, bias = fit_layer(FEATURES, labels, task="classes", classes=classes, C=0.1)
    found = softmax(FEATURES @ weight.T + bias, axis=1)
    expected = fit_predict(FEATURES, labels, FEATURES, task="classes", classes=classes, C=0.1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(weight.sum(axis=0), 0, atol=1e-6)  # nothing that is common to all classes


def test_a_layer_never_predicts_a_class_without_training_images() -> None:
    weight, bias = fit_layer(FEATURES, LABELS, task="classes", classes=4, C=1.0)
    assert (weight[3] == 0).all() and (FEATURES @ weight[:3].T + bias[:3] >= bias[3]).all()
    weight, bias = fit_layer(FEATURES, np.full(60, 2), task="classes", classes=3, C=1.0)
    assert (weight == 0).all() and (bias == 0).all()


def test_layers_of_multilabel_targets_and_numbers() -> None:
    table = np.stack([LABELS == 0, LABELS > 0, np.ones(60)], axis=1).astype(np.int64)
    weight, bias = fit_layer(FEATURES, table, task="multilabel", classes=3, C=10.0)
    expected = fit_predict(FEATURES, table, FEATURES, task="multilabel", classes=3, C=10.0)
    found = expit(FEATURES @ weight.T + bias)
    np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=1e-3)
    assert (weight[2] == 0).all() and (found[:, 2] > 0.99).all()
    numbers = FEATURES @ np.arange(8.0)
    weight, bias = fit_layer(FEATURES, numbers, task="regression", classes=0, C=2.0)
    predicted = fit_predict(FEATURES, numbers, FEATURES, task="regression", classes=0, C=2.0)
    np.testing.assert_allclose((FEATURES @ weight.T + bias)[:, 0], predicted)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    rare = np.array([0] * 50 + [1] * 10)
    weight, bias = fit_layer(FEATURES, rare, task="classes", classes=2, C=0.1, balanced=True)
    expected = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced").fit(FEATURES, rare)
    np.testing.assert_allclose(
        FEATURES @ (weight[1] - weight[0]) + bias[1] - bias[0], expected.decision_function(FEATURES)
    )


def test_a_probe_is_deterministic() -> None:
    first, second = (
        fit_predict(FEATURES, LABELS, FEATURES, task="classes", classes=3, C=1.0).tobytes() for _ in range(2)
    )
    assert first == second


def test_c_minimises_the_loss_on_the_validation_split() -> None:
    noise = np.random.default_rng(1).integers(0, 3, 60)
    strong = select_C(
        FEATURES, noise, SOURCES, task="classes", classes=3, validation=(FEATURES, LABELS), C_grid=C_GRID
    )
    weak = select_C(FEATURES, LABELS, SOURCES, task="classes", classes=3, validation=(FEATURES, LABELS))
    assert strong.selected_on == weak.selected_on == "validation" and strong.C < weak.C == max(C_GRID)
    assert weak.losses[-1] == min(weak.losses)


def test_cross_validation_folds_share_no_source() -> None:
    """Crops of a source are copies: with one of them in the training images, its copy is not a valid test."""
    twins = np.repeat(RNG.normal(size=(30, 200)), 2, axis=0)
    labels = np.repeat(np.random.default_rng(3).integers(0, 2, 30), 2)
    by_source = select_C(twins, labels, SOURCES, task="classes", classes=2)
    by_crop = select_C(twins, labels, np.arange(60).astype(str), task="classes", classes=2)
    assert by_source.selected_on == "cross-validation"
    # The labels are random: only a copy in the training images allows a prediction.
    assert min(by_source.losses) > 0.6 and min(by_crop.losses) < 0.4 and by_crop.C > by_source.C


def test_c_is_fixed_with_too_few_sources() -> None:
    found = select_C(FEATURES[:3], LABELS[:3], SOURCES[:3], task="classes", classes=3)
    assert (found.C, found.selected_on, found.losses) == (DEFAULT_C, "fixed", ())
