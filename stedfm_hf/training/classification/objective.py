"""What is minimised: the loss of a task, with classes weighted and numbers standardised where asked for (ours)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from stedfm_hf.labels.labelled import LabelledImages, Task
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of a task.

    Every image counts with a weight of its own divided by the number of images, not by the sum of the weights in its
    batch: the loss does not depend on how a step is shared.

    Args:
        task: what is predicted.
        weights: of the classes (C,), mean 1 over the images; of several classes at once: of their positives.
        mean: of the numbers to predict; the network learns (y - mean) / spread.
        spread: likewise.
        smoothing: `label_smoothing_factor` of the arguments.
    """

    task: Task
    weights: torch.Tensor | None = None
    mean: float = 0.0
    spread: float = 1.0
    smoothing: float = 0.0

    def targets(self, labels: np.ndarray) -> torch.Tensor:
        """Labels as `loss` takes them."""
        if self.task == "regression":
            return torch.from_numpy((labels - self.mean) / self.spread).float()
        return torch.from_numpy(labels).float() if self.task == "several" else torch.from_numpy(labels).long()

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, *, weighted: bool = True) -> torch.Tensor:
        """Mean loss of a batch.

        Args:
            logits: (B, C).
            targets: of `targets`.
            weighted: whether classes are weighted and labels smoothed; a check on held-out images does neither.
        """
        logits = logits.float()
        weights = self.weights.to(logits.device) if weighted and self.weights is not None else None
        if self.task == "regression":
            return functional.mse_loss(logits[:, 0], targets)
        if self.task == "several":
            return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        smoothing = self.smoothing if weighted else 0.0
        each = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        return (each if weights is None else each * weights[targets]).mean()

    def in_units(self, logits: np.ndarray) -> np.ndarray:
        """What the saved model will give: numbers in their own unit."""
        return logits * self.spread + self.mean if self.task == "regression" else logits

    def fold(self, network: StedFmForImageClassification) -> None:
        """Lets the linear layer give numbers in their own unit."""
        if self.task == "regression":
            with torch.no_grad():
                network.classifier.weight.mul_(self.spread)
                network.classifier.bias.mul_(self.spread).add_(self.mean)


def objective_for(data: LabelledImages, *, balanced: bool, smoothing: float = 0.0) -> Objective:
    """The loss for some training images.

    Args:
        data: what is trained on.
        balanced: whether classes count alike, however many images they have.
        smoothing: of the labels.
    """
    labels = data.labels
    if data.task == "regression":
        return Objective(data.task, mean=float(labels.mean()), spread=float(labels.std()) or 1.0)
    weights = None
    if balanced and data.task == "several":
        there = np.clip(labels.sum(axis=0), 1, None)
        weights = torch.from_numpy((len(labels) - labels.sum(axis=0)) / there).float().clamp(min=1 / len(labels))
    elif balanced:
        counts = np.bincount(labels, minlength=len(data.classes))
        weights = torch.from_numpy(len(labels) / ((counts > 0).sum() * np.clip(counts, 1, None))).float()
    return Objective(data.task, weights, smoothing=smoothing)
