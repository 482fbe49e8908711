"""Nearest-neighbour accuracy: how well the vectors of images group by label, with nothing trained on the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from stedfm_hf.metrics.neighbours import VOTES, Vote, nearest
from stedfm_hf.metrics.statistics import accuracy_interval, bootstrap_interval

REFERENCE_KS = tuple(range(3, 11))
Labels = Sequence[str] | Sequence[int] | np.ndarray


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


def knn_votes(
    gallery: np.ndarray,
    gallery_labels: Labels,
    query: np.ndarray,
    query_labels: Labels,
    *,
    votes: Sequence[Vote] = VOTES,
    zscore: bool = False,
    gallery_sources: Sequence[str] | np.ndarray | None = None,
    query_sources: Sequence[str] | np.ndarray | None = None,
    device: str | torch.device = "cpu",
) -> dict[Vote, KnnResult]:
    """Predicts the labels of queries in several ways by their nearest gallery vectors (cosine), searched once.

    Between classes with equal votes the one with the nearest member wins. Without `gallery_sources`, gallery and query
    must not share source images.

    Args:
        gallery: vectors (n, d); without `zscore` it is never copied and may be a memory-mapped file.
        gallery_labels: their labels, names or class numbers.
        query: vectors (m, d).
        query_labels: the true labels.
        votes: ways to vote; where k is above n, all vote.
        zscore: scale every feature by the gallery first, in a copy.
        gallery_sources: source image of each gallery vector: with it, those of a query's own source do not vote.
        query_sources: source image of each query, for the error bar; None: each query is a source of its own.
        device: where neighbours are searched.

    Returns:
        The accuracy of every vote with its 95 % interval.

    Raises:
        ValueError: a set is empty, lengths differ, a value is not finite, or a query has nobody to ask.

    Example:
        >>> gallery = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> found = knn_votes(gallery, list("aabb"), gallery + 0.01, list("aabb"), votes=[Vote(1), Vote(2, 0.07)])
        >>> [result.accuracy for result in found.values()]
        [1.0, 1.0]
    """
    _check(gallery, gallery_labels, query, query_labels)
    if zscore:
        gallery, query = zscore_by(gallery, query)
    rows, similarity = nearest(
        gallery,
        query,
        k=max(vote.k for vote in votes),
        gallery_sources=gallery_sources,
        query_sources=None if gallery_sources is None else query_sources,
        device=device,
    )
    if not np.isfinite(similarity[:, 0]).all():
        raise ValueError("a query has no gallery vector of another source; leaving sources out needs at least two")
    classes, numbers = np.unique(np.asarray(gallery_labels), return_inverse=True)
    truth = np.asarray(query_labels)
    found = {vote: classes[vote.decide(numbers[rows], similarity)] for vote in votes}
    return {vote: _result(predicted, truth, query_sources, vote.k) for vote, predicted in found.items()}


def knn_accuracy(
    gallery: np.ndarray,
    gallery_labels: Labels,
    query: np.ndarray,
    query_labels: Labels,
    *,
    k: int = 10,
    zscore: bool = True,
    query_sources: Sequence[str] | np.ndarray | None = None,
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
    vote = Vote(k)
    found = knn_votes(
        gallery, gallery_labels, query, query_labels, votes=[vote], zscore=zscore, query_sources=query_sources
    )
    return found[vote]


def knn_leave_one_out(
    vectors: np.ndarray,
    labels: Labels,
    sources: Sequence[str] | np.ndarray,
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
    vote = Vote(k)
    found = knn_votes(
        vectors,
        labels,
        vectors,
        labels,
        votes=[vote],
        zscore=zscore,
        gallery_sources=sources,
        query_sources=sources,
    )
    return found[vote]


def accuracy_difference(
    one: KnnResult, other: KnnResult, sources: Sequence[str] | np.ndarray | None = None
) -> tuple[float, ...]:
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
    return float(gain.mean()), *bootstrap_interval(gain, sources)


def _check(gallery: np.ndarray, gallery_labels: Labels, query: np.ndarray, query_labels: Labels) -> None:
    if not len(gallery) or not len(query):
        raise ValueError("a nearest-neighbour accuracy needs at least one gallery and one query vector")
    if len(gallery) != len(gallery_labels) or len(query) != len(query_labels):
        raise ValueError("there must be one label for every vector")


def _result(
    predicted: np.ndarray, labels: np.ndarray, sources: Sequence[str] | np.ndarray | None, k: int
) -> KnnResult:
    correct = predicted == labels
    low, high = accuracy_interval(correct, sources)
    count = len(labels) if sources is None else len(set(sources))
    return KnnResult(float(correct.mean()), low, high, len(labels), count, k, predicted, correct)
