"""Tree of clusters: nodes with their items, stabilities and evidence, as JSON and as a table of memberships."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.discovery.clustering.evidence import Evidence, evidence_from_dict, evidence_to_dict


@dataclass(frozen=True, eq=False)
class Node:
    """Node of a tree.

    Attributes:
        id: Path from the root, such as "0.2.1": the second child of the third child of the root "0".
        items: Rows of its items (n,), in increasing order.
        stability: Fraction of an item's resamples that put it into this node rather than into a sibling (n,).
        evidence: Everything that was tested in the node.
        children: Groups of the node, by decreasing size; none if it is a leaf.
    """

    id: str
    items: np.ndarray
    stability: np.ndarray
    evidence: Evidence
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """Yield the node and all nodes below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def shape(self) -> str:
        """Numbers of children, such as "3(2,2,2)": three children with two leaves each. A leaf is "1"."""
        if not self.children:
            return "1"
        below = [child.shape for child in self.children]
        inner = "" if set(below) == {"1"} else f"({','.join(below)})"
        return f"{len(below)}{inner}"


@dataclass(frozen=True, eq=False)
class Memberships:
    """Position of every item in a tree.

    Attributes:
        leaf: Id of the leaf of each item (n,).
        stability: Product of the stabilities along the path to the leaf (n,).
        nodes: Id of the node of each item at each depth (n, depth); "" below its leaf.
        stabilities: Stability of the item in that node (n, depth); NaN below its leaf.
    """

    leaf: np.ndarray
    stability: np.ndarray
    nodes: np.ndarray
    stabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class Tree:
    """Result of recursive clustering.

    Attributes:
        root: Node of all items.
        method: "valley", "reference" or "partition".
        seed: Random seed.
        parameters: Parameters of the method.
    """

    root: Node
    method: str
    seed: int
    parameters: dict[str, Any]

    @property
    def significant(self) -> bool:
        """Whether there are groups that a test found: only the valley rule tests."""
        return self.method == "valley" and bool(self.root.children)

    @property
    def nodes(self) -> list[Node]:
        """All nodes, parents first."""
        return list(self.root.walk())

    @property
    def leaves(self) -> list[Node]:
        """Nodes without children."""
        return [node for node in self.root.walk() if not node.children]

    @property
    def labels(self) -> np.ndarray:
        """Number of the leaf of each item (n,), in the order of `leaves`."""
        labels = np.zeros(len(self.root.items), int)
        for number, leaf in enumerate(self.leaves):
            labels[leaf.items] = number
        return labels

    def memberships(self) -> Memberships:
        """Return the leaf of every item and its stability along the path."""
        nodes, n = self.nodes, len(self.root.items)
        depth = max(node.id.count(".") for node in nodes) + 1
        longest = max(len(node.id) for node in nodes)
        ids, stabilities = np.full((n, depth), "", f"<U{longest}"), np.full((n, depth), np.nan)
        leaf, stability = np.full(n, "", f"<U{longest}"), np.ones(n)
        for node in nodes:
            ids[node.items, node.id.count(".")] = node.id
            stabilities[node.items, node.id.count(".")] = node.stability
            stability[node.items] *= node.stability
            leaf[node.items] = node.id
        return Memberships(leaf, stability, ids, stabilities)

    def to_json(self) -> str:
        """Return the tree with items, stabilities and evidence as JSON."""
        data = {"method": self.method, "seed": self.seed, "parameters": self.parameters, "root": _to_dict(self.root)}
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Tree:
        """Rebuild a tree.

        Args:
            text: Result of `to_json`.

        Raises:
            ValueError: If the text is not such a tree.
        """
        try:
            data = json.loads(text)
            return cls(_from_dict(data["root"]), data["method"], int(data["seed"]), dict(data["parameters"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a tree of clusters: {error}") from error


def _to_dict(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "items": node.items.tolist(),
        "stability": [None if np.isnan(each) else round(float(each), 6) for each in node.stability],
        "evidence": evidence_to_dict(node.evidence),
        "children": [_to_dict(child) for child in node.children],
    }


def _from_dict(data: dict[str, Any]) -> Node:
    return Node(
        data["id"],
        np.array(data["items"], int),
        np.array(data["stability"], float),
        evidence_from_dict(data["evidence"]),
        tuple(_from_dict(child) for child in data["children"]),
    )
