"""The figures of a report: learning curve or votes, confusion matrices, calibration, predicted numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stedfm_hf.evaluation.report.evaluation import Evaluation, in_short
from stedfm_hf.reports.figures import GRID, INK, MUTED, label_colours, save_figure, shortened, style

WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mean_average_precision": "mean average precision",
    "label_accuracy": "share of labels right",
    "expected_calibration_error": "calibration error",
    "brier_score": "Brier score",
    "r2": "R²",
    "pearson_r": "Pearson r",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
}
MOST_MATRICES = 8
LEAST_ANSWERS = 5
"""Answers a point of the calibration stands for at least."""
_DASHES = ((4, 1.5), (1.5, 1.2), (6, 1.5, 1.5, 1.5), (3, 1, 1, 1, 1, 1))


def plot_figures(evaluation: Evaluation, folder: Path) -> dict[str, Path]:
    """Draws and saves all figures there is material for; returns their PNG files by name."""
    with style():
        drawn = {"curve" if evaluation.command == "evaluate probe" else "votes": _scores(evaluation)}
        last = evaluation.main_setting
        rows = [evaluation.row(each.key, last) for each in evaluation.contestants if each.key != "chance"]
        if all("confusion_matrix" in row for row in rows):
            drawn["confusion"] = _confusion(evaluation, last)
        if all("reliability" in row for row in rows) and evaluation.command == "evaluate probe":
            drawn["calibration"] = _calibration(evaluation, last)
        if evaluation.test.task == "regression":
            drawn["predicted"] = _predicted(evaluation, last)
        return {name: save_figure(figure, folder, name) for name, figure in drawn.items()}


def _colours(evaluation: Evaluation) -> dict[str, str]:
    return label_colours(each.key for each in evaluation.contestants if each.key != "chance") | {"chance": MUTED}


def _scores(evaluation: Evaluation) -> Figure:
    """The primary metric of all models over the settings; bars are one standard deviation over the draws."""
    figure = Figure(figsize=(7.2, 3.7))
    axes = figure.add_subplot()
    order, colours = evaluation.order, _colours(evaluation)
    places = np.arange(len(order), dtype=float)
    wide = 0.3 if len(order) > 1 else 0.6
    count = len(evaluation.contestants)
    dashes = 0
    for number, each in enumerate(evaluation.contestants):
        rows = [evaluation.row(each.key, setting)[evaluation.primary] for setting in order]
        means = np.array([row["mean"] for row in rows])
        spread = np.array([row["sd"] or 0.0 for row in rows])
        shift = wide * (number / max(1, count - 1) - 0.5)
        model = each.kind == "model"
        if each.key == "chance":
            axes.plot(places, means, color=MUTED, lw=1.0, ls=":", label=each.name, zorder=1)
            continue
        line: dict[str, Any] = {} if model else {"dashes": _DASHES[dashes % len(_DASHES)]}
        dashes += not model
        # Draws of one setting stand side by side, so that no bar hides another.
        axes.errorbar(
            places + shift,
            means,
            spread,
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
    axes.set_xticks(places, [in_short(setting) for setting in order])
    probe = evaluation.command == "evaluate probe"
    regression = evaluation.test.task == "regression"
    axes.set_xlabel(("labelled images" if regression else "labelled images of each class") if probe else "vote")
    axes.set_ylabel(WORDS[evaluation.primary])
    if evaluation.test.task != "regression":
        axes.set_ylim(top=1.02)
    axes.grid(axis="y", color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    names = [each.name for each in evaluation.contestants]
    sorting = sorted(range(len(labels)), key=lambda place: names.index(labels[place]))
    axes.legend(
        [handles[place] for place in sorting],
        [labels[place] for place in sorting],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        fontsize=8.5,
        handlelength=2.8,
        borderaxespad=0,
    )
    return figure


def _confusion(evaluation: Evaluation, setting: str) -> Figure:
    """Confusion matrices of the models and baselines, each row the answers to one class."""
    shown = [each for each in evaluation.contestants if each.key != "chance"][:MOST_MATRICES]
    classes = evaluation.test.classes
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    side = 1.7 if len(classes) <= 8 else 2.3
    figure = Figure(figsize=(columns * (side + 0.15) + 0.9, rows * (side + 0.45) + 0.5))
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.12, "hspace": 0.32})
    texts = len(classes) <= 10
    for number, axes in enumerate(grid.ravel()):
        if number >= len(shown):
            axes.set_visible(False)
            continue
        counts = np.array(evaluation.row(shown[number].key, setting)["confusion_matrix"])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_title(shortened(shown[number].name, 26), fontsize=8.5)
        for place in np.ndindex(*shares.shape) if texts else ():
            value = shares[place]
            colour = "white" if value > 0.55 else INK
            size = 7.5 if len(classes) <= 5 else 5.5
            axes.text(place[1], place[0], f"{100 * value:.0f}", ha="center", va="center", fontsize=size, color=colour)
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
            axes.set_xlabel("answer", fontsize=8)
    return figure


def _calibration(evaluation: Evaluation, setting: str) -> Figure:
    """How often answers of a confidence are right: on the diagonal they can be taken at their word."""
    figure = Figure(figsize=(6.4, 3.5))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=":", zorder=1)
    colours = _colours(evaluation)
    for each in evaluation.contestants:
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
    axes.set(xlim=(min(chance, 0.5) - 0.02, 1.02), ylim=(-0.02, 1.04), xlabel="confidence", ylabel="share right")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8.5, borderaxespad=0)
    return figure


def _points(reliability: Sequence[dict[str, Any]]) -> np.ndarray:
    """Confidence and share right, (points, 2); neighbouring bins are joined until each has some answers."""
    rows = [(each["confidence"], each["accuracy"], each["count"]) for each in reliability if each["count"]]
    least = max(LEAST_ANSWERS, 0.08 * sum(count for _, _, count in rows))
    points, held = [], np.zeros(3)
    for confidence, accuracy, count in rows:
        held = held + np.array([confidence * count, accuracy * count, count])
        if held[2] >= least:
            points.append(held[:2] / held[2])
            held = np.zeros(3)
    return np.array(points).reshape(-1, 2)  # what is left at the end is too little to say anything


def _predicted(evaluation: Evaluation, setting: str) -> Figure:
    """Predicted against true numbers, first run of each."""
    shown = [each for each in evaluation.contestants if each.key != "chance"][:MOST_MATRICES]
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
        _cloud(axes, truth, run.predicted, colours[key], (low, high))
        axes.set_title(shortened(shown[number].name, 26), fontsize=8.5)
    figure.supxlabel("true", fontsize=9)
    figure.supylabel("predicted", fontsize=9)
    figure.tight_layout(pad=0.6)
    return figure


def _cloud(axes: Axes, truth: np.ndarray, predicted: np.ndarray, colour: str, ends: tuple[float, float]) -> None:
    axes.plot(ends, ends, color=MUTED, lw=0.9, ls=":")
    axes.scatter(truth, predicted, s=7, color=colour, alpha=0.6, linewidths=0)
