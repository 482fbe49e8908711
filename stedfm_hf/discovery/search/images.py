"""Find the most similar images of an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from stedfm_hf.discovery.index.opened import Index
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL

IMAGE_SCHEMA = pa.schema(
    [
        ("rank", pa.int64()),
        ("score", pa.float64()),
        *OF_IMAGE,
        ("source", pa.string()),
        ("condition", pa.string()),
        *OF_MODEL,
    ]
)
"""Columns of the results of a search for images."""


def nearest_images(
    index: Index, query: np.ndarray, count: int, excluded: Sequence[int] | np.ndarray = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Find the most similar images.

    Args:
        index: Index of images.
        query: Query (D,) in the standardised space.
        count: Number of images.
        excluded: Numbers of the items that are excluded.

    Returns:
        Numbers of the items (n,) and their similarities (n,), the most similar first; n is less than `count` where
        fewer items are left.
    """
    mask = index.rows_of(excluded) if len(excluded) else None
    rows, similarity = index.nearest(query, count, excluded=mask)
    found = np.isfinite(similarity[0])
    return index.item_of(rows[0][found]), similarity[0][found]


def result_table(index: Index, items: np.ndarray, scores: np.ndarray) -> pa.Table:
    """Return the table of the results of a search for images."""
    table = index.items.take(pa.array(items, pa.int64()))
    columns = {name: table[name] for name, _ in OF_IMAGE} | {
        "rank": pa.array(np.arange(1, len(items) + 1)),
        "score": pa.array(scores, pa.float64()),
        "source": table["source"],
        "condition": pa.array([index.labels[number] for number in items], pa.string()),
        "model": pa.array([index.manifest.model] * len(items), pa.string()),
        "weights_sha256": pa.array([index.manifest.weights_sha256] * len(items), pa.string()),
    }
    return pa.table({name: columns[name] for name in IMAGE_SCHEMA.names}, schema=IMAGE_SCHEMA)
