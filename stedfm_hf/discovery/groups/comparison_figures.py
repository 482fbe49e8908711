"""Figures and the section of the page that compare two trees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stedfm_hf.discovery.clustering import Tree
from stedfm_hf.discovery.groups.comparison import Leaves, Mapping, Metric, Purity, SpaceComparison, TreeComparison
from stedfm_hf.reports.figures import MUTED, PALETTE, png_uri, save_figure, shortened, style

MAPPING, DISTANCES = "comparison-mapping", "comparison-distances"
MOST_TICKS = 20
"""Largest number of leaves that are named at an axis."""
MOST_NAME = 40


@dataclass(frozen=True)
class Names:
    """Names of two trees and of their features, for readers.

    Attributes:
        first: Name of the first tree.
        second: Name of the second tree.
        first_features: Name of the features of the first tree.
        second_features: Name of the features of the second tree; None if both trees have the same.
    """

    first: str
    second: str
    first_features: str
    second_features: str | None

    def spaces(self, found: TreeComparison) -> list[tuple[str, SpaceComparison]]:
        """Return the different feature spaces of a comparison with their names."""
        first = [(self.first_features, found.first_space)]
        return first if self.second_features is None else [*first, (self.second_features, found.second_space)]


def tree_name(name: str, tree: Tree) -> str:
    """Return the name of a tree for readers, which says if no test found its groups."""
    return name if tree.significant else f"{name} (not significant)"


def write_comparison_figures(folder: Path, found: TreeComparison, names: Names) -> list[Path]:
    """Write the figures of a comparison as PNG and SVG.

    Args:
        folder: Folder to write.
        found: Comparison.
        names: Names of the trees.

    Returns:
        Paths of the PNG files: the mapping of the leaves, and the distances between them.
    """
    figures = {MAPPING: _mappings, DISTANCES: _distances}
    with style():
        return [save_figure(plot(found, names), folder, name) for name, plot in figures.items()]


def section(found: TreeComparison, names: Names, figures: list[Path]) -> dict[str, Any]:
    """Return the comparison for the page: title, metrics of both trees as rows of text, notes and figures.

    Args:
        found: Comparison.
        names: Names of the trees.
        figures: PNG files to show.
    """
    rows = [["leaves", str(len(found.first)), str(len(found.second))]]
    for features, space in names.spaces(found):
        trees = (space.first, space.second)
        mappings = (space.mappings["first to second"], space.mappings["second to first"])
        cells = {
            "leaf recovered by the nearest neighbours": [_with_chance(each.recovery, each.chance) for each in trees],
            "silhouette": [_text(each.silhouette) for each in trees],
            "median distance to the nearest leaf of the same tree": [_median(each.within) for each in trees],
            "median distance to the nearest leaf of the other tree": [_median(each.between) for each in trees],
            "leaves mapped to one leaf of the other tree": [_text(each.fraction, ".0%") for each in mappings],
        }
        rows += [[f"{name}, {features}", *values] for name, values in cells.items()]
    if found.first_purity and found.second_purity:
        rows.append(["purity", *(_purity(each) for each in (found.first_purity, found.second_purity))])
    return {
        "title": f"Comparison with {names.second}",
        "text": f"Adjusted Rand index of the leaves: {_text(found.ari)}. "
        f"Normalised mutual information: {_text(found.nmi)}.",
        "header": ["", names.first, names.second],
        "rows": rows,
        "figures": [png_uri(path.read_bytes()) for path in figures],
    }


def _text(metric: Metric, form: str = ".2f") -> str:
    return f"not defined: {metric.reason}" if metric.value is None else format(metric.value, form)


def _with_chance(metric: Metric, chance: Metric) -> str:
    return _text(metric) + ("" if chance.value is None else f" (chance {chance.value:.2f})")


def _purity(purity: Purity) -> str:
    return _with_chance(purity.mean, purity.chance)


def _median(distances: np.ndarray) -> str:
    known = distances[np.isfinite(distances)]
    return f"{np.median(known):.2f}" if len(known) else "not defined"


def _mappings(found: TreeComparison, names: Names) -> Figure:
    """Plot the mapping of the leaves in both directions (columns), in the features of each tree (rows)."""
    spaces = names.spaces(found)
    figure = Figure(figsize=(8.2, 3.3 * len(spaces)), layout="constrained")
    axes = figure.subplots(len(spaces), 2, squeeze=False)
    image = None
    for row, (features, space) in enumerate(spaces):
        for column, (direction, from_, to, rows, columns) in enumerate(
            (
                ("first to second", names.first, names.second, found.first, found.second),
                ("second to first", names.second, names.first, found.second, found.first),
            )
        ):
            image = _mapping(axes[row, column], space.mappings[direction], rows, columns)
            axes[row, column].set(
                xlabel=f"leaf of {shortened(to, MOST_NAME)}", ylabel=f"leaf of {shortened(from_, MOST_NAME)}"
            )
            axes[row, column].set_title(shortened(features, MOST_NAME))
    assert image is not None
    figure.colorbar(image, ax=axes, label="Fraction of the leaf's images (dot: mapped)", shrink=0.6)
    return figure


def _mapping(axes: Axes, mapping: Mapping, rows: tuple[str, ...], columns: tuple[str, ...]) -> Any:
    """Plot one matrix, with a dot at the leaf that a leaf is mapped to."""
    image = axes.imshow(mapping.shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    at = np.flatnonzero(mapping.mapped)
    axes.plot(mapping.shares[at].argmax(axis=1), at, "o", color="#D55E00", markersize=4)
    for set_ticks, ids in ((axes.set_xticks, columns), (axes.set_yticks, rows)):
        set_ticks(range(len(ids)), ids) if len(ids) <= MOST_TICKS else set_ticks([])
    axes.tick_params(axis="x", labelrotation=90 if len(columns) > 6 else 0)
    return image


def _distances(found: TreeComparison, names: Names) -> Figure:
    """Plot the cumulative distances of the leaf means inside of a tree, and to the other tree."""
    spaces = names.spaces(found)
    figure = Figure(figsize=(4.1 * len(spaces), 3.6), layout="constrained")
    axes = figure.subplots(1, len(spaces), sharey=True, squeeze=False)[0]
    for each, (features, space) in zip(axes, spaces, strict=True):
        # The first tree has wider lines, so that they show where both trees have the same distances.
        for name, leaves, colour, width in (
            (names.first, space.first, PALETTE[0], 3.5),
            (names.second, space.second, PALETTE[1], 1.5),
        ):
            _curves(each, leaves, shortened(name, MOST_NAME), colour, width)
        each.set(xlim=(0, 2), ylim=(0, 1.02), xlabel="Cosine distance to the nearest leaf")
        each.set_title(shortened(features, MOST_NAME))
    axes[0].set_ylabel("Fraction of the leaves")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(spaces))
    return figure


def _curves(axes: Axes, leaves: Leaves, name: str, colour: str, width: float) -> None:
    for values, line, words in (
        (leaves.within, "-", "same tree"),
        (leaves.between, "--", "other tree"),
    ):
        known = np.sort(values[np.isfinite(values)])
        label = f"{name}: {words}" + ("" if len(known) else " (not defined)")
        if len(known):
            axes.ecdf(known, color=colour, linestyle=line, linewidth=width, label=label)
        else:
            axes.plot([], [], color=MUTED, linestyle=line, label=label)
