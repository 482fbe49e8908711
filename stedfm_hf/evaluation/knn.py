"""Accuracy of k-nearest-neighbour classification, without training on the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from stedfm_hf.metrics.neighbours import KnnVote, nearest

REFERENCE_KS = tuple(range(3, 11))
"""Numbers of neighbours of the reference protocol."""
Labels = Sequence[str] | Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class KnnResult:
    """Predictions of a k-nearest-neighbour classification.

    Attributes:
        predicted: Predicted labels of the queries, (m,).
        correct: Whether each prediction is correct, (m,) bool.
    """

    predicted: np.ndarray
    correct: np.ndarray

    @property
    def accuracy(self) -> float:
        """Fraction of the queries with a correct prediction, in [0, 1]."""
        return float(self.correct.mean())


def zscore_by(gallery: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Standardise each feature by the mean and standard deviation of the gallery.

    Features that are constant in the gallery are only centred.

    Args:
        gallery: Embeddings (n, d) from which mean and standard deviation are computed.
        *others: Further embeddings (m, d) to standardise in the same way.

    Returns:
        The standardised gallery and others, float64.

    Example:
        >>> gallery, query = zscore_by(np.array([[0.0], [2.0]]), np.array([[3.0]]))
        >>> gallery.ravel().tolist(), query.ravel().tolist()
        ([-1.0, 1.0], [2.0])
    """
    scaler = StandardScaler().fit(gallery.astype(np.float64))
    return tuple(scaler.transform(embeddings.astype(np.float64)) for embeddings in (gallery, *others))


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
    """Predict the label of each query by a majority vote of its k nearest gallery embeddings (cosine similarity).

    Ties go to the class of the nearest neighbour. Without sources, gallery and query must not share source images.

    Args:
        gallery: Gallery embeddings (n, d). Without `zscore`, the array is never copied and may be memory-mapped.
        gallery_labels: Labels of the gallery (n,), names or class numbers.
        query: Query embeddings (m, d).
        query_labels: True labels of the queries (m,).
        k: Number of neighbours that vote; at most n.
        zscore: Whether to standardise each feature over the gallery first. Otherwise, the mean that all embeddings
            share dominates the cosine similarity.
        gallery_sources: Source image of each gallery row (n,). Rows of the query's source image do not vote.
        query_sources: Source image of each query (m,).

    Returns:
        Predicted labels, and whether they are correct.

    Raises:
        ValueError: If gallery or query is empty, lengths differ, a value is not finite, or a query has no neighbour.

    Example:
        >>> gallery = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> knn_accuracy(gallery, list("aabb"), gallery + 0.01, list("aabb"), k=1).accuracy
        1.0
    """
    if not len(gallery) or not len(query):
        raise ValueError("give at least one gallery embedding and one query embedding")
    if len(gallery) != len(gallery_labels) or len(query) != len(query_labels):
        raise ValueError("give one label for each embedding")
    if zscore:
        gallery, query = zscore_by(gallery, query)
    rows, similarity = nearest(gallery, query, k=k, gallery_sources=gallery_sources, query_sources=query_sources)
    if not np.isfinite(similarity[:, 0]).all():
        raise ValueError("a query has no gallery row from another source image; give at least two source images")
    classes, numbers = np.unique(np.asarray(gallery_labels), return_inverse=True)
    predicted = classes[KnnVote(k).predict(numbers[rows], similarity)]
    return KnnResult(predicted, predicted == np.asarray(query_labels))
