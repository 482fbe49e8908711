"""Row groups of the blocks that a rank needs, prefetched by threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

import numpy as np
import pyarrow as pa

from stedfm_hf.data.repository.decoding import view_pixels
from stedfm_hf.data.repository.shard_reader import ShardReader
from stedfm_hf.data.streaming.order import Rows
from stedfm_hf.runs.errors import UserError

ROWS_AT_ONCE = 128
"""Number of rows of one step: enough to outweigh the cost of a task, few enough to split a block among threads."""
Step = tuple[int, np.ndarray]
"""Index of a row group in a block, and the numbers in the split of this and the next row groups."""
PIXEL_COLUMNS = ("pixels", "height", "width", "dtype")
"""Columns that are needed to decode pixels."""


class Block:
    """Row groups of a split in memory.

    Args:
        groups: Sorted numbers of the row groups in the split.
        lengths: Number of rows of each row group.
    """

    def __init__(self, groups: np.ndarray, lengths: np.ndarray) -> None:
        self.groups = groups
        self._starts = np.cumsum([0, *lengths])
        self._columns: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def fill(self, first: int, columns: Mapping[str, np.ndarray]) -> None:
        """Store the rows of consecutive row groups.

        Args:
            first: Index of the first row group in `groups`.
            columns: Values of each column.

        Raises:
            UserError: The crops differ in size or dtype from those in the block.
        """
        start = self._starts[first]
        with self._lock:
            for name, values in columns.items():
                if name not in self._columns:
                    self._columns[name] = np.empty((self._starts[-1], *values.shape[1:]), values.dtype)
        for name, values in columns.items():
            target = self._columns[name]
            if target.shape[1:] != values.shape[1:] or target.dtype != values.dtype:
                raise UserError(
                    f"crops of different sizes or dtypes ({_size_and_dtype(target)} and {_size_and_dtype(values)}) "
                    "cannot form a batch; build a data set with one crop size and dtype"
                )
            target[start : start + len(values)] = values

    def take(self, rows: Rows) -> dict[str, np.ndarray]:
        """Return the columns of some rows."""
        positions = self._starts[np.searchsorted(self.groups, rows.group)] + rows.offset
        return {name: np.take(values, positions, axis=0) for name, values in self._columns.items()}


def _size_and_dtype(values: np.ndarray) -> str:
    return f"{' x '.join(map(str, values.shape[1:]))} {values.dtype}"


class BlockReader:
    """Reader of blocks, with or without threads.

    Args:
        reader: Reader of the shards.
        threads: Number of threads; 0 reads a block when it is started.
    """

    def __init__(self, reader: ShardReader, threads: int) -> None:
        self.reader = reader
        self._groups = reader.files.groups
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="stedfm-stream") if threads else None
        self._started: dict[int, tuple[Block, list[Future[None]]]] = {}

    def is_started(self, number: int) -> bool:
        """Return whether a block was read or is being read."""
        return number in self._started

    def start(self, number: int, groups: np.ndarray) -> None:
        """Start to read a block.

        Args:
            number: Number of the block.
            groups: Sorted numbers of the row groups to read.
        """
        lengths = self._groups.rows(groups)
        block = Block(groups, lengths)
        steps_of_block = list(_split_into_steps(groups, lengths, self._groups.shard_of(groups)))
        if self.reader.is_remote:  # one read for all steps of a shard
            reads = [list(steps) for _, steps in groupby(steps_of_block, lambda step: self._shard_of(step[1]))]
        else:
            reads = [[step] for step in steps_of_block]
        if self._pool is None:
            for steps in reads:
                self._load(block, steps)
            self._started[number] = block, []
        else:
            self._started[number] = block, [self._pool.submit(self._load, block, steps) for steps in reads]

    def get(self, number: int) -> Block:
        """Wait for a started block, and return it."""
        block, futures = self._started[number]
        for future in futures:
            future.result()
        futures.clear()
        return block

    def discard_before(self, number: int) -> None:
        """Discard the blocks before this one."""
        for old in [key for key in self._started if key < number]:
            del self._started[old]

    def close(self) -> None:
        """Stop the threads and cancel pending reads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._started.clear()

    def _shard_of(self, groups: np.ndarray) -> int:
        """Return the number of the shard of row groups of one shard."""
        return int(self._groups.shard_of(groups[:1])[0])

    def _load(self, block: Block, steps: Sequence[Step]) -> None:
        """Read row groups of one shard into a block."""
        shard = self._shard_of(steps[0][1])
        numbers = [(groups - self._groups.first_group[shard]).tolist() for _, groups in steps]
        for (first, _), table in zip(steps, self.reader.read_in_steps(shard, numbers), strict=True):
            try:
                block.fill(first, to_arrays(table))
            except UserError as error:
                raise UserError(f"{self.reader.files.shards[shard].file}: {error}") from error


def _split_into_steps(groups: np.ndarray, lengths: np.ndarray, shards: np.ndarray) -> Iterator[Step]:
    """Yield consecutive row groups of one shard that are decoded at once, with about `ROWS_AT_ONCE` rows.

    Args:
        groups: Sorted numbers of row groups, (n,).
        lengths: Number of rows of each row group, (n,).
        shards: Number of the shard of each row group, (n,).
    """
    start, rows = 0, 0
    for end in range(len(groups)):
        if end > start and (shards[end] != shards[start] or rows >= ROWS_AT_ONCE):
            yield start, groups[start:end]
            start, rows = end, 0
        rows += int(lengths[end])
    if len(groups):
        yield start, groups[start:]


def to_arrays(table: pa.Table) -> dict[str, np.ndarray]:
    """Convert the columns of a table to arrays.

    Args:
        table: Rows of a data set.

    Returns:
        Array of each column: `pixels` (n, H, W), numbers with their dtype, `label` as int64 with -1 for rows without
        a label, everything else as objects.
    """
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
