"""Exact search equals a plain matrix product; approximate search finds nearly the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.discovery.index import approximate, open_index
from stedfm_hf.discovery.index.standardised import SHRINKAGE, Rows, fit_standardiser, fit_whitening
from stedfm_hf.runs import UserError
from tests.discovery.helpers import clusters, table_index


def plain(embeddings: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardise, divide by the norms, multiply and sort."""
    z = embeddings.astype(np.float64)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    similarity = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ z.T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similarity, order, axis=1)


def test_exact_search_equals_a_matrix_product(tmp_path: Path) -> None:
    embeddings = clusters(700, 24) + 50  # a large common mean
    table_index(tmp_path / "index", embeddings)
    found = open_index(tmp_path / "index")
    queries = np.random.default_rng(1).normal(size=(5, 24))
    rows, similarity = found.nearest(queries, 20)
    wanted, expected = plain(embeddings, queries, 20)
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_allclose(similarity, expected, atol=1e-6)


def test_whitening_is_the_inverse_root_of_the_shrunk_correlations() -> None:
    values = clusters(700, 12) @ np.random.default_rng(0).normal(size=(12, 12)) + 5
    rows, kept = Rows([values[:300], values[300:]], 12), np.arange(600)
    whitening = fit_whitening(rows, fit_standardiser(rows, kept), kept)
    wanted = (1 - SHRINKAGE) * np.corrcoef(values[kept].T) + SHRINKAGE * np.eye(12)
    np.testing.assert_allclose(whitening @ wanted @ whitening, np.eye(12), atol=1e-3)
    np.testing.assert_allclose(whitening, whitening.T, atol=1e-4)


def test_excluded_rows_are_never_found(tmp_path: Path) -> None:
    embeddings = clusters(50, 8)
    table_index(tmp_path / "index", embeddings)
    found = open_index(tmp_path / "index")
    excluded = found.rows_of([3, 10])
    rows, similarity = found.nearest(found.standardiser(embeddings[3:4]), 50, excluded=excluded)
    assert {3, 10}.isdisjoint(rows[0][np.isfinite(similarity[0])].tolist())
    assert np.isfinite(similarity).sum() == 48 and (rows[0, 48:] == -1).all()


def test_an_index_may_have_one_item_or_equal_items(tmp_path: Path) -> None:
    for name, embeddings in (("one", clusters(1, 8)), ("equal", np.ones((12, 8), np.float32))):
        table_index(tmp_path / name, embeddings)
        found = open_index(tmp_path / name)
        rows, similarity = found.nearest(np.ones((1, 8)), 3)
        assert rows[0].tolist() == list(range(min(3, len(embeddings))))
        assert (similarity == 0).all()  # all are the mean, which has no direction


def test_constant_features_are_only_centred() -> None:
    embeddings = np.column_stack([np.arange(9.0), np.full(9, 7.3)]).astype(np.float32)
    fitted = fit_standardiser(Rows([embeddings[:4], embeddings[4:]], 2), np.arange(9))
    assert fitted.scale[1] == 1 and fitted(embeddings)[:, 1].tolist() == [0] * 9
    np.testing.assert_allclose(fitted(embeddings)[:, 0].std(), 1)


def test_rows_of_several_segments_are_taken_in_order() -> None:
    arrays = [np.arange(6.0).reshape(3, 2), np.arange(6.0, 10).reshape(2, 2)]
    rows = Rows(arrays, 2)
    assert rows.take(np.array([4, 0, 3, 0])).tolist() == [[8, 9], [0, 1], [6, 7], [0, 1]]
    assert [(first, len(chunk)) for first, chunk in rows.chunks()] == [(0, 3), (3, 2)] and len(rows) == 5


def test_approximate_search_finds_nearly_the_same(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    embeddings = clusters(6000, 96, groups=60)
    result = table_index(tmp_path / "index", embeddings, search="approximate")
    assert "approximate" in result.search and "IVF" in result.search and "200 re-ranked" in result.search
    found = open_index(tmp_path / "index")
    queries = found.standardiser(clusters(40, 96, groups=60))
    wanted, expected = plain(embeddings, queries, 10)
    rows, similarity = found.nearest(queries, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), wanted.tolist(), strict=True)])
    assert recall >= 0.95
    np.testing.assert_allclose(similarity[:, 0], expected[:, 0], atol=1e-2)
    # Excluded rows are left out before the search, not after.
    excluded = np.ones(len(embeddings), bool)
    excluded[::7] = False
    rows, similarity = found.nearest(queries, 10, excluded=excluded)
    assert np.isfinite(similarity).all() and (rows % 7 == 0).all()


def test_without_faiss_a_large_index_is_exact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    plan = approximate.plan_search("auto", 2_000_000, 384)
    assert plan.search == "exact" and 'pip install "stedfm-hf[discovery]"' in capsys.readouterr().err
    with pytest.raises(UserError, match=r"pip install \"stedfm-hf\[discovery\]\""):
        approximate.plan_search("approximate", 2_000_000, 384)


def test_a_small_index_is_not_approximate() -> None:
    pytest.importorskip("faiss")
    assert approximate.plan_search("auto", 2_000_000, 384).search == "approximate"
    assert approximate.plan_search("auto", 1_000_000, 384).search == "exact"
    with pytest.raises(UserError, match="at least 156 embeddings"):
        approximate.plan_search("approximate", 100, 384)
