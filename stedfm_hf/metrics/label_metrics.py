"""Metrics of predicted labels and numbers for the library `evaluate`, which need no network and write nothing."""

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

CITATION = "No paper: the definitions are in the description."


class OfflineMetric(evaluate.Metric):
    """A metric that writes nothing: no cache folder, no lock to wait for when several run at once.

    Args:
        keep_in_memory: False goes back to cache files, as `num_process` above 1 needs them; then give `cache_dir`.
        **options: those of `evaluate.Metric`.
    """

    def __init__(self, *, keep_in_memory: bool = True, **options: Any) -> None:
        super().__init__(keep_in_memory=keep_in_memory, **options)

    def _build_data_dir(self) -> str:
        # Called by the constructor, which would make the folder even where nothing is ever written to it.
        return "" if self.keep_in_memory else super()._build_data_dir()

    def info_of(self, description: str, inputs: str, features: dict[str, Any]) -> evaluate.MetricInfo:
        """The description that `evaluate` asks for."""
        return evaluate.MetricInfo(
            description=description,
            citation=CITATION,
            inputs_description=inputs,
            features=datasets.Features(features),
        )


NUMBER = datasets.Value("float64")
"""Of class numbers, too: `evaluate` would cut 0.7 down to 0 without a word where it expects integers."""
NUMBERS = datasets.Sequence(NUMBER)


def class_numbers(name: str, values: Any, num_classes: int | None = None) -> np.ndarray:
    """Class numbers as integers; refuses none, fractions and numbers of no class."""
    numbers = np.asarray(values, float)
    if not numbers.size:
        raise ValueError(f"there are no {name}")
    if not (numbers == np.floor(numbers)).all() or numbers.min() < 0 or numbers.max() >= (num_classes or np.inf):
        known = (
            "numbers 0, 1, 2, ... of classes" if num_classes is None else f"numbers 0 to {num_classes - 1} of classes"
        )
        raise ValueError(f"{name} must be {known}; there are {numbers.min():g} to {numbers.max():g}")
    return numbers.astype(np.int64)


def check_finite(name: str, values: np.ndarray) -> None:
    """Refuses values that are not numbers: a metric of them would be one no more than they are."""
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ValueError(f"{bad} of {values.size} {name} are not finite numbers; nothing can be said about them")


def or_none(values: np.ndarray) -> list[float | None]:
    """Numbers as plain data, those that are undefined (NaN) as None."""
    return [None if np.isnan(value) else float(value) for value in values]


class ClassificationMetrics(OfflineMetric):
    """Accuracy, balanced accuracy, macro F1, recall of each class and confusion matrix, as scikit-learn defines them.

    A class without references has no recall (None) and is left out of the balanced accuracy; one that was predicted
    nevertheless counts in the macro F1, with 0. Classes with neither are left out of both.

    `compute(predictions=, references=, num_classes=None)` takes class numbers and returns

    - `accuracy`, `balanced_accuracy` (mean recall), `macro_f1`: floats in [0, 1];
    - `recall_per_class`: list of floats or None, by class number;
    - `confusion_matrix`: list of rows of counts, rows are references, columns predictions;
    - `absent_classes`: numbers of the classes without references.

    Without `num_classes` there are as many classes as the highest number says.

    Example:
        >>> found = ClassificationMetrics().compute(predictions=[0, 1, 1, 0], references=[0, 1, 1, 1], num_classes=3)
        >>> found["accuracy"], round(found["balanced_accuracy"], 3), found["absent_classes"]
        (0.75, 0.833, [2])
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Accuracy, balanced accuracy, macro F1, recall per class, confusion matrix.",
            "predictions, references: class numbers; num_classes: how many classes there are.",
            {"predictions": NUMBER, "references": NUMBER},
        )

    def _compute(
        self, *, predictions: np.ndarray, references: np.ndarray, num_classes: int | None = None
    ) -> dict[str, Any]:
        true, guessed = (
            class_numbers(name, values, num_classes)
            for name, values in (("references", references), ("predictions", predictions))
        )
        count = num_classes or int(max(true.max(), guessed.max())) + 1
        matrix = confusion_matrix(true, guessed, labels=np.arange(count))
        right, there, given = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        with np.errstate(invalid="ignore"):
            recall, f1 = right / there, 2 * right / (there + given)
        return {
            "accuracy": float(right.sum() / matrix.sum()),
            "balanced_accuracy": float(np.nanmean(recall)),
            "macro_f1": float(np.nanmean(f1)),
            "recall_per_class": or_none(recall),
            "confusion_matrix": matrix.tolist(),
            "absent_classes": np.flatnonzero(there == 0).tolist(),
        }


class MultiLabelMetrics(OfflineMetric):
    """Macro and micro F1, and mean average precision.

    A class without a positive has no average precision; one that moreover was never predicted has no F1. Both are left
    out of the means, and counted.

    `compute(predictions=, references=, threshold=0.5)` takes scores (n, C), as probabilities, and 0 or 1 (n, C), and
    returns

    - `macro_f1`, `micro_f1`: F1 of scores of the threshold or more; None where no class has one;
    - `mean_average_precision`: None where no class has a positive;
    - `f1_per_class`, `average_precision_per_class`: lists of floats or None;
    - `undefined_f1`, `undefined_average_precision`: classes left out.

    Example:
        >>> found = MultiLabelMetrics().compute(predictions=[[0.9, 0.1], [0.2, 0.4]], references=[[1, 0], [0, 0]])
        >>> found["macro_f1"], found["mean_average_precision"], found["undefined_f1"]
        (1.0, 1.0, 1)
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Macro F1, micro F1, mean average precision.",
            "predictions: scores of every class; references: 0 or 1 for every class; threshold: of a positive.",
            {"predictions": NUMBERS, "references": NUMBERS},
        )

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
        scores, truth = np.asarray(predictions, float), np.asarray(references)
        if scores.ndim != 2 or not scores.size or scores.shape != truth.shape:
            raise ValueError("there must be one score and one reference of every image for every class")
        if not np.isin(truth, (0, 1)).all():
            raise ValueError("references of several labels are 0 or 1 for every class")
        check_finite("scores", scores)
        guessed, truth = scores >= threshold, truth == 1
        right, either = (guessed & truth).sum(axis=0), guessed.sum(axis=0) + truth.sum(axis=0)
        f1 = np.divide(2 * right, either, out=np.full(len(right), np.nan), where=either > 0)
        precision = np.full(len(right), np.nan)
        for number in np.flatnonzero(truth.any(axis=0)):
            precision[number] = average_precision_score(truth[:, number], scores[:, number])
        return {
            "macro_f1": _mean(f1),
            "micro_f1": float(2 * right.sum() / either.sum()) if either.any() else None,
            "mean_average_precision": _mean(precision),
            "f1_per_class": or_none(f1),
            "average_precision_per_class": or_none(precision),
            "undefined_f1": int(np.isnan(f1).sum()),
            "undefined_average_precision": int(np.isnan(precision).sum()),
        }


def _mean(values: np.ndarray) -> float | None:
    """Mean of what is defined."""
    return None if np.isnan(values).all() else float(np.nanmean(values))


class RegressionMetrics(OfflineMetric):
    """Pearson correlation, R², mean absolute and root mean squared error.

    Of references that are all the same there is neither correlation nor R², of such predictions no correlation: they
    are None, and `undefined` counts them. R² is 1 minus the squared error over that of the mean reference: below 0 for
    predictions that are worse than it.

    `compute(predictions=, references=)` takes numbers and returns `pearson_r`, `r2`, `mae`, `rmse`, `undefined`.

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
        predictions, references = np.asarray(predictions, float), np.asarray(references, float)
        if not len(references):
            raise ValueError("there is nothing to compare: no references")
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


class CalibrationMetrics(OfflineMetric):
    """Expected calibration error, Brier score and the bins of a reliability diagram.

    The confidence is the highest probability of an image. It falls into one of equal bins (low, high]; the expected
    calibration error is the mean over images of how far confidence and accuracy of its bin differ (Guo et al. 2017).
    The Brier score is the mean squared distance of the probabilities from the true class, 0 to 2 (Brier 1950).

    `compute(predictions=, references=, bins=15)` takes probabilities (n, C) and class numbers (n,) and returns

    - `expected_calibration_error`, `brier_score`: floats;
    - `reliability`: a list of `{"low", "high", "count", "confidence", "accuracy"}`, the last two None in an empty bin.

    Example:
        >>> found = CalibrationMetrics().compute(predictions=[[0.8, 0.2], [0.4, 0.6]], references=[0, 0], bins=2)
        >>> round(found["expected_calibration_error"], 3), round(found["brier_score"], 3)
        (0.2, 0.4)
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Expected calibration error, Brier score, reliability bins.",
            "predictions: probabilities of every class; references: class numbers; bins: how many.",
            {"predictions": NUMBERS, "references": NUMBER},
        )

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray, bins: int = BINS) -> dict[str, Any]:
        probabilities = np.asarray(predictions, float)
        if probabilities.ndim != 2 or not probabilities.size:
            raise ValueError("calibration needs at least one image, and a probability of every class for each")
        check_finite("probabilities", probabilities)
        if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
            raise ValueError("the probabilities of an image must be positive and sum to 1; take the softmax of logits")
        numbers = class_numbers("references", references, probabilities.shape[1])
        confidence = probabilities.max(axis=1)
        right = (probabilities.argmax(axis=1) == numbers).astype(float)
        edges = np.linspace(0.0, 1.0, bins + 1)
        place = np.searchsorted(edges[1:-1], confidence)
        count = np.bincount(place, minlength=bins)
        filled = count > 0
        sure, correct = (np.bincount(place, each, bins) / np.maximum(count, 1) for each in (confidence, right))
        gap = np.abs(sure - correct)[filled]
        truth = np.eye(probabilities.shape[1])[numbers]
        return {
            "expected_calibration_error": float(np.average(gap, weights=count[filled])),
            "brier_score": float(((probabilities - truth) ** 2).sum(axis=1).mean()),
            "reliability": [
                {
                    "low": float(edges[number]),
                    "high": float(edges[number + 1]),
                    "count": int(count[number]),
                    "confidence": float(sure[number]) if filled[number] else None,
                    "accuracy": float(correct[number]) if filled[number] else None,
                }
                for number in range(bins)
            ],
        }
