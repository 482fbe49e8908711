"""Order of the rows of an epoch, as a function of (seed, epoch) and the shards alone.

The shards are permuted and split into blocks of `open_shards`. In a block, the rows of each row group are permuted,
and the order goes through all rows of the block in steps of the golden ratio. Consecutive rows, such as a batch,
therefore come evenly from all row groups of the block.

Because batches are even, each rank can read different row groups. The *lane* of a row is its position in the block,
from 0 to 1, with the row groups one after the other. Rank r of W gets the rows of each global batch in the r-th of W
equal parts of the lanes, which are nearly the same row groups in each batch. The rows of a global batch do not depend
on the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stedfm_hf.data.repository.row_groups import RowGroups
from stedfm_hf.data.repository.shards import Shard

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_SHARDS, _BLOCK = 0, 1
"""Keys of the random numbers of an epoch: for the permutation of the shards, and for the order in the blocks."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Consecutive rows of an epoch.

    Attributes:
        index: Number of each row in the split, (n,) int64, the same in all epochs.
        group: Number of its row group in the split, (n,).
        offset: Number of the row in its row group, (n,).
        lane: Position in the block from 0 to 1, sorted by row group, (n,).
        block: Number of its block, (n,).
    """

    index: np.ndarray
    group: np.ndarray
    offset: np.ndarray
    lane: np.ndarray
    block: np.ndarray

    def take(self, positions: np.ndarray) -> Rows:
        """Return the rows at some positions."""
        return Rows(*(values[positions] for values in self._columns()))

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.index, self.group, self.offset, self.lane, self.block

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Concatenate rows."""
        empty = np.empty(0, np.int64)
        columns = zip((empty, empty, empty, np.empty(0), empty), *(part._columns() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def __len__(self) -> int:
        return len(self.index)


class EpochOrder:
    """Order of all rows of a split in one epoch.

    Shards are mixed in blocks of `open_shards`. Blocks are computed on demand, so that only a few are in memory.

    Args:
        shards: Shards of the split, in the order of their names.
        seed: Random seed of the order.
        epoch: Number of the epoch.
        open_shards: Number of shards that are mixed at once.

    Raises:
        ValueError: `open_shards` is below 1.

    Example:
        >>> order = EpochOrder([Shard("a", (3, 2)), Shard("b", (4,))], seed=0, epoch=0, open_shards=1)
        >>> sorted(order.rows(0, 9).index.tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """

    def __init__(self, shards: Sequence[Shard], *, seed: int, epoch: int, open_shards: int) -> None:
        if open_shards < 1:
            raise ValueError(f"open_shards must be 1 or more, not {open_shards}")
        self.seed, self.epoch, self.open_shards = seed, epoch, open_shards
        self._groups = RowGroups(shards)
        self._shards = self._rng(_SHARDS).permutation(len(shards))
        rows = np.diff(self._groups.first_row)[self._shards]
        blocks = np.add.reduceat(rows, np.arange(0, len(rows), open_shards)) if len(rows) else rows
        self._block_start = np.cumsum([0, *blocks])
        self._block = lru_cache(maxsize=64)(self._make_block)

    def __len__(self) -> int:
        return int(self._block_start[-1])

    def rows(self, start: int, stop: int) -> Rows:
        """Return the rows from position `start` up to, but without, position `stop` of the order."""
        stop = min(stop, len(self))
        parts = []
        while start < stop:
            number = self.block_at(start)
            first, last = self.block_span(number)
            parts.append(self._block(number).take(np.arange(start - first, min(stop, last) - first)))
            start = last
        return parts[0] if len(parts) == 1 else Rows.joined(parts)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self._block_start) - 1

    def block_at(self, position: int) -> int:
        """Return the number of the block that holds a position of the order."""
        return int(np.searchsorted(self._block_start, position, side="right")) - 1

    def block_span(self, number: int) -> tuple[int, int]:
        """Return the first position of a block, and the first position after it."""
        return int(self._block_start[number]), int(self._block_start[number + 1])

    def _make_block(self, number: int) -> Rows:
        """Compute the rows of a block in their order.

        The rows of each row group are permuted, and the row groups lie one after the other on the lanes. The order
        visits all lanes in steps of the golden ratio, from a random lane on.
        """
        rng = self._rng(_BLOCK, number)
        shards = self._shards[number * self.open_shards : (number + 1) * self.open_shards]
        groups, lengths, first_rows = self._groups.of_shards(shards)
        first_row_of_lane, group_of_lane = np.repeat(first_rows, lengths), np.repeat(groups, lengths)
        offset_of_lane = np.concatenate([rng.permutation(length) for length in lengths])
        count = len(group_of_lane)
        step = _coprime_near(GOLDEN * count, count)
        lane = (int(rng.integers(count)) + step * np.arange(count, dtype=np.int64)) % count
        group, offset = group_of_lane[lane], offset_of_lane[lane]
        return Rows(first_row_of_lane[lane] + offset, group, offset, (lane + 0.5) / count, np.full(count, number))

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch, *key]))


def _coprime_near(value: float, count: int) -> int:
    """Return the whole number nearest to a value that is coprime to `count`, so that its multiples reach all rows."""
    middle = max(1, round(value))
    for distance in range(count + 1):
        for candidate in (middle + distance, middle - distance):
            if candidate >= 1 and math.gcd(candidate, count) == 1:
                return candidate
    return 1


@dataclass(frozen=True)
class Batching:
    """Division of an order into global batches, and of global batches into the batches of the ranks.

    Attributes:
        rows: Number of rows of an epoch.
        batch_size: Number of rows in the batch of one rank.
        world_size: Number of ranks.
        drop_last: Whether an incomplete last global batch is dropped; otherwise it is filled up.
    """

    rows: int
    batch_size: int
    world_size: int
    drop_last: bool

    @property
    def global_batch(self) -> int:
        """Number of rows in the batches of all ranks together."""
        return self.batch_size * self.world_size

    def batches_from(self, position: int) -> int:
        """Return the number of batches of each rank from a position of the order to its end."""
        remaining = max(0, self.rows - position)
        return remaining // self.global_batch if self.drop_last else -(-remaining // self.global_batch)

    def batch(self, order: EpochOrder, begin: int, number: int, rank: int) -> tuple[Rows, np.ndarray]:
        """Return a batch of a rank.

        An incomplete global batch is divided equally among the ranks, up to one row, and each part is filled up with
        copies of the first row of the global batch.

        Args:
            order: Order of the epoch.
            begin: Position of the order from which batches are counted.
            number: Number of the batch.
            rank: Number of the rank.

        Returns:
            `batch_size` rows in the order of the epoch, and (n,) bool: False for copies that fill up the batch.
        """
        start = begin + number * self.global_batch
        rows = order.rows(start, start + self.global_batch)
        by_lane = np.argsort(rows.lane, kind="stable")
        start_of_part, end_of_part = (part * len(rows) // self.world_size for part in (rank, rank + 1))
        positions = np.sort(by_lane[start_of_part:end_of_part])
        valid = np.arange(self.batch_size) < len(positions)
        return rows.take(np.concatenate([positions, np.zeros((~valid).sum(), np.intp)])), valid
