"""Figures of `evaluate segmentation`: scores with confidence intervals, scores by class, and example images."""

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

from stedfm_hf.evaluation.report.score_figure import emphasise_models, plot_scores
from stedfm_hf.evaluation.report.segmentation.evaluation import PRIMARY, Example, SegmentationEvaluation
from stedfm_hf.evaluation.segmentation.scores import image_means
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
)

METRIC_NAMES = {
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
"""Names of the metrics in reports."""
_MARKS = "osD^vP*X"


def plot_figures(evaluation: SegmentationEvaluation, folder: Path) -> dict[str, Path]:
    """Plot and save all figures for which there are results.

    Args:
        evaluation: Results.
        folder: Folder of the figures.

    Returns:
        PNG file of each figure, by name.
    """
    with style():
        plotted = {"scores": _scores(evaluation)}
        if len(evaluation.shown_classes) > 1:
            plotted["classes"] = _classes(evaluation)
        if evaluation.examples:
            plotted["examples"] = plot_examples(evaluation.examples, evaluation.shown_classes)
        return {name: save_figure(figure, folder, name) for name, figure in plotted.items()}


def _scores(evaluation: SegmentationEvaluation) -> Figure:
    """Plot means with confidence intervals, and the scores of single images."""
    metrics = [name for name in (PRIMARY, "aupr") if name in evaluation.metric_names]
    count = len(evaluation.methods)
    figure = Figure(figsize=(7.2, 0.42 * count + 0.9))
    (axes,) = figure.subplots(1, len(metrics), squeeze=False, sharey=True, gridspec_kw={"wspace": 0.08})
    model = label_colours(["model"])["model"]
    colours = [model if each.kind != "baseline" else MUTED for each in evaluation.methods]
    for column, (each_axes, metric) in enumerate(zip(axes, metrics, strict=True)):
        rows = [evaluation.row(each.key, metric) for each in evaluation.methods]
        means = [
            image_means(evaluation.scores[each.key], evaluation.test.background, metric) for each in evaluation.methods
        ]
        values = [each[np.isfinite(each)] for each in means]
        plot_scores(each_axes, rows, values, colours, size=7, alpha=0.45)
        each_axes.set_xlabel(METRIC_NAMES[metric])
        each_axes.set_yticks(range(count), [shortened(each.name) for each in evaluation.methods], fontsize=9)
        each_axes.tick_params(axis="y", labelleft=column == 0)
    emphasise_models(axes[0], evaluation.methods)
    return figure


def _classes(evaluation: SegmentationEvaluation) -> Figure:
    """Plot the primary metric of each class and method."""
    classes, methods = evaluation.shown_classes, evaluation.methods
    figure = Figure(figsize=(7.2, max(1.6, 0.13 * len(classes) * len(methods) + 0.25 * len(classes) + 0.7)))
    axes = figure.add_subplot()
    models = [each.key for each in methods if each.kind != "baseline"]
    colours = label_colours([*models, *(each.key for each in methods if each.kind == "baseline")])
    for number, each in enumerate(methods):
        shift = 0.72 * ((number + 0.5) / len(methods) - 0.5)
        rows = [evaluation.row(each.key, PRIMARY, name) for name in classes]
        known = [position for position, row in enumerate(rows) if row["mean"] is not None]
        model = each.kind != "baseline"
        line: dict[str, Any] = {"color": colours[each.key], "zorder": 3 if model else 2}
        for position in known:
            low, high = rows[position]["low"], rows[position]["high"]
            if low is not None:
                axes.plot([low, high], [position + shift] * 2, lw=1.4, alpha=0.7, **line)
        axes.plot(
            [rows[position]["mean"] for position in known],
            [position + shift for position in known],
            _MARKS[number % len(_MARKS)],
            ms=6.5 if model else 4.5,
            label=shortened(each.name),
            **line,
        )
    for position in range(1, len(classes)):
        axes.axhline(position - 0.5, color=GRID, lw=0.8)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.5, -0.5), xlabel=METRIC_NAMES[PRIMARY])
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
"""Colours of classes on grey images, in the order of the palette of the package."""
MAX_SIZE_PX = 288
"""Largest height and width of an example image, in pixels."""
MAX_COLUMNS = 5
"""Largest number of panels in a row."""
_PANEL = 1.95


def plot_examples(examples: Sequence[Example], classes: Sequence[str]) -> Figure:
    """Plot each image without outlines, with the annotation, and with the prediction of each method.

    Args:
        examples: Images to plot, one row each.
        classes: Names of the classes.

    Returns:
        The figure.
    """
    examples = [crop(each) for each in examples]
    titles = ["image", "annotation", *examples[0].predicted][:MAX_COLUMNS]
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
            label = row[0].set_ylabel(f"{each.title}\nIoU {each.score:.2f}", fontsize=9)
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
    """Return the colour of a class, by its number.

    Args:
        number: Number of the class.
    """
    return BRIGHT[number % len(BRIGHT)]


def crop(example: Example, max_size_px: int = MAX_SIZE_PX) -> Example:
    """Crop an image to the part with the largest annotated area.

    Args:
        example: Image of any size.
        max_size_px: Largest height and width of the crop, in pixels.

    Example:
        >>> truth = np.zeros((1, 40, 10), bool)
        >>> truth[0, 30:33] = True
        >>> part = crop(Example("a", "best", 1.0, np.zeros((40, 10)), truth, {"m": truth}, None, None), 8)
        >>> part.image.shape, part.truth.sum().item(), part.predicted["m"].shape
        ((8, 8), 24, (1, 8, 8))
    """
    shape = example.image.shape
    size = tuple(min(length, max_size_px) for length in shape)
    if size == shape:
        return example
    density = ndimage.uniform_filter(example.truth.any(axis=0).astype(np.float32), size, mode="constant")
    rows, columns = (slice(part // 2, length - part + part // 2 + 1) for length, part in zip(shape, size, strict=True))
    inner = density[rows, columns]
    top, left = (int(each) for each in np.unravel_index(inner.argmax(), inner.shape))
    part = (slice(top, top + size[0]), slice(left, left + size[1]))
    return replace(
        example,
        image=example.image[part],
        truth=example.truth[:, *part],
        predicted={name: planes[:, *part] for name, planes in example.predicted.items()},
        region=None if example.region is None else example.region[part],
    )


def _outline(axes: Axes, planes: np.ndarray, region: np.ndarray | None) -> None:
    """Plot the outlines of all classes, and lighten pixels outside the region."""
    dark: list[patheffects.AbstractPathEffect] = [
        patheffects.withStroke(linewidth=1.9, foreground="black", alpha=0.55)
    ]
    for number, plane in enumerate(planes):
        plot_outline(axes, plane, colour_of(number), 0.9, dark)
    height, width = planes.shape[1:]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    if region is not None and not region.all():
        shade = np.zeros((*region.shape, 4), np.float32)
        shade[..., :3], shade[..., 3] = 1.0, np.where(region, 0.0, 0.28)
        axes.imshow(shade, interpolation="nearest", zorder=1.5)
