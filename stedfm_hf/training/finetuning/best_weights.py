"""Selection of the best model: weights, metric, best evaluation and early stopping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from stedfm_hf.modeling.modeling_stedfm import StedFmPreTrainedModel
from stedfm_hf.runs import UserError, atomic_path

BEST_FILE = "best.safetensors"
LOWER_IS_BETTER = frozenset({"loss", "mae", "rmse"})
History = Sequence[Mapping[str, float]]
"""Logs in order, as `TrainerState.log_history`."""


class BestWeights:
    """Copy of the weights of the best evaluation, without those that are frozen.

    Args:
        network: Network that is trained.
    """

    def __init__(self, network: StedFmPreTrainedModel) -> None:
        self.network = network
        frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        self.names = [name for name in network.state_dict() if name not in frozen]
        self.weights: dict[str, torch.Tensor] = {}

    def keep(self) -> None:
        """Copy the current weights."""
        state = self.network.state_dict()
        self.weights = {name: state[name].detach().cpu().clone() for name in self.names}

    def restore(self) -> None:
        """Load the copied weights into the network."""
        self.network.load_state_dict(self.weights, strict=False)

    def save(self, folder: Path) -> None:
        """Write the copied weights, if any, into the folder of a checkpoint."""
        if self.weights:
            with atomic_path(folder / BEST_FILE) as temporary:
                save_file({name: value.contiguous() for name, value in self.weights.items()}, temporary)

    def load(self, folder: Path) -> None:
        """Read the copied weights, if any, from the folder of a checkpoint.

        Raises:
            UserError: The weights are of another model.
        """
        if not (folder / BEST_FILE).exists():
            return
        self.weights = load_file(folder / BEST_FILE)
        if set(self.weights) != set(self.names):
            raise UserError(f"{folder}: is a checkpoint of another model; choose another --output")


def choose_metric(metrics: Sequence[str], name: str | None) -> str:
    """Return the metric that selects the best model.

    Args:
        metrics: Metrics of the task.
        name: Requested metric; None for the first one.

    Raises:
        UserError: The task does not have this metric.
    """
    if name is not None and name not in metrics:
        raise UserError(f"--metric-for-best-model {name}: not a metric of this task; give {', '.join(metrics)}")
    return name or metrics[0]


def is_better(metric: str, value: float, than: float) -> bool:
    """Return whether a value of a metric is better than another.

    Args:
        metric: Name of the metric.
        value: Value to compare.
        than: Value to compare with.

    Example:
        >>> is_better("accuracy", 0.9, 0.8), is_better("loss", 0.9, 0.8), is_better("r2", 0.5, 0.5)
        (True, False, False)
    """
    return value < than if metric in LOWER_IS_BETTER else value > than


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        step: Number of optimiser steps so far.
        value: Metric that selects the best model.
        loss: Loss on the same images.
    """

    step: int
    value: float
    loss: float


def evaluations_of(history: History, metric: str) -> list[Evaluation]:
    """Return the evaluations of a history.

    Args:
        history: Logs of the training.
        metric: Metric that selects the best model.
    """
    name = f"eval_{metric}"
    return [Evaluation(int(log["step"]), log[name], log["eval_loss"]) for log in history if name in log]


def best_evaluation(history: History, metric: str) -> int | None:
    """Return the index of the best evaluation; None without evaluations.

    Equal values, which are frequent for few images, are ordered by the loss, then by the step.

    Args:
        history: Logs of the training.
        metric: Metric that selects the best model.

    Example:
        >>> found = [(0.8, 0.9), (0.9, 0.4), (0.9, 0.3), (0.7, 0.2)]
        >>> history = [{"step": 1, "eval_accuracy": value, "eval_loss": loss} for value, loss in found]
        >>> best_evaluation(history, "accuracy")
        2
    """
    best, evaluations = None, evaluations_of(history, metric)
    for number, each in enumerate(evaluations):
        before = None if best is None else evaluations[best]
        equal = before is not None and each.value == before.value and each.loss < before.loss
        if before is None or equal or is_better(metric, each.value, before.value):
            best = number
    return best


def is_past_patience(history: History, metric: str, patience: int | None) -> bool:
    """Return whether the last `patience` evaluations brought no improvement.

    Args:
        history: Logs of the training.
        metric: Metric that selects the best model.
        patience: Number of evaluations; None for no early stopping.
    """
    best = best_evaluation(history, metric)
    return patience is not None and best is not None and len(evaluations_of(history, metric)) - 1 - best >= patience
