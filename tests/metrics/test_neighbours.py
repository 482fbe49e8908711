"""The neighbours found are the exact ones, whatever the size, the precision and the rounding."""

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
from stedfm_hf.metrics import Vote, neighbours
from stedfm_hf.metrics.neighbours import nearest, reference_decide


def _random(seed: int, n: int, d: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


def _by_hand(gallery: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Slow and plain: every similarity, sorted; lower rows first."""
    pairs = [[_cosine(row.astype(float), asked.astype(float)) for row in gallery] for asked in query]
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
    theirs = NearestNeighbors(n_neighbors=min(k, n), metric="cosine", algorithm="brute").fit(gallery.astype(float))
    distance, expected = theirs.kneighbors(query.astype(float))
    assert rows.shape == similarity.shape == (m, min(k, n))
    np.testing.assert_allclose(similarity, 1 - distance, atol=1e-12)
    if d > 3:  # in few dimensions half precision makes ties, which scikit-learn leaves to chance
        np.testing.assert_array_equal(rows, expected)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 200), k=st.integers(1, 30))
def test_of_equal_similarities_the_lower_row_is_first(small_chunks: None, seed: int, n: int, k: int) -> None:
    """Few different vectors, many times each: more ties than there are candidates, over several chunks."""
    rng = np.random.default_rng(seed)
    gallery, query = rng.integers(-1, 2, (n, 3)).astype(np.float32), rng.integers(-1, 2, (5, 3)).astype(np.float32)
    rows, similarity = nearest(gallery, query, k=k)
    expected, of_them = _by_hand(gallery, query, k)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(similarity, of_them)


@pytest.mark.parametrize("spread", [1e-3, 1e-5, 1e-7])
def test_neighbours_closer_than_single_precision_can_tell_are_told_apart(spread: float) -> None:
    """As of a network that makes nearly the same vector of every image."""
    gallery = np.abs(_random(0, 1, 96)) + spread * _random(1, 400, 96)
    query = gallery[:7] + spread * _random(2, 7, 96)
    rows, similarity = nearest(gallery, query, k=5)
    expected, of_them = _by_hand(gallery, query, 5)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(similarity, of_them)


def test_neither_chunks_nor_the_number_of_queries_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, query = _random(0, 1000, 33, np.float32), _random(1, 50, 33, np.float32)
    rows, similarity = nearest(gallery, query, k=9)
    for size in (1, 7, 100):
        monkeypatch.setattr(neighbours, "_ROWS", 10 * size)
        monkeypatch.setattr(neighbours, "_QUERIES", size)
        again, of_them = nearest(gallery, query, k=9)
        np.testing.assert_array_equal(again, rows)
        np.testing.assert_array_equal(of_them, similarity)
    alone, of_it = nearest(gallery, query[:1], k=9)
    np.testing.assert_array_equal(alone, rows[:1])
    np.testing.assert_array_equal(of_it, similarity[:1])


def test_products_in_a_lower_precision_do_not_reach_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast around us, and a GPU that may round what it multiplies, as TF32 does (here to bfloat16)."""
    gallery = (1 + 0.05 * _random(0, 500, 32)).astype(np.float32)
    query = (1 + 0.05 * _random(1, 20, 32)).astype(np.float32)
    expected = nearest(gallery, query, k=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(nearest(gallery, query, k=5)[0], expected[0])
    product = torch.Tensor.__matmul__

    def rounded(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if one.dtype == torch.float32:
            one, other = one.bfloat16().float(), other.bfloat16().float()
        return product(one, other)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    rows, similarity = nearest(gallery, query, k=5)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(similarity, expected[1])


@given(seed=st.integers(0, 10_000), k=st.integers(1, 30))
def test_rows_of_the_own_source_come_last_and_do_not_count(small_chunks: None, seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, sources = _random(seed, 150, 8), rng.choice(["s", "t", "u", "v"], 150)
    rows, similarity = nearest(vectors, vectors, k=k, gallery_sources=sources, query_sources=sources)
    for number, (found, of_them) in enumerate(zip(rows, similarity, strict=True)):
        others = np.flatnonzero(sources != sources[number])
        expected = others[nearest(vectors[others], vectors[number : number + 1], k=k)[0][0]]
        np.testing.assert_array_equal(found[: len(expected)], expected)
        assert np.isfinite(of_them[: len(expected)]).all() and np.isneginf(of_them[len(expected) :]).all()


def test_a_gallery_may_be_a_file_and_vectors_may_be_zero_or_whole(tmp_path: Path) -> None:
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


def test_values_that_are_no_numbers_are_refused() -> None:
    vectors = np.eye(3)
    for bad in (np.nan, np.inf):
        broken = vectors.copy()
        broken[1, 1] = bad
        for sides in ((broken, vectors), (vectors, broken)):
            with pytest.raises(ValueError, match="not finite"):
                nearest(*sides, k=1)
    for gallery, query in ((vectors, vectors[:, :2]), (vectors[0], vectors), (vectors[:0], vectors)):
        with pytest.raises(ValueError, match="not vectors of one length"):
            nearest(gallery, query, k=1)
    with pytest.raises(ValueError, match="one source for every vector"):
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


def test_faiss_finds_the_same(tmp_path: Path) -> None:
    """In a process of its own: faiss and torch bring an OpenMP each."""
    pytest.importorskip("faiss", reason="needs faiss-cpu", exc_type=ImportError)
    gallery, query = _random(0, 20_000, 48, np.float32), _random(1, 200, 48, np.float32)
    paths = [str(tmp_path / name) for name in ("gallery.npy", "query.npy", "rows.npy")]
    for path, vectors in zip(paths, (gallery, query), strict=False):
        np.save(path, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    subprocess.run([sys.executable, "-c", FAISS, *paths], check=True)
    np.testing.assert_array_equal(nearest(gallery, query, k=20)[0], np.load(paths[2]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same() -> None:
    gallery, query = _random(0, 20_000, 48, np.float32), _random(1, 200, 48, np.float32)
    for ours, theirs in zip(nearest(gallery, query, k=20), nearest(gallery, query, k=20, device="cuda"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(
    numbers=st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=20),
    k=st.integers(1, 9),
)
def test_the_plain_vote_counts_and_breaks_ties_by_nearness(numbers: list[list[int]], k: int) -> None:
    decided = Vote(k).decide(np.array(numbers), np.tile(np.linspace(0.9, 0.1, 7), (len(numbers), 1)))
    for row, found in zip(numbers, decided.tolist(), strict=True):
        # Counter lists equal counts in the order of their first member.
        assert found == Counter(row[:k]).most_common(1)[0][0]


@given(
    numbers=st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=20),
    k=st.integers(1, 9),
)
def test_the_vote_of_the_reference_takes_the_lowest_label_and_wants_two_votes(
    numbers: list[list[int]], k: int
) -> None:
    decided, counts = reference_decide(np.array(numbers), k)
    for row, found, counted in zip(numbers, decided.tolist(), counts.tolist(), strict=True):
        votes = Counter(row[:k])
        most = max(votes.values())
        assert found == min(label for label, count in votes.items() if count == most)
        assert counted == (most >= 2)


def test_a_near_minority_outweighs_a_far_majority_when_votes_are_weighed() -> None:
    numbers, similarity = np.array([[0, 1, 1]]), np.array([[0.99, 0.80, 0.79]])
    assert Vote(3).decide(numbers, similarity).tolist() == [1]
    assert Vote(3, 0.07).decide(numbers, similarity).tolist() == [0]
    assert np.exp(0.99 / 0.07) > np.exp(0.80 / 0.07) + np.exp(0.79 / 0.07)
    assert Vote(3, 10.0).decide(numbers, similarity).tolist() == [1]
    assert Vote(3, 1e-6).decide(numbers, similarity).tolist() == [0]  # nothing overflows


@given(seed=st.integers(0, 10_000))
def test_the_weighted_vote_is_that_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers, similarity = rng.integers(0, 4, (30, 20)), -np.sort(-rng.uniform(-1, 1, (30, 20)), axis=1)
    weights = np.exp(similarity / 0.07)
    votes = np.stack([np.where(numbers == label, weights, 0.0).sum(axis=1) for label in range(4)], axis=1)
    np.testing.assert_array_equal(Vote(20, 0.07).decide(numbers, similarity), votes.argmax(axis=1))


def test_those_left_out_do_not_vote() -> None:
    numbers, similarity = np.array([[1, 0, 0]]), np.array([[0.2, -np.inf, -np.inf]])
    for vote in (Vote(3), Vote(3, 0.07)):
        assert vote.decide(numbers, similarity).tolist() == [1]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_whole_predictions_are_those_of_scikit_learn_but_for_ties(k: int) -> None:
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 3, 400), rng.integers(0, 3, 100)
    gallery = rng.normal(size=(400, 6)) + labels[:, None]
    query = rng.normal(size=(100, 6)) + truth[:, None]
    theirs = KNeighborsClassifier(k, metric="cosine").fit(gallery, labels)
    shares = np.sort(theirs.predict_proba(query), axis=1)
    clear = shares[:, -1] > shares[:, -2]
    found = knn_accuracy(gallery, labels, query, truth, k=k, zscore=False)
    assert 50 < clear.sum() and (k == 1 or not clear.all())
    np.testing.assert_array_equal(found.predicted[clear], theirs.predict(query)[clear])


def test_impossible_votes_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be 1"):
        Vote(0)
    with pytest.raises(ValueError, match="above 0"):
        Vote(5, 0.0)
