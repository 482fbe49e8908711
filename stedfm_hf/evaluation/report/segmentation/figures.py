"""The figures of an evaluation of segmentation: scores with intervals, by class, and images to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import ndimage

from stedfm_hf.evaluation.report.segmentation.findings import PRIMARY, Example, Findings
from stedfm_hf.evaluation.segmentation.scored import image_means
from stedfm_hf.reports.figures import (
    GRID,
    INK,
    MUTED,
    display_limits,
    label_colours,
    save_figure,
    shortened,
    show_image,
    style,
)

WORDS = {
    "iou": "IoU",
    "dice": "Dice",
    "aupr": "AUPR",
    "auroc": "AUROC",
    "auap": "AUAP",
    "weak_aupr": "weak AUPR",
    "f1": "F1 of objects",
    "pq": "PQ of objects",
    "sq": "SQ of objects",
}
MOST_POINTS = 400
_MARKS = "osD^vP*X"


def plot_figures(findings: Findings, folder: Path) -> dict[str, Path]:
    """Draws and saves all figures there is material for; returns their PNG files by name."""
    with style():
        drawn = {"scores": _scores(findings)}
        if len(findings.shown_classes) > 1:
            drawn["classes"] = _classes(findings)
        if findings.examples:
            drawn["examples"] = plot_examples(findings.examples, findings.shown_classes)
        return {name: save_figure(figure, folder, name) for name, figure in drawn.items()}


def _scores(findings: Findings) -> Figure:
    """Means with their intervals, and the single images behind the first score."""
    scores = [name for name in (PRIMARY, "aupr") if name in findings.metric_names]
    count = len(findings.contestants)
    figure = Figure(figsize=(7.2, 0.42 * count + 0.9))
    (axes,) = figure.subplots(1, len(scores), squeeze=False, sharey=True, gridspec_kw={"wspace": 0.08})
    for place, (each_axes, score) in enumerate(zip(axes, scores, strict=True)):
        for number, each in enumerate(findings.contestants):
            row = findings.row(each.key, score)
            colour = label_colours(["model"])["model"] if each.kind == "model" else MUTED
            values = image_means(findings.scores[each.key], findings.test.background, score)
            values = values[np.isfinite(values)][:MOST_POINTS]
            # Spread by a fixed pattern, so that the figure is the same every time.
            apart = 0.3 * (((np.arange(len(values)) * 0.618) % 1) - 0.5)
            each_axes.plot(values, number + apart, ".", color=colour, ms=4.5, alpha=0.45, mew=0, zorder=1)
            if row["mean"] is None:
                continue
            if row["low"] is not None:
                each_axes.plot([row["low"], row["high"]], [number, number], color=colour, lw=2.4, zorder=2)
            each_axes.plot(row["mean"], number, "o", color=colour, ms=7, mec="white", mew=1.0, zorder=3)
        each_axes.set(xlim=(-0.02, 1.02), ylim=(count - 0.5, -0.5), xlabel=f"mean {WORDS[score]}")
        each_axes.set_yticks(range(count), [shortened(each.name) for each in findings.contestants], fontsize=9)
        each_axes.tick_params(axis="y", length=0, labelleft=place == 0)
        each_axes.grid(axis="x", color=GRID, lw=0.7)
        each_axes.set_axisbelow(True)
        each_axes.spines["left"].set_visible(False)
    for label, each in zip(axes[0].get_yticklabels(), findings.contestants, strict=True):
        label.set_color(INK)
        label.set_parse_math(False)
        label.set_fontweight("bold" if each.kind == "model" else "normal")
    return figure


def _classes(findings: Findings) -> Figure:
    """The first score of every class and method."""
    classes, methods = findings.shown_classes, findings.contestants
    figure = Figure(figsize=(7.2, max(1.6, 0.13 * len(classes) * len(methods) + 0.25 * len(classes) + 0.7)))
    axes = figure.add_subplot()
    models = [each.key for each in methods if each.kind == "model"]
    colours = label_colours([*models, *(each.key for each in methods if each.kind == "baseline")])
    for number, each in enumerate(methods):
        shift = 0.72 * ((number + 0.5) / len(methods) - 0.5)
        rows = [findings.row(each.key, PRIMARY, name) for name in classes]
        known = [place for place, row in enumerate(rows) if row["mean"] is not None]
        model = each.kind == "model"
        line: dict[str, Any] = {"color": colours[each.key], "zorder": 3 if model else 2}
        for place in known:
            if rows[place]["low"] is not None:
                axes.plot([rows[place]["low"], rows[place]["high"]], [place + shift] * 2, lw=1.4, alpha=0.7, **line)
        axes.plot(
            [rows[place]["mean"] for place in known],
            [place + shift for place in known],
            _MARKS[number % len(_MARKS)],
            ms=6.5 if model else 4.5,
            label=shortened(each.name),
            **line,
        )
    for place in range(1, len(classes)):
        axes.axhline(place - 0.5, color=GRID, lw=0.8)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.5, -0.5), xlabel=f"mean {WORDS[PRIMARY]}")
    axes.set_yticks(range(len(classes)), [shortened(name, 22) for name in classes], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8.5, borderaxespad=0)
    for text in (*legend.get_texts(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    return figure


BRIGHT = ("#39C0FF", "#FF9F2E", "#3DDC97", "#FF7AC8", "#F5E960", "#B79CFF", "#FF6B5E", "#E6E6E6")
"""Colours of classes on dark grey images, in the order of the package's palette."""
MOST_PIXELS = 288
"""Side of what is shown of a larger image: the part with most annotation, pixel by pixel."""
MOST_COLUMNS = 5
_PANEL = 1.95


def plot_examples(examples: Sequence[Example], classes: Sequence[str]) -> Figure:
    """Rows of an image as it is, with the true outlines, and with those each method found."""
    examples = [crop(each) for each in examples]
    titles = ["image", "annotated", *examples[0].predicted][:MOST_COLUMNS]
    shapes = [each.image.shape for each in examples]
    heights = [_PANEL * height / width for height, width in shapes]
    with style():
        figure = Figure(figsize=(_PANEL * len(titles) + 0.45, sum(heights) + 0.35))
        grid = figure.subplots(
            len(examples),
            len(titles),
            squeeze=False,
            gridspec_kw={
                "wspace": 0.035,
                "hspace": 0.04,
                "height_ratios": heights,
                "left": 0.45 / (_PANEL * len(titles) + 0.45),
                "right": 1.0,
                "bottom": 0.35 / (sum(heights) + 0.35),
                "top": 1.0,
            },
        )
        for row, each in zip(grid, examples, strict=True):
            limits = display_limits(each.image)
            for number, axes in enumerate(row):
                show_image(
                    axes,
                    each.image,
                    limits=limits,
                    pixel_size_nm=each.pixel_size_nm if number == 0 else None,
                    colour_map="gray",
                )
                if number:
                    planes = each.truth if number == 1 else each.predicted[titles[number]]
                    _outline(axes, planes, each.region)
            label = row[0].set_ylabel(f"{each.word}\nIoU {each.score:.2f}", fontsize=9)
            label.set_parse_math(False)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(shortened(title, 24), fontsize=8.5).set_parse_math(False)
        legend = figure.legend(
            handles=[Line2D([], [], color=colour_of(number), lw=2.5) for number in range(len(classes))],
            labels=list(classes),
            loc="upper center",
            bbox_to_anchor=(0.5, 0.3 / (sum(heights) + 0.35)),
            ncols=min(len(classes), 5),
            fontsize=8.5,
            facecolor="#3A3F45",
            labelcolor="white",
            frameon=True,
            edgecolor="none",
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def colour_of(number: int) -> str:
    """Colour of a class on a grey image."""
    return BRIGHT[number % len(BRIGHT)]


def crop(example: Example, most: int = MOST_PIXELS) -> Example:
    """The part of an image with most annotation, at most `most` pixels wide and high.

    Args:
        example: of any size.
        most: side of the part.

    Example:
        >>> truth = np.zeros((1, 40, 10), bool)
        >>> truth[0, 30:33] = True
        >>> part = crop(Example("a", "best", 1.0, np.zeros((40, 10)), truth, {"m": truth}, None, None), 8)
        >>> part.image.shape, part.truth.sum().item(), part.predicted["m"].shape
        ((8, 8), 24, (1, 8, 8))
    """
    shape = example.image.shape
    sides = tuple(min(length, most) for length in shape)
    if sides == shape:
        return example
    density = ndimage.uniform_filter(example.truth.any(axis=0).astype(np.float32), sides, mode="constant")
    window = []
    for length, side in zip(shape, sides, strict=True):
        window.append((side // 2, length - side + side // 2 + 1))
    inner = density[window[0][0] : window[0][1], window[1][0] : window[1][1]]
    top, left = (int(each) for each in np.unravel_index(inner.argmax(), inner.shape))
    place = (slice(top, top + sides[0]), slice(left, left + sides[1]))
    return replace(
        example,
        image=example.image[place],
        truth=example.truth[:, *place],
        predicted={name: planes[:, *place] for name, planes in example.predicted.items()},
        region=None if example.region is None else example.region[place],
    )


def _outline(axes: Axes, planes: np.ndarray, region: np.ndarray | None) -> None:
    dark: list[patheffects.AbstractPathEffect] = [
        patheffects.withStroke(linewidth=1.9, foreground="black", alpha=0.55)
    ]
    for number, plane in enumerate(planes):
        # A border of nothing closes outlines that reach the border of the image.
        padded = np.pad(plane.astype(np.float32), 1)
        if padded.any():
            rows, columns = (np.arange(length) - 1 for length in padded.shape)
            lines = axes.contour(columns, rows, padded, levels=[0.5], colors=[colour_of(number)], linewidths=0.9)
            lines.set_path_effects(dark)
    height, width = planes.shape[1:]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if region is not None and not region.all():
        shade = np.zeros((*region.shape, 4), np.float32)
        shade[..., :3], shade[..., 3] = 1.0, np.where(region, 0.0, 0.28)
        axes.imshow(shade, interpolation="nearest", zorder=1.5)
