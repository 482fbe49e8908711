"""Loss and metrics for classes, multilabel targets and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from stedfm_hf.labels.labelled import LabelledImages, Task
from stedfm_hf.metrics import ClassificationMetrics, MultiLabelMetrics, RegressionMetrics
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification


@dataclass(frozen=True, eq=False)
class Objective:
    """Loss of a task.

    Weighted losses are divided by the number of images, not by the sum of the weights in the batch, so the loss of a
    step does not depend on the number of processes.

    Attributes:
        task: Kind of the labels.
        weights: Class weights (C,) with mean 1 over the images; for multilabel targets, weights of the positives.
        mean: Mean of the numbers to predict; the network is trained on (y - mean) / std.
        std: Standard deviation of the numbers to predict.
        smoothing: Label smoothing factor, in [0, 1].
    """

    task: Task
    weights: torch.Tensor | None = None
    mean: float = 0.0
    std: float = 1.0
    smoothing: float = 0.0

    def targets(self, labels: np.ndarray) -> torch.Tensor:
        """Return labels in the form that `loss` expects.

        Args:
            labels: Labels of the images.
        """
        if self.task == "regression":
            return torch.from_numpy((labels - self.mean) / self.std).float()
        return torch.from_numpy(labels).float() if self.task == "multilabel" else torch.from_numpy(labels).long()

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, weighted: bool = True) -> torch.Tensor:
        """Return the mean loss of a batch.

        Args:
            logits: Logits (B, C).
            targets: Targets, as returned by `targets`.
            weighted: Whether to weight classes and smooth labels; not used in evaluations.
        """
        logits = logits.float()
        weights = self.weights.to(logits.device) if weighted and self.weights is not None else None
        if self.task == "regression":
            return functional.mse_loss(logits[:, 0], targets)
        if self.task == "multilabel":
            return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        smoothing = self.smoothing if weighted else 0.0
        each = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        return (each if weights is None else each * weights[targets]).mean()

    def in_units(self, logits: np.ndarray) -> np.ndarray:
        """Return the outputs of the saved model: numbers in their original unit, or the logits.

        Args:
            logits: Logits (n, C).
        """
        return logits * self.std + self.mean if self.task == "regression" else logits

    def fold(self, network: StedFmForImageClassification) -> None:
        """Rescale the linear layer so that it predicts numbers in their original unit.

        Args:
            network: Network, changed in place.
        """
        if self.task == "regression":
            with torch.no_grad():
                network.classifier.weight.mul_(self.std)
                network.classifier.bias.mul_(self.std).add_(self.mean)


def objective_for(data: LabelledImages, *, balanced: bool, smoothing: float = 0.0) -> Objective:
    """Return the loss for training images.

    Args:
        data: Training images.
        balanced: Whether to give all classes equal weight.
        smoothing: Label smoothing factor.
    """
    labels = data.labels
    if data.task == "regression":
        return Objective(data.task, mean=float(labels.mean()), std=float(labels.std()) or 1.0)
    weights = None
    if balanced and data.task == "multilabel":
        positives = np.clip(labels.sum(axis=0), 1, None)
        weights = torch.from_numpy((len(labels) - labels.sum(axis=0)) / positives).float().clamp(min=1 / len(labels))
    elif balanced:
        counts = np.bincount(labels, minlength=len(data.classes))
        weights = torch.from_numpy(len(labels) / ((counts > 0).sum() * np.clip(counts, 1, None))).float()
    return Objective(data.task, weights, smoothing=smoothing)


METRICS: dict[Task, tuple[str, ...]] = {
    "classes": ("balanced_accuracy", "accuracy", "macro_f1", "loss"),
    "multilabel": ("macro_f1", "micro_f1", "mean_average_precision", "loss"),
    "regression": ("r2", "pearson_r", "mae", "rmse", "loss"),
}
"""Metrics that can select the best model, by task, the default first."""


def probabilities_of(logits: np.ndarray, task: Task) -> np.ndarray:
    """Return the probabilities (n, C) of logits; for a regression, the predicted numbers (n,).

    Args:
        logits: Logits (n, C).
        task: Kind of the labels.

    Example:
        >>> probabilities_of(np.zeros((1, 2)), "classes").tolist()
        [[0.5, 0.5]]
    """
    values = logits.astype(np.float64)
    if task == "regression":
        return values[:, 0]
    if task == "multilabel":
        return 1 / (1 + np.exp(-values))
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def score(logits: np.ndarray, labels: np.ndarray, task: Task) -> dict[str, Any]:
    """Return all metrics of predictions.

    Args:
        logits: Logits (n, C) of the model.
        labels: Labels, as in `LabelledImages`.
        task: Kind of the labels.
    """
    found = probabilities_of(logits, task)
    if task == "regression":
        return dict(RegressionMetrics().compute(predictions=found, references=labels) or {})
    if task == "multilabel":
        return dict(MultiLabelMetrics().compute(predictions=found, references=labels) or {})
    predictions = found.argmax(axis=1)
    measured = ClassificationMetrics().compute(predictions=predictions, references=labels, num_classes=logits.shape[1])
    return dict(measured or {})
