"""Numbers of the row groups of a split, which count through all shards.

A data set of 100 million crops has 6 million row groups, so that nothing here holds an object for each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from stedfm_hf.data.repository.shards import Shard


class RowGroups:
    """Row groups of the shards of a split.

    Args:
        shards: Shards of the split, in their order.

    Attributes:
        first_group: Number of the first row group of each shard, and of all row groups, (shards + 1,).
        first_row: Number of the first row of each shard, and of all rows, (shards + 1,).

    Example:
        >>> groups = RowGroups([Shard("a", (3, 2)), Shard("b", (4,))])
        >>> groups.shard_of(np.array([0, 1, 2])), groups.rows(np.array([1, 2])), groups.first_row
        (array([0, 0, 1]), array([2, 4]), array([0, 5, 9]))
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self.first_group = _starts(len(shard.row_groups) for shard in shards)
        self.first_row = _starts(shard.rows for shard in shards)

    def of_shards(self, shards: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the numbers of all row groups of some shards, their numbers of rows, and their first rows.

        Args:
            shards: Numbers of the shards, (n,).
        """
        parts = [np.array(self._shards[number].row_groups, np.int64) for number in shards]
        groups = [np.arange(*self.first_group[number : number + 2]) for number in shards]
        first = [self.first_row[number] + np.cumsum(part) - part for number, part in zip(shards, parts, strict=True)]
        return np.concatenate(groups), np.concatenate(parts), np.concatenate(first)

    def shard_of(self, groups: np.ndarray) -> np.ndarray:
        """Return the number of the shard of each row group."""
        return np.searchsorted(self.first_group, groups, side="right") - 1

    def rows(self, groups: np.ndarray) -> np.ndarray:
        """Return the number of rows of each row group."""
        shards = self.shard_of(groups)
        numbers = groups - self.first_group[shards]
        rows = (self._shards[shard].row_groups[number] for shard, number in zip(shards, numbers, strict=True))
        return np.fromiter(rows, np.int64, len(groups))


def _starts(lengths: Iterable[int]) -> np.ndarray:
    """Return the sum of the lengths before each item, and of all lengths."""
    return np.append(0, np.cumsum(np.fromiter(lengths, np.int64)))
