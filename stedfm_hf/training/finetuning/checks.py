"""The checks of a fine-tuning: by which figure, which of them is the best, and when it is time to stop (ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stedfm_hf.runs import UserError

LOWER_IS_BETTER = frozenset({"loss", "mae", "rmse"})


def chosen_figure(figures: Sequence[str], choose_by: str | None) -> str:
    """The figure the best model is chosen by: the first, where nothing is said.

    Raises:
        UserError: there is no such figure of this task.
    """
    if choose_by is not None and choose_by not in figures:
        raise UserError(f"choose_by {choose_by!r} is no figure of this task; give one of {', '.join(figures)}")
    return choose_by or figures[0]


def is_better(figure: str, value: float, than: float) -> bool:
    """Whether a value of a figure is better than another.

    Example:
        >>> is_better("accuracy", 0.9, 0.8), is_better("loss", 0.9, 0.8), is_better("r2", 0.5, 0.5)
        (True, False, False)
    """
    return value < than if figure in LOWER_IS_BETTER else value > than


@dataclass(frozen=True)
class CheckFigures:
    """What a check found.

    Args:
        step: optimiser steps done.
        value: of the figure the best is chosen by.
        loss: on the same images.
    """

    step: int
    value: float
    loss: float


def checks_of(history: Sequence[Mapping[str, float]], figure: str) -> list[CheckFigures]:
    """The checks of a history (`TrainerState.log_history`)."""
    name = f"eval_{figure}"
    return [CheckFigures(int(log["step"]), log[name], log["eval_loss"]) for log in history if name in log]


def best_check(history: Sequence[Mapping[str, float]], figure: str) -> int | None:
    """Number of the check with the best value; None before any.

    Of values that are equal, as accuracies of few images often are, the one with the lower loss, then the first.

    Example:
        >>> found = [(0.8, 0.9), (0.9, 0.4), (0.9, 0.3), (0.7, 0.2)]
        >>> best_check([{"step": 1, "eval_accuracy": value, "eval_loss": loss} for value, loss in found], "accuracy")
        2
    """
    best, checks = None, checks_of(history, figure)
    for number, check in enumerate(checks):
        before = None if best is None else checks[best]
        equal = before is not None and check.value == before.value and check.loss < before.loss
        if before is None or equal or is_better(figure, check.value, before.value):
            best = number
    return best


def is_past_patience(history: Sequence[Mapping[str, float]], figure: str, patience: int | None) -> bool:
    """Whether the last checks, as many as the patience, were none of them better than the best before."""
    best = best_check(history, figure)
    return patience is not None and best is not None and len(checks_of(history, figure)) - 1 - best >= patience
