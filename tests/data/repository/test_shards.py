"""Shards of equal size in random order, written completely or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.data.repository.shards import Shard, WindowWriter, shard_sizes, windows
from tests.data.repos import write_split


def rows(start: int, count: int) -> pa.Table:
    return pa.table({"x": np.arange(start, start + count)})


@given(count=st.integers(0, 10**7), most=st.integers(1, 3000))
def test_shards_are_few_and_of_equal_size(count: int, most: int) -> None:
    sizes = shard_sizes(count, most)
    assert sum(sizes) == count and all(0 < size <= most for size in sizes)
    assert not sizes or (max(sizes) - min(sizes) <= 1 and (len(sizes) - 1) * most < count)


@given(chunks=st.lists(st.integers(0, 40), max_size=8), most=st.integers(1, 20), open_shards=st.integers(1, 4))
def test_every_row_is_in_one_shard(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[int], most: int, open_shards: int
) -> None:
    folder, total = tmp_path_factory.mktemp("split"), sum(chunks)
    shards, start = list[Shard](), 0
    for window in windows("train", total, most, open_shards):
        assert window.first_row == start
        with WindowWriter(folder, window, rows(0, 0).schema, seed=1) as writer:
            for count in chunks:  # of each window, as many rows as it has
                writer.add(rows(start, min(count, window.first_row + window.rows - start)))
                start = min(start + count, window.first_row + window.rows)
            writer.add(rows(start, window.first_row + window.rows - start))
        start = window.first_row + window.rows
        shards += writer.shards
    found = []
    for shard in shards:
        file = pq.ParquetFile(folder / shard.file)
        assert shard.row_groups == tuple(file.metadata.row_group(k).num_rows for k in range(file.num_row_groups))
        found += file.read()["x"].to_pylist()
    assert sorted(found) == list(range(total))
    assert sorted(path.name for path in folder.rglob("*.parquet")) == sorted(Path(s.file).name for s in shards)


def test_the_seed_spreads_neighbouring_rows_over_the_shards(tmp_path: Path) -> None:
    def written(name: str, seed: int) -> list[list[int]]:
        folder = tmp_path / name
        shards = write_split(folder, (rows(start, 100) for start in range(0, 4000, 100)), 4000, 500, seed=seed)
        return [pq.read_table(folder / shard.file)["x"].to_pylist() for shard in shards]

    one = written("one", 0)
    assert all(len({row // 100 for row in shard}) == 40 for shard in one)
    assert one == written("again", 0) != written("other", 1)
    assert len(pq.ParquetFile(next((tmp_path / "one").rglob("*.parquet"))).metadata.to_dict()["row_groups"]) == 63


@pytest.mark.parametrize("added", [3, 12])
def test_another_number_of_rows_is_refused_and_leaves_no_file(tmp_path: Path, added: int) -> None:
    with pytest.raises(ValueError, match=f"{added} rows were added to a window of 10"):
        with WindowWriter(tmp_path, windows("train", 10, 4)[0], rows(0, 0).schema, seed=0) as writer:
            writer.add(rows(0, added))
    assert list(tmp_path.rglob("*.parquet")) == []


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no room"):
        with WindowWriter(tmp_path, windows("train", 10, 4)[0], rows(0, 0).schema, seed=0) as writer:
            writer.add(rows(0, 9))
            raise OSError("no room")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
