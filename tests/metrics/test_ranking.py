"""Metrics of rankings: equal to scikit-learn's for every query, with ties, excluded items and undefined values."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from stedfm_hf.metrics import ranking
from stedfm_hf.metrics.ranking import Ranking, metric_names, retrieval_scores, score_rankings


def _case(seed: int, levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarities of few different values, relevance and candidates."""
    rng = np.random.default_rng(seed)
    shape = (4, int(rng.integers(2, 40)))
    return rng.integers(0, levels, shape) / levels, rng.random(shape) < 0.4, rng.random(shape) < 0.8


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([1, 2, 5, 10_000]))
@settings(max_examples=30, deadline=None)
def test_every_query_equals_scikit_learn(seed: int, levels: int) -> None:
    similarity, relevant, candidates = _case(seed, levels)
    found = score_rankings(similarity, relevant, candidates)
    for number, ranked in enumerate(candidates):
        truth, score = relevant[number, ranked], similarity[number, ranked]
        assert found.candidates[number] == ranked.sum() and found.relevant[number] == truth.sum()
        if not truth.any():
            assert np.isnan(found.values["aupr"][number])
        else:
            assert found.values["aupr"][number] == pytest.approx(average_precision_score(truth, score), abs=1e-12)
        if not truth.any() or truth.all():
            assert np.isnan(found.values["auroc"][number])
        else:
            assert found.values["auroc"][number] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)


def _by_hand(relevant: list[bool], k: int) -> tuple[float, float]:
    """Precision and average precision of the first k items of one order."""
    first = relevant[:k]
    precisions = [sum(first[: rank + 1]) / (rank + 1) for rank in range(len(first)) if first[rank]]
    return sum(first) / len(first), sum(precisions) / min(k, sum(relevant))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("similarity", [[4, 3, 2, 1, 0], [1, 1, 1, 1, 1], [2, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
def test_the_first_k_items_are_averaged_over_the_orders_of_ties(similarity: list[int], k: int) -> None:
    relevant = [False, True, False, True, True]
    orders = [each for each in permutations(range(5)) if sorted(each, key=lambda item: -similarity[item]) == [*each]]
    # Every order that sorts the similarities, each once.
    expected = np.mean([_by_hand([relevant[item] for item in order], k) for order in orders], axis=0)
    found = score_rankings(np.array([similarity], float), np.array([relevant]), ks=[k]).values
    values = [found[f"precision_at_{k}"][0], found[f"map_at_{k}" if k > 1 else "precision_at_1"][0]]
    assert values == pytest.approx(expected.tolist())


def _retrieve(embeddings: np.ndarray, labels: np.ndarray, excluded: np.ndarray) -> Ranking:
    return retrieval_scores(
        embeddings,
        embeddings,
        relevant=lambda numbers: labels[numbers][:, None] == labels,
        candidates=lambda numbers: excluded[numbers][:, None] != excluded,
        ks=[1],
    )


def test_the_query_and_its_source_image_are_never_ranked() -> None:
    """The most similar item of another label counts, and neither the query nor its twin from the same source."""
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    labels, each, sources = np.array([0, 0, 1, 0]), np.arange(4), np.array([0, 0, 1, 2])
    by_item, by_source = (_retrieve(embeddings, labels, excluded) for excluded in (each, sources))
    assert by_item.candidates.tolist() == [3, 3, 3, 3] and by_source.candidates.tolist() == [2, 2, 3, 3]
    assert by_item.values["precision_at_1"][0] == 1.0 and by_source.values["precision_at_1"][0] == 0.0
    assert by_source.values["auroc"][:2].tolist() == [0.0, 0.0]


def test_a_query_without_relevant_items_has_no_value() -> None:
    found = _retrieve(np.eye(3), np.array([0, 0, 1]), np.arange(3))
    assert found.relevant.tolist() == [1, 1, 0]
    assert all(np.isnan(values[2]) and not np.isnan(values[:2]).any() for values in found.values.values())


def test_the_result_does_not_depend_on_the_size_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = np.repeat(rng.normal(size=(20, 7)), 3, axis=0), rng.integers(0, 3, 60)
    whole = _retrieve(embeddings, labels, np.arange(60))
    monkeypatch.setattr(ranking, "_NUMBERS", 100)
    parts = _retrieve(embeddings, labels, np.arange(60))
    for name, values in whole.values.items():
        np.testing.assert_array_equal(values, parts.values[name])


def test_equal_embeddings_are_chance() -> None:
    labels = np.array([0] * 5 + [1] * 15)
    found = _retrieve(np.ones((20, 4)), labels, np.arange(20)).values
    expected = np.where(labels == 0, 4 / 19, 14 / 19)
    assert found["auroc"].tolist() == [0.5] * 20
    np.testing.assert_allclose(found["aupr"], expected)
    np.testing.assert_allclose(found["precision_at_1"], expected)


def test_embeddings_of_zeros_and_of_huge_numbers() -> None:
    labels = np.array([0, 0, 1, 1])
    found = _retrieve(np.array([[1e300, 0.0], [1e300, 1e200], [0.0, 1e-300], [0.0, 0.0]]), labels, np.arange(4))
    assert found.values["precision_at_1"][:2].tolist() == [1.0, 1.0]
    assert np.isfinite(found.values["aupr"]).all()


def test_invalid_arguments_raise_errors() -> None:
    ones = np.ones((2, 3), bool)
    with pytest.raises(ValueError, match="same shape"):
        score_rankings(np.zeros((2, 3)), ones[:, :2])
    with pytest.raises(ValueError, match="finite"):
        score_rankings(np.full((2, 3), np.nan), ones)
    with pytest.raises(ValueError, match="k must be 1"):
        score_rankings(np.zeros((2, 3)), ones, ks=[0])
    with pytest.raises(ValueError, match="not finite"):
        _retrieve(np.full((2, 3), np.inf), np.zeros(2), np.arange(2))
    with pytest.raises(ValueError, match="same d"):
        retrieval_scores(np.ones((2, 3)), np.ones((2, 4)), relevant=lambda _: ones, candidates=lambda _: ones)


def test_names_are_those_of_the_values() -> None:
    found = score_rankings(np.zeros((1, 2)), np.array([[True, False]]), ks=[1, 5])
    assert set(found.values) == set(metric_names([1, 5]))
