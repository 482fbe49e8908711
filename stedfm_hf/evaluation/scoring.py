"""Runs of models on one test: their metrics, how sure they are, and which differ."""

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
"""The metric that intervals are of."""
SHOWN = {
    "classes": ("accuracy", "balanced_accuracy", "macro_f1", "expected_calibration_error", "brier_score"),
    "multilabel": ("label_accuracy", "macro_f1", "micro_f1", "mean_average_precision"),
    "regression": ("r2", "pearson_r", "mae", "rmse"),
}
"""Metrics that are numbers, in the order of the tables."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a model answered in one run.

    Args:
        model: key of the model.
        setting: labels per class, or the vote.
        seed: of the draw; of the reference protocol k.
        predicted: class number (m,), -1 for none; 0 or 1 for every class (m, C); or a number (m,).
        probabilities: (m, C), or None.
        train_images: labelled images it learned from.
        strength: inverse strength of the penalty, if there is one.
        selected_on: how that was chosen.
        metrics: of the test.
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
    return ClassificationMetrics(), CalibrationMetrics(), MultiLabelMetrics(), RegressionMetrics()


def measure(data: LabelledImages, predicted: np.ndarray, probabilities: np.ndarray | None) -> dict[str, Any]:
    """Metrics of predictions of a test.

    Args:
        data: the test.
        predicted: as of :class:`Run`.
        probabilities: (m, C), or None.
    """
    classification, calibration, several, regression = _metrics()
    if data.task == "regression":
        return dict(regression.compute(predictions=predicted, references=data.labels))
    if data.task == "multilabel":
        assert probabilities is not None
        found = dict(several.compute(predictions=probabilities, references=data.labels))
        return {"label_accuracy": float((predicted == data.labels).mean()), **found}
    if (predicted < 0).any():  # without a class there is neither confusion nor F1
        return {"accuracy": float((predicted == data.labels).mean())}
    found = dict(classification.compute(predictions=predicted, references=data.labels, num_classes=len(data.classes)))
    if probabilities is not None:
        found |= dict(calibration.compute(predictions=probabilities, references=data.labels))
    return found


def item_scores(task: Task, labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """How well each image was answered: right or not, the share of right labels, or minus the squared error."""
    if task == "regression":
        return -((predicted - labels) ** 2)
    right = (predicted == labels).astype(float)
    return right.mean(axis=1) if task == "multilabel" else right


def summarise(data: LabelledImages, runs: Sequence[Run], *, population: bool = False) -> list[dict[str, Any]]:
    """Mean and standard deviation over the runs of each model in each setting, and the 95 % interval over sources.

    Args:
        data: the test.
        runs: all runs, those of one model and setting together or not.
        population: whether the runs are all there are (the reference's k), not a sample of seeds.
    """
    rows = []
    for method, setting in dict.fromkeys((run.method, run.setting) for run in runs):
        own = [run for run in runs if (run.method, run.setting) == (method, setting)]
        row: dict[str, Any] = {"method": method, "setting": setting, "runs": len(own)}
        row["train_images"] = float(np.mean([run.train_images for run in own]))
        for name in SHOWN[data.task]:
            values = [run.metrics[name] for run in own if run.metrics.get(name) is not None]
            if values:
                spread = float(np.std(values, ddof=0 if population else 1)) if len(values) > 1 else None
                row[name] = {"mean": float(np.mean(values)), "sd": spread}
        row["interval"] = _interval(data, own)
        if all("recall_per_class" in run.metrics for run in own):
            row["recall_per_class"] = _mean_of([run.metrics["recall_per_class"] for run in own])
            row["confusion_matrix"] = np.mean([run.metrics["confusion_matrix"] for run in own], axis=0).tolist()
        if all("reliability" in run.metrics for run in own):
            row["reliability"] = _reliability([run.metrics["reliability"] for run in own])
        rows.append(row)
    return rows


def _mean_of(lists: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Means of places; None where no run has a value (a class that is not in the test)."""
    columns = [[value for value in column if value is not None] for column in zip(*lists, strict=True)]
    return [float(np.mean(column)) if column else None for column in columns]


def _reliability(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Bins of all runs together."""
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
    """95 % interval of the mean over runs of the primary metric, over the sources of the test."""
    if data.task == "regression":
        if np.ptp(data.labels) == 0:
            return None
        rows = np.stack([data.labels, *(run.predicted for run in runs)], axis=1)
        return list(bootstrap_interval(rows, data.sources, statistic=_mean_r2))
    scores = np.mean([item_scores(data.task, data.labels, run.predicted) for run in runs], axis=0)
    if len(runs) == 1 and data.task == "classes":
        return list(accuracy_interval(scores > 0, data.sources))
    return list(bootstrap_interval(scores, data.sources))


def _mean_r2(rows: np.ndarray) -> float:
    truth, answers = rows[:, :1], rows[:, 1:]
    spread = float(((truth - truth.mean()) ** 2).sum())
    # A draw of sources that are all alike has no R2; the interval leaves it out.
    return float(1 - ((answers - truth) ** 2).sum(axis=0).mean() / spread) if spread > 0 else float("nan")


def compare(data: LabelledImages, runs: Sequence[Run], models: Sequence[str]) -> list[dict[str, Any]]:
    """Paired permutation tests of each model with all others that stand beside it, corrected by Holm's method.

    A score of an image is the mean over runs; whole source images are swapped. All tests of an evaluation are one
    family.

    Args:
        data: the test.
        runs: all runs.
        models: keys of those that were asked about: baselines are not compared with each other.

    Returns:
        One row for each pair and setting: difference of the mean score with its 95 % interval, p-value, and the
        corrected one.
    """
    rows: list[dict[str, Any]] = []
    scores: dict[tuple[str, str], np.ndarray] = {}
    for method, setting in dict.fromkeys((run.method, run.setting) for run in runs):
        own = [run for run in runs if (run.method, run.setting) == (method, setting)]
        scores[setting, method] = np.mean([item_scores(data.task, data.labels, run.predicted) for run in own], axis=0)
    everyone = list(dict.fromkeys(run.method for run in runs))
    for setting in dict.fromkeys(run.setting for run in runs):
        for place, one in enumerate(models):
            for other in [*models[place + 1 :], *(each for each in everyone if each not in models)]:
                row: dict[str, Any] = {"setting": setting, "model": one, "other": other}
                rows.append(row | compare_paired(scores[setting, one], scores[setting, other], data.sources))
    for tested, corrected in zip(rows, holm([row["p"] for row in rows]) if rows else [], strict=True):
        tested["p_holm"] = float(corrected)
    return rows
