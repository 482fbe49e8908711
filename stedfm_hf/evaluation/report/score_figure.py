"""Panels of the figures that compare scores: the mean of each method, its interval, and single images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from stedfm_hf.evaluation.report.content import MethodInfo
from stedfm_hf.reports.figures import GRID, INK

MAX_POINTS = 400
"""Largest number of images to plot for each method."""


def plot_scores(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    values: Sequence[np.ndarray],
    colours: Sequence[str],
    *,
    size: float,
    alpha: float,
) -> None:
    """Plot the mean of each method with its confidence interval, and the scores of single images.

    Args:
        axes: Panel with scores from 0 to 1, and a line for each method.
        rows: `mean`, `low` and `high` of each method.
        values: Scores of the images of each method.
        colours: Colour of each method.
        size: Size of the means, in points.
        alpha: Opacity of the single images, in [0, 1].
    """
    for number, (row, points, colour) in enumerate(zip(rows, values, colours, strict=True)):
        points = points[:MAX_POINTS]
        # A fixed jitter, so that the figure is reproducible.
        jitter = 0.3 * (((np.arange(len(points)) * 0.618) % 1) - 0.5)
        axes.plot(points, number + jitter, ".", color=colour, ms=4.5, alpha=alpha, mew=0, zorder=1)
        if row["mean"] is None:
            continue
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [number, number], color=colour, lw=2.4, zorder=2)
        axes.plot(row["mean"], number, "o", color=colour, ms=size, mec="white", mew=1.0, zorder=3)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


def emphasise_models(axes: Axes, methods: Sequence[MethodInfo]) -> None:
    """Write the names of models in bold.

    Args:
        axes: Panel with a label for each method.
        methods: Models and baselines.
    """
    for label, each in zip(axes.get_yticklabels(), methods, strict=True):
        label.set_color(INK)
        label.set_parse_math(False)
        label.set_fontweight("bold" if each.kind != "baseline" else "normal")
