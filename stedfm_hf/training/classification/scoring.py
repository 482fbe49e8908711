"""Figures of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from stedfm_hf.labels.labelled import Task
from stedfm_hf.metrics import ClassificationMetrics, MultiLabelMetrics, RegressionMetrics

FIGURES: dict[Task, tuple[str, ...]] = {
    "classes": ("balanced_accuracy", "accuracy", "macro_f1", "loss"),
    "several": ("macro_f1", "micro_f1", "mean_average_precision", "loss"),
    "regression": ("r2", "pearson_r", "mae", "rmse", "loss"),
}
"""Figures the best model can be chosen by; the first one is, where nothing is said."""


def probabilities_of(logits: np.ndarray, task: Task) -> np.ndarray:
    """Probabilities (n, C) of logits; of a regression the predicted numbers (n,)."""
    values = logits.astype(np.float64)
    if task == "regression":
        return values[:, 0]
    if task == "several":
        return 1 / (1 + np.exp(-values))
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def score(logits: np.ndarray, labels: np.ndarray, task: Task) -> dict[str, Any]:
    """All figures of predictions.

    Args:
        logits: (n, C) as the model gives them.
        labels: as :class:`~stedfm_hf.labels.labelled.LabelledImages` has them.
        task: what is predicted.
    """
    found = probabilities_of(logits, task)
    if task == "regression":
        return dict(RegressionMetrics().compute(predictions=found, references=labels) or {})
    if task == "several":
        return dict(MultiLabelMetrics().compute(predictions=found, references=labels) or {})
    predictions = found.argmax(axis=1)
    measured = ClassificationMetrics().compute(predictions=predictions, references=labels, num_classes=logits.shape[1])
    return dict(measured or {})
