"""Figures of a training: curves, and reconstructions of held-out crops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stedfm_hf.reports.figures import MUTED, PALETTE, save_figure, style
from stedfm_hf.reports.reconstructions import Reconstruction, reconstruction_figure
from stedfm_hf.training.curve import CurveRow, FinetuneRow

FIGURES = "figures"
CURVE, RECONSTRUCTIONS = "curve", "reconstructions"
_TRAINING = "#A9B5C1"
_ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
"""Position of a legend above its axes, where it hides no curve."""
_LOG_SCALE_RATIO = 5.0
"""Ratio of the highest to the lowest loss above which the axis is logarithmic."""


def save_figures(
    output: str | Path, rows: Sequence[CurveRow], reconstructions: Sequence[Reconstruction] = ()
) -> list[Path]:
    """Write the figures `curve` and `reconstructions` into `OUTPUT/figures`, as PNG and SVG.

    Args:
        output: Folder of the run.
        rows: Rows of the curve; no figure is written if empty.
        reconstructions: Reconstructions from `reconstructions`; no figure is written if empty.

    Returns:
        Paths of the PNG files.
    """
    folder, written = Path(output) / FIGURES, []
    if rows:
        written.append(save_figure(plot_curve(rows), folder, CURVE))
    if reconstructions:
        figure = reconstruction_figure(reconstructions, difference=True)
        written.append(save_figure(figure, folder, RECONSTRUCTIONS))
    return written


def plot_curve(rows: Sequence[CurveRow]) -> Figure:
    """Plot the losses over the steps, with the loss of the best constant prediction, and the other measured values.

    Args:
        rows: Rows of the curve.
    """
    lower = [
        (name, title, factor)
        for name, title, factor in (
            ("psnr", "PSNR of masked pixels (dB)", 1.0),
            ("knn", "kNN accuracy (%)", 100.0),
            ("learning_rate", "learning rate", 1.0),
        )
        if any(getattr(row, name) is not None for row in rows)
    ]
    with style():
        figure = Figure(figsize=(7.2, 3.4 + 1.9 * bool(lower)), layout="constrained")
        grid = figure.add_gridspec(1 + bool(lower), max(1, len(lower)), height_ratios=[1.9, 1.0][: 1 + bool(lower)])
        _plot_losses(figure.add_subplot(grid[0, :]), rows)
        for column, (name, title, factor) in enumerate(lower):
            axes = figure.add_subplot(grid[1, column])
            steps, values = _column(rows, name)
            measured = name != "learning_rate"
            colour, marker = (PALETTE[0], "o") if measured else (MUTED, "")
            axes.plot(steps, [factor * value for value in values], color=colour, marker=marker, markersize=3.5)
            axes.set(ylabel=title, xlabel="optimiser step")
            axes.locator_params(axis="x", nbins=4)
            axes.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
        return figure


def plot_finetuning_curve(rows: Sequence[FinetuneRow], metric: str, *, best_step: int | None = None) -> Figure:
    """Plot the losses of a fine-tuning over the steps, and the metric that selects the best model.

    Args:
        rows: Rows of the curve.
        metric: Name of the metric.
        best_step: Optimiser step of the best model, marked in the plot.
    """
    with style():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, label, colour in (
            ("loss", "training loss", MUTED),
            ("validation_loss", "validation loss", PALETTE[0]),
        ):
            steps, values = _column(rows, name)
            if steps:
                left.plot(steps, values, "o-", markersize=3.0, color=colour, label=label)
        left.set(xlabel="optimiser step", ylabel="loss")
        left.legend(**_ABOVE, ncols=2)
        steps, values = _column(rows, "validation_metric")
        if np.isfinite(values).any():
            right.plot(steps, np.where(np.isfinite(values), values, np.nan), "o-", markersize=3.0, color=PALETTE[0])
        if best_step is not None:
            right.axvline(best_step, color=PALETTE[1], ls=(0, (5, 3)), lw=1.2, label=f"best model: step {best_step}")
            right.legend(**_ABOVE)
        name = "IoU" if metric == "iou" else metric.replace("_", " ")
        right.set(xlabel="optimiser step", ylabel=f"{name} of the validation images")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return figure


def _plot_losses(axes: Axes, rows: Sequence[CurveRow]) -> None:
    """Plot training and held-out loss over the steps; logarithmic if they span more than `_LOG_SCALE_RATIO`."""
    steps, losses = _column(rows, "loss")
    axes.plot(steps, losses, color=_TRAINING, lw=1.2, label="training loss")
    held_steps, held = _column(rows, "held_out_loss")
    if held:
        axes.plot(held_steps, held, "o-", color=PALETTE[0], markersize=4.0, label="held-out loss")
    constant_steps, constants = _column(rows, "constant_loss")
    if constants:
        axes.axhline(
            constants[-1], color=PALETTE[1], ls=(0, (5, 3)), lw=1.5, label="held-out loss of the best constant"
        )
    everything = [value for value in (*losses, *held, *constants) if value > 0]
    if everything and max(everything) > _LOG_SCALE_RATIO * min(everything):
        axes.set_yscale("log")
    last = max(row.step for row in rows) or 1
    axes.set(xlabel="optimiser step", ylabel="loss (mean squared error)", xlim=(-0.01 * last, 1.01 * last))
    axes.legend(**_ABOVE, ncols=3, columnspacing=1.2, handlelength=1.6)


def _column(rows: Sequence[CurveRow] | Sequence[FinetuneRow], name: str) -> tuple[list[int], list[float]]:
    """Return the steps and values of the rows that have a value in a column."""
    known = [(row.step, getattr(row, name)) for row in rows if getattr(row, name) is not None]
    return [step for step, _ in known], [float(value) for _, value in known]
