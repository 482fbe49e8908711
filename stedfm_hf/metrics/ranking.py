"""Metrics of retrieval: how high a ranking by cosine similarity puts the relevant items of each query.

Items of equal similarity have no order. AUROC and average precision treat them as scikit-learn does; precision@k and
AP@k are expected values over all their orders. Metrics therefore never depend on the order of the items, and equal
similarities throughout are chance.

Source:
    McSherry and Najork, Computing information retrieval performance measures efficiently in the presence of tied
    scores, 2008 (expected values).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_NUMBERS = 2**20
"""Similarities in memory at once."""
_DECIMALS = 12
"""Decimals of a similarity; differences below are rounding errors, and the similarities are equal."""

Pairs = Callable[[np.ndarray], np.ndarray]
"""Function from the numbers of some queries (c,) to a property of their pairs with all items, (c, n) bool."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Metrics of the ranking of each query.

    Attributes:
        values: Metrics by name, (m,) each; NaN where undefined: "auroc" (area under the ROC curve, undefined if all
            items or none are relevant), "aupr" (average precision), and for each k "precision_at_k" and "map_at_k"
            (all undefined if no item is relevant).
        relevant: Number of relevant items of each query, (m,) int.
        candidates: Number of ranked items of each query, (m,) int.
    """

    values: dict[str, np.ndarray]
    relevant: np.ndarray
    candidates: np.ndarray


def metric_names(ks: Sequence[int]) -> list[str]:
    """Return the names of the metrics of `Ranking`, in the order of the tables.

    Args:
        ks: Numbers of best items. AP@1 is precision@1 and has no separate name.

    Example:
        >>> metric_names([1, 5])
        ['aupr', 'auroc', 'precision_at_1', 'precision_at_5', 'map_at_5']
    """
    return ["aupr", "auroc", *(f"precision_at_{k}" for k in ks), *(f"map_at_{k}" for k in ks if k > 1)]


def score_rankings(
    similarity: np.ndarray, relevant: np.ndarray, candidates: np.ndarray | None = None, *, ks: Sequence[int] = ()
) -> Ranking:
    """Score rankings by decreasing similarity.

    Args:
        similarity: Similarity of each query to each item (m, n), finite.
        relevant: Whether each item is relevant for each query (m, n) bool.
        candidates: Whether each item is ranked for each query (m, n) bool; None ranks all.
        ks: Numbers of best items. Precision@k is the fraction of relevant items among the first k, or among all if
            there are fewer. AP@k is the sum of the precision at each relevant item among the first k, divided by the
            largest possible number of them.

    Returns:
        Metrics of each query.

    Raises:
        ValueError: If shapes differ, a similarity is not finite, or a k is below 1.

    Example:
        >>> ranking = score_rankings(np.array([[0.9, 0.8, 0.1]]), np.array([[True, False, True]]), ks=[2])
        >>> {name: value.round(3).tolist() for name, value in ranking.values.items()}
        {'aupr': [0.833], 'auroc': [0.5], 'precision_at_2': [0.5], 'map_at_2': [0.5]}
    """
    if candidates is None:
        candidates = np.ones(np.shape(similarity), bool)
    if similarity.ndim != 2 or relevant.shape != similarity.shape or candidates.shape != similarity.shape:
        raise ValueError("similarity, relevant and candidates must have the same shape (m, n)")
    if not np.isfinite(similarity).all():
        raise ValueError("similarities must be finite numbers")
    if any(k < 1 for k in ks):
        raise ValueError(f"k must be 1 or more, not {min(ks)}")
    order = np.argsort(-similarity, axis=1)
    groups = _Groups.of(*(np.take_along_axis(each, order, axis=1) for each in (similarity, relevant, candidates)))
    values = {"aupr": groups.average_precision(), "auroc": groups.auroc()}
    values |= {f"precision_at_{k}": groups.precision(k) for k in ks}
    values |= {f"map_at_{k}": groups.average_precision_at(k) for k in ks if k > 1}
    return Ranking(values, groups.relevant, groups.candidates)


def retrieval_scores(
    queries: np.ndarray, items: np.ndarray, *, relevant: Pairs, candidates: Pairs, ks: Sequence[int] = ()
) -> Ranking:
    """Rank items by their cosine similarity to each query, and score the rankings, in bounded memory.

    An embedding of zeros has similarity 0 to all others.

    Args:
        queries: Embeddings of the queries (m, d).
        items: Embeddings of the items to rank (n, d).
        relevant: Function from the numbers of some queries to the items that are relevant for them.
        candidates: Function from the numbers of some queries to the items that are ranked for them: never the query.
        ks: Numbers of best items; see `score_rankings`.

    Returns:
        Metrics of each query.

    Raises:
        ValueError: If shapes do not match, a value is not finite, or a k is below 1.

    Example:
        >>> embeddings, labels = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), np.array([0, 0, 1, 1])
        >>> same = lambda numbers: labels[numbers][:, None] == labels
        >>> others = lambda numbers: numbers[:, None] != np.arange(4)
        >>> retrieval_scores(embeddings, embeddings, relevant=same, candidates=others).values["aupr"].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if (
        queries.ndim != 2
        or items.ndim != 2
        or queries.shape[1] != items.shape[1]
        or not queries.size
        or not len(items)
    ):
        raise ValueError(
            f"queries (m, d) and items (n, d) must have the same d, not {queries.shape} and {items.shape}"
        )
    unit_items, step = _unit(items), max(1, _NUMBERS // len(items))
    parts = []
    for start in range(0, len(queries), step):
        numbers = np.arange(start, min(start + step, len(queries)))
        similarity = np.round(_unit(queries[numbers]) @ unit_items.T, _DECIMALS)
        allowed = candidates(numbers)
        parts.append(score_rankings(similarity, relevant(numbers) & allowed, allowed, ks=ks))
    return Ranking(
        {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        np.concatenate([part.relevant for part in parts]),
        np.concatenate([part.candidates for part in parts]),
    )


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Return embeddings divided by their norms, in double precision."""
    values = np.asarray(embeddings, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("embeddings contain values that are not finite; check the weights of the model")
    # Divided by the largest value first, so that squares stay in range.
    values = values / np.maximum(np.abs(values).max(axis=1, keepdims=True), np.finfo(float).tiny)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norm > 0, norm, 1.0)


@dataclass(frozen=True, eq=False)
class _Groups:
    """Sorted rankings (m, n) whose items of equal similarity form groups.

    Each array has an entry for each item. Items that are not candidates have a position but no weight.

    Attributes:
        hit: Whether the item is relevant, and a candidate.
        ranked: Number of candidates up to this item.
        hits_to_end, ranked_to_end: Numbers of hits and candidates up to the end of the item's group.
        hits_before, ranked_before: Numbers of hits and candidates before the item's group.
    """

    hit: np.ndarray
    ranked: np.ndarray
    hits_to_end: np.ndarray
    ranked_to_end: np.ndarray
    hits_before: np.ndarray
    ranked_before: np.ndarray

    @classmethod
    def of(cls, similarity: np.ndarray, relevant: np.ndarray, candidates: np.ndarray) -> _Groups:
        """Find the groups of sorted rankings."""
        hit = relevant & candidates
        hits, ranked = np.cumsum(hit, axis=1, dtype=np.int64), np.cumsum(candidates, axis=1, dtype=np.int64)
        length = similarity.shape[1]
        new = similarity[:, 1:] != similarity[:, :-1]
        edge = np.ones((len(similarity), 1), bool)
        first = np.where(np.concatenate([edge, new], axis=1), np.arange(length), 0)
        first = np.maximum.accumulate(first, axis=1)
        last = np.where(np.concatenate([new, edge], axis=1), np.arange(length), length)
        last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
        before = [
            np.where(first > 0, np.take_along_axis(each, np.maximum(first - 1, 0), 1), 0) for each in (hits, ranked)
        ]
        to_end = [np.take_along_axis(each, last, axis=1) for each in (hits, ranked)]
        return cls(hit, ranked, *to_end, *before)

    @property
    def relevant(self) -> np.ndarray:
        """Number of relevant candidates of each query (m,)."""
        return self.hit.sum(axis=1)

    @property
    def candidates(self) -> np.ndarray:
        """Number of candidates of each query (m,)."""
        return self.ranked[:, -1]

    def average_precision(self) -> np.ndarray:
        """Return the average precision, with one threshold for each similarity that occurs."""
        precision = self.hits_to_end / np.maximum(self.ranked_to_end, 1)
        return _divide((self.hit * precision).sum(axis=1), self.relevant)

    def auroc(self) -> np.ndarray:
        """Return the fraction of the pairs of a hit and another candidate in the right order; ties count one half."""
        others = self.candidates - self.relevant
        above = (self.ranked_before - self.hits_before) + (self.ranked_to_end - self.hits_to_end)
        right = (self.hit * (others[:, None] - above / 2)).sum(axis=1)
        return _divide(right, self.relevant * others)

    def precision(self, k: int) -> np.ndarray:
        """Return the expected fraction of hits among the first k candidates, or all if there are fewer."""
        count = np.minimum(k, self.candidates)
        at = self._position(count)
        before, hits = self._at(self.ranked_before, at), self._at(self.hits_before, at)
        inside = self._at(self.hits_to_end, at) - hits
        size = np.maximum(self._at(self.ranked_to_end, at) - before, 1)
        found = hits + (count - before) * inside / size
        return np.where(self.relevant > 0, _divide(found, count), np.nan)

    def average_precision_at(self, k: int) -> np.ndarray:
        """Return the expected sum of the precision at each hit among the first k, divided by its largest value."""
        total = np.zeros(len(self.hit))
        for rank in range(1, min(k, int(self.candidates.max(initial=0))) + 1):
            at = self._position(np.minimum(rank, self.candidates))
            before, hits = self._at(self.ranked_before, at), self._at(self.hits_before, at)
            inside = self._at(self.hits_to_end, at) - hits
            size = np.maximum(self._at(self.ranked_to_end, at) - before, 1)
            # The item at this rank is a hit in inside / size of the orders of its group. Then, the other hits of the
            # group are equally likely to be at each of its other ranks.
            earlier = (rank - 1 - before) * (inside - 1) / np.maximum(size - 1, 1)
            total += (rank <= self.candidates) * inside / size * (hits + 1 + earlier) / rank
        return _divide(total, np.minimum(k, self.relevant))

    def _position(self, count: np.ndarray) -> np.ndarray:
        """Return the position (m,) at which the number of candidates reaches a count (m,)."""
        return np.argmax(self.ranked >= count[:, None], axis=1)

    @staticmethod
    def _at(values: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Return the value (m,) at one position of each ranking."""
        return np.take_along_axis(values, position[:, None], axis=1)[:, 0]


def _divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Divide, with NaN where the count is 0."""
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
