"""Splits keep source images on one side, and draws are what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.labels.labelled import LabelledImages, draw_fraction, draw_per_class, from_arrays
from stedfm_hf.labels.splits import check_no_leakage, split_by_source
from stedfm_hf.runs import UserError
from tests.labels.labelled_data import arrays

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def labelled(labels: Sequence[object], sources: list[str]) -> LabelledImages:
    return from_arrays("set", [np.eye(4)] * len(labels), labels, sources=sources)


@given(
    crops=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 11)), min_size=12, max_size=60).filter(
        lambda crops: len({label for label, _ in crops}) > 1 and len({source for _, source in crops}) >= 3
    ),
    seed=st.integers(0, 5),
)
def test_no_source_is_on_two_sides(crops: list[tuple[str, int]], seed: int) -> None:
    """Also where the crops of one source are of several classes."""
    data = labelled([label for label, _ in crops], [f"cell {source}" for _, source in crops])
    parts = split_by_source(data, SHARES, seed)
    check_no_leakage(parts)
    assert sorted(np.concatenate([part.rows for part in parts.values()]).tolist()) == list(range(len(data)))
    assert all(len(part) for part in parts.values())


def test_classes_are_spread_alike_and_the_seed_decides() -> None:
    data = arrays(60, per_source=3)
    parts = split_by_source(data, SHARES, 0)
    assert {name: part.counts() for name, part in parts.items()} == {
        "train": dict.fromkeys("abc", 36),
        "validation": dict.fromkeys("abc", 12),
        "test": dict.fromkeys("abc", 12),
    }
    again, other = split_by_source(data, SHARES, 0), split_by_source(data, SHARES, 1)
    assert parts["test"].fingerprint == again["test"].fingerprint != other["test"].fingerprint


def test_a_class_with_few_sources_is_in_every_split_it_can_be_in() -> None:
    labels = ["common"] * 40 + ["rare"] * 3
    data = labelled(list(labels), [str(number) for number in range(43)])
    for seed in range(5):
        parts = split_by_source(data, {"train": 0.8, "validation": 0.1, "test": 0.1}, seed)
        assert [part.counts()["rare"] for part in parts.values()] == [1, 1, 1]


def test_a_regression_is_spread_over_its_range() -> None:
    values = np.linspace(0.5, 99.5, 40)
    data = labelled(list(values), [str(number) for number in range(40)])
    for part in split_by_source(data, {"train": 0.5, "test": 0.5}, 3).values():
        assert np.histogram(part.labels, 4, (0, 100))[0].tolist() == [5, 5, 5, 5]


def test_too_few_sources_are_refused() -> None:
    with pytest.raises(UserError, match="has 2 source images, too few for the splits train, validation, test"):
        split_by_source(labelled(list("abab"), list("xxyy")), SHARES, 0)


def test_draws_per_class_are_without_replacement_and_nested() -> None:
    data = arrays(10)
    few, more = draw_per_class(data, 3, 7), draw_per_class(data, 6, 7)
    assert few.counts() == dict.fromkeys("abc", 3) and more.counts() == dict.fromkeys("abc", 6)
    assert len({*more.rows.tolist()}) == 18 and {*few.rows.tolist()} < {*more.rows.tolist()}
    assert few.rows.tolist() != draw_per_class(data, 3, 8).rows.tolist()


def test_a_class_with_too_few_images_is_named() -> None:
    data = labelled(list("aaab"), list("wxyz"))
    with pytest.raises(UserError, match="2 images of every class were asked for, but b has 1"):
        draw_per_class(data, 2, 0)
    with pytest.raises(UserError, match="the least is 1"):
        draw_per_class(data, 0, 0)


def test_a_draw_of_images_with_several_classes_gives_each_its_number() -> None:
    data = labelled([["a"], ["a", "b"], ["b"], ["a", "b"], ["a"], ["b"]], list("uvwxyz"))
    counts = draw_per_class(data, 2, 0).counts()
    assert min(counts.values()) >= 2


def test_a_fraction_takes_of_every_class_alike() -> None:
    data = labelled(["a"] * 40 + ["b"] * 10 + ["c"], [str(number) for number in range(51)])
    assert draw_fraction(data, 0.1, 0).counts() == {"a": 4, "b": 1, "c": 1}
    assert len(draw_fraction(data, 1.0, 0)) == 51
    with pytest.raises(UserError, match="no share"):
        draw_fraction(data, 0.0, 0)


def test_leakage_is_found_and_named() -> None:
    data = labelled(list("abab"), ["cell 1", "cell 1", "cell 2", "cell 3"])
    check_no_leakage({"train": data.take([0, 1]), "test": data.take([2, 3])})
    with pytest.raises(UserError, match="source image 'cell 1' is in train and in test"):
        check_no_leakage({"train": data.take([0, 2]), "test": data.take([1, 3])})
