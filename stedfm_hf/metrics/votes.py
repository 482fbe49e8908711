"""How neighbours vote on the label of a query: each alike, by similarity, or as the reference protocol counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TEMPERATURE = 0.07
"""Of the weighted vote: that of DINO's nearest-neighbour evaluation (Caron et al. 2021)."""


@dataclass(frozen=True)
class Vote:
    """A way to vote.

    Args:
        k: neighbours that vote.
        temperature: None counts every vote alike; T weighs a vote by exp(similarity / T).

    Example:
        >>> [vote.name for vote in VOTES]
        ['1 neighbour', '5 neighbours', '20 neighbours', '20 neighbours, weighted (T = 0.07)']
    """

    k: int
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be 1 or more, not {self.k}")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"the temperature of a weighted vote must be above 0, not {self.temperature}")

    @property
    def name(self) -> str:
        """The vote in words."""
        words = f"{self.k} neighbour{'s' * (self.k > 1)}"
        return words if self.temperature is None else f"{words}, weighted (T = {self.temperature:g})"

    def decide(self, numbers: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """The class with the most votes; of several, that of the nearest neighbour among them.

        Args:
            numbers: class number of the neighbours of every query (m, n), the nearest first; the first k vote.
            similarity: their similarities (m, n); one of minus infinity does not vote.

        Returns:
            Class numbers (m,).

        Example:
            >>> neighbours, similarity = np.array([[2, 0, 0, 2]]), np.array([[0.9, 0.8, 0.7, 0.6]])
            >>> Vote(3).decide(neighbours, similarity).tolist(), Vote(4).decide(neighbours, similarity).tolist()
            ([0], [2])
        """
        numbers, weights = numbers[:, : self.k], self._weights(similarity)
        votes = _count(numbers, weights)
        # Of the neighbours whose class has most votes, argmax takes the first, hence nearest.
        first = np.take_along_axis(votes, numbers, axis=1).argmax(axis=1)
        return np.take_along_axis(numbers, first[:, None], axis=1)[:, 0]

    def _weights(self, similarity: np.ndarray) -> np.ndarray:
        similarity = similarity[:, : self.k]
        if self.temperature is None:
            return np.isfinite(similarity).astype(float)
        # Relative to the nearest: the vote is the same, and nothing overflows.
        nearest = similarity.max(axis=1, keepdims=True, initial=-np.finfo(float).max)
        return np.exp((similarity - nearest) / self.temperature)


VOTES = (Vote(1), Vote(5), Vote(20), Vote(20, TEMPERATURE))
"""Those that `stedfm evaluate knn` reports."""


def reference_decide(numbers: np.ndarray, k: int, *, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The vote of the reference protocol: of several classes with the most votes, the one with the lowest number.

    Returns:
        Class numbers (m,), and whether each counts (m,) bool; one that does not is wrong.

    Example:
        >>> numbers, counts = reference_decide(np.array([[2, 0, 0, 2], [3, 2, 1, 1]]), 4)
        >>> numbers.tolist(), counts.tolist(), reference_decide(np.array([[2, 1, 0]]), 3)[1].tolist()
        ([0, 1], [True, True], [False])
    """
    numbers = numbers[:, :k]
    votes = _count(numbers, np.ones(numbers.shape))
    return votes.argmax(axis=1), votes.max(axis=1) >= least


def _count(numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of the weights of the neighbours of each class, (m, classes)."""
    classes = int(numbers.max(initial=0)) + 1
    cells = (np.arange(len(numbers))[:, None] * classes + numbers).ravel()
    return np.bincount(cells, weights.ravel(), len(numbers) * classes).reshape(len(numbers), classes)
