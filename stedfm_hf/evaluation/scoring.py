"""Runs of `evaluate knn` and `evaluate probe`: metrics, confidence intervals and comparisons."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stedfm_hf.labels.labelled import LabelledImages, Task
from stedfm_hf.metrics import (
    CalibrationMetrics,
    ClassificationMetrics,
    MultiLabelMetrics,
    RegressionMetrics,
)
from stedfm_hf.metrics.statistics import accuracy_interval, bootstrap_interval, compare_paired, holm

PRIMARY = {"classes": "accuracy", "multilabel": "label_accuracy", "regression": "r2"}
"""Metric with confidence intervals, by type of the labels."""
METRICS = {
    "classes": ("accuracy", "balanced_accuracy", "macro_f1", "expected_calibration_error", "brier_score"),
    "multilabel": ("label_accuracy", "macro_f1", "micro_f1", "mean_average_precision"),
    "regression": ("r2", "pearson_r", "mae", "rmse"),
}
"""Scalar metrics, in the order of the tables, by type of the labels."""


@dataclass(frozen=True, eq=False)
class Run:
    """Predictions of one method for the test images.

    Attributes:
        method: Key of the method.
        setting: Number of labels per class, or description of the vote.
        seed: Random seed of the sample of labels; k in the reference protocol.
        predicted: Class numbers (m,), -1 for no prediction; 0 or 1 for each class (m, classes); or numbers (m,).
        probabilities: Probabilities (m, classes), if there are any.
        train_images: Number of labelled images used.
        C: Inverse strength of the L2 penalty, if there is one.
        selected_on: Images on which C was selected; see `SelectedC`.
        metrics: Metrics on the test images.
    """

    method: str
    setting: str
    seed: int
    predicted: np.ndarray
    probabilities: np.ndarray | None = None
    train_images: int = 0
    C: float | None = None
    selected_on: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


@functools.cache
def _metrics() -> tuple[ClassificationMetrics, CalibrationMetrics, MultiLabelMetrics, RegressionMetrics]:
    """Return the metrics, created once."""
    return ClassificationMetrics(), CalibrationMetrics(), MultiLabelMetrics(), RegressionMetrics()


def compute_metrics(data: LabelledImages, predicted: np.ndarray, probabilities: np.ndarray | None) -> dict[str, Any]:
    """Compute the metrics of predictions.

    Args:
        data: Test images.
        predicted: Predictions, as in `Run`.
        probabilities: Probabilities (m, classes), if there are any.

    Returns:
        Metrics by name.
    """
    classification, calibration, multilabel, regression = _metrics()
    if data.task == "regression":
        return dict(regression.compute(predictions=predicted, references=data.labels))
    if data.task == "multilabel":
        assert probabilities is not None
        found = dict(multilabel.compute(predictions=probabilities, references=data.labels))
        return {"label_accuracy": float((predicted == data.labels).mean()), **found}
    if (predicted < 0).any():  # images without a prediction have no confusion matrix
        return {"accuracy": float((predicted == data.labels).mean())}
    found = dict(classification.compute(predictions=predicted, references=data.labels, num_classes=len(data.classes)))
    if probabilities is not None:
        found |= dict(calibration.compute(predictions=probabilities, references=data.labels))
    return found


def image_scores(task: Task, labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Score each prediction: correct or not, fraction of correct labels, or negative squared error.

    Args:
        task: Type of the labels.
        labels: True labels; see `Run` for their shape.
        predicted: Predictions.

    Returns:
        Scores (m,) float; higher is better.
    """
    if task == "regression":
        return -((predicted - labels) ** 2)
    correct = (predicted == labels).astype(float)
    return correct.mean(axis=1) if task == "multilabel" else correct


def summarise(data: LabelledImages, runs: Sequence[Run], *, population: bool = False) -> list[dict[str, Any]]:
    """Average the metrics over the runs of each method and setting.

    Args:
        data: Test images.
        runs: All runs, in any order.
        population: Whether the standard deviation is that of a population (n) instead of a sample (n - 1), as over the
            values of k in the reference protocol.

    Returns:
        One row for each method and setting: `method`, `setting`, `runs` (number), `train_images`, a dictionary of
        `mean` and `sd` for each metric, and `interval`, the 95 % confidence interval of the primary metric over source
        images. Where they exist, the row also has `recall_per_class`, `confusion_matrix` and `reliability`.
    """
    rows = []
    for method, setting in dict.fromkeys((run.method, run.setting) for run in runs):
        same = [run for run in runs if (run.method, run.setting) == (method, setting)]
        row: dict[str, Any] = {"method": method, "setting": setting, "runs": len(same)}
        row["train_images"] = float(np.mean([run.train_images for run in same]))
        for name in METRICS[data.task]:
            values = [run.metrics[name] for run in same if run.metrics.get(name) is not None]
            if values:
                sd = float(np.std(values, ddof=0 if population else 1)) if len(values) > 1 else None
                row[name] = {"mean": float(np.mean(values)), "sd": sd}
        row["interval"] = _interval(data, same)
        if all("recall_per_class" in run.metrics for run in same):
            row["recall_per_class"] = _elementwise_mean([run.metrics["recall_per_class"] for run in same])
            row["confusion_matrix"] = np.mean([run.metrics["confusion_matrix"] for run in same], axis=0).tolist()
        if all("reliability" in run.metrics for run in same):
            row["reliability"] = _reliability([run.metrics["reliability"] for run in same])
        rows.append(row)
    return rows


def _elementwise_mean(lists: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Average lists element by element, without None; None where all are None (a class without test images)."""
    columns = [[value for value in column if value is not None] for column in zip(*lists, strict=True)]
    return [float(np.mean(column)) if column else None for column in columns]


def _reliability(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Pool the reliability bins of all runs."""
    pooled = []
    for bins in zip(*runs, strict=True):
        count = sum(each["count"] for each in bins)
        means = {
            name: sum(each[name] * each["count"] for each in bins if each["count"]) / count if count else None
            for name in ("confidence", "accuracy")
        }
        pooled.append({"low": bins[0]["low"], "high": bins[0]["high"], "count": count, **means})
    return pooled


def _interval(data: LabelledImages, runs: Sequence[Run]) -> list[float] | None:
    """Return the 95 % confidence interval, over source images, of the primary metric averaged over runs."""
    if data.task == "regression":
        if np.ptp(data.labels) == 0:
            return None
        rows = np.stack([data.labels, *(run.predicted for run in runs)], axis=1)
        return list(bootstrap_interval(rows, data.sources, statistic=_mean_r2))
    scores = np.mean([image_scores(data.task, data.labels, run.predicted) for run in runs], axis=0)
    if len(runs) == 1 and data.task == "classes":
        return list(accuracy_interval(scores > 0, data.sources))
    return list(bootstrap_interval(scores, data.sources))


def _mean_r2(rows: np.ndarray) -> float:
    """Return R² averaged over runs, from the truth and the predictions of each run (m, 1 + runs)."""
    truth, predictions = rows[:, :1], rows[:, 1:]
    total = float(((truth - truth.mean()) ** 2).sum())
    # A resample with constant truth has no R2; the interval ignores it.
    return float(1 - ((predictions - truth) ** 2).sum(axis=0).mean() / total) if total > 0 else float("nan")


def compare(data: LabelledImages, runs: Sequence[Run], models: Sequence[str]) -> list[dict[str, Any]]:
    """Compare each model with the other methods by paired permutation tests, corrected by Holm's method.

    The score of an image is the mean over runs. Scores of a source image are swapped together. All tests of an
    evaluation form one family.

    Args:
        data: Test images.
        runs: All runs.
        models: Keys of the models. Baselines are not compared with each other.

    Returns:
        One row for each setting and pair: `setting`, `model`, `other`, `difference` (mean score of model minus other),
        `low` and `high` (its 95 % confidence interval), `p`, and `p_holm` (corrected).
    """
    rows: list[dict[str, Any]] = []
    scores: dict[tuple[str, str], np.ndarray] = {}
    for method, setting in dict.fromkeys((run.method, run.setting) for run in runs):
        same = [run for run in runs if (run.method, run.setting) == (method, setting)]
        scores[setting, method] = np.mean(
            [image_scores(data.task, data.labels, run.predicted) for run in same], axis=0
        )
    methods = list(dict.fromkeys(run.method for run in runs))
    for setting in dict.fromkeys(run.setting for run in runs):
        for number, model in enumerate(models):
            for other in [*models[number + 1 :], *(each for each in methods if each not in models)]:
                row: dict[str, Any] = {"setting": setting, "model": model, "other": other}
                rows.append(row | compare_paired(scores[setting, model], scores[setting, other], data.sources))
    for tested, corrected in zip(rows, holm([row["p"] for row in rows]) if rows else [], strict=True):
        tested["p_holm"] = float(corrected)
    return rows
