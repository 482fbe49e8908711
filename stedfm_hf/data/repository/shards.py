"""Writing of the rows of a split into shards of equal size, in random order.

Rows arrive in the order of their sources, and each is written to a random shard of a window of `OPEN_SHARDS` shards,
so that a reader mixes crops of different images well with few open shards. Windows depend only on the rows and the
seed, so that several processes can write them. One row group of each shard of a window is in memory.
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

GROUPS_PER_SHARD = 64
"""Target number of row groups of a shard; larger shards have more groups of `ROWS_PER_GROUP` rows."""
ROWS_PER_GROUP = 16
"""Largest number of rows of a row group, the unit of reading; small groups split well among many ranks."""
OPEN_SHARDS = 64
"""Number of shards of a window, which are open at once while they are written."""
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


@dataclass(frozen=True)
class Window:
    """Consecutive shards of a split among which rows are distributed at random; windows are independent of each other.

    Attributes:
        split: Name of the split.
        number: Number of the window in the split.
        first_row: Number of its first row in the split, in the order in which rows are written.
        names: Paths of its shards in the data set.
        sizes: Number of rows of each shard.
    """

    split: str
    number: int
    first_row: int
    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.sizes)


def windows(split: str, rows: int, rows_per_shard: int, open_shards: int = OPEN_SHARDS) -> list[Window]:
    """Divide a split into windows.

    Args:
        split: Name of the split.
        rows: Number of rows of the split.
        rows_per_shard: Largest number of rows of a shard.
        open_shards: Largest number of shards of a window.

    Example:
        >>> [(each.first_row, each.sizes) for each in windows("train", 10, 4, open_shards=2)]
        [(0, (4, 3)), (7, (3,))]
    """
    sizes = shard_sizes(rows, rows_per_shard)
    found, first_row = list[Window](), 0
    for first in range(0, len(sizes), open_shards):
        numbers = range(first, min(first + open_shards, len(sizes)))
        names = tuple(shard_name(split, number, len(sizes)) for number in numbers)
        found.append(Window(split, len(found), first_row, names, tuple(sizes[number] for number in numbers)))
        first_row += found[-1].rows
    return found


class WindowWriter:
    """Writer of the shards of a window, used as a context manager.

    Shards are written to hidden temporary files, which get their names when the block ends without an error, and are
    removed after an error.

    Args:
        folder: Folder of the data set.
        window: Shards to write.
        schema: Schema of the rows, with the features that the `datasets` library reads.
        seed: Random seed of the order of the rows.

    Raises:
        ValueError: Another number of rows was added.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> table = pa.table({"x": range(10)})
        >>> (window,) = windows("train", 10, 4)
        >>> with WindowWriter(folder, window, table.schema, seed=0) as writer:
        ...     writer.add(table)
        >>> [shard.rows for shard in writer.shards], sorted(path.name for path in folder.glob("data/*"))[0]
        ([4, 3, 3], 'train-00000-of-00003.parquet')
    """

    def __init__(self, folder: Path, window: Window, schema: pa.Schema, *, seed: int) -> None:
        self.window = window
        token = secrets.token_hex(4)
        self._files = [
            _ShardFile(folder, name, size, schema, token)
            for name, size in zip(window.names, window.sizes, strict=True)
        ]
        entropy, spawn_key = [seed, *window.split.encode()], (window.number,) if window.number else ()
        rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=spawn_key))
        # Shard of each of the next rows.
        self._targets = rng.permutation(np.repeat(np.arange(len(self._files)), window.sizes))
        self._added = 0

    @property
    def shards(self) -> list[Shard]:
        """Written shards, in the order of their names."""
        return [Shard(file.name, tuple(file.groups)) for file in self._files]

    def add(self, table: pa.Table) -> None:
        """Write the next rows to random shards.

        Raises:
            ValueError: More rows are added than the window has.
        """
        targets = self._targets[self._added : self._added + table.num_rows]
        self._added += table.num_rows
        if self._added > self.window.rows:
            raise ValueError(self._other_number())
        if not len(targets):
            return
        # Group the rows by their shard, to add them to each shard at once.
        order = np.argsort(targets, kind="stable")
        shards, starts = np.unique(targets[order], return_index=True)
        for shard, rows in zip(shards, np.split(order, starts[1:]), strict=True):
            self._files[shard].add(table.take(rows))

    def _other_number(self) -> str:
        return f"{self._added} rows were added to a window of {self.window.rows}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None and self._added != self.window.rows:
                raise ValueError(self._other_number())
            if error is None:
                for file in self._files:
                    file.close()
                for file in self._files:
                    file.rename()
        finally:
            for file in self._files:
                file.discard()


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
        """Close and remove the temporary file, unless it was renamed; a second error is ignored."""
        try:
            self._writer.close()
        except (OSError, AttributeError):  # the disk is still full, or the file is closed already
            pass
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
