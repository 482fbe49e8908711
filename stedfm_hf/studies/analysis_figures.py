"""Figures of an analysis."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stedfm_hf.reports.figures import GRID, INK, MUTED, PALETTE, label_colours, shortened, style
from stedfm_hf.studies.analysis import Analysis
from stedfm_hf.studies.scores import TOP


def scores_figure(analysis: Analysis) -> Figure:
    """Plot the score of each participant in grey, joined across the groups, and the means with their intervals."""
    scores, colours = analysis.scores, label_colours(analysis.scores.groups)
    at = np.arange(len(scores.groups))
    with style():
        figure = Figure(figsize=(max(3.6, 1.1 * len(at) + 1.2), 3.0), layout="constrained")
        axes = figure.subplots()
        for row in scores.values:
            axes.plot(at, row, "o-", color=MUTED, alpha=0.45, linewidth=0.8, markersize=3.5)
        for place, each in enumerate(analysis.tests.means):
            if each.participants:
                reach = [[each.mean - each.low], [each.high - each.mean]] if np.isfinite(each.low) else None
                axes.errorbar(place, each.mean, reach, fmt="D", color=colours[each.group], markersize=7, capsize=4)
        if scores.chance is not None:
            axes.axhline(scores.chance, color=INK, linewidth=0.9, linestyle="--")
            axes.annotate("chance", (1.0, scores.chance), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        axes.set_xticks(at, [shortened(each, 14) for each in scores.groups])
        axes.set(xlim=(-0.5, len(at) - 0.5), ylabel=scores.name)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.grid(axis="y", color=GRID, linewidth=0.6)
    return figure


def agreement_figure(analysis: Analysis) -> Figure | None:
    """Plot the fraction of the most frequent answer to each stimulus, or the number of different answers.

    The published figure shows the number of different answers, which says little with two answers to choose from.
    """
    found = analysis.agreement
    if found is None:
        return None
    with style():
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        axes = figure.subplots()
        at = np.arange(len(found.majority) + 1)
        axes.set(xlabel="stimuli, sorted", xlim=(0, at[-1]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if analysis.reference:
            axes.step(at, [*found.distinct, found.distinct[-1]], where="post", color=PALETTE[0])
            axes.set(ylabel="different answers", ylim=(0, max(found.distinct) + 0.5))
            axes.set_yticks(range(max(found.distinct) + 1))
        else:
            curves = (found.majority_by_chance, MUTED, "--", "by chance"), (found.majority, PALETTE[0], "-", "found")
            for values, colour, line, label in curves:
                axes.step(at, [*values, values[-1]], line, where="post", color=colour, label=label)
            axes.set(ylabel="most frequent answer", ylim=(0, 1.05))
            axes.legend(loc="lower left")
        axes.grid(axis="y", color=GRID, linewidth=0.6)
    return figure


def confusion_figures(analysis: Analysis) -> dict[str, Figure]:
    """Plot the confusion matrix of each group, normalised over the answers to each class."""
    classes = [shortened(each, 14) for each in analysis.study.classes]
    size, figures = 0.5 * len(classes) + 1.4, {}
    for group, counts in analysis.confusion.items():
        values = counts.to_numpy(float)
        total = values.sum(axis=1, keepdims=True)
        fraction = np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)
        with style():
            figures[group] = Figure(figsize=(size, size), layout="constrained")
            axes = figures[group].subplots()
            axes.imshow(np.nan_to_num(fraction), cmap="Blues", vmin=0, vmax=1)
            for (row, column), value in np.ndenumerate(fraction):
                text, colour = "–" if np.isnan(value) else f"{value:.2f}", "white" if value > 0.55 else INK
                axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
            axes.set_xticks(range(len(classes)), classes, rotation=40, ha="right")
            axes.set_yticks(range(len(classes)), classes)
            axes.set(title=shortened(group), xlabel="answer", ylabel="truth")
    return figures


def detection_figure(analysis: Analysis) -> Figure | None:
    """Plot d' of each participant and its mean, for each group."""
    if analysis.detection.empty:
        return None
    groups = list(analysis.study.groups)
    colours = label_colours(groups)
    with style():
        figure = Figure(figsize=(max(3.6, 1.1 * len(groups) + 1.2), 2.8), layout="constrained")
        axes = figure.subplots()
        for place, group in enumerate(groups):
            values = analysis.detection.loc[analysis.detection["group"] == group, "d_prime"].to_numpy(float)
            offsets = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0.0]
            axes.plot(place + np.asarray(offsets), values, "o", color=MUTED, alpha=0.6, markersize=4)
            if len(values):
                axes.plot(place, values.mean(), "D", color=colours[group], markersize=7)
        axes.axhline(0.0, color=INK, linewidth=0.9, linestyle="--")
        axes.set_xticks(range(len(groups)), [shortened(each, 14) for each in groups])
        axes.set(xlim=(-0.5, len(groups) - 0.5), ylabel="d′ (0: not told apart)")
    return figure


def strengths_figure(analysis: Analysis) -> Figure | None:
    """Plot the strength of each image with its interval, coloured by group."""
    fitted = analysis.strengths
    if fitted is None:
        return None
    group = {each.id: each.group for each in analysis.study.stimuli}
    colours, order = label_colours(analysis.study.groups), np.argsort(-fitted.strength)
    with style():
        figure = Figure(figsize=(5.6, 0.16 * len(order) + 0.9), layout="constrained")
        axes = figure.subplots()
        for place, number in enumerate(order):
            reach = [[fitted.strength[number] - fitted.low[number]], [fitted.high[number] - fitted.strength[number]]]
            colour = colours[group[fitted.items[number]]]
            axes.errorbar(
                fitted.strength[number], place, None, reach, fmt="o", color=colour, markersize=4, linewidth=1
            )
        axes.set_yticks(range(len(order)), [shortened(fitted.items[number]) for number in order], fontsize=7)
        axes.set(ylim=(len(order) - 0.5, -0.5), xlabel="strength, log odds")
        for name, colour in colours.items():
            axes.plot([], [], "o", color=colour, markersize=5, label=shortened(name))
        if len(colours) > 1:
            axes.legend(loc="lower right")
        axes.grid(axis="x", color=GRID, linewidth=0.6)
    return figure


def ranks_figure(analysis: Analysis) -> Figure | None:
    """Plot how many images of each group are among the first ranks, as a mean over participants."""
    if not analysis.rankings or len(analysis.study.groups) < 2:
        return None
    group = {each.id: each.group for each in analysis.study.stimuli}
    with style():
        figure = Figure(figsize=(4.6, 2.8), layout="constrained")
        axes = figure.subplots()
        for name, colour in label_colours(analysis.study.groups).items():
            hits = np.array([[group[each] == name for each in order] for order in analysis.rankings.values()])
            counted = hits.cumsum(axis=1).mean(axis=0)
            axes.plot(np.arange(1, len(counted) + 1), counted, color=colour, label=shortened(name))
        if len(group) > TOP:
            axes.axvline(TOP, color=MUTED, linewidth=0.8, linestyle="--")
        axes.set(xlabel="rank", ylabel="images up to this rank", xlim=(1, len(group)))
        axes.set_ylim(bottom=0)
        axes.legend()
    return figure
