"""Exact nearest neighbours for all sizes and precisions, and predictions by their votes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from stedfm_hf.evaluation import knn_accuracy
from stedfm_hf.metrics import KnnVote, neighbours
from stedfm_hf.metrics.neighbours import nearest, reference_predict


def _random(seed: int, n: int, d: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


def _by_hand(gallery: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute all similarities and sort them, lower rows first."""
    pairs = [[_cosine(row.astype(float), each.astype(float)) for row in gallery] for each in query]
    similarity = np.array(pairs)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similarity, order, axis=1)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    length = np.sqrt((one * one).sum()) * np.sqrt((other * other).sum())
    return float((one * other).sum() / (length or 1.0))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_ROWS", 64)
    monkeypatch.setattr(neighbours, "_QUERIES", 16)
    monkeypatch.setattr(neighbours, "_NUMBERS", 500)


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 300),
    m=st.integers(1, 40),
    d=st.integers(2, 50),
    k=st.integers(1, 40),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_agrees_with_scikit_learn(small_chunks: None, seed: int, n: int, m: int, d: int, k: int, dtype: type) -> None:
    gallery, query = _random(seed, n, d, dtype), _random(seed + 1, m, d, dtype)
    rows, similarity = nearest(gallery, query, k=k)
    sklearn_model = NearestNeighbors(n_neighbors=min(k, n), metric="cosine", algorithm="brute").fit(
        gallery.astype(float)
    )
    distance, expected = sklearn_model.kneighbors(query.astype(float))
    assert rows.shape == similarity.shape == (m, min(k, n))
    np.testing.assert_allclose(similarity, 1 - distance, atol=1e-12)
    if d > 3:  # in few dimensions half precision makes ties, whose order scikit-learn does not define
        np.testing.assert_array_equal(rows, expected)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 200), k=st.integers(1, 30))
def test_ties_are_in_the_order_of_gallery_rows(small_chunks: None, seed: int, n: int, k: int) -> None:
    """A few different vectors, repeated: more ties than candidates, in several chunks."""
    rng = np.random.default_rng(seed)
    gallery, query = rng.integers(-1, 2, (n, 3)).astype(np.float32), rng.integers(-1, 2, (5, 3)).astype(np.float32)
    rows, similarity = nearest(gallery, query, k=k)
    expected, expected_similarity = _by_hand(gallery, query, k)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(similarity, expected_similarity)


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-7])
def test_neighbours_closer_than_single_precision_are_distinguished(scale: float) -> None:
    """Embeddings of a network that maps all images to nearly the same vector."""
    gallery = np.abs(_random(0, 1, 96)) + scale * _random(1, 400, 96)
    query = gallery[:7] + scale * _random(2, 7, 96)
    rows, similarity = nearest(gallery, query, k=5)
    expected, expected_similarity = _by_hand(gallery, query, 5)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(similarity, expected_similarity)


def test_the_result_does_not_depend_on_chunks_or_the_number_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, query = _random(0, 1000, 33, np.float32), _random(1, 50, 33, np.float32)
    rows, similarity = nearest(gallery, query, k=9)
    for size in (1, 7, 100):
        monkeypatch.setattr(neighbours, "_ROWS", 10 * size)
        monkeypatch.setattr(neighbours, "_QUERIES", size)
        again, expected_similarity = nearest(gallery, query, k=9)
        np.testing.assert_array_equal(again, rows)
        np.testing.assert_array_equal(expected_similarity, similarity)
    alone, of_it = nearest(gallery, query[:1], k=9)
    np.testing.assert_array_equal(alone, rows[:1])
    np.testing.assert_array_equal(of_it, similarity[:1])


def test_products_in_a_lower_precision_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast, and matrix products rounded as on GPUs with TF32 (here to bfloat16)."""
    gallery = (1 + 0.05 * _random(0, 500, 32)).astype(np.float32)
    query = (1 + 0.05 * _random(1, 20, 32)).astype(np.float32)
    expected = nearest(gallery, query, k=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(nearest(gallery, query, k=5)[0], expected[0])
    product = torch.Tensor.__matmul__

    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype == torch.float32:
            left, right = left.bfloat16().float(), right.bfloat16().float()
        return product(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    rows, similarity = nearest(gallery, query, k=5)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(similarity, expected[1])


@given(seed=st.integers(0, 10_000), k=st.integers(1, 30))
def test_rows_of_the_same_source_come_last_with_minus_infinity(small_chunks: None, seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, sources = _random(seed, 150, 8), rng.choice(["s", "t", "u", "v"], 150)
    rows, similarity = nearest(vectors, vectors, k=k, gallery_sources=sources, query_sources=sources)
    for number, (found, expected_similarity) in enumerate(zip(rows, similarity, strict=True)):
        others = np.flatnonzero(sources != sources[number])
        expected = others[nearest(vectors[others], vectors[number : number + 1], k=k)[0][0]]
        np.testing.assert_array_equal(found[: len(expected)], expected)
        assert (
            np.isfinite(expected_similarity[: len(expected)]).all()
            and np.isneginf(expected_similarity[len(expected) :]).all()
        )


def test_memory_mapped_zero_and_integer_embeddings_are_accepted(tmp_path: Path) -> None:
    gallery = _random(0, 200, 12, np.float32)
    gallery[3] = 0.0
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    np.testing.assert_array_equal(nearest(mapped, mapped[:9], k=4)[0], nearest(gallery, gallery[:9], k=4)[0])
    rows, similarity = nearest(gallery, gallery[3:4], k=3)
    assert rows.tolist() == [[0, 1, 2]] and similarity.tolist() == [[0.0, 0.0, 0.0]]
    numbers = np.array([[2**24 + 1, 0], [0, 5]])
    assert nearest(numbers, numbers, k=1)[0].ravel().tolist() == [0, 1]
    for scale in np.array([1e-30, 1e30], np.float32):  # whose squares single precision does not hold
        np.testing.assert_array_equal(
            nearest(gallery[:3] * scale, gallery[:2] * scale, k=2)[0], nearest(gallery[:3], gallery[:2], k=2)[0]
        )
    assert nearest(gallery, gallery[:0], k=3)[0].shape == (0, 3)


def test_invalid_embeddings_raise_errors() -> None:
    vectors = np.eye(3)
    for bad in (np.nan, np.inf):
        broken = vectors.copy()
        broken[1, 1] = bad
        for pair in ((broken, vectors), (vectors, broken)):
            with pytest.raises(ValueError, match="not finite"):
                nearest(*pair, k=1)
    for gallery, query in ((vectors, vectors[:, :2]), (vectors[0], vectors), (vectors[:0], vectors)):
        with pytest.raises(ValueError, match="must have the same d"):
            nearest(gallery, query, k=1)
    with pytest.raises(ValueError, match="one source for each embedding"):
        nearest(vectors, vectors, k=1, gallery_sources=list("ab"), query_sources=list("abc"))


FAISS = """
import sys
import faiss
import numpy as np

gallery, query = (np.load(path) for path in sys.argv[1:3])
index = faiss.IndexFlatIP(gallery.shape[1])
index.add(gallery)
np.save(sys.argv[3], index.search(query, 20)[1])
"""


def test_the_result_equals_that_of_faiss(tmp_path: Path) -> None:
    """In a separate process, because faiss and torch each load OpenMP."""
    pytest.importorskip("faiss", reason="needs faiss-cpu", exc_type=ImportError)
    gallery, query = _random(0, 20_000, 48, np.float32), _random(1, 200, 48, np.float32)
    paths = [str(tmp_path / name) for name in ("gallery.npy", "query.npy", "rows.npy")]
    for path, vectors in zip(paths, (gallery, query), strict=False):
        np.save(path, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    subprocess.run([sys.executable, "-c", FAISS, *paths], check=True)
    np.testing.assert_array_equal(nearest(gallery, query, k=20)[0], np.load(paths[2]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_result_on_a_gpu_is_the_same() -> None:
    gallery, query = _random(0, 20_000, 48, np.float32), _random(1, 200, 48, np.float32)
    for on_cpu, on_gpu in zip(
        nearest(gallery, query, k=20), nearest(gallery, query, k=20, device="cuda"), strict=True
    ):
        np.testing.assert_array_equal(on_cpu, on_gpu)


@given(
    numbers=st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=20),
    k=st.integers(1, 9),
)
def test_the_vote_counts_and_breaks_ties_by_the_nearest_neighbour(numbers: list[list[int]], k: int) -> None:
    decided = KnnVote(k).predict(np.array(numbers), np.tile(np.linspace(0.9, 0.1, 7), (len(numbers), 1)))
    for row, found in zip(numbers, decided.tolist(), strict=True):
        # Counter lists equal counts in the order of their first member.
        assert found == Counter(row[:k]).most_common(1)[0][0]


@given(
    numbers=st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=20),
    k=st.integers(1, 9),
)
def test_the_reference_vote_takes_the_lowest_class_and_needs_two_votes(numbers: list[list[int]], k: int) -> None:
    decided, counts = reference_predict(np.array(numbers), k)
    for row, found, counted in zip(numbers, decided.tolist(), counts.tolist(), strict=True):
        votes = Counter(row[:k])
        most = max(votes.values())
        assert found == min(label for label, count in votes.items() if count == most)
        assert counted == (most >= 2)


def test_a_near_minority_outweighs_a_far_majority_in_a_weighted_vote() -> None:
    numbers, similarity = np.array([[0, 1, 1]]), np.array([[0.99, 0.80, 0.79]])
    assert KnnVote(3).predict(numbers, similarity).tolist() == [1]
    assert KnnVote(3, 0.07).predict(numbers, similarity).tolist() == [0]
    assert np.exp(0.99 / 0.07) > np.exp(0.80 / 0.07) + np.exp(0.79 / 0.07)
    assert KnnVote(3, 10.0).predict(numbers, similarity).tolist() == [1]
    assert KnnVote(3, 1e-6).predict(numbers, similarity).tolist() == [0]  # nothing overflows


@given(seed=st.integers(0, 10_000))
def test_the_weighted_vote_equals_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers, similarity = rng.integers(0, 4, (30, 20)), -np.sort(-rng.uniform(-1, 1, (30, 20)), axis=1)
    weights = np.exp(similarity / 0.07)
    votes = np.stack([np.where(numbers == label, weights, 0.0).sum(axis=1) for label in range(4)], axis=1)
    np.testing.assert_array_equal(KnnVote(20, 0.07).predict(numbers, similarity), votes.argmax(axis=1))


def test_excluded_neighbours_do_not_vote() -> None:
    numbers, similarity = np.array([[1, 0, 0]]), np.array([[0.2, -np.inf, -np.inf]])
    for vote in (KnnVote(3), KnnVote(3, 0.07)):
        assert vote.predict(numbers, similarity).tolist() == [1]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_predictions_equal_those_of_scikit_learn_except_for_ties(k: int) -> None:
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 3, 400), rng.integers(0, 3, 100)
    gallery = rng.normal(size=(400, 6)) + labels[:, None]
    query = rng.normal(size=(100, 6)) + truth[:, None]
    sklearn_model = KNeighborsClassifier(k, metric="cosine").fit(gallery, labels)
    fractions = np.sort(sklearn_model.predict_proba(query), axis=1)
    clear = fractions[:, -1] > fractions[:, -2]
    found = knn_accuracy(gallery, labels, query, truth, k=k, zscore=False)
    assert 50 < clear.sum() and (k == 1 or not clear.all())
    np.testing.assert_array_equal(found.predicted[clear], sklearn_model.predict(query)[clear])


def test_invalid_votes_raise_errors() -> None:
    with pytest.raises(ValueError, match="k must be 1"):
        KnnVote(0)
    with pytest.raises(ValueError, match="above 0"):
        KnnVote(5, 0.0)
