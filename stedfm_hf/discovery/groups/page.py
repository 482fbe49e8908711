"""The page of a tree: one offline HTML file to walk through the groups, their images and their tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from stedfm_hf.discovery.clustering import Node, PartitionEvidence, ReferenceEvidence, Tree
from stedfm_hf.discovery.groups.differences import Difference
from stedfm_hf.discovery.groups.enrichment import Enrichment
from stedfm_hf.discovery.groups.figures import OTHERS, category_colours, grouped
from stedfm_hf.discovery.groups.items import Items
from stedfm_hf.discovery.groups.layout import node_positions
from stedfm_hf.discovery.groups.tables import mean_of_known
from stedfm_hf.discovery.index.naming import item_name
from stedfm_hf.discovery.search.thumbnails import thumbnail_uri
from stedfm_hf.runs import Progress, atomic_path, counted
from stedfm_hf.runs.manifest import versions

EXAMPLES = 12
"""Number of example images of a node."""
MOST_POINTS = 4_000
"""Largest number of points of the map on the page."""
MOST_DIFFERENCES = 8


def write_page(
    path: Path,
    tree: Tree,
    items: Items,
    *,
    name: str,
    coordinates: np.ndarray,
    map_name: str,
    tests: Sequence[Enrichment],
    compared: Sequence[Difference],
    comparison: Mapping[str, Any] | None = None,
) -> None:
    """Write the page of a tree.

    Args:
        path: File to write.
        tree: Tree of groups.
        items: Items of the tree.
        name: Name of the data.
        coordinates: Map of the items (n, 2).
        map_name: Name of the map.
        tests: Tests of the condition.
        compared: Differences between siblings.
        comparison: Comparison with another tree, as `comparison_figures.section` returns it.
    """
    examples = {node.id: example_items(node, items.X) for node in tree.nodes}
    data = {
        "columns": _columns(items),
        "nodes": [_node(node, tree, items, examples[node.id], tests, compared) for node in tree.nodes],
        "images": _images(items, sorted({each for chosen in examples.values() for each in chosen})),
        "map": _map(tree, items, coordinates, map_name),
        "condition": items.condition,
    }
    environment = Environment(
        loader=PackageLoader("stedfm_hf.discovery.groups", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("tree.html").render(
        title=f"Groups of {name}",
        verdict=verdict(tree),
        advice=advice(tree),
        significant=tree.significant,
        facts=_facts(tree, items),
        comparison=comparison,
        # A closing tag inside of a string would end the script.
        data=json.dumps(data, allow_nan=False).replace("</", "<\\/"),
        script=Path(__file__).with_name("tree.js").read_text(encoding="utf-8"),
        footer=f"Model {items.index.manifest.model}; {tree.method}, seed {tree.seed}; "
        f"stedfm-hf {versions()['stedfm-hf']}.",
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def verdict(tree: Tree) -> str:
    """Return the result of a tree in a sentence."""
    leaves = len(tree.leaves)
    if tree.method == "partition":
        k = tree.parameters["k"]
        fewer = "" if leaves == k else f" ({k} were asked for; the others were not stable)"
        return (
            f"This is a description by {leaves} groups{fewer}. It is not significant: the number was given, and "
            "no test says that there are groups."
        )
    if tree.method == "reference":
        return (
            f"The published rule splits the images into {leaves} leaves. It is not a test: it also splits data "
            "without groups."
        )
    if not tree.root.children:
        reason = tree.root.evidence.result
        return "No significant groups." if reason == "no significant groups" else f"No significant groups: {reason}."
    return f"{leaves} groups, separated by valleys of density in held-out images."


def advice(tree: Tree) -> str | None:
    """Return what to do if the images are not split, or None."""
    if tree.method != "valley" or tree.root.children:
        return None
    return (
        "This does not prove that there are no groups: small ones are often missed. Index more images, or describe "
        "these by K groups, without a test: --partition K."
    )


def example_items(node: Node, X: np.ndarray, count: int = EXAMPLES) -> list[int]:
    """Return the items of a node that are nearest to its mean, the nearest first.

    Args:
        node: Node.
        X: Features (n, d).
        count: Number of items.
    """
    inside = X[node.items].astype(np.float64)
    deviation = X.std(axis=0, dtype=np.float64)
    distance = (((inside - inside.mean(axis=0)) / np.where(deviation > 0, deviation, 1)) ** 2).sum(axis=1)
    return [int(row) for row in node.items[np.argsort(distance, kind="stable")[:count]]]


def _facts(tree: Tree, items: Items) -> dict[str, str]:
    method = {"valley": "valley rule", "reference": "published rule", "partition": "partition"}[tree.method]
    return {
        "images": f"{len(items):,}",
        "source images": f"{len(set(items.sources.tolist())):,}",
        "leaves": str(len(tree.leaves)) if tree.root.children else "none",
        "method": method,
    }


def _columns(items: Items) -> list[dict[str, Any]]:
    """Return the columns that can colour the tree, with their categories or limits."""
    found: list[dict[str, Any]] = []
    for name, values in items.categories.items():
        colours = category_colours(values)
        entries = [{"name": each or "unknown", "colour": colour} for each, colour in colours.items()]
        found.append({"name": name, "kind": "category", "categories": entries})
    for name, values in items.numbers.items():
        known = values[np.isfinite(values)]
        limits = [float(known.min()), float(known.max())] if len(known) else [0.0, 1.0]
        found.append({"name": name, "kind": "number", "limits": limits})
    return found


def _codes(items: Items) -> dict[str, np.ndarray]:
    """Return the number of the category of each item (n,) by column."""
    found = {}
    for name, values in items.categories.items():
        colours = list(category_colours(values))
        numbers = {each: number for number, each in enumerate(colours)}
        found[name] = np.array([numbers.get(each, numbers.get(OTHERS, 0)) for each in grouped(values, colours)])
    return found


def _node(
    node: Node,
    tree: Tree,
    items: Items,
    examples: Sequence[int],
    tests: Sequence[Enrichment],
    compared: Sequence[Difference],
) -> dict[str, Any]:
    """Return the facts of a node for the page."""
    x, y = node_positions(tree)[node.id]
    codes = _codes(items)
    stability = node.stability[np.isfinite(node.stability)]
    return {
        "id": node.id,
        "x": x,
        "y": y,
        "children": [child.id for child in node.children],
        "items": len(node.items),
        "sources": len(set(items.sources[node.items].tolist())),
        "stability": round(float(stability.mean()), 4) if len(stability) else None,
        "result": node.evidence.result,
        "evidence": _evidence(node, tree),
        "counts": {
            column["name"]: np.bincount(
                codes[column["name"]][node.items], minlength=len(column["categories"])
            ).tolist()
            for column in _columns(items)
            if column["kind"] == "category"
        },
        "means": {name: mean_of_known(values[node.items]) for name, values in items.numbers.items()},
        "examples": [int(each) for each in examples],
        "tests": [asdict(each) for each in tests if each.node == node.id],
        "differences": [
            {
                name: None if isinstance(value, float) and np.isnan(value) else value
                for name, value in asdict(each).items()
            }
            for each in compared
            if each.node == node.id
        ][:MOST_DIFFERENCES],
    }


def _evidence(node: Node, tree: Tree) -> dict[str, Any]:
    """Return the evidence of a node in sentences, and the held-out density of the clearest valley."""
    evidence = node.evidence
    if isinstance(evidence, PartitionEvidence):
        return {"text": ["The number of groups was given; nothing was tested."], "profile": []}
    if isinstance(evidence, ReferenceEvidence):
        if evidence.k is None:
            return {"text": [f"{evidence.result}."], "profile": []}
        inside, between = evidence.intra or 0.0, evidence.inter or 0.0
        return {
            "text": [
                f"k = {evidence.k}; mean consensus inside {inside:.2f}, between {between:.2f}: {evidence.result}."
            ],
            "profile": [],
        }
    level = evidence.clearest
    if level is None:
        return {"text": [f"{evidence.result}."], "profile": []}
    pair = level.clearest
    ratio = (
        "a part without held-out images"
        if pair.ratio is None
        else f"{pair.ratio:.2f} times the density of the parts (limit {tree.parameters['ratio']:g})"
    )
    tested = counted(len(evidence.levels), "cut")
    return {
        "text": [
            f"{tested} into {min(e.k for e in evidence.levels)} to {max(e.k for e in evidence.levels)} parts tested: "
            f"{evidence.result}.",
            f"Clearest valley: {ratio}, p = {pair.p:.2g} (threshold {level.threshold:.2g}); "
            f"distance of the parts: {pair.d_prime:.1f} standard deviations (d').",
        ],
        "profile": [round(each, 2) for each in level.profile],
    }


def _images(items: Items, rows: Sequence[int]) -> dict[str, dict[str, str]]:
    """Return the thumbnails of some items with their names."""
    found = {}
    with Progress(len(rows), description="thumbnails", unit="images") as progress:
        for row in rows:
            image = items.index.read(row)
            name = item_name(items.index.item(row))
            found[str(row)] = {"uri": thumbnail_uri(image), "name": name if image else f"{name}: file not found"}
            progress.update()
    return found


def _map(tree: Tree, items: Items, coordinates: np.ndarray, name: str) -> dict[str, Any]:
    """Return the points of the map, a random sample of them if they are many."""
    rows = np.arange(len(items))
    if len(rows) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(tree.seed).choice(rows, MOST_POINTS, replace=False))
    low, extent = coordinates.min(axis=0), np.maximum(np.ptp(coordinates, axis=0), 1e-12)
    points = (coordinates[rows] - low) / extent
    ids = [node.id for node in tree.nodes]
    leaf = np.array([ids.index(each) for each in tree.memberships().leaf[rows].tolist()])
    values: Mapping[str, list[Any]] = {
        **{column: codes[rows].tolist() for column, codes in _codes(items).items()},
        **{
            column: [round(float(each), 4) if np.isfinite(each) else None for each in numbers[rows]]
            for column, numbers in items.numbers.items()
        },
    }
    return {
        "name": name,
        "x": points[:, 0].round(4).tolist(),
        "y": points[:, 1].round(4).tolist(),
        "leaf": leaf.tolist(),
        "total": len(items),
        "values": values,
    }
