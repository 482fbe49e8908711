"""Positions of the nodes of a tree in a figure, from the root on the left to the leaves on the right."""

from __future__ import annotations

from stedfm_hf.discovery.clustering import Node, Tree


def node_positions(tree: Tree) -> dict[str, tuple[float, float]]:
    """Return the position of each node: its depth, and its row, from 0 at the top; leaves have whole rows.

    Args:
        tree: Tree of groups.

    Example:
        >>> import numpy as np
        >>> from stedfm_hf.discovery.clustering import partition
        >>> node_positions(partition(np.array([[0.0], [0.1], [9.0]]), 2))
        {'0.0': (1, 0.0), '0.1': (1, 1.0), '0': (0, 0.5)}
    """
    positions: dict[str, tuple[float, float]] = {}
    leaves = iter(range(len(tree.leaves)))

    def place(node: Node) -> float:
        rows = [place(child) for child in node.children]
        row = (rows[0] + rows[-1]) / 2 if rows else float(next(leaves))
        positions[node.id] = node.id.count("."), row
        return row

    place(tree.root)
    return positions
