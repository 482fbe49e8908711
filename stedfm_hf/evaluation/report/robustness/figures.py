"""Figures of `evaluate robustness`: accuracy over the levels, and example images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stedfm_hf.evaluation.extractors import DEFAULT_PROCESSOR
from stedfm_hf.evaluation.report.figures import METRIC_NAMES
from stedfm_hf.evaluation.report.robustness.evaluation import Robustness
from stedfm_hf.evaluation.robustness.curves import LOSS
from stedfm_hf.evaluation.robustness.families import Family
from stedfm_hf.reports.figures import GRID, INK, MUTED, label_colours, middle, show_image

_COLUMNS = 3
_EXAMPLE_PX = 128


def short_label(family: Family, level: float) -> str:
    """Return the text of a level for an axis, without its unit.

    Args:
        family: Family.
        level: One of its levels.
    """
    if level == family.identity and (family.names or family.decreasing):
        return "all" if family.decreasing else "none"
    if family.names:
        return family.label(level).replace(" and ", "/")
    return f"{level:.3g}"


def plot_curves(report: Robustness) -> Figure:
    """Plot the score of all methods over the levels of each family, with 95 % intervals of the first method.

    Args:
        report: Results.
    """
    count = len(report.families)
    columns = 2 if count == 4 else min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(2.75 * columns + 0.6, 2.45 * rows + 0.5))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True, gridspec_kw={"hspace": 0.62, "wspace": 0.1})
    for number, axes in enumerate(grid.ravel()):
        if number >= count:
            axes.set_visible(False)
            continue
        _plot_family(axes, report, report.families[number])
        if number % columns == 0:
            axes.set_ylabel(METRIC_NAMES[report.metric])
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.88 + 0.34 / (2.45 * rows + 0.5)),  # above the titles of the first row
        ncols=min(3, len(labels)),
        fontsize=8.5,
    )
    return figure


def _plot_family(axes: Axes, report: Robustness, family: Family) -> None:
    """Plot the curves of one family; levels have equal distances."""
    colours = label_colours(each.key for each in report.methods if each.key != "chance") | {"chance": MUTED}
    places = np.arange(len(family.levels))
    for each in report.methods:
        curve = report.curve(each.key, family.name)
        first = each.key == report.main.key
        style: dict[str, Any] = {"ls": "none"} if not family.ordered else {}
        if each.key == "chance":
            style = {"ls": ":", "marker": ""}
        axes.plot(
            places,
            curve.means,
            **{"marker": "o" if each.kind == "model" else "s", **style},
            color=colours[each.key],
            lw=2.0 if first else 1.1,
            ms=4.5 if first else 3.2,
            zorder=3 if first else 2,
            label=each.name,
        )
        if first:
            ends = [curve.interval(curve.resampled[:, place]) or (np.nan, np.nan) for place in places]
            low, high = np.array(ends).T
            if family.ordered:
                axes.fill_between(places, low, high, color=colours[each.key], alpha=0.15, lw=0, zorder=1)
            else:
                axes.vlines(places, low, high, color=colours[each.key], lw=1.2, zorder=1)
            axes.axhline(curve.means[0] - LOSS, color=INK, lw=0.7, ls=(0, (4, 3)), zorder=1)
    axes.set_xticks(places, [short_label(family, level) for level in family.levels], fontsize=7.5)
    if any(len(label.get_text()) > 5 for label in axes.get_xticklabels()):
        axes.tick_params(axis="x", rotation=25)
    axes.set_title(family.title, fontsize=8.8, loc="left")
    axes.set_xlabel(family.unit if family.unit and family.ordered else "", fontsize=8)
    axes.grid(axis="y", color=GRID, lw=0.7)
    axes.set_axisbelow(True)


def plot_examples(report: Robustness, family: Family) -> Figure:
    """Plot the example image at all levels of a family, scaled as for the models.

    Args:
        report: Results.
        family: Family.
    """
    images = report.examples[family.name]
    figure = Figure(figsize=(1.35 * len(images), 1.6))
    grid = figure.subplots(1, len(images), squeeze=False, gridspec_kw={"wspace": 0.06})[0]
    first = images[0].array.shape[1]
    for axes, image, level in zip(grid, images, family.levels, strict=True):
        scaled = DEFAULT_PROCESSOR.prepare(image)[0]
        # A field with larger pixels is shown at the same size.
        shown = middle(scaled, max(8, round(_EXAMPLE_PX * scaled.shape[0] / first)))
        show_image(axes, shown, limits=(0.0, 1.0))
        axes.set_title(family.label(level), fontsize=7.8)
    return figure
