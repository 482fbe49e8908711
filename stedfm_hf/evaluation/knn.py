"""Nearest-neighbour accuracy: how well the vectors of images group by label, with nothing trained on the labels.

Ours, not the reference protocol: one fixed k and a gallery of its own, where the reference averages over several k and
takes its small validation split as the gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

_CHUNK = 1024
_Z95 = 1.959964


@dataclass(frozen=True, eq=False)
class KnnResult:
    """Accuracy of a nearest-neighbour vote.

    Args:
        accuracy: share of the queries whose predicted label is right.
        low: lower end of the 95 % interval of the accuracy.
        high: upper end of that interval.
        images: queries.
        sources: source images the queries come from.
        k: neighbours that voted.
        predicted: label predicted for every query, (images,).
        correct: whether it is right, (images,) bool.
    """

    accuracy: float
    low: float
    high: float
    images: int
    sources: int
    k: int
    predicted: np.ndarray = field(repr=False)
    correct: np.ndarray = field(repr=False)


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


def nearest(
    gallery: np.ndarray,
    query: np.ndarray,
    *,
    k: int,
    gallery_sources: Sequence[str] | None = None,
    query_sources: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k most similar gallery vectors of every query by cosine similarity.

    Args:
        gallery: vectors (n, d).
        query: vectors (m, d).
        k: neighbours wanted; at most n come back.
        gallery_sources: source image of each gallery row; with `query_sources`, rows of a query's own source are
            left out.
        query_sources: source image of each query row.

    Returns:
        Row numbers in the gallery and similarities, both (m, min(k, n)), most similar first; equal similarities keep
        the gallery's order. A neighbour that had to be left out has similarity minus infinity.

    Raises:
        ValueError: k is below 1, or only one of the sources is given.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    if (gallery_sources is None) != (query_sources is None):
        raise ValueError("give gallery_sources and query_sources both, or neither")
    own = None if gallery_sources is None else np.asarray(gallery_sources)
    rows, similarities = [], []
    for start in range(0, len(query), _CHUNK):
        similarity = cosine_similarity(query[start : start + _CHUNK], gallery)
        if own is not None:
            similarity[np.asarray(query_sources)[start : start + _CHUNK, None] == own[None, :]] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        rows.append(order)
        similarities.append(np.take_along_axis(similarity, order, axis=1))
    return np.concatenate(rows), np.concatenate(similarities)


def _vote(neighbour_labels: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Plain majority of (m, k) labels; between classes with equal votes the one with the nearest member wins."""
    classes, codes = np.unique(neighbour_labels, return_inverse=True)
    member = (codes.reshape(neighbour_labels.shape)[..., None] == np.arange(len(classes))) & counted[..., None]
    votes = member.sum(axis=1)
    first = np.where(votes > 0, member.argmax(axis=1), member.shape[1])
    return classes[np.argmax(votes * (member.shape[1] + 1) - first, axis=1)]


def _result(predicted: np.ndarray, labels: np.ndarray, sources: Sequence[str] | None, k: int) -> KnnResult:
    correct = predicted == labels
    low, high = accuracy_interval(correct, sources)
    count = len(labels) if sources is None else len(set(sources))
    return KnnResult(float(correct.mean()), low, high, len(labels), count, k, predicted, correct)


def knn_accuracy(
    gallery: np.ndarray,
    gallery_labels: Sequence[str],
    query: np.ndarray,
    query_labels: Sequence[str],
    *,
    k: int = 10,
    zscore: bool = True,
    query_sources: Sequence[str] | None = None,
) -> KnnResult:
    """Predicts the labels of queries by a plain vote of their k nearest gallery vectors (cosine).

    Between classes with equal votes the one with the nearest member wins. Gallery and query must not share source
    images; use :func:`knn_leave_one_out` where they are one set.

    Args:
        gallery: vectors (n, d).
        gallery_labels: their labels.
        query: vectors (m, d).
        query_labels: the true labels.
        k: neighbours that vote.
        zscore: scale every feature by the gallery first; cosine similarity otherwise mostly sees the common mean.
        query_sources: source image of each query, for the error bar; None: each query is a source of its own.

    Returns:
        The accuracy with its 95 % interval.

    Raises:
        ValueError: a set is empty or lengths differ.

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
    rows, similarity = nearest(gallery, query, k=k)
    predicted = _vote(np.asarray(gallery_labels)[rows], np.isfinite(similarity))
    return _result(predicted, np.asarray(query_labels), query_sources, k)


def knn_leave_one_out(
    vectors: np.ndarray,
    labels: Sequence[str],
    sources: Sequence[str],
    *,
    k: int = 10,
    zscore: bool = True,
) -> KnnResult:
    """Nearest-neighbour accuracy within one set: every vector asks all others but those of its own source image.

    Args:
        vectors: vectors (n, d).
        labels: their labels.
        sources: the image each vector was cut from; crops of one image never vote for each other.
        k: neighbours that vote.
        zscore: scale every feature by the whole set first.

    Returns:
        The accuracy with its 95 % interval.

    Raises:
        ValueError: lengths differ, or all vectors come from one source.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> knn_leave_one_out(vectors, list("aabb"), list("wxyz"), k=1).accuracy
        1.0
    """
    if not len(vectors) == len(labels) == len(sources):
        raise ValueError("there must be one label and one source for every vector")
    if len(set(sources)) < 2:
        raise ValueError("leaving a source out needs vectors of at least two sources")
    if zscore:
        (vectors,) = zscore_by(vectors)
    rows, similarity = nearest(vectors, vectors, k=k, gallery_sources=sources, query_sources=sources)
    predicted = _vote(np.asarray(labels)[rows], np.isfinite(similarity))
    return _result(predicted, np.asarray(labels), sources, k)


def accuracy_interval(correct: np.ndarray, sources: Sequence[str] | None = None) -> tuple[float, float]:
    """95 % interval of an accuracy whose independent units are source images.

    One query per source: the Wilson interval, which stays honest near 0 and 1. Several: a bootstrap over sources
    (2000 draws, fixed seed), because crops of one image succeed and fail together.

    Args:
        correct: right or wrong, (n,) bool.
        sources: source image of each entry; None: each is a source of its own.

    Returns:
        Lower and upper end.

    Example:
        >>> low, high = accuracy_interval(np.array([True] * 80 + [False] * 20))
        >>> round(low, 3), round(high, 3)
        (0.711, 0.867)
    """
    n = len(correct)
    if sources is None or len(set(sources)) == n:
        p, z2 = float(np.mean(correct)), _Z95**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z95 * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2)) / (1 + z2 / n)
        return max(0.0, float(middle - half)), min(1.0, float(middle + half))
    return _bootstrap(np.asarray(correct, dtype=float), np.asarray(sources))


def accuracy_difference(one: KnnResult, other: KnnResult, sources: Sequence[str] | None = None) -> tuple[float, ...]:
    """How much more accurate one method is than another on the same queries.

    A paired bootstrap over source images (2000 draws, fixed seed): both methods meet the same easy and hard images,
    so their difference is known better than their two separate intervals suggest.

    Args:
        one: result of a method.
        other: result of another method on the same queries in the same order.
        sources: source image of each query; None: each is a source of its own.

    Returns:
        The difference of the accuracies and the ends of its 95 % interval.

    Raises:
        ValueError: the results are of different numbers of queries.

    Example:
        >>> labels = list("ab") * 20
        >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0]] * 20)
        >>> right = knn_accuracy(vectors, labels, vectors, labels, k=3)
        >>> accuracy_difference(right, right)
        (0.0, 0.0, 0.0)
    """
    if len(one.correct) != len(other.correct):
        raise ValueError(f"the results are of {len(one.correct)} and {len(other.correct)} queries, not of the same")
    gain = one.correct.astype(float) - other.correct
    low, high = _bootstrap(gain, np.arange(len(gain)).astype(str) if sources is None else np.asarray(sources))
    return float(gain.mean()), low, high


def _bootstrap(values: np.ndarray, sources: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of (n,) values whose independent units are sources."""
    _, source = np.unique(sources, return_inverse=True)
    total, size = np.bincount(source, weights=values), np.bincount(source)
    drawn = np.random.default_rng(0).integers(0, len(size), (2000, len(size)))
    low, high = np.percentile(total[drawn].sum(axis=1) / size[drawn].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)
