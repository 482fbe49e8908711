"""The figures of an evaluation of segmentation: scores with intervals, by class, and images to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stedfm_hf.evaluation.report.segmentation.findings import PRIMARY, Findings
from stedfm_hf.evaluation.report.segmentation.overlays import draw_examples
from stedfm_hf.evaluation.segmentation.comparing import image_means
from stedfm_hf.reports import label_colours, save_figure, style
from stedfm_hf.reports.figures import INK, MUTED

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
_GRID = "#E4E7EB"
_MARKS = "osD^vP*X"


def draw_figures(findings: Findings, folder: Path) -> dict[str, Path]:
    """Draws and saves all figures there is material for; returns their PNG files by name."""
    with style():
        drawn = {"scores": _scores(findings)}
        if len(findings.shown_classes) > 1:
            drawn["classes"] = _classes(findings)
        if findings.examples:
            drawn["examples"] = draw_examples(findings.examples, findings.shown_classes)
        return {name: save_figure(figure, folder, name) for name, figure in drawn.items()}


def short(text: str, most: int = 28) -> str:
    """A name that fits beside a figure."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _scores(findings: Findings) -> Figure:
    """Means with their intervals, and the single images behind the first score."""
    scores = [name for name in (PRIMARY, "aupr") if name in findings.score_names]
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
        each_axes.set_yticks(range(count), [short(each.name) for each in findings.contestants], fontsize=9)
        each_axes.tick_params(axis="y", length=0, labelleft=place == 0)
        each_axes.grid(axis="x", color=_GRID, lw=0.7)
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
            label=short(each.name),
            **line,
        )
    for place in range(1, len(classes)):
        axes.axhline(place - 0.5, color=_GRID, lw=0.8)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.5, -0.5), xlabel=f"mean {WORDS[PRIMARY]}")
    axes.set_yticks(range(len(classes)), [short(name, 22) for name in classes], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_GRID, lw=0.7)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8.5, borderaxespad=0)
    for text in (*legend.get_texts(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    return figure
