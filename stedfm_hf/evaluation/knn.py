"""Nearest-neighbour accuracy: how well the vectors of images group by label, with nothing trained on the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from stedfm_hf.metrics.neighbours import Vote, nearest

REFERENCE_KS = tuple(range(3, 11))
Labels = Sequence[str] | Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class KnnResult:
    """Answers of a nearest-neighbour vote.

    Attributes:
        predicted: Label predicted for every query, (m,).
        correct: Whether it is right, (m,) bool.
    """

    predicted: np.ndarray
    correct: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of the queries whose predicted label is right."""
        return float(self.correct.mean())


def zscore_by(gallery: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Centres and scales every feature by the mean and standard deviation of the gallery.

    A feature that is constant in the gallery is only centred.

    Args:
        gallery: vectors (n, d) the statistics are taken from.
        *others: further vectors (m, d) to transform alike.

    Returns:
        The transformed gallery and others, float64.

    Example:
        >>> gallery, query = zscore_by(np.array([[0.0], [2.0]]), np.array([[3.0]]))
        >>> gallery.ravel().tolist(), query.ravel().tolist()
        ([-1.0, 1.0], [2.0])
    """
    scaler = StandardScaler().fit(gallery.astype(np.float64))
    return tuple(scaler.transform(vectors.astype(np.float64)) for vectors in (gallery, *others))


def knn_accuracy(
    gallery: np.ndarray,
    gallery_labels: Labels,
    query: np.ndarray,
    query_labels: Labels,
    *,
    k: int = 10,
    zscore: bool = True,
    gallery_sources: Sequence[str] | np.ndarray | None = None,
    query_sources: Sequence[str] | np.ndarray | None = None,
) -> KnnResult:
    """Predict the labels of queries by a plain vote of their k nearest gallery vectors (cosine similarity).

    Between classes with equal votes the one with the nearest member wins. Without sources, gallery and query must not
    share source images.

    Args:
        gallery: Vectors (n, d); without `zscore` it is never copied and may be a memory-mapped file.
        gallery_labels: Their labels, names or class numbers.
        query: Vectors (m, d).
        query_labels: The true labels.
        k: Number of neighbours that vote; where it is above n, all vote.
        zscore: Whether every feature is scaled by the gallery first; cosine similarity otherwise mostly sees the
            common mean.
        gallery_sources: Source image of each gallery vector; those of a query's own source do not vote.
        query_sources: Source image of each query.

    Raises:
        ValueError: A set is empty, lengths differ, a value is not finite, or a query has no neighbour.

    Example:
        >>> gallery = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> knn_accuracy(gallery, list("aabb"), gallery + 0.01, list("aabb"), k=1).accuracy
        1.0
    """
    if not len(gallery) or not len(query):
        raise ValueError("a nearest-neighbour accuracy needs at least one gallery and one query vector")
    if len(gallery) != len(gallery_labels) or len(query) != len(query_labels):
        raise ValueError("there must be one label for every vector")
    if zscore:
        gallery, query = zscore_by(gallery, query)
    rows, similarity = nearest(gallery, query, k=k, gallery_sources=gallery_sources, query_sources=query_sources)
    if not np.isfinite(similarity[:, 0]).all():
        raise ValueError("a query has no gallery vector of another source; leaving sources out needs at least two")
    classes, numbers = np.unique(np.asarray(gallery_labels), return_inverse=True)
    predicted = classes[Vote(k).decide(numbers[rows], similarity)]
    return KnnResult(predicted, predicted == np.asarray(query_labels))
