"""Figures of a training: its curve, and what the model makes of held-out crops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
_WIDE = 5.0
"""Losses that spread more than this, from the lowest to the highest, are drawn by their logarithm."""


def save_figures(
    output: str | Path, rows: Sequence[CurveRow], reconstructions: Sequence[Reconstruction] = ()
) -> list[Path]:
    """Writes `OUTPUT/figures/curve` and `.../reconstructions`, as PNG and SVG each.

    Args:
        output: folder of the run.
        rows: of the curve; without any there is no figure of it.
        reconstructions: as :meth:`HeldOutEvaluator.reconstructions` returns; without any there is no figure of them.

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
    """The losses over the steps beside that of the best constant; below, what else was measured."""
    lower = [
        (name, title, factor)
        for name, title, factor in (
            ("psnr", "PSNR of hidden pixels (dB)", 1.0),
            ("knn", "kNN accuracy (%)", 100.0),
            ("learning_rate", "learning rate", 1.0),
        )
        if any(getattr(row, name) is not None for row in rows)
    ]
    with style():
        figure = Figure(figsize=(7.2, 3.4 + 1.9 * bool(lower)), layout="constrained")
        grid = figure.add_gridspec(1 + bool(lower), max(1, len(lower)), height_ratios=[1.9, 1.0][: 1 + bool(lower)])
        _plot_losses(figure.add_subplot(grid[0, :]), rows)
        for place, (name, title, factor) in enumerate(lower):
            axes = figure.add_subplot(grid[1, place])
            steps, values = _column(rows, name)
            measured = name != "learning_rate"
            colour, marker = (PALETTE[0], "o") if measured else (MUTED, "")
            axes.plot(steps, [factor * value for value in values], color=colour, marker=marker, markersize=3.5)
            axes.set(ylabel=title, xlabel="step")
            axes.locator_params(axis="x", nbins=4)
            axes.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
        return figure


def plot_finetuning_curve(rows: Sequence[FinetuneRow], metric: str, *, best_step: int | None = None) -> Figure:
    """Plot the losses of a fine-tuning over the steps, and the metric that the best model is chosen by."""
    with style():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, label, colour in (("loss", "training", MUTED), ("validation_loss", "validation", PALETTE[0])):
            steps, values = _column(rows, name)
            if steps:
                left.plot(steps, values, "o-", markersize=3.0, color=colour, label=label)
        left.set(xlabel="step", ylabel="loss")
        left.legend()
        steps, values = _column(rows, "validation_metric")
        if np.isfinite(values).any():
            right.plot(steps, np.where(np.isfinite(values), values, np.nan), "o-", markersize=3.0, color=PALETTE[0])
        if best_step is not None:
            right.axvline(best_step, color=PALETTE[1], ls=(0, (5, 3)), lw=1.2, label=f"best: step {best_step}")
            right.legend()
        name = "IoU" if metric == "iou" else metric.replace("_", " ")
        right.set(xlabel="step", ylabel=f"{name} of the validation images")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return figure


def _plot_losses(axes: Axes, rows: Sequence[CurveRow]) -> None:
    steps, losses = _column(rows, "loss")
    axes.plot(steps, losses, color=_TRAINING, lw=1.2, label="training")
    held_steps, held = _column(rows, "held_out_loss")
    if held:
        axes.plot(held_steps, held, "o-", color=PALETTE[0], markersize=4.0, label="held-out")
    constant_steps, constants = _column(rows, "constant_loss")
    if constants:
        axes.axhline(constants[-1], color=PALETTE[1], ls=(0, (5, 3)), lw=1.5, label="held-out, best constant")
    everything = [value for value in (*losses, *held, *constants) if value > 0]
    if everything and max(everything) > _WIDE * min(everything):
        axes.set_yscale("log")
    last = max(row.step for row in rows) or 1
    axes.set(xlabel="step", ylabel="loss (mean squared error)", xlim=(-0.01 * last, 1.01 * last))
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.2, handlelength=1.6)


def _column(rows: Sequence[CurveRow] | Sequence[FinetuneRow], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a column, where it has one."""
    known = [(row.step, getattr(row, name)) for row in rows if getattr(row, name) is not None]
    return [step for step, _ in known], [float(value) for _, value in known]
