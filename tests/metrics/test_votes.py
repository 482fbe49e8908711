"""Votes: what decides, what a tie does, and what the reference protocol does otherwise."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from stedfm_hf.evaluation import knn_votes
from stedfm_hf.metrics import VOTES, Vote
from stedfm_hf.metrics.votes import reference_decide


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
    found = knn_votes(gallery, labels, query, truth, votes=[Vote(k)])[Vote(k)]
    assert 50 < clear.sum() and (k == 1 or not clear.all())
    np.testing.assert_array_equal(found.predicted[clear], theirs.predict(query)[clear])


def test_all_votes_come_from_one_search_and_can_leave_the_own_source_out() -> None:
    """Every image has two equal crops: with its twin the nearest is right, without it wrong."""
    vectors = np.repeat(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), 2, axis=0)
    labels, sources = list("aabbaabb"), list("ssttuuvv")
    within = knn_votes(vectors, labels, vectors, labels, query_sources=sources)
    left_out = knn_votes(vectors, labels, vectors, labels, gallery_sources=sources, query_sources=sources)
    assert tuple(within) == tuple(left_out) == VOTES
    assert (within[Vote(1)].accuracy, left_out[Vote(1)].accuracy) == (1.0, 0.0)
    assert all((each.images, each.sources) == (8, 4) for each in [*within.values(), *left_out.values()])
    with pytest.raises(ValueError, match="another source"):
        knn_votes(vectors[:2], list("aa"), vectors, labels, gallery_sources=["s", "s"], query_sources=sources)


def test_impossible_votes_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be 1"):
        Vote(0)
    with pytest.raises(ValueError, match="above 0"):
        Vote(5, 0.0)
