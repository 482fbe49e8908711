"""Linear probes on frozen features.

Classes are predicted by a multinomial logistic regression, multilabel targets by one logistic regression for each
class, and numbers by a ridge regression. The L2 penalty is selected on source images that are not in the training
images or the test images. The paper trains a linear layer by gradient descent instead.
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
"""Values of C to try, from the strongest penalty to the weakest; for the ridge regression, alpha is 1 / C."""
DEFAULT_C = 0.1
"""Value of C if there are too few source images to select it."""
FOLDS = 5
"""Number of cross-validation folds."""
_ITERATIONS = 1000
_MIN_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class SelectedC:
    """Selected inverse strength of the penalty.

    Attributes:
        C: Inverse strength of the L2 penalty, as in scikit-learn.
        selected_on: "validation" (validation split), "cross-validation" (folds of the training images over source
            images) or "fixed" (too few source images).
        losses: Mean loss for each value of C; empty if C is fixed.
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
    """Fit a linear probe and predict.

    Args:
        train: Training features (n, d).
        labels: Class numbers (n,) int; 0 or 1 for each class (n, classes) if multilabel; or numbers (n,) float.
        query: Features to predict from (m, d).
        task: Type of the labels: "classes", "multilabel" or "regression".
        classes: Number of classes.
        C: Inverse strength of the L2 penalty, as in scikit-learn.

    Returns:
        Probabilities (m, classes), or predicted numbers (m,). Classes without training images have probability 0.

    Example:
        >>> features = np.array([[-1.0], [-0.9], [0.9], [1.0]])
        >>> probabilities = fit_predict(features, np.array([0, 0, 1, 1]), features, task="classes", classes=2, C=10.0)
        >>> probabilities.argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """
    return next(_predictions(train, labels, query, task, classes, (C,)))


def fit_layer(
    train: np.ndarray, labels: np.ndarray, *, task: Task, classes: int, C: float, balanced: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear probe, and return it as a linear layer.

    Args:
        train: Training features (n, d).
        labels: Labels of the training images; see `fit_predict`.
        task: Type of the labels: "classes", "multilabel" or "regression".
        classes: Number of classes; not used for a regression.
        C: Inverse strength of the L2 penalty, as in scikit-learn.
        balanced: Whether to give all classes equal weight.

    Returns:
        Weights (L, d) and biases (L,), with L = `classes`, or 1 for a regression. The outputs are logits, or numbers.
        A class without training images has one logit for all images: the lowest of the training images.

    Example:
        >>> features = np.array([[-1.0], [-0.9], [0.9], [1.0]])
        >>> weight, bias = fit_layer(features, np.array([0, 0, 1, 1]), task="classes", classes=2, C=10.0)
        >>> (features @ weight.T + bias).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """
    if task == "regression":
        ridge = Ridge(alpha=1 / C).fit(train, labels)
        return ridge.coef_[None], np.array([ridge.intercept_])
    if task == "multilabel":
        rows = [_binary_row(train, labels[:, number], C, balanced) for number in range(classes)]
        return np.stack([row[:-1] for row in rows]), np.array([row[-1] for row in rows])
    weight, bias = np.zeros((classes, train.shape[1])), np.zeros(classes)
    present = np.unique(labels)
    if len(present) == 2:  # one row of coefficients, for the difference of the logits
        row = _binary_row(train, labels == present[1], C, balanced) / 2
        weight[present], bias[present] = np.stack([-row[:-1], row[:-1]]), [-row[-1], row[-1]]
    elif len(present) > 2:
        model = _logistic_regression(balanced, C).fit(train, labels)
        weight[present], bias[present] = model.coef_, model.intercept_
    absent = np.setdiff1d(np.arange(classes), present)
    bias[absent] = (train @ weight[present].T + bias[present]).min()
    return weight, bias


def _binary_row(train: np.ndarray, labels: np.ndarray, C: float, balanced: bool) -> np.ndarray:
    """Return the coefficients and the intercept (d + 1,) of a logistic regression of two classes."""
    if len(np.unique(labels)) == 2:
        model = _logistic_regression(balanced, C).fit(train, labels)
        return np.append(model.coef_[0], model.intercept_)
    count = labels.sum()
    return np.append(np.zeros(train.shape[1]), np.log((count + 0.5) / (len(labels) - count + 0.5)))


def _logistic_regression(balanced: bool, C: float) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=_ITERATIONS, class_weight="balanced" if balanced else None)


def _predictions(
    train: np.ndarray,
    labels: np.ndarray,
    query: np.ndarray,
    task: Task,
    classes: int,
    C_grid: Sequence[float],
) -> Iterator[np.ndarray]:
    """Yield the predictions for each value of C; each fit starts from the previous solution."""
    if task == "regression":
        # One target for each value of C: one fit of all is much faster.
        ridge = Ridge(alpha=1 / np.array(C_grid)).fit(train, np.repeat(labels[:, None], len(C_grid), axis=1))
        yield from ridge.predict(query).reshape(len(query), -1).T
    elif task == "multilabel":
        columns = [_logistic(train, labels[:, number], query, 2, C_grid) for number in range(classes)]
        for parts in zip(*columns, strict=True):
            yield np.stack([part[:, 1] for part in parts], axis=1)
    else:
        yield from _logistic(train, labels, query, classes, C_grid)


def _logistic(
    train: np.ndarray, labels: np.ndarray, query: np.ndarray, classes: int, C_grid: Sequence[float]
) -> Iterator[np.ndarray]:
    """Yield the probabilities (m, classes) of a logistic regression for each value of C."""
    present = np.unique(labels)
    if len(present) == 1:
        for _ in C_grid:
            yield np.eye(classes)[np.full(len(query), present[0])]
        return
    model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    with warnings.catch_warnings():
        # With a weak penalty and separable classes, the optimum is far away; an approximate solution is sufficient.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for C in C_grid:
            model.set_params(C=C).fit(train, labels)
            probabilities = np.zeros((len(query), classes))
            probabilities[:, present] = model.predict_proba(query)
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
    """Select the C with the smallest loss on other source images.

    The loss is the log loss, or the mean squared error for regression. Ties go to the strongest penalty.

    Args:
        train: Training features (n, d).
        labels: Labels of the training images; see `fit_predict`.
        sources: Source image of each training image (n,).
        task: Type of the labels: "classes", "multilabel" or "regression".
        classes: Number of classes.
        validation: Features and labels of the validation split; None uses a cross-validation of the training images
            whose folds share no source image.
        C_grid: Values of C to try, from the strongest penalty to the weakest.

    Returns:
        The selected C, or `DEFAULT_C` if there are too few source images for a cross-validation.
    """
    if validation is not None and len(validation[1]):
        pairs, selected_on = [(np.arange(len(train)), validation)], "validation"
    else:
        pairs = [(fit, (train[rest], labels[rest])) for fit, rest in _folds(labels, sources, task)]
        selected_on = "cross-validation"
    if not pairs:
        return SelectedC(DEFAULT_C, "fixed")
    total, count = np.zeros(len(C_grid)), 0
    for fit, (query, truth) in pairs:
        predictions = _predictions(train[fit], labels[fit], query, task, classes, C_grid)
        total += [_loss(predicted, truth, task) * len(truth) for predicted in predictions]
        count += len(truth)
    losses = total / count
    # Losses that differ by rounding are ties, which go to the strongest penalty.
    best = int(np.flatnonzero(losses <= losses.min() * (1 + 1e-9))[0])
    return SelectedC(float(C_grid[best]), selected_on, tuple(float(loss) for loss in losses))


def _folds(labels: np.ndarray, sources: np.ndarray, task: Task) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return stratified folds over source images, without folds whose training images lack a class."""
    folds = min(FOLDS, len(np.unique(sources)))
    if task == "classes":
        folds = min(folds, *(len(np.unique(sources[labels == label])) for label in np.unique(labels)))
    if folds < 2:
        return []
    rows = np.zeros(len(labels))
    if task != "classes":
        return list(GroupKFold(folds).split(rows, groups=sources))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes with fewer images than folds
        split = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(rows, labels, sources))
    class_count = len(np.unique(labels))
    return [(fit, rest) for fit, rest in split if len(rest) and len(np.unique(labels[fit])) == class_count]


def _loss(predicted: np.ndarray, truth: np.ndarray, task: Task) -> float:
    """Return the mean log loss, or the mean squared error for regression."""
    if task == "regression":
        return float(np.mean((predicted - truth) ** 2))
    probabilities = np.clip(predicted, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    if task == "multilabel":
        return float(-np.mean(truth * np.log(probabilities) + (1 - truth) * np.log(1 - probabilities)))
    return float(-np.mean(np.log(probabilities[np.arange(len(truth)), truth])))
