"""Small data sets for the tests, written by hand: shards of any length, with the number of each crop as its pixels."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.data.repository.layout import INDEX_FILE, Crop, Scaling, crop_features, crops_to_table, shard_name
from stedfm_hf.data.repository.shards import Shard, WindowWriter, windows

CARD = """---
configs:
- config_name: crops
  version: 1.0.{version}
  default: true
  data_files:
  - split: train
    path: data/train-*.parquet
---
"""


def numbered_crop(number: int, side: int = 4) -> Crop:
    """Return a crop whose pixels hold its number, low byte first."""
    pixels = np.zeros((side, side), np.uint16)
    pixels[0, :2] = number % 256, number // 256
    return Crop(pixels, Scaling(0.0, 255.0, applied=False), source=f"source {number // 3}", y=number, label=None)


def number_of(pixels: np.ndarray) -> int:
    return int(pixels.reshape(-1)[0]) + 256 * int(pixels.reshape(-1)[1])


def write_repo(folder: Path, lengths: Sequence[int], *, group: int = 2, index: bool = True) -> Path:
    """Write a data set with shards of these lengths, in row groups of `group` rows."""
    numbered = iter(range(sum(lengths)))
    crops = [[numbered_crop(next(numbered)) for _ in range(length)] for length in lengths]
    return write_crops(folder, crops, group=group, index=index)


def write_crops(folder: Path, shards: Sequence[Sequence[Crop]], *, group: int = 2, index: bool = True) -> Path:
    """Write a data set of these crops, with one shard for each list."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    # Without a version of its own the stock library would give the cached rows of another folder of this name.
    version = zlib.crc32(b"".join(crop.pixels.tobytes() for crops in shards for crop in crops))
    (folder / "README.md").write_text(CARD.format(version=version), encoding="utf-8")
    schema = crop_features().arrow_schema
    record = []
    for number, crops in enumerate(shards):
        table, length = crops_to_table(crops), len(crops)
        at = table.schema.get_field_index("label")
        table = table.set_column(at, "label", pa.nulls(length, pa.int64())).cast(schema)
        name = shard_name("train", number, len(shards))
        pq.write_table(table, folder / name, row_group_size=group, compression="zstd")
        groups = [min(group, length - start) for start in range(0, length, group)]
        record.append({"file": name, "row_groups": groups})
    if index:
        (folder / INDEX_FILE).write_text(json.dumps({"format": 1, "splits": {"train": record}}), encoding="utf-8")
    return folder


def write_split(
    folder: Path, tables: Iterable[pa.Table], rows: int, rows_per_shard: int, *, seed: int = 0
) -> list[Shard]:
    """Write `rows` rows of tables as the shards of the split `train`, and return the shards."""
    shards, waiting, tables = list[Shard](), None, iter(tables)
    for window in windows("train", rows, rows_per_shard):
        needed = window.rows
        waiting = next(tables) if waiting is None else waiting
        with WindowWriter(folder, window, waiting.schema, seed=seed) as writer:
            while needed:
                waiting = waiting if waiting.num_rows else next(tables)
                writer.add(waiting.slice(0, needed))
                needed, waiting = needed - min(needed, waiting.num_rows), waiting.slice(needed)
        shards += writer.shards
    return shards
