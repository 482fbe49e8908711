"""Figures of a classifier: confusion matrix, and predicted over true numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stedfm_hf.reports.figures import INK, MUTED, PALETTE, save_figure, style
from stedfm_hf.training.figures import FIGURES

CONFUSION, SCATTER = "confusion_matrix", "predictions"


def plot_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    """Plot a confusion matrix: counts, with colours for the fraction of the true class.

    Args:
        matrix: Counts by true class (rows) and predicted class (columns).
        classes: Names of the classes.
        title: Title of the figure.
    """
    counts = np.asarray(matrix, float)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 1.8 + 0.55 * len(classes)
    with style():
        figure = Figure(figsize=(size + 0.8, size), layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        ticks = np.arange(len(classes))
        axes.set_xticks(ticks, list(classes), rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, list(classes))
        axes.set(xlabel="predicted class", ylabel="true class", title=title)
        for row, column in np.ndindex(*counts.shape):
            colour = "white" if fractions[row, column] > 0.6 else INK
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour)
        figure.colorbar(shown, ax=axes, label="fraction of the true class", shrink=0.8)
        return figure


def plot_scatter(predicted: np.ndarray, true: np.ndarray, title: str) -> Figure:
    """Plot predicted over true numbers, with the line of perfect predictions.

    Args:
        predicted: Predicted numbers (n,).
        true: True numbers (n,).
        title: Title of the figure.
    """
    with style():
        figure = Figure(figsize=(3.6, 3.4), layout="constrained")
        axes = figure.subplots()
        ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
        axes.plot(ends, ends, color=MUTED, ls=(0, (5, 3)), lw=1.2)
        axes.scatter(true, predicted, s=10, color=PALETTE[0], alpha=0.6, linewidths=0)
        axes.set(xlabel="true value", ylabel="predicted value", title=title)
        return figure


def save_result_figures(
    folder: Path,
    *,
    classes: Sequence[str],
    result: dict[str, Any],
    predicted: np.ndarray,
    true: np.ndarray,
    split: str,
) -> None:
    """Write the figures into `FOLDER/figures`, as PNG and SVG.

    Args:
        folder: Folder of the run.
        classes: Names of the classes; empty for a regression.
        result: Metrics of the split.
        predicted: Predicted numbers (n,), for a regression.
        true: Labels, or true numbers, of the images (n,).
        split: Name of the split, for the title.
    """
    if "confusion_matrix" in result:
        title = f"{split}: {len(true)} images"
        save_figure(plot_confusion(result["confusion_matrix"], classes, title), folder / FIGURES, CONFUSION)
    elif not classes:
        save_figure(plot_scatter(predicted, true, f"{split}: {len(true)} images"), folder / FIGURES, SCATTER)
