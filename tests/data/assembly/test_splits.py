"""Splits by source: nobody on two sides, classes alike, the same whatever the order of the inputs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.data.assembly.splits import SplitShares, split_sources
from stedfm_hf.runs import UserError

SOURCES = st.dictionaries(st.text(min_size=1, max_size=6), st.sampled_from(["a", "b", None]), max_size=60)


@given(sources=SOURCES, seed=st.integers(0, 2**32), validation=st.floats(0, 0.45), test=st.floats(0, 0.45))
def test_every_source_is_in_one_split_whatever_the_order(
    sources: dict[str, str | None], seed: int, validation: float, test: float
) -> None:
    shares = SplitShares(validation, test)
    splits = split_sources(sources, shares, seed=seed)
    assert set(splits) == set(sources) and set(splits.values()) <= {"train", "validation", "test"}
    assert splits == split_sources(dict(reversed(sources.items())), shares, seed=seed)
    counts = Counter(splits.values())
    for name, share in (("validation", validation), ("test", test)):
        assert abs(counts[name] - share * len(sources)) < 2 + 1e-9
        assert share > 0 or name not in counts
    if len(sources) >= 3:
        assert counts["train"] >= 1
        assert all(counts[name] for name, share in (("validation", validation), ("test", test)) if share > 0)


def test_classes_are_shared_out_alike() -> None:
    sources = {
        f"{label}{number}": label for label, count in (("a", 100), ("b", 20), ("c", 10)) for number in range(count)
    }
    splits = split_sources(sources, SplitShares(0.1, 0.2), seed=0)
    counts = Counter((label, splits[source]) for source, label in sources.items())
    assert [counts[label, "test"] for label in "abc"] == [20, 4, 2]
    assert [counts[label, "validation"] for label in "abc"] == [10, 2, 1]


def test_a_class_of_one_source_stays_for_training() -> None:
    sources = {f"a{number}": "a" for number in range(9)} | {"only": "b"}
    for seed in range(20):
        assert split_sources(sources, SplitShares(0.3, 0.3), seed=seed)["only"] == "train"


def test_seeds_make_splits_of_their_own() -> None:
    sources: dict[str, str | None] = dict.fromkeys(map(str, range(30)))
    seen = {tuple(sorted(split_sources(sources, SplitShares(), seed=seed).items())) for seed in range(5)}
    assert len(seen) == 5


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.2), (0.5, 0.5), (0.2, 1.0)])
def test_what_is_no_share_is_said(validation: float, test: float) -> None:
    with pytest.raises(UserError, match="give two numbers"):
        SplitShares(validation, test)
