"""The row groups a rank needs, in memory a block of the order at a time, read ahead by threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from stedfm_hf.data.repository.decoding import view_pixels
from stedfm_hf.data.repository.files import ShardReader
from stedfm_hf.data.streaming.order import Rows
from stedfm_hf.runs.errors import UserError

ROWS_AT_ONCE = 128
"""Rows that one read asks for: enough to make it worth a thread's while, few enough to share a block among threads."""
PIXEL_COLUMNS = ("pixels", "height", "width", "dtype")


class Block:
    """Row groups of a split in memory.

    Args:
        groups: their numbers in the split, sorted.
        lengths: their rows.
    """

    def __init__(self, groups: np.ndarray, lengths: np.ndarray) -> None:
        self.groups = groups
        self._starts = np.cumsum([0, *lengths])
        self._columns: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def fill(self, first: int, columns: Mapping[str, np.ndarray]) -> None:
        """Puts the rows of some consecutive groups in their place; `first` is the place of the first group."""
        start = self._starts[first]
        with self._lock:
            for name, values in columns.items():
                if name not in self._columns:
                    self._columns[name] = np.empty((self._starts[-1], *values.shape[1:]), values.dtype)
        for name, values in columns.items():
            target = self._columns[name]
            if target.shape[1:] != values.shape[1:] or target.dtype != values.dtype:
                raise UserError(
                    f"crops of different sizes or dtypes ({_kind(target)} and {_kind(values)}) cannot form a batch; "
                    "build a data set with one crop size and dtype"
                )
            target[start : start + len(values)] = values

    def take(self, rows: Rows) -> dict[str, np.ndarray]:
        """The columns of some rows."""
        at = self._starts[np.searchsorted(self.groups, rows.group)] + rows.place
        return {name: np.take(values, at, axis=0) for name, values in self._columns.items()}


def _kind(values: np.ndarray) -> str:
    return f"{' x '.join(map(str, values.shape[1:]))} {values.dtype}"


class BlockReader:
    """Reads blocks, in threads if there are any.

    Args:
        reader: of the shards.
        threads: that read; 0 reads when the rows are asked for.
    """

    def __init__(self, reader: ShardReader, threads: int) -> None:
        self.reader = reader
        shards = reader.files.shards
        self._shard_of_group = np.repeat(np.arange(len(shards)), [len(shard.row_groups) for shard in shards])
        self._first_group = np.cumsum([0, *(len(shard.row_groups) for shard in shards)])
        self._rows_of_group = np.concatenate([np.asarray(shard.row_groups, np.int64) for shard in shards])
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="stedfm-stream") if threads else None
        self._begun: dict[int, tuple[Block, list[Future[None]]]] = {}

    def has_begun(self, number: int) -> bool:
        """Whether a block is there or on its way."""
        return number in self._begun

    def begin(self, number: int, groups: np.ndarray) -> None:
        """Starts to read a block."""
        block = Block(groups, self._rows_of_group[groups])
        tasks = list(self._runs(groups))
        if self._pool is None:
            for first, run in tasks:
                self._load(block, first, run)
            self._begun[number] = block, []
        else:
            self._begun[number] = block, [self._pool.submit(self._load, block, first, run) for first, run in tasks]

    def get(self, number: int) -> Block:
        """A block that was begun, once it is whole."""
        block, futures = self._begun[number]
        for future in futures:
            future.result()
        futures.clear()
        return block

    def forget_before(self, number: int) -> None:
        """Lets go of the blocks before this one."""
        for old in [key for key in self._begun if key < number]:
            del self._begun[old]

    def close(self) -> None:
        """Ends the threads; what they have not begun is not read."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._begun.clear()

    def _runs(self, groups: np.ndarray) -> Iterable[tuple[int, np.ndarray]]:
        """Consecutive groups of one shard, up to some rows: what one read asks for."""
        start, rows = 0, 0
        for place, group in enumerate(groups):
            new_shard = place > start and self._shard_of_group[group] != self._shard_of_group[groups[start]]
            if place > start and (new_shard or rows >= ROWS_AT_ONCE):
                yield start, groups[start:place]
                start, rows = place, 0
            rows += int(self._rows_of_group[group])
        if len(groups):
            yield start, groups[start:]

    def _load(self, block: Block, first: int, run: np.ndarray) -> None:
        shard = int(self._shard_of_group[run[0]])
        table = self.reader.read(shard, (run - self._first_group[shard]).tolist())
        try:
            block.fill(first, to_arrays(table))
        except UserError as error:
            raise UserError(f"{self.reader.files.shards[shard].file}: {error}") from error


def to_arrays(table: pa.Table) -> dict[str, np.ndarray]:
    """The columns of a table: pixels (n, H, W), numbers as such, everything else as objects."""
    arrays = {"pixels": view_pixels(*(table[name] for name in PIXEL_COLUMNS))}
    for name in table.column_names:
        if name in PIXEL_COLUMNS:
            continue
        column = table[name]
        if pa.types.is_floating(column.type) or (pa.types.is_integer(column.type) and name != "label"):
            arrays[name] = column.to_numpy()
        elif name == "label":
            arrays[name] = column.fill_null(-1).cast(pa.int64()).to_numpy()
        else:
            values = np.empty(len(column), object)
            values[:] = column.to_pylist()
            arrays[name] = values
    return arrays
