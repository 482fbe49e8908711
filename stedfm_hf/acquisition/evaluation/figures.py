"""Figures of `evaluate find`: means with intervals, precision-recall curves, and score maps of example images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stedfm_hf.acquisition.evaluation.results import Example, FindReport
from stedfm_hf.evaluation.report.score_figure import emphasise_models, plot_scores
from stedfm_hf.reports.figures import (
    GRID,
    MUTED,
    display_limits,
    label_colours,
    plot_outline,
    save_figure,
    shortened,
    show_image,
    style,
    wrapped,
)

_GREYS = ("#3A3F45", "#616E7C", "#8A94A0", "#A9B1BA", "#C3C9CF")
"""Colours of baselines."""
_LINES = ("-", "--", "-.", ":")
_MAP_TITLES = 30
_TICKS = ((0, 0.25, 0.5, 0.75, 1), ("0", "", "0.5", "", "1"))
"""Ticks of an axis from 0 to 1, and their labels, which do not collide with those of the next panel."""


def plot_figures(report: FindReport, folder: Path) -> dict[str, Path]:
    """Plot and save all figures for which there are results.

    Args:
        report: Results.
        folder: Folder of the figures.

    Returns:
        PNG file of each figure, by name.
    """
    with style():
        plotted = {"scores": _scores(report), "curves": _curves(report)}
        if report.reference and "intensity" in [each.key for each in report.methods]:
            plotted["difference"] = _difference(report)
        if report.examples:
            plotted["examples"] = _examples(report)
        return {name: save_figure(figure, folder, name) for name, figure in plotted.items()}


def line_styles(report: FindReport) -> dict[str, dict[str, Any]]:
    """Return colour and style of the line of each method: models in colour, baselines in grey."""
    models = [each.key for each in report.methods if each.kind == "model"]
    styles = {key: {"color": colour, "lw": 2.0, "zorder": 3} for key, colour in label_colours(models).items()}
    others = [each.key for each in report.methods if each.kind != "model"]
    for number, key in enumerate(others):
        grey, line = _GREYS[number % len(_GREYS)], _LINES[number % len(_LINES)]
        styles[key] = {"color": grey, "ls": line, "lw": 1.3, "zorder": 2}
    return styles


def _scores(report: FindReport) -> Figure:
    """Plot means with confidence intervals, and the average precision of single images."""
    count, levels = len(report.methods), report.levels
    figure = Figure(figsize=(7.6, 0.32 * count + 0.9))
    (axes,) = figure.subplots(1, len(levels), squeeze=False, sharey=True, gridspec_kw={"wspace": 0.08})
    values = _image_means(report)
    styles = line_styles(report)
    colours = [styles[each.key]["color"] if each.kind == "model" else MUTED for each in report.methods]
    for column, (each_axes, level) in enumerate(zip(axes, levels, strict=True)):
        rows = [report.row(each.key, level) for each in report.methods]
        points = [values[each.key, level] for each in report.methods]
        plot_scores(each_axes, rows, points, colours, size=6.5, alpha=0.4)
        each_axes.set(xlabel="average precision", title=level)
        each_axes.set_xticks(*_TICKS)
        each_axes.set_yticks(range(count), [shortened(each.name, 36) for each in report.methods], fontsize=8.5)
        each_axes.tick_params(axis="y", labelleft=column == 0)
    emphasise_models(axes[0], report.methods)
    return figure


def _image_means(report: FindReport) -> dict[tuple[str, str], np.ndarray]:
    """Return the mean average precision over classes of each image, by method and level; without undefined ones."""
    table = report.per_image.select(["method", "level", "image_id", "average_precision"])
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in table.to_pylist():
        images = found.setdefault((row["method"], row["level"]), {})
        if row["average_precision"] is not None:
            images.setdefault(row["image_id"], []).append(row["average_precision"])
    return {key: np.array([np.mean(each) for each in images.values()]) for key, images in found.items()}


def _curve_of(report: FindReport, method: str, level: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and mean precision of a method."""
    rows = [row for row in report.curves if (row["method"], row["level"], row["class"]) == (method, level, name)]
    return np.array([row["recall"] for row in rows]), np.array([row["precision"] for row in rows])


def _curves(report: FindReport) -> Figure:
    """Plot the mean precision-recall curves: a row for each class, a column for each level."""
    rows, columns = len(report.classes), len(report.levels)
    figure = Figure(figsize=(max(3.6, 2.7 * columns), 2.4 * rows + 0.16 * len(report.methods) + 0.3))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True, gridspec_kw={"wspace": 0.1})
    for line, (axes_row, name) in enumerate(zip(grid, report.classes, strict=True)):
        for column, (axes, level) in enumerate(zip(axes_row, report.levels, strict=True)):
            _plot_curves(axes, report, level, name)
            axes.set(xlim=(0, 1.02), ylim=(0, 1.04))
            axes.set_xticks(*_TICKS)
            if line == 0:
                axes.set_title(level)
            if line == rows - 1:
                axes.set_xlabel("recall")
            if column == 0:
                axes.set_ylabel(f"{shortened(name, 24)}\nprecision", parse_math=False)
    _legend(figure, grid)
    return figure


def _plot_curves(axes: Axes, report: FindReport, level: str, name: str) -> None:
    """Plot the curves of all methods; the upper bound is one point in the reference protocol."""
    for each in report.methods:
        recall, precision = _curve_of(report, each.key, level, name)
        line = line_styles(report)[each.key]
        if not len(recall):
            continue
        if each.key == "coarsened" and report.reference:
            axes.plot(recall[-1:], precision[-1:], "*", color=line["color"], ms=9, label=each.name, zorder=4)
        else:
            axes.plot(recall, precision, label=shortened(each.name, 40), **line)
    axes.grid(color=GRID, lw=0.7)
    axes.set_axisbelow(True)


def _difference(report: FindReport) -> Figure:
    """Plot the precision minus that of intensity, as the published main panel."""
    figure = Figure(figsize=(2.9 * len(report.classes) + 0.8, 2.6 + 0.16 * len(report.methods)))
    grid = figure.subplots(1, len(report.classes), squeeze=False, sharey=True, gridspec_kw={"wspace": 0.1})
    for axes, name in zip(grid[0], report.classes, strict=True):
        _, base = _curve_of(report, "intensity", "pixels", name)
        for each in report.methods:
            recall, precision = _curve_of(report, each.key, "pixels", name)
            if not len(base) or not len(recall) or each.key in ("intensity", "coarsened"):
                continue
            axes.plot(recall, precision - base, label=shortened(each.name, 40), **line_styles(report)[each.key])
        axes.axhline(0, color=MUTED, lw=0.8)
        axes.set(xlim=(0, 1.02), xlabel="recall")
        axes.set_xticks(*_TICKS)
        axes.set_title(shortened(name, 24), parse_math=False)
        axes.grid(color=GRID, lw=0.7)
        axes.set_axisbelow(True)
    grid[0, 0].set_ylabel("precision minus\nthat of intensity")
    _legend(figure, grid)
    return figure


def _legend(figure: Figure, grid: np.ndarray) -> None:
    """Add a legend of all methods below the panels."""
    found: dict[str, Artist] = {}
    for axes in grid.flat:
        handles, names = axes.get_legend_handles_labels()
        found |= dict(zip(names, handles, strict=True))
    bottom = min(axes.get_position().y0 for axes in grid.flat)
    legend = figure.legend(
        list(found.values()),
        list(found),
        loc="upper center",
        bbox_to_anchor=(0.5, bottom - 0.5 / figure.get_figheight()),
        ncols=2,
        fontsize=8.5,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _examples(report: FindReport) -> Figure:
    """Plot each example image with its annotation and regions, and its score maps."""
    examples: Sequence[Example] = report.examples
    keys = list(examples[0].maps)
    panel, columns, several = 2.5, 1 + len(keys), len(report.classes) > 1
    heights = [panel * min(max(each.image.shape[0] / each.image.shape[1], 0.3), 3.0) for each in examples]
    figure = Figure(figsize=(panel * columns, sum(heights) + 0.4 * len(examples)))
    grid = figure.subplots(
        len(examples), columns, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.2, "height_ratios": heights}
    )
    for row, each in zip(grid, examples, strict=True):
        first, *others = row
        show_image(
            first,
            each.image,
            colour_map="gray",
            limits=display_limits(each.image),
            pixel_size_nm=each.pixel_size_nm,
        )
        _outline(first, each.truth, "#39C0FF")
        for number, region in enumerate(each.regions, 1):
            colour = "#3DDC97" if region.found else "#FF6B5E"
            box = region.box
            first.add_patch(
                Rectangle((box.x - 0.5, box.y - 0.5), box.width, box.height, fill=False, ec=colour, lw=1.3)
            )
            first.text(box.x + 3, box.y + 3, str(number), color=colour, fontsize=7, va="top", fontweight="bold")
        mean = "mean AP" if several else "AP"
        first.set_ylabel(f"{each.title}\n{mean} {each.mean_precision:.2f}", fontsize=9, parse_math=False)
        about = f"AP {each.class_precision:.2f} of {each.class_name}" if several else each.class_name
        first.set_title(
            f"{shortened(each.image_id, _MAP_TITLES)}\n{shortened(about, _MAP_TITLES)}", fontsize=8.5, parse_math=False
        )
        for axes, key in zip(others, keys, strict=True):
            values = each.maps[key]
            low, high = float(values.min()), float(values.max())
            show_image(axes, values, limits=(low, high if high > low else low + 1.0))
            _outline(axes, each.truth, "#39C0FF")
            axes.set_title(wrapped(report.name(key), _MAP_TITLES), fontsize=8.5, parse_math=False)
    return figure


def _outline(axes: Axes, mask: np.ndarray, colour: str) -> None:
    """Plot the outlines of a mask, and show its pixels only."""
    plot_outline(axes, mask, colour, 0.8)
    height, width = mask.shape
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
