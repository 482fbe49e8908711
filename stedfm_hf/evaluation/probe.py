"""Linear probes on vectors: how well labels can be read off them, with few parameters and in seconds.

One of several classes: multinomial logistic regression. Several classes at once: a logistic regression for each.
Numbers: ridge regression in closed form. All have an L2 penalty, whose strength is chosen on other source images than
those of the training and the test. (Ours; the paper trains a linear layer by gradient descent.)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from stedfm_hf.labels.labelled import Task

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Values of C that are tried (scikit-learn's C; 1 / alpha of the ridge), the strongest first."""
DEFAULT_C = 0.1
"""Where there are too few sources to choose."""
FOLDS = 5
_ITERATIONS = 1000
_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class SelectedC:
    """The strength of the penalty and how it was found.

    Args:
        strength: inverse strength of the penalty.
        selected_on: `"validation"`, `"cross-validation"` over sources of the training part, or `"fixed"`.
        losses: mean loss for each value of C that was tried; empty where none was.
    """

    C: float
    selected_on: str
    losses: tuple[float, ...] = ()


def fit_predict(
    train: np.ndarray,
    labels: np.ndarray,
    query: np.ndarray,
    *,
    task: Task,
    classes: int,
    C: float,
) -> np.ndarray:
    """Fits a probe and predicts.

    Returns:
        Probabilities (m, classes), or predicted numbers (m,). A class that `labels` lack has probability 0.

    Example:
        >>> vectors = np.array([[-1.0], [-0.9], [0.9], [1.0]])
        >>> found = fit_predict(vectors, np.array([0, 0, 1, 1]), vectors, task="classes", classes=2, C=10.0)
        >>> found.argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """
    return next(_predictions(train, labels, query, task, classes, (C,)))


def _predictions(
    train: np.ndarray,
    labels: np.ndarray,
    query: np.ndarray,
    task: Task,
    classes: int,
    C_grid: Sequence[float],
) -> Iterator[np.ndarray]:
    """Predictions for several values of C, each fit beginning where the one before ended."""
    if task == "regression":
        for C in C_grid:
            yield Ridge(alpha=1 / C).fit(train, labels).predict(query)
    elif task == "multilabel":
        columns = [_logistic(train, labels[:, number], query, 2, C_grid) for number in range(classes)]
        for parts in zip(*columns, strict=True):
            yield np.stack([part[:, 1] for part in parts], axis=1)
    else:
        yield from _logistic(train, labels, query, classes, C_grid)


def _logistic(
    train: np.ndarray, labels: np.ndarray, query: np.ndarray, classes: int, C_grid: Sequence[float]
) -> Iterator[np.ndarray]:
    there = np.unique(labels)
    if len(there) == 1:
        for _ in C_grid:
            yield np.eye(classes)[np.full(len(query), there[0])]
        return
    model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    with warnings.catch_warnings():
        # A weak penalty on classes that a plane divides has its optimum far out: near enough is good enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for C in C_grid:
            model.set_params(C=C).fit(train, labels)
            probabilities = np.zeros((len(query), classes))
            probabilities[:, there] = model.predict_proba(query)
            yield probabilities


def select_C(
    train: np.ndarray,
    labels: np.ndarray,
    sources: np.ndarray,
    *,
    task: Task,
    classes: int,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    C_grid: Sequence[float] = C_GRID,
) -> SelectedC:
    """Chooses the strength of the penalty: the one with the least loss on images of other sources.

    They are those of `validation` (vectors and labels), or, where that is None, of folds of the training part that
    share no source. Of equal losses the strongest penalty is taken. Losses are log losses, or mean squared errors.
    """
    if validation is not None and len(validation[1]):
        pairs, selected_on = [(np.arange(len(train)), validation)], "validation"
    else:
        pairs, selected_on = (
            [(fit, (train[rest], labels[rest])) for fit, rest in _folds(labels, sources, task)],
            "cross-validation",
        )
    if not pairs:
        return SelectedC(DEFAULT_C, "fixed")
    total, count = np.zeros(len(C_grid)), 0
    for fit, (query, truth) in pairs:
        found = _predictions(train[fit], labels[fit], query, task, classes, C_grid)
        total += [_loss(predicted, truth, task) * len(truth) for predicted in found]
        count += len(truth)
    losses = total / count
    # Of losses that are equal but for rounding, the first: the strongest penalty.
    best = int(np.flatnonzero(losses <= losses.min() * (1 + 1e-9))[0])
    return SelectedC(float(C_grid[best]), selected_on, tuple(float(loss) for loss in losses))


def _folds(labels: np.ndarray, sources: np.ndarray, task: Task) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds over sources, and over the classes alike; none where some class would be missing in a training."""
    folds = min(FOLDS, len(np.unique(sources)))
    if task == "classes":
        least = min(len(np.unique(sources[labels == label])) for label in np.unique(labels))
        folds = min(folds, least)
    if folds < 2:
        return []
    rows = np.zeros(len(labels))
    if task != "classes":
        return list(GroupKFold(folds).split(rows, groups=sources))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer members than folds
        split = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(rows, labels, sources))
    there = len(np.unique(labels))
    return [(fit, rest) for fit, rest in split if len(rest) and len(np.unique(labels[fit])) == there]


def _loss(predicted: np.ndarray, truth: np.ndarray, task: Task) -> float:
    if task == "regression":
        return float(np.mean((predicted - truth) ** 2))
    probabilities = np.clip(predicted, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    if task == "multilabel":
        return float(-np.mean(truth * np.log(probabilities) + (1 - truth) * np.log(1 - probabilities)))
    return float(-np.mean(np.log(probabilities[np.arange(len(truth)), truth])))
