"""Tables of a tree: the position of every image, and all nodes with their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.discovery.clustering import NodeEvidence, PartitionEvidence, ReferenceEvidence, Tree
from stedfm_hf.discovery.groups.items import Items

IDENTITY = ("path", "series", "channel", "source")


def membership_table(
    tree: Tree, items: Items, coordinates: Mapping[str, np.ndarray], flat: Mapping[str, np.ndarray]
) -> pa.Table:
    """Return one row per image: its leaf, the stability of the assignment, its nodes, maps and columns.

    Args:
        tree: Tree of groups.
        items: Items of the tree.
        coordinates: Coordinates (n, 2) of each map, by name.
        flat: Clusters (n,) of each flat clustering, by name.
    """
    found, n = tree.memberships(), len(items)
    columns: dict[str, pa.Array] = {name: items.index.items[name].combine_chunks() for name in IDENTITY}
    columns |= {
        "leaf": pa.array(found.leaf.tolist()),
        "stability": pa.array(found.stability, from_pandas=True),
        "significant": pa.array([tree.significant] * n),
    }
    for depth in range(1, found.nodes.shape[1]):
        ids = [each or None for each in found.nodes[:, depth].tolist()]
        columns[f"node_{depth}"] = pa.array(ids, pa.string())
        columns[f"stability_{depth}"] = pa.array(found.stabilities[:, depth], from_pandas=True)
    for name, values in coordinates.items():
        columns |= {f"{name}_{axis + 1}": pa.array(values[:, axis]) for axis in range(2)}
    columns |= {name: pa.array(values, pa.int64()) for name, values in flat.items()}
    columns |= {name: pa.array(values) for name, values in items.columns.items() if name not in columns}
    return pa.table(columns)


def node_table(tree: Tree, items: Items) -> pa.Table:
    """Return one row per node: sizes, the result of its test with the clearest evidence, and purity.

    Args:
        tree: Tree of groups.
        items: Items of the tree.
    """
    rows = []
    for node in tree.nodes:
        row = {
            "node": node.id,
            "parent": node.id.rpartition(".")[0] or None,
            "depth": node.id.count("."),
            "items": len(node.items),
            "sources": len(set(items.sources[node.items].tolist())),
            "children": len(node.children),
            "significant": tree.significant,
            "stability": mean_of_known(node.stability),
            "result": node.evidence.result,
            **_evidence(node.evidence),
        }
        for name, values in items.categories.items():
            row[f"{name}_majority"], row[f"{name}_purity"] = majority(values[node.items])
        for name, values in items.numbers.items():
            row[f"{name}_mean"] = mean_of_known(values[node.items])
        rows.append(row)
    return pa.Table.from_pylist(rows)


def majority(values: np.ndarray) -> tuple[str | None, float | None]:
    """Return the most frequent value and its fraction of the known values; None if none is known.

    Example:
        >>> majority(np.array(["a", "b", "a", ""]))
        ('a', 0.6666666666666666)
    """
    names, counts = np.unique(values[values != ""], return_counts=True)
    if not len(names):
        return None, None
    return str(names[counts.argmax()]), float(counts.max() / counts.sum())


def _evidence(evidence: NodeEvidence | ReferenceEvidence | PartitionEvidence) -> dict[str, float | int | None]:
    """Return the evidence that decides: the clearest valley, or the statistics of the published rule."""
    if isinstance(evidence, ReferenceEvidence):
        return {"k": evidence.k, "intra": evidence.intra, "inter": evidence.inter}
    if isinstance(evidence, PartitionEvidence):
        return {"k": evidence.k}
    level = evidence.clearest
    if level is None:
        return {"k": None, "p": None, "p_threshold": None, "valley_ratio": None, "d_prime": None}
    pair = level.clearest
    return {
        "k": level.k,
        "p": pair.p,
        "p_threshold": level.threshold,
        "valley_ratio": pair.ratio,
        "d_prime": pair.d_prime,
    }


def mean_of_known(values: np.ndarray) -> float | None:
    """Return the mean of the finite values; None if there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def records_table(kind: type[Any], records: Sequence[Any]) -> pa.Table:
    """Return a table of dataclasses, with all columns even if there are no rows.

    Args:
        kind: Class of the records, whose fields are str, int and float.
        records: Records of the class.
    """
    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    schema = pa.schema([(each.name, types[str(each.type)]) for each in fields(kind)])
    return pa.Table.from_pylist([asdict(each) for each in records], schema=schema)
