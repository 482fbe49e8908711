"""Exact nearest neighbours by cosine similarity, in bounded memory, on a CPU or a GPU, and how they vote on a label.

A matrix product in single precision proposes candidates, chunk by chunk. Their similarities are computed anew in
double precision, and where rounding could have hidden a nearer row the search is repeated with more care. So what
comes back depends neither on the chunks nor on the device, and equal rows are equally near.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_ROWS = 16_384
"""Gallery rows at a time."""
_QUERIES = 1024
"""Queries at a time."""
_NUMBERS = 2**20
"""Numbers in double precision at a time."""
_SMALL = 1e-15
"""Shorter vectors, and longer ones than its inverse, are measured in double precision."""


@dataclass(frozen=True, eq=False)
class _Side:
    """Vectors (n, d), and the number of the source of each (n,), or None where nothing is left out."""

    vectors: np.ndarray
    sources: np.ndarray | None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: np.ndarray) -> _Side:
        return _Side(self.vectors[rows], None if self.sources is None else self.sources[rows])


def nearest(
    gallery: np.ndarray,
    query: np.ndarray,
    *,
    k: int,
    gallery_sources: Sequence[str] | np.ndarray | None = None,
    query_sources: Sequence[str] | np.ndarray | None = None,
    device: str | torch.device = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k most similar gallery vectors of every query by cosine similarity.

    Nothing is approximate, and the gallery is never copied as a whole: it may be a memory-mapped file. Similarities
    are those of double precision; a vector of zeros has similarity 0 to all. Vectors that hardly differ in direction
    cost a second pass in double precision, and a query with very many rows just as far as its last neighbour (blank
    crops, a collapsed network) one of its own.

    Args:
        gallery: vectors (n, d), floats of any precision or integers.
        query: vectors (m, d).
        k: neighbours wanted; at most n come back.
        gallery_sources: source image of each gallery row; with `query_sources`, rows of a query's own source are
            left out.
        query_sources: source image of each query row.
        device: where candidates are searched, "cpu" or "cuda"; the answer is the same.

    Returns:
        Row numbers in the gallery, int64, and similarities, float64, both (m, min(k, n)), most similar first; of equal
        similarities the lower row is first. A neighbour that had to be left out has similarity minus infinity.

    Raises:
        ValueError: k is below 1, only one of the sources is given, shapes do not fit, or a value is not finite.

    Example:
        >>> rows, similarity = nearest(np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]]), np.array([[3.0, 0.0]]), k=2)
        >>> rows.tolist(), similarity.tolist()
        ([[1, 2]], [[1.0, 1.0]])
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    if (gallery_sources is None) != (query_sources is None):
        raise ValueError("give gallery_sources and query_sources both, or neither")
    if gallery.ndim != 2 or query.ndim != 2 or gallery.shape[1] != query.shape[1] or not gallery.size:
        raise ValueError(f"a gallery {gallery.shape} and queries {query.shape} are not vectors of one length")
    known, asked = _sides(gallery, query, gallery_sources, query_sources)
    k = min(k, len(known))
    # More candidates than asked for: seldom are so many rows within rounding of the last neighbour.
    most = min(k + k // 2 + 8, len(known))
    rows, similarity = np.empty((len(asked), k), np.int64), np.empty((len(asked), k))
    left = np.arange(len(asked))
    for dtype in (torch.float32, torch.float64):
        if not len(left):
            break
        part = asked.take(left)
        candidates, screened = _screen(known, part, most, dtype, torch.device(device))
        exact = _similarity(known, part, candidates)
        order = np.lexsort((candidates, -exact), axis=-1)[:, :k]
        rows[left] = np.take_along_axis(candidates, order, axis=1)
        similarity[left] = np.take_along_axis(exact, order, axis=1)
        if most < len(known):
            left = left[_doubtful(screened, exact, similarity[left, -1], gallery.shape[1], dtype)]
        else:
            left = left[:0]
    for number in left:
        every = _every_similarity(known, asked.take(np.array([number])))
        rows[number] = np.argsort(-every, kind="stable")[:k]
        similarity[number] = every[rows[number]]
    return rows, similarity


def _sides(
    gallery: np.ndarray,
    query: np.ndarray,
    gallery_sources: Sequence[str] | np.ndarray | None,
    query_sources: Sequence[str] | np.ndarray | None,
) -> tuple[_Side, _Side]:
    if gallery_sources is None or query_sources is None:
        return _Side(gallery, None), _Side(query, None)
    if len(gallery_sources) != len(gallery) or len(query_sources) != len(query):
        raise ValueError("there must be one source for every vector")
    both = np.concatenate([np.asarray(gallery_sources), np.asarray(query_sources)])
    numbers = np.unique(both, return_inverse=True)[1]
    return _Side(gallery, numbers[: len(gallery)]), _Side(query, numbers[len(gallery) :])


def _screen(
    gallery: _Side, query: _Side, most: int, dtype: torch.dtype, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """The `most` gallery rows of each query with the highest similarities in a precision, unordered, and those."""
    # Not in the half precision of a training around us.
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        parts = [_unit(query.vectors[at : at + _QUERIES], dtype, device) for at in range(0, len(query), _QUERIES)]
        best: list[tuple[torch.Tensor, torch.Tensor]] = [
            (part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.int64, device=device))
            for part in parts
        ]
        for start in range(0, len(gallery), _ROWS):
            chunk = _unit(gallery.vectors[start : start + _ROWS], dtype, device)
            for number, part in enumerate(parts):
                similarity = part @ chunk.T
                if gallery.sources is not None and query.sources is not None:
                    theirs = torch.from_numpy(query.sources[number * _QUERIES :][: len(part)]).to(device)
                    ours = torch.from_numpy(gallery.sources[start : start + _ROWS]).to(device)
                    similarity.masked_fill_(theirs[:, None] == ours[None, :], -torch.inf)
                value, place = similarity.topk(min(most, len(chunk)), sorted=False)
                values = torch.cat([best[number][0], value], dim=1)
                rows = torch.cat([best[number][1], place + start], dim=1)
                value, place = values.topk(min(most, values.shape[1]), sorted=False)
                best[number] = value, rows.gather(1, place)
    values, rows = (torch.cat(column).cpu() for column in zip(*best, strict=True))
    return rows.numpy(), values.double().numpy()


def _unit(vectors: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Vectors divided by their lengths, as a tensor of a precision."""
    # A copy: read-only arrays are welcome, and the division is in place.
    values = torch.from_numpy(np.array(vectors, np.result_type(vectors, np.float32))).to(device)
    values = values.to(torch.promote_types(values.dtype, dtype))
    length = torch.linalg.vector_norm(values, dim=1)
    if not bool(((length > _SMALL) & (length < 1 / _SMALL)).all()):
        # The squares may be out of the range of single precision, or are those of a vector of zeros.
        values = values.double()
        length = torch.linalg.vector_norm(values, dim=1)
    if not bool(length.isfinite().all()):
        raise ValueError("vectors with values that are not finite have no neighbours; look at where they come from")
    length[length == 0] = 1.0
    return values.div_(length[:, None]).to(dtype)


def _similarity(gallery: _Side, query: _Side, rows: np.ndarray) -> np.ndarray:
    """Cosine similarities in double precision of every query and its gallery rows (m, c).

    Sums over each vector by itself, not a matrix product: there the place in the matrix can change the last digit.
    """
    similarity = np.empty(rows.shape)
    step = max(1, _NUMBERS // (rows.shape[1] * gallery.vectors.shape[1]))
    for at in range(0, len(rows), step):
        some = slice(at, at + step)
        theirs = query.vectors[some, None].astype(np.float64)
        ours = gallery.vectors[rows[some]].astype(np.float64)
        length = np.sqrt((theirs * theirs).sum(-1)) * np.sqrt((ours * ours).sum(-1))
        similarity[some] = (theirs * ours).sum(-1) / np.where(length == 0, 1.0, length)
        if gallery.sources is not None and query.sources is not None:
            similarity[some][gallery.sources[rows[some]] == query.sources[some, None]] = -np.inf
    return similarity


def _every_similarity(gallery: _Side, query: _Side) -> np.ndarray:
    """Those of one query and the whole gallery."""
    step = max(1, _NUMBERS // gallery.vectors.shape[1])
    places = [np.arange(at, min(at + step, len(gallery)))[None] for at in range(0, len(gallery), step)]
    return np.concatenate([_similarity(gallery, query, place)[0] for place in places])


def _doubtful(
    screened: np.ndarray, exact: np.ndarray, last: np.ndarray, length: int, dtype: torch.dtype
) -> np.ndarray:
    """Queries of which a row that is no candidate may be as near as the last neighbour found.

    The error of the product is at most their number of values times the unit roundoff, whatever the order of the sum,
    and that of dividing by both lengths as much again. Larger errors of the candidates tell of products in a lower
    precision (TF32), which prove nothing.
    """
    bound = 2 * (length + 8) * (torch.finfo(dtype).eps + np.finfo(np.float64).eps) / 2
    error = np.abs(np.subtract(screened, exact, out=np.zeros_like(exact), where=np.isfinite(exact))).max(axis=1)
    return ~((screened.min(axis=1) + bound < last) & (error <= bound))


TEMPERATURE = 0.07
"""Of the weighted vote: that of DINO's nearest-neighbour evaluation (Caron et al. 2021)."""


@dataclass(frozen=True)
class Vote:
    """A way to vote.

    Args:
        k: neighbours that vote.
        temperature: None counts every vote alike; T weighs a vote by exp(similarity / T).

    Example:
        >>> Vote(1).name, Vote(20, TEMPERATURE).name
        ('1 neighbour', '20 neighbours, weighted (T = 0.07)')
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
