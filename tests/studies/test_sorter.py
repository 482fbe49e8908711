from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.runs import UserError
from stedfm_hf.studies.sorter import PairwiseSorter, most_comparisons


def sort(items: list[str], rng: np.random.Generator | None = None) -> PairwiseSorter:
    sorter = PairwiseSorter(items)
    while (pair := sorter.pair) is not None:
        sorter.answer(min(pair) if rng is None else str(rng.choice(pair)))
    return sorter


@given(st.lists(st.text("aBé中😀 .", min_size=1), min_size=2, max_size=60, unique=True))
def test_consistent_answers_give_the_order_within_the_bound(items: list[str]) -> None:
    sorter = sort(items)
    assert sorter.ranking == tuple(sorted(items)) and sorter.progress == 1
    assert len(sorter.answers) <= most_comparisons(len(items)) <= len(items) * math.log2(len(items)) + 1


@given(st.permutations(range(50)), st.integers(0, 2**237 - 1))
def test_fifty_images_never_need_more_than_350_comparisons(order: list[int], answers: int) -> None:
    """Regardless of the answers; 237 is the bound of every merge sort."""
    sorter = PairwiseSorter([f"{number:02d}" for number in order])
    while (pair := sorter.pair) is not None:
        sorter.answer(pair[answers & 1])
        answers >>= 1
    assert len(sorter.answers) <= most_comparisons(50) == 237


def test_fifty_images_typically_need_fewer_than_300_comparisons() -> None:
    names, rng = [f"{number:02d}" for number in range(50)], np.random.default_rng(0)
    found = [len(sort(list(rng.permutation(names))).answers) for _ in range(100)]
    assert 200 < np.mean(found) < 230 and max(found) <= 237


def test_images_are_shown_about_equally_often() -> None:
    shown: Counter[str] = Counter()
    sorter = PairwiseSorter([f"{number:02d}" for number in np.random.default_rng(1).permutation(50)])
    while (pair := sorter.pair) is not None:
        shown.update(pair)
        sorter.answer(min(pair))
    assert min(shown.values()) >= 3 and max(shown.values()) <= 30


@given(st.permutations("abcdefg"), st.integers(0, 2**20))
def test_a_saved_sorter_resumes_and_undo_shows_the_last_pair_again(items: list[str], bits: int) -> None:
    sorter = PairwiseSorter(items)
    while (pair := sorter.pair) is not None:
        sorter.answer(pair[bits & 1])
        assert sorter.undo() == pair[bits & 1] and sorter.pair == pair and sorter.ranking is None
        sorter.answer(pair[bits & 1])
        bits >>= 1
        again = PairwiseSorter.from_json(json.loads(json.dumps(sorter.to_json())))
        assert (again.pair, again.ranking, again.answers) == (sorter.pair, sorter.ranking, sorter.answers)
    assert sorted(sorter.ranking or ()) == sorted(items)


def test_answers_that_do_not_fit_are_refused() -> None:
    sorter = PairwiseSorter(["a", "b"])
    assert sorter.undo() is None
    with pytest.raises(UserError, match="is not in the pair"):
        sorter.answer("c")
    sorter.answer("b")
    with pytest.raises(UserError, match="all comparisons are done"):
        sorter.answer("a")
    for items in (["a"], ["a", "a"]):
        with pytest.raises(UserError, match="at least two items"):
            PairwiseSorter(items)
