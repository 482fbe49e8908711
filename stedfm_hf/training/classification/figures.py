"""Figures of a classifier: its predictions compared with the truth."""

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
    """Plot the counts of every pair of a true and a predicted class, coloured by the share of the true one."""
    counts = np.asarray(matrix, float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.55 * len(classes)
    with style():
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ticks = np.arange(len(classes))
        axes.set_xticks(ticks, list(classes), rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, list(classes))
        axes.set(xlabel="predicted", ylabel="true", title=title)
        for row, column in np.ndindex(*counts.shape):
            colour = "white" if shares[row, column] > 0.6 else INK
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour)
        figure.colorbar(shown, ax=axes, label="share of the true class", shrink=0.8)
        return figure


def plot_scatter(predicted: np.ndarray, true: np.ndarray, title: str) -> Figure:
    """Plot predicted numbers over true ones, with the line they would lie on."""
    with style():
        figure = Figure(figsize=(3.6, 3.4), layout="constrained")
        axes = figure.subplots()
        ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
        axes.plot(ends, ends, color=MUTED, ls=(0, (5, 3)), lw=1.2)
        axes.scatter(true, predicted, s=10, color=PALETTE[0], alpha=0.6, linewidths=0)
        axes.set(xlabel="true", ylabel="predicted", title=title)
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
    """Write the figures into `FOLDER/figures/`, as PNG and SVG each.

    Args:
        folder: Folder of the run.
        classes: Names of the classes; empty for a regression.
        result: Metrics of the split that is shown.
        predicted: Numbers predicted there, for a regression.
        true: True numbers there.
        split: `test` or `validation`.
    """
    if "confusion_matrix" in result:
        title = f"{split}: {len(true)} images"
        save_figure(plot_confusion(result["confusion_matrix"], classes, title), folder / FIGURES, CONFUSION)
    elif not classes:
        save_figure(plot_scatter(predicted, true, f"{split}: {len(true)} images"), folder / FIGURES, SCATTER)
