"""Label metrics: agreement with scikit-learn and SciPy, undefined values, and no files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
    r2_score,
    recall_score,
    root_mean_squared_error,
)

from stedfm_hf.metrics import (
    CalibrationMetrics,
    ClassificationMetrics,
    MultiLabelMetrics,
    RegressionMetrics,
)

ALL = (CalibrationMetrics, ClassificationMetrics, MultiLabelMetrics, RegressionMetrics)


@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_classification_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = map(list, zip(*pairs, strict=True))
    found = ClassificationMetrics().compute(predictions=predicted, references=truth, num_classes=5)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert found["confusion_matrix"] == confusion_matrix(truth, predicted, labels=range(5)).tolist()
    recall = recall_score(truth, predicted, labels=range(5), average=None, zero_division=np.nan)
    for number, (value, expected) in enumerate(zip(found["recall_per_class"], recall, strict=True)):
        assert (value is None) == bool(np.isnan(expected)) == (number in found["absent_classes"])
        assert value is None or value == pytest.approx(expected)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), classes=st.integers(2, 6), bins=st.integers(1, 20))
def test_calibration_agrees_with_scikit_learn(seed: int, n: int, classes: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, truth = rng.dirichlet(np.ones(classes), n), rng.integers(0, classes, n)
    found = CalibrationMetrics().compute(predictions=probabilities, references=truth, bins=bins)
    brier = brier_score_loss(truth, probabilities, labels=list(range(classes)), scale_by_half=False)
    assert found["brier_score"] == pytest.approx(brier)
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    accuracy, confidence = calibration_curve(right, sure, n_bins=bins, strategy="uniform")
    filled = [each for each in found["reliability"] if each["count"]]
    np.testing.assert_allclose([each["accuracy"] for each in filled], accuracy)
    np.testing.assert_allclose([each["confidence"] for each in filled], confidence)
    assert sum(each["count"] for each in filled) == n
    weights = [each["count"] / n for each in filled]
    assert found["expected_calibration_error"] == pytest.approx(np.dot(weights, np.abs(accuracy - confidence)))


def test_certain_predictions_have_extreme_calibration_errors() -> None:
    certain = np.eye(3)[[0, 1, 2, 0]]
    right = CalibrationMetrics().compute(predictions=certain, references=[0, 1, 2, 0])
    wrong = CalibrationMetrics().compute(predictions=certain, references=[1, 2, 0, 1])
    assert (right["expected_calibration_error"], right["brier_score"]) == (0.0, 0.0)
    assert (wrong["expected_calibration_error"], wrong["brier_score"]) == (1.0, 2.0)
    edge = CalibrationMetrics().compute(predictions=[[0.5, 0.5]], references=[0], bins=2)
    assert [each["count"] for each in edge["reliability"]] == [1, 0]
    assert right["reliability"][0] == {"low": 0.0, "high": 1 / 15, "count": 0, "confidence": None, "accuracy": None}


@given(seed=st.integers(0, 10_000), n=st.integers(1, 30), rate=st.floats(0.0, 1.0))
def test_multilabel_metrics_agree_with_scikit_learn(seed: int, n: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = rng.random((n, 4)).round(1), (rng.random((n, 4)) < rate).astype(int)
    found = MultiLabelMetrics().compute(predictions=scores, references=truth)
    guessed = (scores >= 0.5).astype(int)
    per_class = f1_score(truth, guessed, average=None, zero_division=np.nan)
    assert [value is None for value in found["f1_per_class"]] == np.isnan(per_class).tolist()
    assert found["undefined_f1"] == np.isnan(per_class).sum()
    for average in ("macro", "micro"):
        expected = f1_score(truth, guessed, average=average, zero_division=np.nan)
        assert found[f"{average}_f1"] == (None if np.isnan(expected) else pytest.approx(expected))
    there = [number for number in range(4) if truth[:, number].any()]
    assert found["undefined_average_precision"] == 4 - len(there)
    expected = [average_precision_score(truth[:, number], scores[:, number]) for number in there]
    assert found["mean_average_precision"] == (pytest.approx(np.mean(expected)) if there else None)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 50))
def test_regression_agrees_with_scikit_learn_and_scipy(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(100, 20, n)
    predicted = truth + rng.normal(0, 10, n)
    found = RegressionMetrics().compute(predictions=predicted, references=truth)
    assert found["pearson_r"] == pytest.approx(pearsonr(truth, predicted).statistic)
    assert found["r2"] == pytest.approx(r2_score(truth, predicted))
    assert found["mae"] == pytest.approx(mean_absolute_error(truth, predicted))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted))
    assert found["undefined"] == 0


@pytest.mark.parametrize(
    ("predicted", "truth", "undefined"),
    [
        ([0.1, 0.3], [0.5, 0.5], {"pearson_r", "r2"}),
        ([0.3, 0.3], [0.5, 0.6], {"pearson_r"}),
        ([1.0], [1.0], {"pearson_r", "r2"}),
    ],
)
def test_undefined_metrics_of_constants_are_none_and_counted(
    predicted: list[float], truth: list[float], undefined: set[str]
) -> None:
    found = RegressionMetrics().compute(predictions=predicted, references=truth)
    assert {name for name, value in found.items() if value is None} == undefined
    assert found["undefined"] == len(undefined)
    assert found["mae"] == pytest.approx(np.abs(np.subtract(predicted, truth)).mean())


@pytest.mark.parametrize("metric", ALL)
def test_no_files_are_written_and_metrics_can_run_at_the_same_time(
    metric: type[evaluate.Metric], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics do not create the cache folder, so that a read-only home folder and concurrent runs are possible."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    whole: dict[type[evaluate.Metric], tuple[Any, Any]] = {
        CalibrationMetrics: ([[0.9, 0.1], [0.3, 0.7]], [0, 0]),
        ClassificationMetrics: ([0, 1], [0, 0]),
        MultiLabelMetrics: ([[0.9, 0.1], [0.3, 0.7]], [[1, 0], [1, 1]]),
        RegressionMetrics: ([0.5, 0.6], [0.5, 0.7]),
    }
    predictions, references = whole[metric]
    one, other = metric(), metric()
    expected = metric().compute(predictions=predictions, references=references)
    for prediction, reference in zip(predictions, references, strict=True):
        for each in (one, other):
            each.add_batch(predictions=[prediction], references=[reference])
    assert one.compute() == other.compute() == expected
    assert one.compute(predictions=predictions, references=references) == expected  # and can be used again
    assert json.loads(json.dumps(expected)) == expected
    assert list(tmp_path.iterdir()) == []


def test_tensors_and_combined_metrics_are_supported(tmp_path: Path) -> None:
    predicted = torch.tensor([0, 1, 1])
    found = ClassificationMetrics().compute(predictions=predicted, references=torch.tensor([0, 1, 0]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    on_disk = ClassificationMetrics(keep_in_memory=False, cache_dir=str(tmp_path))
    assert on_disk.compute(predictions=predicted, references=[0, 1, 0]) == found
    both = evaluate.combine([ClassificationMetrics(), RegressionMetrics()])
    assert {"accuracy", "mae"} <= set(both.compute(predictions=[0, 1], references=[0, 1]))


@pytest.mark.parametrize(
    ("metric", "given_ones", "message"),
    [
        (ClassificationMetrics, {"predictions": [0.7], "references": [0]}, "predictions must be class numbers"),
        (ClassificationMetrics, {"predictions": [-1], "references": [0]}, "predictions must be class numbers"),
        (
            ClassificationMetrics,
            {"predictions": [0], "references": [3], "num_classes": 3},
            r"class numbers \(0 to 2\)",
        ),
        (
            ClassificationMetrics,
            {"predictions": [0], "references": [float("nan")]},
            "references must be class numbers",
        ),
        (ClassificationMetrics, {"predictions": [], "references": []}, "no references"),
        (CalibrationMetrics, {"predictions": [[3.0, -2.0]], "references": [0]}, "softmax"),
        (CalibrationMetrics, {"predictions": [[float("nan"), 1.0]], "references": [0]}, "1 of 2 probabilities"),
        (CalibrationMetrics, {"predictions": [[0.5, 0.5]], "references": [2]}, r"class numbers \(0 to 1\)"),
        (MultiLabelMetrics, {"predictions": [[0.5, 0.5]], "references": [[0.5, 1]]}, "0 or 1"),
        (MultiLabelMetrics, {"predictions": [[0.5, 0.5]], "references": [[1]]}, "one score and one reference"),
        (MultiLabelMetrics, {"predictions": [[float("inf"), 0.5]], "references": [[0, 1]]}, "1 of 2 scores"),
        (RegressionMetrics, {"predictions": [float("nan"), 1.0], "references": [0.0, 1.0]}, "1 of 2 predictions"),
        (RegressionMetrics, {"predictions": [], "references": []}, "no references"),
    ],
)
def test_invalid_arguments_raise_errors(
    metric: type[evaluate.Metric], given_ones: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric().compute(**given_ones)
