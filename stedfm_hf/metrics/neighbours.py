"""Exact nearest neighbours by cosine similarity in bounded memory, and classification by their votes.

A matrix product in single precision selects candidates, chunk by chunk. Their similarities are then recomputed in
double precision, and the search is repeated in double precision where rounding could have hidden a nearer row. The
result therefore depends neither on the chunk size nor on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_ROWS = 16_384
"""Gallery rows in one chunk."""
_QUERIES = 1024
"""Queries in one chunk."""
_NUMBERS = 2**20
"""Double-precision numbers in memory at once."""
_SMALL = 1e-15
"""Embeddings with a norm below this value, or above its inverse, are normalised in double precision."""


@dataclass(frozen=True, eq=False)
class _Embeddings:
    """Embeddings (n, d), and the source number of each (n,), or None if no sources are excluded."""

    embeddings: np.ndarray
    sources: np.ndarray | None

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: np.ndarray) -> _Embeddings:
        """Return some of the embeddings."""
        return _Embeddings(self.embeddings[rows], None if self.sources is None else self.sources[rows])


def nearest(
    gallery: np.ndarray,
    query: np.ndarray,
    *,
    k: int,
    gallery_sources: Sequence[str] | np.ndarray | None = None,
    query_sources: Sequence[str] | np.ndarray | None = None,
    device: str | torch.device = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k gallery embeddings with the highest cosine similarity to each query.

    The search is exact. The gallery is never copied as a whole and may be a memory-mapped file. Similarities are
    computed in double precision; an embedding of zeros has similarity 0 to all others. Embeddings with nearly the same
    direction need a second pass in double precision, and queries with very many equally similar rows (blank crops, a
    collapsed network) a third pass.

    Args:
        gallery: Gallery embeddings (n, d), float or int.
        query: Query embeddings (m, d).
        k: Number of neighbours.
        gallery_sources: Source image of each gallery row (n,). With `query_sources`, gallery rows of the query's
            source image are excluded.
        query_sources: Source image of each query row (m,).
        device: Device of the candidate search, such as "cpu" or "cuda". The result does not depend on it.

    Returns:
        Gallery rows (m, min(k, n)) int64 and their similarities (m, min(k, n)) float64, by decreasing similarity. Ties
        are in the order of gallery rows. Excluded rows come last, with similarity minus infinity.

    Raises:
        ValueError: If k is below 1, only one of the sources is given, shapes do not match, or a value is not finite.

    Example:
        >>> rows, similarity = nearest(np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]]), np.array([[3.0, 0.0]]), k=2)
        >>> rows.tolist(), similarity.tolist()
        ([[1, 2]], [[1.0, 1.0]])
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    if (gallery_sources is None) != (query_sources is None):
        raise ValueError("give both gallery_sources and query_sources, or neither")
    if gallery.ndim != 2 or query.ndim != 2 or gallery.shape[1] != query.shape[1] or not gallery.size:
        raise ValueError(
            f"gallery (n, d) and query (m, d) must have the same d, not {gallery.shape} and {query.shape}"
        )
    indexed_gallery, queries = _with_sources(gallery, query, gallery_sources, query_sources)
    k = min(k, len(indexed_gallery))
    # More candidates than k: rarely are so many rows within rounding of the last neighbour.
    candidate_count = min(k + k // 2 + 8, len(indexed_gallery))
    rows, similarity = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    remaining = np.arange(len(queries))
    for dtype in (torch.float32, torch.float64):
        if not len(remaining):
            break
        remaining_queries = queries.take(remaining)
        candidates, screened = _screen(
            indexed_gallery, remaining_queries, candidate_count, dtype, torch.device(device)
        )
        exact = _similarity(indexed_gallery, remaining_queries, candidates)
        order = np.lexsort((candidates, -exact), axis=-1)[:, :k]
        rows[remaining] = np.take_along_axis(candidates, order, axis=1)
        similarity[remaining] = np.take_along_axis(exact, order, axis=1)
        if candidate_count < len(indexed_gallery):
            uncertain = _uncertain(screened, exact, similarity[remaining, -1], gallery.shape[1], dtype)
            remaining = remaining[uncertain]
        else:
            remaining = remaining[:0]
    for number in remaining:
        to_all = _similarity_to_all(indexed_gallery, queries.take(np.array([number])))
        rows[number] = np.argsort(-to_all, kind="stable")[:k]
        similarity[number] = to_all[rows[number]]
    return rows, similarity


def _with_sources(
    gallery: np.ndarray,
    query: np.ndarray,
    gallery_sources: Sequence[str] | np.ndarray | None,
    query_sources: Sequence[str] | np.ndarray | None,
) -> tuple[_Embeddings, _Embeddings]:
    """Convert the sources of gallery and query to numbers."""
    if gallery_sources is None or query_sources is None:
        return _Embeddings(gallery, None), _Embeddings(query, None)
    if len(gallery_sources) != len(gallery) or len(query_sources) != len(query):
        raise ValueError("give one source for each embedding")
    both = np.concatenate([np.asarray(gallery_sources), np.asarray(query_sources)])
    numbers = np.unique(both, return_inverse=True)[1]
    return _Embeddings(gallery, numbers[: len(gallery)]), _Embeddings(query, numbers[len(gallery) :])


def _screen(
    gallery: _Embeddings, query: _Embeddings, candidate_count: int, dtype: torch.dtype, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gallery rows with the highest similarities in a given precision, unordered, and the similarities."""
    # Autocast of a surrounding training must not lower the precision.
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        parts = [_unit(query.embeddings[at : at + _QUERIES], dtype, device) for at in range(0, len(query), _QUERIES)]
        best: list[tuple[torch.Tensor, torch.Tensor]] = [
            (part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.int64, device=device))
            for part in parts
        ]
        for start in range(0, len(gallery), _ROWS):
            chunk = _unit(gallery.embeddings[start : start + _ROWS], dtype, device)
            for number, part in enumerate(parts):
                similarity = part @ chunk.T
                if gallery.sources is not None and query.sources is not None:
                    query_sources = torch.from_numpy(query.sources[number * _QUERIES :][: len(part)]).to(device)
                    gallery_sources = torch.from_numpy(gallery.sources[start : start + _ROWS]).to(device)
                    similarity.masked_fill_(query_sources[:, None] == gallery_sources[None, :], -torch.inf)
                value, index = similarity.topk(min(candidate_count, len(chunk)), sorted=False)
                values = torch.cat([best[number][0], value], dim=1)
                rows = torch.cat([best[number][1], index + start], dim=1)
                value, index = values.topk(min(candidate_count, values.shape[1]), sorted=False)
                best[number] = value, rows.gather(1, index)
    values, rows = (torch.cat(column).cpu() for column in zip(*best, strict=True))
    return rows.numpy(), values.double().numpy()


def _unit(embeddings: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return embeddings divided by their norms, as a tensor of a given precision."""
    # A copy: the array may be read-only, and the division is in place.
    values = torch.from_numpy(np.array(embeddings, np.result_type(embeddings, np.float32))).to(device)
    values = values.to(torch.promote_types(values.dtype, dtype))
    norm = torch.linalg.vector_norm(values, dim=1)
    if not bool(((norm > _SMALL) & (norm < 1 / _SMALL)).all()):
        # Squares outside the range of single precision, or an embedding of zeros.
        values = values.double()
        norm = torch.linalg.vector_norm(values, dim=1)
    if not bool(norm.isfinite().all()):
        raise ValueError("embeddings contain values that are not finite; check the weights of the model")
    norm[norm == 0] = 1.0
    return values.div_(norm[:, None]).to(dtype)


def _similarity(gallery: _Embeddings, query: _Embeddings, rows: np.ndarray) -> np.ndarray:
    """Compute the cosine similarity of each query to its gallery rows (m, c), in double precision.

    Each pair is summed separately: in a matrix product, the last digit can depend on the position in the matrix.
    """
    similarity = np.empty(rows.shape)
    step = max(1, _NUMBERS // (rows.shape[1] * gallery.embeddings.shape[1]))
    for at in range(0, len(rows), step):
        chunk = slice(at, at + step)
        left = query.embeddings[chunk, None].astype(np.float64)
        right = gallery.embeddings[rows[chunk]].astype(np.float64)
        norms = np.sqrt((left * left).sum(-1)) * np.sqrt((right * right).sum(-1))
        similarity[chunk] = (left * right).sum(-1) / np.where(norms == 0, 1.0, norms)
        if gallery.sources is not None and query.sources is not None:
            similarity[chunk][gallery.sources[rows[chunk]] == query.sources[chunk, None]] = -np.inf
    return similarity


def _similarity_to_all(gallery: _Embeddings, query: _Embeddings) -> np.ndarray:
    """Return the similarities of one query to the whole gallery."""
    step = max(1, _NUMBERS // gallery.embeddings.shape[1])
    chunks = [np.arange(at, min(at + step, len(gallery)))[None] for at in range(0, len(gallery), step)]
    return np.concatenate([_similarity(gallery, query, rows)[0] for rows in chunks])


def _uncertain(
    screened: np.ndarray, exact: np.ndarray, last: np.ndarray, dimension: int, dtype: torch.dtype
) -> np.ndarray:
    """Return whether a row that is not a candidate may be as near as the last neighbour, for each query.

    The rounding error of the product is at most the dimension times the unit roundoff, for any order of the sum;
    the division by both norms adds as much. Larger errors of the candidates indicate products in a lower precision
    (TF32), for which the bound does not hold.
    """
    bound = 2 * (dimension + 8) * (torch.finfo(dtype).eps + np.finfo(np.float64).eps) / 2
    error = np.abs(np.subtract(screened, exact, out=np.zeros_like(exact), where=np.isfinite(exact))).max(axis=1)
    return ~((screened.min(axis=1) + bound < last) & (error <= bound))


TEMPERATURE = 0.07
"""Temperature of the weighted vote in the k-NN evaluation of DINO (Caron et al., 2021)."""


@dataclass(frozen=True)
class KnnVote:
    """Classification by a majority vote of the k nearest neighbours.

    Attributes:
        k: Number of neighbours that vote.
        temperature: Temperature T of votes weighted by exp(similarity / T); None gives all votes equal weight.

    Raises:
        ValueError: If `k` is below 1 or `temperature` is not above 0.

    Example:
        >>> KnnVote(1).name, KnnVote(20, TEMPERATURE).name
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
        """Description of the vote, used as the setting of a run."""
        words = f"{self.k} neighbour{'s' * (self.k > 1)}"
        return words if self.temperature is None else f"{words}, weighted (T = {self.temperature:g})"

    def predict(self, numbers: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Predict the class with the most votes; ties go to the class of the nearest neighbour.

        Args:
            numbers: Class number of the neighbours of each query (m, n) int, nearest first. The first k vote.
            similarity: Similarity of the neighbours (m, n). Neighbours with similarity minus infinity do not vote.

        Returns:
            Predicted class numbers (m,) int.

        Example:
            >>> neighbours, similarity = np.array([[2, 0, 0, 2]]), np.array([[0.9, 0.8, 0.7, 0.6]])
            >>> [KnnVote(k).predict(neighbours, similarity).item() for k in (3, 4)]
            [0, 2]
        """
        numbers, weights = numbers[:, : self.k], self._weights(similarity)
        votes = _count(numbers, weights)
        # argmax takes the first, that is the nearest, of the neighbours whose class has the most votes.
        first = np.take_along_axis(votes, numbers, axis=1).argmax(axis=1)
        return np.take_along_axis(numbers, first[:, None], axis=1)[:, 0]

    def _weights(self, similarity: np.ndarray) -> np.ndarray:
        """Return the weight of each vote (m, k)."""
        similarity = similarity[:, : self.k]
        if self.temperature is None:
            return np.isfinite(similarity).astype(float)
        # Relative to the nearest neighbour: the same prediction without overflow.
        nearest = similarity.max(axis=1, keepdims=True, initial=-np.finfo(float).max)
        return np.exp((similarity - nearest) / self.temperature)


def reference_predict(numbers: np.ndarray, k: int, *, min_votes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Predict the class with the most votes as in the reference protocol; ties go to the lowest class number.

    Args:
        numbers: Class number of the neighbours of each query (m, n) int, nearest first. The first k vote.
        k: Number of neighbours that vote.
        min_votes: Number of votes that a prediction needs.

    Returns:
        Predicted class numbers (m,) int, and whether each has enough votes (m,) bool. The reference protocol counts
        predictions with too few votes as wrong.

    Example:
        >>> numbers, valid = reference_predict(np.array([[2, 0, 0, 2], [3, 2, 1, 1]]), 4)
        >>> numbers.tolist(), valid.tolist(), reference_predict(np.array([[2, 1, 0]]), 3)[1].tolist()
        ([0, 1], [True, True], [False])
    """
    numbers = numbers[:, :k]
    votes = _count(numbers, np.ones(numbers.shape))
    return votes.argmax(axis=1), votes.max(axis=1) >= min_votes


def _count(numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sum of the weights of each class (m, classes)."""
    classes = int(numbers.max(initial=0)) + 1
    cells = (np.arange(len(numbers))[:, None] * classes + numbers).ravel()
    return np.bincount(cells, weights.ravel(), len(numbers) * classes).reshape(len(numbers), classes)
