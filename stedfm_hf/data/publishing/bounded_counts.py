"""Counts of many values in bounded memory: different names, and quantiles of fractions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

_RECENT = 2**16
_BINS = 1_000_000
_EXAMPLES = 5


class DistinctNames:
    """Number of different names, of which only hashes are in memory: 8 bytes for each.

    With 64 bits, two of 10 million names share a hash with a probability of 3 in a million.

    Example:
        >>> names = DistinctNames()
        >>> names.add(["a", "b"]), names.add(["b", "c"]), len(names)
        (['a', 'b'], ['c'], 3)
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def add(self, names: Iterable[str]) -> list[str]:
        """Add names, and return those that are new."""
        new = {_hash(name): name for name in names}
        for key in self._present(list(new)):
            del new[key]
        self._recent |= new.keys()
        if len(self._recent) > _RECENT:
            self._sorted, self._recent = self._all(), set()
        return list(new.values())

    def shared(self, names: Sequence[str]) -> list[str]:
        """Return the names that were added before."""
        present = set(self._present([_hash(name) for name in names]))
        return [name for name in names if _hash(name) in present]

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    @staticmethod
    def count_all(counts: Iterable[DistinctNames]) -> int:
        """Return the number of names that are in any of several counts."""
        every = [each._all() for each in counts]
        return len(np.unique(np.concatenate(every))) if every else 0

    def _present(self, keys: list[int]) -> list[int]:
        hashes = np.array(keys, np.uint64)
        if not len(self._sorted):
            return [key for key in keys if key in self._recent]
        found = self._sorted[np.searchsorted(self._sorted, hashes).clip(max=len(self._sorted) - 1)] == hashes
        return [key for key, old in zip(keys, found, strict=True) if old or key in self._recent]

    def _all(self) -> np.ndarray:
        return np.union1d(self._sorted, np.fromiter(self._recent, np.uint64, len(self._recent)))


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


class SourceCounts:
    """Number of source images of each split, and of those in several splits.

    Example:
        >>> sources = SourceCounts()
        >>> sources.add("train", ["a", "b"])
        >>> sources.add("test", ["b", "c"])
        >>> sources.count("train"), sources.to_json()
        (2, {'total': 3, 'shared_between_splits': 1, 'examples': ['b']})
    """

    def __init__(self) -> None:
        self._names: defaultdict[str, DistinctNames] = defaultdict(DistinctNames)
        self._shared, self._examples = DistinctNames(), list[str]()

    def add(self, split: str, sources: Iterable[str]) -> None:
        """Add ids of source images of a split."""
        new = self._names[split].add(sources)
        for other, names in self._names.items():
            if other != split and (shared := self._shared.add(names.shared(new))):
                self._examples = sorted([*self._examples, *shared])[:_EXAMPLES]

    def count(self, split: str) -> int:
        """Return the number of source images of a split."""
        return len(self._names[split]) if split in self._names else 0

    def to_json(self) -> dict[str, Any]:
        """Return the total, the number of those in several splits, and the first of these."""
        return {
            "total": DistinctNames.count_all(self._names.values()),
            "shared_between_splits": len(self._shared),
            "examples": self._examples,
        }


class FractionCounts:
    """Number of fractions from 0 to 1, in steps of a millionth.

    Example:
        >>> counts = FractionCounts()
        >>> counts.add(np.array([0.0, 0.25, 1.0]))
        >>> counts.quantiles([0.5, 1.0])
        [0.25, 1.0]
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS + 1, np.int64)

    def add(self, fractions: np.ndarray) -> None:
        """Add fractions (n,)."""
        bins = np.rint(np.clip(fractions.astype(np.float64), 0.0, 1.0) * _BINS).astype(np.intp)
        np.add.at(self._counts, bins, 1)

    def quantiles(self, levels: Sequence[float]) -> list[float]:
        """Return quantiles, interpolated between neighbouring values; [] without values."""
        ends = np.cumsum(self._counts)
        if not ends[-1]:
            return []
        positions = np.array(levels) * (ends[-1] - 1)
        below, above = (np.searchsorted(ends, each(positions), side="right") / _BINS for each in (np.floor, np.ceil))
        return (below + (positions % 1) * (above - below)).tolist()

    def record(self) -> dict[str, int]:
        """Return the counts of the steps that occur, as plain data."""
        return {str(step): int(self._counts[step]) for step in np.flatnonzero(self._counts)}

    def merge(self, record: Mapping[str, int]) -> None:
        """Add the counts of a record."""
        for step, count in record.items():
            self._counts[int(step)] += count
