"""k-nearest-neighbour classification: votes, ties and excluded source images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from stedfm_hf.evaluation import KnnResult, knn_accuracy, zscore_by
from stedfm_hf.metrics import nearest


def _clouds(seed: int, n: int = 40, d: int = 6) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = [str(name) for name in rng.choice(["a", "b", "c"], n)]
    centres = {"a": 1.0, "b": -1.0, "c": 0.0}
    return rng.normal(0, 1.0, (n, d)) + np.array([centres[label] for label in labels])[:, None], labels


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_agrees_with_scikit_learn_where_one_neighbour_decides(seed: int) -> None:
    gallery, labels = _clouds(seed)
    query, query_labels = _clouds(seed + 1)
    found = knn_accuracy(gallery, labels, query, query_labels, k=1, zscore=False)
    expected = KNeighborsClassifier(1, metric="cosine").fit(gallery, labels).predict(query)
    np.testing.assert_array_equal(found.predicted, expected)
    assert found.accuracy == np.mean(expected == np.array(query_labels))


def test_ties_go_to_the_class_of_the_nearest_neighbour() -> None:
    angle = np.deg2rad([1.0, 2.0, 3.0, 4.0])
    gallery = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    query = np.array([[1.0, 0.0]])
    three = knn_accuracy(gallery[:3], ["z", "a", "a"], query, ["a"], k=3, zscore=False)
    assert three.predicted.tolist() == ["a"]
    tie = knn_accuracy(gallery, ["z", "a", "a", "z"], query, ["z"], k=4, zscore=False)
    assert tie.predicted.tolist() == ["z"]


def test_equal_similarities_keep_the_order_of_the_gallery() -> None:
    gallery = np.ones((5, 2))
    rows, similarity = nearest(gallery, gallery[:1], k=3)
    assert rows.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(similarity, 1.0)


def leave_one_out(embeddings: np.ndarray, labels: list[str], sources: list[str], k: int) -> KnnResult:
    return knn_accuracy(
        embeddings, labels, embeddings, labels, k=k, zscore=False, gallery_sources=sources, query_sources=sources
    )


def test_crops_of_one_image_never_vote_for_each_other() -> None:
    """Each image has two equal crops: a crop is always right with its twin, and always wrong without it."""
    embeddings = np.repeat(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), 2, axis=0)
    labels = list("aabbaabb")
    sources = list("ssttuuvv")
    by_crop = leave_one_out(embeddings, labels, [str(number) for number in range(8)], k=1)
    by_source = leave_one_out(embeddings, labels, sources, k=1)
    assert by_crop.accuracy == 1.0
    assert by_source.accuracy == 0.0


def test_excluded_neighbours_do_not_vote_if_k_exceeds_the_others() -> None:
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.8, 0.2]])
    result = leave_one_out(embeddings, ["a", "a", "a", "b"], ["s", "s", "s", "t"], k=4)
    assert result.predicted.tolist() == ["b", "b", "b", "a"]


def test_zscore_uses_the_statistics_of_the_gallery() -> None:
    gallery = np.array([[0.0, 5.0], [2.0, 5.0]])
    scaled, query = zscore_by(gallery, np.array([[4.0, 6.0]]))
    assert scaled.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert query.tolist() == [[3.0, 1.0]]


def test_invalid_arguments_raise_errors() -> None:
    embeddings = np.eye(3)
    with pytest.raises(ValueError, match="at least one gallery"):
        knn_accuracy(embeddings[:0], [], embeddings, list("abc"))
    with pytest.raises(ValueError, match="one label for each embedding"):
        knn_accuracy(embeddings, list("ab"), embeddings, list("abc"))
    with pytest.raises(ValueError, match="another source image"):
        leave_one_out(embeddings, list("abc"), list("sss"), k=1)
    with pytest.raises(ValueError, match="k must be 1"):
        nearest(embeddings, embeddings, k=0)
    with pytest.raises(ValueError, match="both gallery_sources and query_sources"):
        nearest(embeddings, embeddings, k=1, query_sources=list("abc"))
