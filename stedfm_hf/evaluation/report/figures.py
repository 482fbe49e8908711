"""Figures of `evaluate knn` and `evaluate probe`: scores, confusion matrices, calibration and predicted values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stedfm_hf.evaluation.report.evaluation import Evaluation, short_setting
from stedfm_hf.reports.figures import GRID, INK, MUTED, label_colours, save_figure, shortened, style

METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mean_average_precision": "mean average precision",
    "label_accuracy": "label accuracy",
    "expected_calibration_error": "expected calibration error",
    "brier_score": "Brier score",
    "r2": "R²",
    "pearson_r": "Pearson r",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
}
"""Names of the metrics in reports."""
MAX_MATRICES = 8
"""Largest number of panels."""
MIN_PREDICTIONS = 5
"""Smallest number of predictions of a point in the calibration figure."""
_DASHES = ((4, 1.5), (1.5, 1.2), (6, 1.5, 1.5, 1.5), (3, 1, 1, 1, 1, 1))


def plot_figures(evaluation: Evaluation, folder: Path) -> dict[str, Path]:
    """Plot and save all figures for which there are results.

    Args:
        evaluation: Results.
        folder: Folder of the figures.

    Returns:
        PNG file of each figure, by name.
    """
    with style():
        plotted = {"curve" if evaluation.command == "evaluate probe" else "neighbours": _scores(evaluation)}
        last = evaluation.main_setting
        rows = [evaluation.row(each.key, last) for each in evaluation.methods if each.key != "chance"]
        if all("confusion_matrix" in row for row in rows):
            plotted["confusion"] = _confusion(evaluation, last)
        if all("reliability" in row for row in rows) and evaluation.command == "evaluate probe":
            plotted["calibration"] = _calibration(evaluation, last)
        if evaluation.test.task == "regression":
            plotted["predicted"] = _predicted(evaluation, last)
        return {name: save_figure(figure, folder, name) for name, figure in plotted.items()}


def _colours(evaluation: Evaluation) -> dict[str, str]:
    """Return the colour of each method."""
    return label_colours(each.key for each in evaluation.methods if each.key != "chance") | {"chance": MUTED}


def _scores(evaluation: Evaluation) -> Figure:
    """Plot the primary metric of all methods over the settings; bars are one standard deviation over samples."""
    figure = Figure(figsize=(7.2, 3.7))
    axes = figure.add_subplot()
    order, colours = evaluation.order, _colours(evaluation)
    positions = np.arange(len(order), dtype=float)
    width = 0.3 if len(order) > 1 else 0.6
    count = len(evaluation.methods)
    dashes = 0
    for number, each in enumerate(evaluation.methods):
        rows = [evaluation.row(each.key, setting)[evaluation.primary] for setting in order]
        means = np.array([row["mean"] for row in rows])
        std = np.array([row["sd"] or 0.0 for row in rows])
        shift = width * (number / max(1, count - 1) - 0.5)
        model = each.kind == "model"
        if each.key == "chance":
            axes.plot(positions, means, color=MUTED, lw=1.0, ls=":", label=each.name, zorder=1)
            continue
        line: dict[str, Any] = {} if model else {"dashes": _DASHES[dashes % len(_DASHES)]}
        dashes += not model
        # Methods of one setting are shifted so that no bar hides another.
        axes.errorbar(
            positions + shift,
            means,
            std,
            color=colours[each.key],
            lw=2.2 if model else 1.2,
            marker="o" if model else "s",
            ms=5.5 if model else 3.8,
            capsize=2,
            elinewidth=1,
            label=each.name,
            zorder=3 if model else 2,
            **line,
        )
    axes.set_xticks(positions, [short_setting(setting) for setting in order])
    probe = evaluation.command == "evaluate probe"
    regression = evaluation.test.task == "regression"
    axes.set_xlabel(
        ("labelled images" if regression else "labelled images per class") if probe else "number of neighbours (k)"
    )
    axes.set_ylabel(METRIC_NAMES[evaluation.primary])
    if evaluation.test.task != "regression":
        axes.set_ylim(top=1.02)
    axes.grid(axis="y", color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    names = [each.name for each in evaluation.methods]
    order_of_methods = sorted(range(len(labels)), key=lambda number: names.index(labels[number]))
    axes.legend(
        [handles[number] for number in order_of_methods],
        [labels[number] for number in order_of_methods],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        fontsize=8.5,
        handlelength=2.8,
        borderaxespad=0,
    )
    return figure


def _confusion(evaluation: Evaluation, setting: str) -> Figure:
    """Plot the confusion matrix of each method; rows are true classes."""
    shown = [each for each in evaluation.methods if each.key != "chance"][:MAX_MATRICES]
    classes = evaluation.test.classes
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    size = 1.7 if len(classes) <= 8 else 2.3
    figure = Figure(figsize=(columns * (size + 0.15) + 0.9, rows * (size + 0.45) + 0.5))
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.12, "hspace": 0.32})
    texts = len(classes) <= 10
    for number, axes in enumerate(grid.ravel()):
        if number >= len(shown):
            axes.set_visible(False)
            continue
        counts = np.array(evaluation.row(shown[number].key, setting)["confusion_matrix"])
        fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        axes.set_title(shortened(shown[number].name, 26), fontsize=8.5)
        for cell in np.ndindex(*fractions.shape) if texts else ():
            value = fractions[cell]
            colour = "white" if value > 0.55 else INK
            font_size = 7.5 if len(classes) <= 5 else 5.5
            axes.text(
                cell[1], cell[0], f"{100 * value:.0f}", ha="center", va="center", fontsize=font_size, color=colour
            )
        left, bottom = number % columns == 0, number + columns >= len(shown)
        names = [shortened(name, 14) for name in classes]
        axes.set_xticks(range(len(classes)), names if bottom else [], rotation=45, ha="right", fontsize=7)
        axes.set_yticks(range(len(classes)), names if left else [], fontsize=7)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if left:
            axes.set_ylabel("true class", fontsize=8)
        if bottom:
            axes.set_xlabel("predicted class", fontsize=8)
    return figure


def _calibration(evaluation: Evaluation, setting: str) -> Figure:
    """Plot accuracy over confidence; calibrated predictions are on the diagonal."""
    figure = Figure(figsize=(6.4, 3.5))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=":", zorder=1, label="perfect calibration")
    colours = _colours(evaluation)
    for each in evaluation.methods:
        if each.key == "chance":
            continue
        model = each.kind == "model"
        points = _points(evaluation.row(each.key, setting)["reliability"])
        axes.plot(
            points[:, 0],
            points[:, 1],
            color=colours[each.key],
            alpha=1.0 if model else 0.75,
            lw=2.2 if model else 1.1,
            marker="o" if model else "s",
            ms=4.5 if model else 3,
            label=each.name,
            zorder=3 if model else 2,
        )
    chance = 1 / max(1, len(evaluation.test.classes))
    axes.set(xlim=(min(chance, 0.5) - 0.02, 1.02), ylim=(-0.02, 1.04), xlabel="confidence", ylabel="accuracy")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8.5, borderaxespad=0)
    return figure


def _points(reliability: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return confidence and accuracy (points, 2), after merging neighbouring bins with few predictions."""
    rows = [(each["confidence"], each["accuracy"], each["count"]) for each in reliability if each["count"]]
    minimum = max(MIN_PREDICTIONS, 0.08 * sum(count for _, _, count in rows))
    points, merged = [], np.zeros(3)
    for confidence, accuracy, count in rows:
        merged = merged + np.array([confidence * count, accuracy * count, count])
        if merged[2] >= minimum:
            points.append(merged[:2] / merged[2])
            merged = np.zeros(3)
    return np.array(points).reshape(-1, 2)  # the rest has too few predictions for a point


def _predicted(evaluation: Evaluation, setting: str) -> Figure:
    """Plot predicted over true values, for the first run of each method."""
    shown = [each for each in evaluation.methods if each.key != "chance"][:MAX_MATRICES]
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(columns * 1.9 + 0.5, rows * 2.1 + 0.4))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    truth, colours = evaluation.test.labels, _colours(evaluation)
    low, high = float(truth.min()), float(truth.max())
    for number, axes in enumerate(grid.ravel()):
        if number >= len(shown):
            axes.set_visible(False)
            continue
        key = shown[number].key
        run = next(run for run in evaluation.runs if (run.method, run.setting) == (key, setting))
        _scatter(axes, truth, run.predicted, colours[key], (low, high))
        axes.set_title(shortened(shown[number].name, 26), fontsize=8.5)
    figure.supxlabel("true value", fontsize=9)
    figure.supylabel("predicted value", fontsize=9)
    figure.tight_layout(pad=0.6)
    return figure


def _scatter(axes: Axes, truth: np.ndarray, predicted: np.ndarray, colour: str, limits: tuple[float, float]) -> None:
    """Plot predicted over true values, and the diagonal."""
    axes.plot(limits, limits, color=MUTED, lw=0.9, ls=":")
    axes.scatter(truth, predicted, s=7, color=colour, alpha=0.6, linewidths=0)
