"""Writing of the rows of a split into shards of equal size, in random order.

Rows arrive in the order of their sources, and each is written to a random shard, so that a reader mixes crops of
different images well with few open shards. At most `OPEN_SHARDS` shards are open at once, with one row group of each
in memory.
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
"""Target number of row groups of a shard; larger shards have more groups of `ROWS_PER_GROUP` rows."""
ROWS_PER_GROUP = 16
"""Largest number of rows of a row group, the unit of reading; small groups split well among many ranks."""
OPEN_SHARDS = 64
"""Number of shards that are open at once while a split is written."""
WITHOUT_DICTIONARY = frozenset({"pixels", "mask", "region"})
"""Columns without repeated values, for which a Parquet dictionary would only cost time."""


@dataclass(frozen=True)
class Shard:
    """A Parquet file of a split.

    Attributes:
        file: Path in the data set, or whole path or URL.
        row_groups: Number of rows of each of its row groups.
    """

    file: str
    row_groups: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.row_groups)


def shard_sizes(rows: int, rows_per_shard: int) -> list[int]:
    """Return the number of rows of each shard: the fewest possible shards, of equal size up to one row.

    Args:
        rows: Number of rows of the split.
        rows_per_shard: Largest number of rows of a shard.

    Example:
        >>> shard_sizes(10, 4)
        [4, 3, 3]
    """
    count = -(-rows // rows_per_shard)
    return [rows // count + (number < rows % count) for number in range(count)] if count else []


class SplitWriter:
    """Writer of one split, used as a context manager.

    Shards are written to hidden temporary files, which get their names when the block ends without an error, and are
    removed after an error.

    Args:
        folder: Folder of the data set.
        split: Name of the split.
        rows: Number of rows that will be added.
        schema: Schema of the rows, with the features that the `datasets` library reads.
        seed: Random seed of the order of the rows.
        rows_per_shard: Largest number of rows of a shard.

    Raises:
        ValueError: Another number of rows was added.

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
        self._targets = np.empty(0, np.intp)  # open shard of each of the next rows
        self._added, self._rows = 0, rows

    @property
    def shards(self) -> list[Shard]:
        """Written shards, in the order of their names."""
        return [Shard(file.name, tuple(file.groups)) for file in self._finished]

    def add(self, table: pa.Table) -> None:
        """Write the next rows to random shards; open shards are closed, and the next ones opened, when they are full.

        Raises:
            ValueError: More rows are added than were announced.
        """
        self._added += table.num_rows
        if self._added > self._rows:
            raise ValueError(f"{self._added} rows were added to a split of {self._rows}")
        while table.num_rows:
            if not len(self._targets):
                self._open_shards()
            now, table = table.slice(0, len(self._targets)), table.slice(len(self._targets))
            shards, self._targets = self._targets[: now.num_rows], self._targets[now.num_rows :]
            # Group the rows by their shard, to add them to each shard at once.
            order = np.argsort(shards, kind="stable")
            targets, starts = np.unique(shards[order], return_index=True)
            for target, rows in zip(targets, np.split(order, starts[1:]), strict=True):
                self._open[target].add(now.take(rows))
            if not len(self._targets):
                self._close_shards()

    def _open_shards(self) -> None:
        """Open the next shards, and choose a shard at random for each of their rows."""
        first = len(self._finished)
        for size, name in zip(self._sizes[first : first + OPEN_SHARDS], self._names[first:], strict=False):
            self._open.append(_ShardFile(self.folder, name, size, self.schema, self._token))
        shard_of_row = np.repeat(np.arange(len(self._open)), [file.size for file in self._open])
        self._targets = self._rng.permutation(shard_of_row)

    def _close_shards(self) -> None:
        for file in self._open:
            file.close()
        self._finished += self._open
        self._open = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self._added != self._rows:
            error = ValueError(f"{self._added} rows were added to a split of {self._rows}")
        for file in self._open if error else []:
            file.discard()
        for file in self._finished:
            file.remove() if error else file.rename()
        if error and kind is None:
            raise error


class _ShardFile:
    """Shard that is being written; rows are collected until a row group is full."""

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
        """Collect rows, and write all full row groups."""
        self._waiting.append(table)
        self._rows_waiting += table.num_rows
        if self._rows_waiting >= self._rows_per_group:
            waiting = pa.concat_tables(self._waiting).combine_chunks()
            full = waiting.num_rows - waiting.num_rows % self._rows_per_group
            self._write(waiting.slice(0, full))
            # A copy, because a slice would keep the whole table in memory.
            self._waiting = [waiting.slice(full).take(np.arange(waiting.num_rows - full))]
            self._rows_waiting -= full

    def _write(self, table: pa.Table) -> None:
        for start in range(0, table.num_rows, self._rows_per_group):
            group = table.slice(start, self._rows_per_group)
            self._writer.write_table(group, row_group_size=self._rows_per_group)
            self.groups.append(group.num_rows)

    def close(self) -> None:
        """Write the remaining rows and the footer."""
        if self._rows_waiting:
            self._write(pa.concat_tables(self._waiting))
        self._waiting = []
        self._writer.close()
        del self._writer  # frees the footer, of which a million crops have many

    def discard(self) -> None:
        """Close and remove the temporary file after an error; a second error is ignored."""
        try:
            self._writer.close()
        except (OSError, AttributeError):  # the disk is still full, or the file is closed already
            pass
        self.remove()

    def remove(self) -> None:
        self.temporary.unlink(missing_ok=True)

    def rename(self) -> None:
        self.temporary.replace(self.path)


def open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a Parquet file for crops: zstd compression, no dictionary and statistics for pixels, masks and regions.

    Args:
        path: File to write.
        schema: Schema of the rows.
    """
    plain = [name for name in schema.names if name not in WITHOUT_DICTIONARY]
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=plain, write_statistics=plain)
