"""Writing the rows of a split into shards of equal size, mixed at rest.

Rows arrive in the order of their sources, and are dealt at random over the shards, a wave of shards at a time: crops
of one image end up far apart, so that a reader mixes well with few shards open. Only one row group of every open shard
is held in memory.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.data.repository.layout import shard_name
from stedfm_hf.data.settings import ROWS_PER_SHARD

GROUPS_PER_SHARD = 64
ROWS_PER_GROUP = 16
"""Row groups are what a reader reads: small ones let many ranks share the work without reading much of the same."""
WAVE = 64
"""Shards that are open at once while a split is written."""
ONE_OF_A_KIND = frozenset({"pixels", "mask", "region"})
"""Columns whose values never repeat: a dictionary would only cost time."""


@dataclass(frozen=True)
class Shard:
    """A Parquet file of a split.

    Args:
        file: path in the repository.
        row_groups: Number of rows of each of its row groups.
    """

    file: str
    row_groups: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(self.row_groups)


def shard_sizes(rows: int, rows_per_shard: int) -> list[int]:
    """Rows of every shard: as few shards as hold them, none more than one row larger than another.

    >>> shard_sizes(10, 4)
    [4, 3, 3]
    """
    count = -(-rows // rows_per_shard)
    return [rows // count + (number < rows % count) for number in range(count)] if count else []


class SplitWriter:
    """Writes one split; use as a context manager.

    Files get their names when the block ends without an error; until then, and for good after one, there are only
    hidden temporary ones, which are removed.

    Args:
        folder: the repository.
        split: name of the split.
        rows: how many rows will come.
        schema: of the rows, with the features that the `datasets` library reads.
        seed: of the dealing.
        rows_per_shard: rows of a shard at most.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> table = pa.table({"x": range(10)})
        >>> with SplitWriter(folder, "train", 10, table.schema, seed=0, rows_per_shard=4) as writer:
        ...     writer.add(table)
        >>> [shard.rows for shard in writer.shards], sorted(path.name for path in folder.glob("data/*"))[0]
        ([4, 3, 3], 'train-00000-of-00003.parquet')
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        rows: int,
        schema: pa.Schema,
        *,
        seed: int,
        rows_per_shard: int = ROWS_PER_SHARD,
    ) -> None:
        self.folder, self.schema = folder, schema
        self._sizes = shard_sizes(rows, rows_per_shard)
        self._names = [shard_name(split, number, len(self._sizes)) for number in range(len(self._sizes))]
        self._token = secrets.token_hex(4)
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, *split.encode()]))
        self._open: list[_ShardFile] = []
        self._finished: list[_ShardFile] = []
        self._deal = np.empty(0, np.intp)
        self._arrived, self._rows = 0, rows

    @property
    def shards(self) -> list[Shard]:
        """What was written, in the order of the names."""
        return [Shard(file.name, tuple(file.groups)) for file in self._finished]

    def add(self, table: pa.Table) -> None:
        """Deals the next rows out."""
        self._arrived += table.num_rows
        if self._arrived > self._rows:
            raise ValueError(f"{self._arrived} rows came for a split of {self._rows}")
        while table.num_rows:
            if not len(self._deal):
                self._begin_wave()
            now, table = table.slice(0, len(self._deal)), table.slice(len(self._deal))
            places, self._deal = self._deal[: now.num_rows], self._deal[now.num_rows :]
            order = np.argsort(places, kind="stable")
            targets, starts = np.unique(places[order], return_index=True)
            for target, chosen in zip(targets, np.split(order, starts[1:]), strict=True):
                self._open[target].add(now.take(chosen))
            if not len(self._deal):
                self._end_wave()

    def _begin_wave(self) -> None:
        first = len(self._finished)
        for size, name in zip(self._sizes[first : first + WAVE], self._names[first:], strict=False):
            self._open.append(_ShardFile(self.folder, name, size, self.schema, self._token))
        self._deal = self._rng.permutation(np.repeat(np.arange(len(self._open)), [file.size for file in self._open]))

    def _end_wave(self) -> None:
        for file in self._open:
            file.close()
        self._finished += self._open
        self._open = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self._arrived != self._rows:
            error = ValueError(f"{self._arrived} rows came for a split of {self._rows}")
        for file in self._open if error else []:
            file.abandon()
        for file in self._finished:
            file.remove() if error else file.rename()
        if error and kind is None:
            raise error


class _ShardFile:
    """A shard that is being written: rows wait until a row group is full."""

    def __init__(self, folder: Path, name: str, size: int, schema: pa.Schema, token: str) -> None:
        self.name, self.size = name, size
        self.path = folder / name
        self.temporary = self.path.with_name(f".{self.path.stem}.{token}.tmp.parquet")
        self.groups: list[int] = []
        self._waiting: list[pa.Table] = []
        self._rows_waiting = 0
        self._rows_per_group = max(1, min(ROWS_PER_GROUP, -(-size // GROUPS_PER_SHARD)))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = open_writer(self.temporary, schema)

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._rows_waiting += table.num_rows
        if self._rows_waiting >= self._rows_per_group:
            waiting = pa.concat_tables(self._waiting).combine_chunks()
            full = waiting.num_rows - waiting.num_rows % self._rows_per_group
            self._write(waiting.slice(0, full))
            # A copy: a slice would keep the whole table alive.
            self._waiting = [waiting.slice(full).take(np.arange(waiting.num_rows - full))]
            self._rows_waiting -= full

    def _write(self, table: pa.Table) -> None:
        for start in range(0, table.num_rows, self._rows_per_group):
            group = table.slice(start, self._rows_per_group)
            self._writer.write_table(group, row_group_size=self._rows_per_group)
            self.groups.append(group.num_rows)

    def close(self) -> None:
        if self._rows_waiting:
            self._write(pa.concat_tables(self._waiting))
        self._waiting = []
        self._writer.close()
        del self._writer  # it keeps the footer, which for a million crops adds up

    def abandon(self) -> None:
        try:
            self._writer.close()
        except (OSError, AttributeError):  # the disk that was full still is; or the file is closed already
            pass
        self.remove()

    def remove(self) -> None:
        self.temporary.unlink(missing_ok=True)

    def rename(self) -> None:
        self.temporary.replace(self.path)


def open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer as all tables of crops use it: zstd, and no statistics of bytes."""
    plain = [name for name in schema.names if name not in ONE_OF_A_KIND]
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=plain, write_statistics=plain)
