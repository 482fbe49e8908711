"""Standardised embeddings of an index: searched by matrix products with the stored ones, which are never copied.

The standardised embedding of x is z = (x - mean) / scale. Its cosine with a query q of unit length is
(x · (q / scale) - mean · (q / scale)) / |z|. With |z| computed once, a search reads the stored values once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

CHUNK = 16_384
"""Rows that are converted and multiplied at once."""
STATISTICS_ROWS = 200_000
"""Rows from which mean and standard deviation are computed: all up to this number, above it evenly spaced ones."""
CORRELATION_ROWS = 20_000
"""Rows from which correlations are computed, chosen in the same way; fewer, because a search for places waits."""
SHRINKAGE = 0.03
"""Weight of the identity in the correlations, which keeps directions of little variance from dominating."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of several arrays (n, D), one after another.

    Attributes:
        arrays: Arrays, usually memory-mapped.
        dim: Number of columns.
    """

    arrays: Sequence[np.ndarray]
    dim: int

    def __len__(self) -> int:
        return sum(map(len, self.arrays))

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of the first row and the rows of every chunk."""
        first = 0
        for array in self.arrays:
            for at in range(0, len(array), CHUNK):
                yield first + at, array[at : at + CHUNK]
            first += len(array)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return rows (k, D) float32, in the given order."""
        numbers = np.asarray(numbers)
        found = np.empty((len(numbers), self.dim), np.float32)
        first = 0
        for array in self.arrays:
            inside = np.flatnonzero((numbers >= first) & (numbers < first + len(array)))
            # In the order of the file, which is faster where it is not in memory.
            order = inside[np.argsort(numbers[inside], kind="stable")]
            found[order] = array[numbers[order] - first]
            first += len(array)
        return found


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Mean and standard deviation of the embeddings of an index.

    Attributes:
        mean: Mean (D,) float64.
        scale: Standard deviation (D,) float64; 1 for constant features.
    """

    mean: np.ndarray
    scale: np.ndarray

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Standardise embeddings (n, D); float64."""
        return (np.asarray(embeddings, np.float64) - self.mean) / self.scale

    def unit(self, embeddings: np.ndarray) -> np.ndarray:
        """Standardise embeddings (n, D) and divide each by its norm; an embedding at the mean stays zero."""
        z = self(embeddings)
        norms = np.linalg.norm(z, axis=1, keepdims=True)
        return z / np.where(norms == 0, 1.0, norms)


def fit_standardiser(rows: Rows, kept: np.ndarray) -> Standardiser:
    """Compute mean and standard deviation of rows.

    Args:
        rows: All rows.
        kept: Numbers of the rows that count.
    """
    if not len(kept):
        return Standardiser(np.zeros(rows.dim), np.ones(rows.dim))
    some = kept[np.linspace(0, len(kept) - 1, min(len(kept), STATISTICS_ROWS)).astype(np.int64)]
    count, total, squares = 0, np.zeros(rows.dim), np.zeros(rows.dim)
    shift = rows.take(some[:1]).astype(np.float64)  # keeps the difference of squares accurate
    for at in range(0, len(some), CHUNK):
        values = rows.take(some[at : at + CHUNK]).astype(np.float64) - shift
        count += len(values)
        total += values.sum(axis=0)
        squares += (values * values).sum(axis=0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0))
    return Standardiser(shift[0] + mean, np.where(deviation == 0, 1.0, deviation))


def fit_whitening(rows: Rows, standardiser: Standardiser, kept: np.ndarray) -> np.ndarray:
    """Compute the matrix that removes the correlations between standardised rows.

    It is the inverse square root of the matrix of correlations, shrunk towards the identity. The cosine of two
    embeddings that are multiplied with it is that of linear discriminant analysis with one example: directions that
    vary most over all rows, such as brightness, count less.

    Args:
        rows: All rows.
        standardiser: Mean and standard deviation.
        kept: Numbers of the rows that count.

    Returns:
        Symmetric matrix (D, D) float32.

    Example:
        >>> values = np.array([[1.0, 1.0], [-1.0, -1.0], [2.0, 2.0], [-2.0, -2.0]])
        >>> fit_whitening(Rows([values], 2), Standardiser(np.zeros(2), values.std(axis=0)), np.arange(4)).round(2)
        array([[ 3.24, -2.53],
               [-2.53,  3.24]], dtype=float32)
    """
    some = kept[np.linspace(0, len(kept) - 1, min(len(kept), CORRELATION_ROWS)).astype(np.int64)]
    z = standardiser(rows.take(some))
    correlations = (1 - SHRINKAGE) * (z.T @ z) / max(len(some), 1) + SHRINKAGE * np.eye(rows.dim)
    values, axes = np.linalg.eigh(correlations)
    return ((axes / np.sqrt(values)) @ axes.T).astype(np.float32)


def norms_of(rows: Rows, standardiser: Standardiser) -> np.ndarray:
    """Compute the norm of every standardised row, (n,) float32; 1 where it is 0, so that its similarity is 0."""
    norms = np.empty(len(rows), np.float32)
    mean, scale = torch.from_numpy(standardiser.mean).float(), torch.from_numpy(standardiser.scale).float()
    for first, chunk in rows.chunks():
        z = (_to_float32(chunk) - mean) / scale
        norms[first : first + len(chunk)] = torch.linalg.vector_norm(z, dim=1).numpy()
    norms[norms == 0] = 1.0
    return norms


def screen(
    rows: Rows,
    standardiser: Standardiser,
    norms: np.ndarray,
    queries: np.ndarray,
    k: int,
    excluded: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows with the highest cosine similarity in single precision.

    Args:
        rows: All rows.
        standardiser: Mean and standard deviation.
        norms: Norms of the standardised rows.
        queries: Unit queries (m, D) in the standardised space.
        k: Number of rows.
        excluded: Whether each row is excluded (n,) bool, or None.

    Returns:
        Rows (m, k) int64 and similarities (m, k) float32, unordered; excluded rows have minus infinity.
    """
    weights = torch.from_numpy((queries / standardiser.scale).astype(np.float32))
    offset = torch.from_numpy((queries / standardiser.scale @ standardiser.mean).astype(np.float32))
    values = torch.empty(len(queries), 0)
    numbers = torch.empty(len(queries), 0, dtype=torch.int64)
    with torch.inference_mode():
        for first, chunk in rows.chunks():
            similarity = (weights @ _to_float32(chunk).T).sub_(offset[:, None])
            similarity /= torch.from_numpy(np.asarray(norms[first : first + len(chunk)]))
            if excluded is not None:
                similarity.masked_fill_(torch.from_numpy(excluded[first : first + len(chunk)]), -torch.inf)
            value, index = similarity.topk(min(k, len(chunk)), sorted=False)
            values, numbers = torch.cat([values, value], 1), torch.cat([numbers, index + first], 1)
            value, index = values.topk(min(k, values.shape[1]), sorted=False)
            values, numbers = value, numbers.gather(1, index)
    return numbers.numpy(), values.numpy()


def _to_float32(chunk: np.ndarray) -> torch.Tensor:
    """Return a chunk as a float32 tensor; only chunks of other types are copied."""
    return torch.from_numpy(np.asarray(chunk)).float()
