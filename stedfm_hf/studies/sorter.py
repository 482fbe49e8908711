"""Sorting by people: which two images to compare next, until the order of all is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from stedfm_hf.runs.errors import UserError

Pair = tuple[str, str]


class PairwiseSorter:
    """Rank items by comparisons of two, with about n log2 n of them.

    Runs of sorted items are merged in turn, two at a time, so that all items are compared about equally often,
    regardless of the answers. The state is the first order and the answers, so that it can be saved, resumed and
    undone at any point. Contradictory answers cannot occur: no pair is asked whose order is known.

    Attributes:
        items: Items in their first order.
        answers: Winner of each comparison so far.
        pair: Two items to compare next, or None when the order is known.

    Args:
        items: Items in a random order.
        answers: Winners of earlier comparisons, to resume.

    Raises:
        UserError: If there are fewer than two items, an item occurs twice, or an answer does not fit.

    Source:
        Golin and Sedgewick, Queue-mergesort, 1993: never more comparisons than any other merge sort.

    Example:
        >>> sorter = PairwiseSorter(["b", "c", "a"])
        >>> while sorter.pair is not None:
        ...     sorter.answer(min(sorter.pair))
        >>> sorter.ranking, sorter.answers
        (('a', 'b', 'c'), ['b', 'a'])
    """

    answers: list[str]
    pair: Pair | None
    _ranking: tuple[str, ...] | None
    _steps: Generator[Pair, str, list[str]]

    def __init__(self, items: Sequence[str], answers: Sequence[str] = ()) -> None:
        if len(items) < 2 or len(set(items)) < len(items):
            raise UserError("a ranking needs at least two items with different names")
        self.items = tuple(items)
        self._restart()
        for winner in answers:
            self.answer(winner)

    @property
    def ranking(self) -> tuple[str, ...] | None:
        """Items from the most to the least preferred, or None before the order is known."""
        return self._ranking

    @property
    def progress(self) -> float:
        """Fraction of the comparisons that are answered; an estimate from below until the end."""
        return 1.0 if self.pair is None else len(self.answers) / most_comparisons(len(self.items))

    def answer(self, winner: str) -> None:
        """Record the preferred item of the current pair, and move on to the next pair.

        Args:
            winner: One of `pair`.

        Raises:
            UserError: If the order is already known, or the item is not in the pair.
        """
        if self.pair is None:
            raise UserError(f"answer {winner!r}: all comparisons are done")
        if winner not in self.pair:
            raise UserError(f"answer {winner!r} is not in the pair {self.pair[0]!r}, {self.pair[1]!r}")
        self.answers.append(winner)
        try:
            self.pair = self._steps.send(winner)
        except StopIteration as end:
            self.pair, self._ranking = None, tuple(end.value)

    def undo(self) -> str | None:
        """Take the last answer back, and return it; None if there is none."""
        if not self.answers:
            return None
        *kept, last = self.answers
        self._restart()
        for winner in kept:
            self.answer(winner)
        return last

    def to_json(self) -> dict[str, list[str]]:
        """Return the state as plain data."""
        return {"items": list(self.items), "answers": list(self.answers)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> PairwiseSorter:
        """Restore a sorter from `to_json`."""
        return cls(state["items"], state["answers"])

    def _restart(self) -> None:
        self.answers = []
        self._ranking = None
        self._steps = _merges(self.items)
        self.pair = next(self._steps)


def most_comparisons(n: int) -> int:
    """Return the largest number of comparisons that the ranking of n items can need.

    Example:
        >>> most_comparisons(50), most_comparisons(8)
        (237, 17)
    """
    levels = (n - 1).bit_length()
    return n * levels - 2**levels + 1


def _merges(items: Sequence[str]) -> Generator[Pair, str, list[str]]:
    """Yield pairs, receive winners, and return the sorted items."""
    runs = deque([item] for item in items)
    while len(runs) > 1:
        first, second = deque(runs.popleft()), deque(runs.popleft())
        merged = []
        while first and second:
            winner = yield first[0], second[0]
            merged.append((first if winner == first[0] else second).popleft())
        runs.append([*merged, *first, *second])
    return runs[0]
