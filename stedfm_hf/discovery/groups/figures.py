"""Figures of a tree: its nodes, a map, the evidence of the root, purity of the leaves and the consensus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Wedge

from stedfm_hf.discovery.clustering import NodeEvidence, Tree, consensus_matrix
from stedfm_hf.discovery.groups.items import Items
from stedfm_hf.discovery.groups.layout import node_positions
from stedfm_hf.discovery.groups.tables import majority
from stedfm_hf.reports.figures import GRID, INK, MUTED, label_colours, legend, save_figure, shortened, style

NOT_SIGNIFICANT = "not significant: a description"
MOST_CATEGORIES = 8
"""Largest number of categories with a colour; the others are grey."""
OTHERS, UNKNOWN = "others", ""
MOST_CONSENSUS = 600
"""Largest number of items in a consensus matrix."""


def category_colours(values: np.ndarray) -> dict[str, str]:
    """Return the colour of each category, the most frequent first; rare and unknown ones are grey.

    Args:
        values: Category of each item (n,) str; "" is unknown.
    """
    names, counts = np.unique(values[values != UNKNOWN], return_counts=True)
    ordered = [str(name) for name in names[np.argsort(-counts, kind="stable")]]
    colours = label_colours(ordered[:MOST_CATEGORIES])
    if len(ordered) > MOST_CATEGORIES:
        colours[OTHERS] = "#9AA5B1"
    if (values == UNKNOWN).any():
        colours[UNKNOWN] = "#D7DCE1"
    return colours


def grouped(values: np.ndarray, categories: Iterable[str]) -> np.ndarray:
    """Return categories with the rare ones, which are not among `categories`, replaced by `others`."""
    return np.where(np.isin(values, list(categories)), values, OTHERS)


def write_figures(
    folder: Path, tree: Tree, items: Items, coordinates: np.ndarray, seed: int, *, axis_name: str
) -> None:
    """Write the figures of a tree as PNG and SVG.

    Args:
        folder: Folder to write.
        tree: Tree of groups.
        items: Items of the tree.
        coordinates: Map of the items (n, 2).
        seed: Random seed of the consensus matrix.
        axis_name: Name of a coordinate of the map.
    """
    category = items.condition or next(iter(items.categories), None)
    values = items.columns[category] if category else np.full(len(items), UNKNOWN)
    colours = category_colours(values)
    with style():
        save_figure(_tree(tree, grouped(values, colours), colours, category), folder, "tree")
        save_figure(_map(tree, coordinates, axis_name), folder, "map")
        if category and tree.root.children:
            save_figure(_purity(tree, values, category), folder, "purity")
        if isinstance(tree.root.evidence, NodeEvidence) and tree.root.evidence.clearest is not None:
            save_figure(_evidence(tree), folder, "evidence")
        if tree.root.children:
            save_figure(_consensus(tree, items, seed), folder, "consensus")


def _mark(figure: Figure, tree: Tree) -> None:
    """Write on a figure that its groups were not tested."""
    if not tree.significant:
        words = NOT_SIGNIFICANT if tree.root.children else "no significant groups"
        figure.text(0.99, 0.995, words, ha="right", va="top", color="#B42318", fontsize=9, fontweight="bold")


def _tree(tree: Tree, values: np.ndarray, colours: Mapping[str, str], category: str | None) -> Figure:
    """Plot the nodes as pies of their categories, with an area that grows with the number of items."""
    positions = node_positions(tree)
    depth = max(x for x, _ in positions.values())
    rows = len(tree.leaves)
    figure = Figure(figsize=(2.6 + 1.9 * depth, max(1.9, 0.75 * rows + 1.0)))
    axes = figure.subplots()
    total, largest = len(tree.root.items), 0.36
    for node in tree.nodes:
        x, y = positions[node.id]
        for child in node.children:
            cx, cy = positions[child.id]
            axes.plot([x, (x + cx) / 2, (x + cx) / 2, cx], [y, y, cy, cy], color=GRID, linewidth=1.5, zorder=1)
        radius = largest * max(0.3, np.sqrt(len(node.items) / total))
        start = 90.0
        inside = values[node.items]
        for name in colours:
            angle = 360 * float((inside == name).mean())
            axes.add_patch(Wedge((x, y), radius, start - angle, start, facecolor=colours[name], zorder=2))
            start -= angle
        axes.annotate(
            f"{node.id}: {len(node.items):,}",
            (x, y + radius),
            (0, -3),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
            color=INK,
        )
    axes.set(xlim=(-0.6, depth + 0.6), ylim=(rows - 0.25, -0.6), aspect="equal")
    axes.axis("off")
    if category:
        names = {name or "unknown": colour for name, colour in colours.items()}
        legend(
            axes,
            {shortened(name): colour for name, colour in names.items()},
            title=category,
            loc="upper left",
            bbox_to_anchor=(1, 1),
        )
    _mark(figure, tree)
    return figure


def _map(tree: Tree, coordinates: np.ndarray, axis_name: str) -> Figure:
    """Plot the items on their map, coloured by leaf."""
    colours = label_colours([leaf.id for leaf in tree.leaves])
    figure = Figure(figsize=(5.2, 4.2))
    axes = figure.subplots()
    for leaf in tree.leaves:
        at = coordinates[leaf.items]
        axes.scatter(at[:, 0], at[:, 1], s=9, color=colours[leaf.id], linewidths=0, alpha=0.8)
    axes.set(xticks=[], yticks=[], xlabel=f"First {axis_name}", ylabel=f"Second {axis_name}")
    if len(colours) > 1:
        legend(axes, dict(list(colours.items())[:20]), title="leaf", loc="upper left", bbox_to_anchor=(1, 1))
    _mark(figure, tree)
    return figure


def _purity(tree: Tree, values: np.ndarray, category: str) -> Figure:
    """Plot the fraction of the most frequent category in each leaf, next to that in all items."""
    _, chance = majority(values)
    found = [(leaf.id, *majority(values[leaf.items])) for leaf in tree.leaves]
    figure = Figure(figsize=(5.2, max(1.6, 0.28 * len(found) + 0.9)))
    axes = figure.subplots()
    for row, (_, name, purity) in enumerate(found):
        axes.barh(row, purity or 0, height=0.7, color="#0072B2")
        axes.text((purity or 0) + 0.01, row, shortened(name or "unknown", 20), va="center", fontsize=8, color=MUTED)
    axes.axvline(chance or 0, color=INK, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(found)), [each[0] for each in found])
    axes.set(xlim=(0, 1.25), ylim=(len(found) - 0.5, -0.5), xlabel=f"Fraction of the most frequent {category}")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.legend([Line2D([], [], color=INK, linewidth=1, linestyle="--")], ["all images"], loc="lower right")
    _mark(figure, tree)
    return figure


def _evidence(tree: Tree) -> Figure:
    """Plot the held-out density of the root between the two parts with the clearest valley."""
    evidence = tree.root.evidence
    assert isinstance(evidence, NodeEvidence)
    level = evidence.clearest
    assert level is not None
    pair, edges = level.clearest, np.linspace(-1.5, 1.5, len(level.profile) + 1)
    figure = Figure(figsize=(5.2, 2.6))
    axes = figure.subplots()
    axes.stairs(level.profile, edges, fill=True, color="#0072B2", alpha=0.35)
    for centre, name in ((-1, "one part"), (0, "valley"), (1, "other part")):
        axes.axvspan(centre - 0.25, centre + 0.25, color=GRID, zorder=0)
        axes.text(centre, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", fontsize=8, color=MUTED)
    ratio = (
        "one part is empty"
        if pair.ratio is None
        else f"density of the valley: {pair.ratio:.2f} times that of the parts"
    )
    axes.set(xlabel="Held-out coordinate between the centres of two parts", ylabel="Source images")
    axes.set_title(f"{ratio}, p = {pair.p:.2g}", pad=16)
    return figure


def _consensus(tree: Tree, items: Items, seed: int) -> Figure:
    """Plot how often two items of the root are in one group over resamples, sorted by leaf."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([leaf.items for leaf in tree.leaves])
    if len(order) > MOST_CONSENSUS:
        order = order[np.sort(rng.choice(len(order), MOST_CONSENSUS, replace=False))]
    X = items.X[order].astype(np.float64)
    deviation = X.std(axis=0)
    X = ((X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).astype(np.float32)
    consensus = consensus_matrix(X, len(tree.leaves), rng)
    figure = Figure(figsize=(4.4, 3.8))
    axes = figure.subplots()
    image = axes.imshow(np.nan_to_num(consensus), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ends = np.cumsum([np.isin(order, leaf.items).sum() for leaf in tree.leaves])[:-1] - 0.5
    for end in ends:
        axes.axhline(end, color="#D55E00", linewidth=0.6)
        axes.axvline(end, color="#D55E00", linewidth=0.6)
    axes.set(xticks=[], yticks=[], xlabel=f"{len(order)} images, sorted by leaf")
    figure.colorbar(image, label="Fraction of the resamples in one group", shrink=0.85)
    _mark(figure, tree)
    return figure
