"""Selection of the best evaluation, and early stopping, in the right direction of each metric."""

from __future__ import annotations

import math

import pytest

from stedfm_hf.runs import UserError
from stedfm_hf.training.finetuning.best_weights import best_evaluation, choose_metric, is_past_patience


def history(metric: str, *values: float) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    for number, value in enumerate(values):
        found.append({"step": number, "loss": 1.0})
        found.append({"step": number, "eval_loss": 1.0} | {f"eval_{metric}": value})
    return found


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("balanced_accuracy", (0.5, 0.8, 0.7), 1),
        ("loss", (0.5, 0.8, 0.3), 2),
        ("mae", (9.0, 2.0, 3.0), 1),
        ("r2", (-math.inf, -2.0, -3.0), 1),
        ("accuracy", (0.9, 0.9, 0.9), 0),
    ],
)
def test_the_best_evaluation(metric: str, values: tuple[float, ...], best: int) -> None:
    assert best_evaluation(history(metric, *values), metric) == best
    assert best_evaluation([], metric) is None


def test_training_stops_without_improvement() -> None:
    # The reference waits for a higher loss: it would not stop the first of these.
    assert is_past_patience(history("loss", 1.0, 1.1, 1.2, 1.3), "loss", 3)
    assert not is_past_patience(history("loss", 1.0, 0.9, 0.8, 0.7), "loss", 1)
    assert not is_past_patience(history("accuracy", 0.5, 0.6, 0.5), "accuracy", 2)
    assert is_past_patience(history("accuracy", 0.5, 0.6, 0.5, 0.6), "accuracy", 2)
    assert not is_past_patience(history("loss", 1.0, 2.0, 3.0), "loss", None)


def test_a_metric_of_another_task_is_refused() -> None:
    metrics = ("macro_f1", "micro_f1")
    assert choose_metric(metrics, None) == "macro_f1" and choose_metric(metrics, "micro_f1") == "micro_f1"
    with pytest.raises(UserError, match="give macro_f1, micro_f1"):
        choose_metric(metrics, "accuracy")
