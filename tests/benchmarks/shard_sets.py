"""Data sets of many tiny shards, for the benchmark of opening and streaming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from stedfm_hf.data.assembly.assemble import index_of
from stedfm_hf.data.repository.layout import INDEX_FILE, Crop, Scaling, crop_features, crops_to_table
from stedfm_hf.runs import write_json
from tests.data.repos import CARD, write_split


def write_tiny_shards(folder: Path, shards: int, *, rows: int = 16, size: int = 8) -> Path:
    """Write a data set of `shards` files of `rows` crops (size, size) uint8, whose first two pixels hold their number.

    Args:
        folder: Folder to write.
        shards: Number of shards.
        rows: Number of crops in a shard.
        size: Height and width of a crop in pixels, at least 2.
    """
    schema = crop_features().arrow_schema
    scaling = Scaling(0.0, 255.0, applied=True)
    rng = np.random.default_rng(0)

    def tables() -> Iterator[pa.Table]:
        for first in range(0, shards, 64):
            count = min(64, shards - first) * rows
            pixels = rng.integers(0, 255, (count, size, size), dtype=np.uint8)
            table = crops_to_table([Crop(each, scaling, source=f"{first}/{n // 4}") for n, each in enumerate(pixels)])
            at = table.schema.get_field_index("label")
            yield table.set_column(at, "label", pa.nulls(count, pa.int64())).cast(schema)

    written = write_split(folder, tables(), shards * rows, rows)
    write_json(folder / INDEX_FILE, index_of({"train": written}))
    (folder / "README.md").write_text(CARD.format(version=shards), encoding="utf-8")
    return folder
