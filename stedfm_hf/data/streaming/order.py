"""The order of an epoch: a function of (seed, epoch) and of the shards, and of nothing else.

The shards are permuted, and taken in blocks of `open_shards`. Inside a block the rows of every row group are permuted,
and the block goes through all its rows in the steps of a golden lattice. So whatever is cut out of the order, a batch
say, comes in equal shares from all row groups of its block.

That evenness is what lets ranks share the work without sharing what they read. A row has a *lane*, its place in its
block from 0 to 1, on which the row groups lie one after the other. Rank r of W takes of every global batch the rows
of the r-th W-th part of the lanes; since every batch is spread evenly, this is nearly the same part every time. Which
rows are in a global batch never depends on the ranks; who computes which of them does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stedfm_hf.data.repository.shards import Shard

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_SHARDS, _BLOCK = 0, 1
"""Two streams of random numbers of an epoch: the permutation of the shards, and the inside of the blocks."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an epoch, in the order they come.

    Args:
        index: number of each row in the split, (n,) int64: the same in every epoch.
        group: number of its row group in the split, (n,).
        place: its place in the row group, (n,).
        lane: from 0 to 1, (n,); equal shares of the lanes are equal shares of every batch and of the row groups.
        block: number of its block, (n,).
    """

    index: np.ndarray
    group: np.ndarray
    place: np.ndarray
    lane: np.ndarray
    block: np.ndarray

    def take(self, chosen: np.ndarray) -> Rows:
        """The rows at these places."""
        return Rows(*(values[chosen] for values in self._columns()))

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.index, self.group, self.place, self.lane, self.block

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of several, one after the other."""
        empty = np.empty(0, np.int64)
        columns = zip((empty, empty, empty, np.empty(0), empty), *(part._columns() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def __len__(self) -> int:
        return len(self.index)


class EpochOrder:
    """The order of all rows of a split in one epoch.

    Blocks are made when they are asked for, so an order costs memory for a few blocks only, however long it is.

    Args:
        shards: of the split, in the order of the repository.
        seed: names the run.
        epoch: number of the epoch.
        open_shards: shards that are mixed at a time.

    Example:
        >>> order = EpochOrder([Shard("a", (3, 2)), Shard("b", (4,))], seed=0, epoch=0, open_shards=1)
        >>> sorted(order.rows(0, 9).index.tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """

    def __init__(self, shards: Sequence[Shard], *, seed: int, epoch: int, open_shards: int) -> None:
        if open_shards < 1:
            raise ValueError(f"open_shards must be 1 or more, not {open_shards}")
        self.seed, self.epoch, self.open_shards = seed, epoch, open_shards
        groups = [np.asarray(shard.row_groups, np.int64) for shard in shards]
        self._groups_of_shard = np.cumsum([0, *(len(each) for each in groups)])
        self._group_rows = np.concatenate(groups) if groups else np.empty(0, np.int64)
        self._first_row = np.cumsum([0, *self._group_rows])
        self._shards = self._rng(_SHARDS).permutation(len(shards))
        rows = np.array([shard.rows for shard in shards], np.int64)[self._shards]
        blocks = np.add.reduceat(rows, np.arange(0, len(rows), open_shards)) if len(rows) else rows
        self._block_start = np.cumsum([0, *blocks])
        self._block = lru_cache(maxsize=64)(self._make_block)

    def __len__(self) -> int:
        return int(self._block_start[-1])

    def rows(self, start: int, stop: int) -> Rows:
        """The rows at the places from `start` to `stop` of the order."""
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
        """How many blocks there are."""
        return len(self._block_start) - 1

    def block_at(self, place: int) -> int:
        """Number of the block that holds a place of the order."""
        return int(np.searchsorted(self._block_start, place, side="right")) - 1

    def block_span(self, number: int) -> tuple[int, int]:
        """The places of the order that a block covers: its first, and the first behind it."""
        return int(self._block_start[number]), int(self._block_start[number + 1])

    def _make_block(self, number: int) -> Rows:
        rng = self._rng(_BLOCK, number)
        shards = self._shards[number * self.open_shards : (number + 1) * self.open_shards]
        spans = zip(self._groups_of_shard[shards], self._groups_of_shard[shards + 1], strict=True)
        groups = np.concatenate([np.arange(*span) for span in spans])
        lengths = self._group_rows[groups]
        group = np.repeat(groups, lengths)
        place = np.concatenate([rng.permutation(length) for length in lengths])
        count = len(group)
        step = _coprime_near(GOLDEN * count, count)
        lane = (int(rng.integers(count)) + step * np.arange(count, dtype=np.int64)) % count
        group, place = group[lane], place[lane]
        return Rows(self._first_row[group] + place, group, place, (lane + 0.5) / count, np.full(count, number))

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch, *key]))


def _coprime_near(wanted: float, count: int) -> int:
    """The whole number next to `wanted` that has no divisor in common with `count`: its multiples meet every row."""
    middle = max(1, round(wanted))
    for distance in range(count + 1):
        for candidate in (middle + distance, middle - distance):
            if candidate >= 1 and math.gcd(candidate, count) == 1:
                return candidate
    return 1


@dataclass(frozen=True)
class Batching:
    """How an order is cut into global batches, and these into those of the ranks.

    Args:
        rows: rows of an epoch.
        batch_size: rows of one rank's batch.
        world_size: ranks.
        drop_last: whether rows that fill no global batch are left out; else the last one is filled up.
    """

    rows: int
    batch_size: int
    world_size: int
    drop_last: bool

    @property
    def global_batch(self) -> int:
        """Rows of a batch of all ranks together."""
        return self.batch_size * self.world_size

    def batches_from(self, position: int) -> int:
        """Batches every rank still gets from a place of the order on."""
        left = max(0, self.rows - position)
        return left // self.global_batch if self.drop_last else -(-left // self.global_batch)

    def batch(self, order: EpochOrder, begin: int, number: int, rank: int) -> tuple[Rows, np.ndarray]:
        """Batch `number` of a rank, counted from a place of the order, in the order of the epoch.

        Of a global batch that is not full every rank takes its part, none more than one row more than another, and
        fills it up with copies of the global batch's first row.

        Returns:
            The rows, `batch_size` of them, and whether each is there for itself (n,) bool.
        """
        start = begin + number * self.global_batch
        rows = order.rows(start, start + self.global_batch)
        by_lane = np.argsort(rows.lane, kind="stable")
        edges = [place * len(rows) // self.world_size for place in (rank, rank + 1)]
        chosen = np.sort(by_lane[edges[0] : edges[1]])
        valid = np.arange(self.batch_size) < len(chosen)
        return rows.take(np.concatenate([chosen, np.zeros((~valid).sum(), np.intp)])), valid
