"""Metrics of predicted labels and numbers for the `evaluate` library, without network access or cache files."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

CITATION = "See the description for the definitions."


class OfflineMetric(evaluate.Metric):
    """Metric that writes no cache files, so that several metrics can run at the same time without locks.

    Args:
        keep_in_memory: Whether to keep inputs in memory. False uses cache files in `cache_dir`, which `num_process`
            above 1 needs.
        **options: Options of `evaluate.Metric`.
    """

    def __init__(self, *, keep_in_memory: bool = True, **options: Any) -> None:
        super().__init__(keep_in_memory=keep_in_memory, **options)

    def _build_data_dir(self) -> str:
        # The constructor calls this method and would create the folder even if no file is written.
        return "" if self.keep_in_memory else super()._build_data_dir()

    def info_of(self, description: str, inputs: str, features: dict[str, Any]) -> evaluate.MetricInfo:
        """Return the description of the metric.

        Args:
            description: Description in one sentence.
            inputs: Description of the inputs.
            features: Feature types of the inputs, by name.
        """
        return evaluate.MetricInfo(
            description=description,
            citation=CITATION,
            inputs_description=inputs,
            features=datasets.Features(features),
        )


NUMBER = datasets.Value("float64")
"""Type of all inputs, including class numbers: with an integer type, `evaluate` would silently truncate 0.7 to 0."""
NUMBERS = datasets.Sequence(NUMBER)


def class_numbers(name: str, values: Any, num_classes: int | None = None) -> np.ndarray:
    """Return class numbers as integers.

    Args:
        name: Name of the values in the message.
        values: Class numbers (n,).
        num_classes: Number of classes; None allows any number.

    Raises:
        ValueError: If there are no numbers, or a number is not the number of a class.
    """
    numbers = np.asarray(values, float)
    if not numbers.size:
        raise ValueError(f"there are no {name}")
    if not (numbers == np.floor(numbers)).all() or numbers.min() < 0 or numbers.max() >= (num_classes or np.inf):
        known = "0, 1, 2, ..." if num_classes is None else f"0 to {num_classes - 1}"
        raise ValueError(
            f"{name} must be class numbers ({known}), but range from {numbers.min():g} to {numbers.max():g}"
        )
    return numbers.astype(np.int64)


def check_finite(name: str, values: np.ndarray) -> None:
    """Raise a ValueError if a value is NaN or infinite.

    Args:
        name: Name of the values in the message.
        values: Values to check.
    """
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ValueError(f"{bad} of {values.size} {name} are not finite; check the predictions")


def or_none(values: np.ndarray) -> list[float | None]:
    """Convert numbers to a list in which NaN is None.

    Args:
        values: Numbers (n,).

    Example:
        >>> or_none(np.array([0.5, np.nan]))
        [0.5, None]
    """
    return [None if np.isnan(value) else float(value) for value in values]


class ClassificationMetrics(OfflineMetric):
    """Accuracy, balanced accuracy, macro F1, recall of each class and confusion matrix, as defined by scikit-learn.

    Classes without references have no recall (None) and are excluded from the balanced accuracy. If such a class is
    predicted, its F1 is 0; otherwise it is excluded from the macro F1 as well.

    `compute(predictions=, references=, num_classes=None)` takes class numbers and returns

    - `accuracy`, `balanced_accuracy` (mean recall), `macro_f1`: float in [0, 1];
    - `recall_per_class`: recall of each class, float or None;
    - `confusion_matrix`: counts (num_classes, num_classes); rows are references, columns are predictions;
    - `absent_classes`: numbers of the classes without references.

    By default, `num_classes` is the highest class number plus one.

    Example:
        >>> found = ClassificationMetrics().compute(predictions=[0, 1, 1, 0], references=[0, 1, 1, 1], num_classes=3)
        >>> found["accuracy"], round(found["balanced_accuracy"], 3), found["absent_classes"]
        (0.75, 0.833, [2])
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Accuracy, balanced accuracy, macro F1, recall per class, confusion matrix.",
            "predictions, references: class numbers; num_classes: number of classes.",
            {"predictions": NUMBER, "references": NUMBER},
        )

    def _compute(
        self, *, predictions: np.ndarray, references: np.ndarray, num_classes: int | None = None
    ) -> dict[str, Any]:
        """Compute the metrics from class numbers (n,); see the class for the results."""
        truth, predicted = (
            class_numbers(name, values, num_classes)
            for name, values in (("references", references), ("predictions", predictions))
        )
        count = num_classes or int(max(truth.max(), predicted.max())) + 1
        matrix = confusion_matrix(truth, predicted, labels=np.arange(count))
        correct, true_counts, predicted_counts = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        with np.errstate(invalid="ignore"):
            recall, f1 = correct / true_counts, 2 * correct / (true_counts + predicted_counts)
        return {
            "accuracy": float(correct.sum() / matrix.sum()),
            "balanced_accuracy": float(np.nanmean(recall)),
            "macro_f1": float(np.nanmean(f1)),
            "recall_per_class": or_none(recall),
            "confusion_matrix": matrix.tolist(),
            "absent_classes": np.flatnonzero(true_counts == 0).tolist(),
        }


class MultiLabelMetrics(OfflineMetric):
    """Macro F1, micro F1 and mean average precision of multilabel predictions.

    Classes without positives have no average precision. If they are never predicted either, they have no F1. Undefined
    values are counted and excluded from means.

    `compute(predictions=, references=, threshold=0.5)` takes scores (n, C), such as probabilities, and references 0 or
    1 (n, C). Scores of at least `threshold` are predicted. It returns

    - `macro_f1`, `micro_f1`: float in [0, 1], or None if undefined for all classes;
    - `mean_average_precision`: float in [0, 1], or None if no class has positives;
    - `f1_per_class`, `average_precision_per_class`: values of each class, float or None;
    - `undefined_f1`, `undefined_average_precision`: numbers of classes with an undefined value.

    Example:
        >>> found = MultiLabelMetrics().compute(predictions=[[0.9, 0.1], [0.2, 0.4]], references=[[1, 0], [0, 0]])
        >>> found["macro_f1"], found["mean_average_precision"], found["undefined_f1"]
        (1.0, 1.0, 1)
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Macro F1, micro F1, mean average precision.",
            "predictions: scores of each class; references: 0 or 1 for each class; threshold: lowest score predicted.",
            {"predictions": NUMBERS, "references": NUMBERS},
        )

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
        """Compute the metrics from scores and references (n, C); see the class for the results."""
        scores, truth = np.asarray(predictions, float), np.asarray(references)
        if scores.ndim != 2 or not scores.size or scores.shape != truth.shape:
            raise ValueError("give one score and one reference for each image and class")
        if not np.isin(truth, (0, 1)).all():
            raise ValueError("multilabel references must be 0 or 1 for each class")
        check_finite("scores", scores)
        predicted, truth = scores >= threshold, truth == 1
        correct, total = (predicted & truth).sum(axis=0), predicted.sum(axis=0) + truth.sum(axis=0)
        f1 = np.divide(2 * correct, total, out=np.full(len(correct), np.nan), where=total > 0)
        precision = np.full(len(correct), np.nan)
        for number in np.flatnonzero(truth.any(axis=0)):
            precision[number] = average_precision_score(truth[:, number], scores[:, number])
        return {
            "macro_f1": _mean(f1),
            "micro_f1": float(2 * correct.sum() / total.sum()) if total.any() else None,
            "mean_average_precision": _mean(precision),
            "f1_per_class": or_none(f1),
            "average_precision_per_class": or_none(precision),
            "undefined_f1": int(np.isnan(f1).sum()),
            "undefined_average_precision": int(np.isnan(precision).sum()),
        }


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of the defined values, or None if there are none."""
    return None if np.isnan(values).all() else float(np.nanmean(values))


class RegressionMetrics(OfflineMetric):
    """Pearson correlation, R², mean absolute error and root mean squared error.

    Constant references have neither a correlation nor R², and constant predictions have no correlation. These values
    are None. R² is negative for predictions that are worse than the mean of the references.

    `compute(predictions=, references=)` takes numbers and returns `pearson_r`, `r2`, `mae`, `rmse`, and `undefined`,
    the number of undefined metrics.

    Example:
        >>> found = RegressionMetrics().compute(predictions=[50.0, 60.0, 90.0], references=[50.0, 70.0, 90.0])
        >>> {name: round(value, 3) for name, value in found.items()}
        {'pearson_r': 0.961, 'r2': 0.875, 'mae': 3.333, 'rmse': 5.774, 'undefined': 0}
        >>> RegressionMetrics().compute(predictions=[0.1, 0.3], references=[0.5, 0.5])["r2"] is None
        True
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Pearson r, R2, mean absolute error, root mean squared error.",
            "predictions, references: numbers.",
            {"predictions": NUMBER, "references": NUMBER},
        )

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, Any]:
        """Compute the metrics from numbers (n,); see the class for the results."""
        predictions, references = np.asarray(predictions, float), np.asarray(references, float)
        if not len(references):
            raise ValueError("there are no references; give at least one prediction and its reference")
        check_finite("predictions", predictions)
        check_finite("references", references)
        varied = np.ptp(references) > 0
        correlated = varied and np.ptp(predictions) > 0
        return {
            "pearson_r": float(pearsonr(references, predictions).statistic) if correlated else None,
            "r2": float(r2_score(references, predictions)) if varied else None,
            "mae": float(mean_absolute_error(references, predictions)),
            "rmse": float(root_mean_squared_error(references, predictions)),
            "undefined": int(not correlated) + int(not varied),
        }


BINS = 15
"""Default number of bins of the reliability diagram."""


class CalibrationMetrics(OfflineMetric):
    """Expected calibration error, Brier score and the bins of a reliability diagram.

    The confidence of a prediction is its highest probability. Confidences are divided into bins (low, high] of equal
    width. The expected calibration error is the mean absolute difference of confidence and accuracy of the bins,
    weighted by their counts. The Brier score is the mean squared difference of the probabilities from the one-hot
    reference, from 0 (best) to 2.

    `compute(predictions=, references=, bins=15)` takes probabilities (n, C) and class numbers (n,), and returns

    - `expected_calibration_error` in [0, 1] and `brier_score` in [0, 2];
    - `reliability`: for each bin, a dictionary of `low`, `high`, `count`, `confidence` and `accuracy`; the last two
      are means over the bin, or None in an empty bin.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017; Brier, Verification of Forecasts Expressed in
        Terms of Probability, 1950.

    Example:
        >>> found = CalibrationMetrics().compute(predictions=[[0.8, 0.2], [0.4, 0.6]], references=[0, 0], bins=2)
        >>> round(found["expected_calibration_error"], 3), round(found["brier_score"], 3)
        (0.2, 0.4)
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Expected calibration error, Brier score, reliability bins.",
            "predictions: probabilities of each class; references: class numbers; bins: number of bins.",
            {"predictions": NUMBERS, "references": NUMBER},
        )

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray, bins: int = BINS) -> dict[str, Any]:
        """Compute the metrics from probabilities (n, C) and class numbers (n,); see the class for the results."""
        probabilities = np.asarray(predictions, float)
        if probabilities.ndim != 2 or not probabilities.size:
            raise ValueError("give the probability of each class for at least one image")
        check_finite("probabilities", probabilities)
        if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
            raise ValueError("the probabilities of each image must be positive and sum to 1; apply softmax to logits")
        numbers = class_numbers("references", references, probabilities.shape[1])
        confidence = probabilities.max(axis=1)
        correct = (probabilities.argmax(axis=1) == numbers).astype(float)
        edges = np.linspace(0.0, 1.0, bins + 1)
        bin_number = np.searchsorted(edges[1:-1], confidence)
        count = np.bincount(bin_number, minlength=bins)
        filled = count > 0
        mean_confidence, accuracy = (
            np.bincount(bin_number, each, bins) / np.maximum(count, 1) for each in (confidence, correct)
        )
        gap = np.abs(mean_confidence - accuracy)[filled]
        truth = np.eye(probabilities.shape[1])[numbers]
        return {
            "expected_calibration_error": float(np.average(gap, weights=count[filled])),
            "brier_score": float(((probabilities - truth) ** 2).sum(axis=1).mean()),
            "reliability": [
                {
                    "low": float(edges[number]),
                    "high": float(edges[number + 1]),
                    "count": int(count[number]),
                    "confidence": float(mean_confidence[number]) if filled[number] else None,
                    "accuracy": float(accuracy[number]) if filled[number] else None,
                }
                for number in range(bins)
            ],
        }
