"""Existing splits, splits by source image id, and samples of labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stedfm_hf.data.splits import split_of
from stedfm_hf.labels.labelled import LabelledImages, from_arrays, sample_fraction, sample_per_class
from stedfm_hf.labels.splits import Splits, check_no_leakage, limitations_of, split_images
from stedfm_hf.runs import UserError
from tests.labels.labelled_data import arrays

CELLS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 300)), min_size=20, max_size=60)


def labelled(labels: Sequence[object], sources: list[str]) -> LabelledImages:
    return from_arrays("set", [np.eye(4)] * len(labels), labels, sources=sources)


def ids_in(*splits: str, count: int = 1) -> list[str]:
    """Return source image ids whose hash puts them into these splits."""
    names = iter(f"cell {number}" for number in range(10_000))
    return [next(name for name in names if split_of(name) == split) for split in splits for _ in range(count)]


def split_or_skip(cells: list[tuple[str, int]], *, select: bool) -> Splits[LabelledImages]:
    """Split crops with a class and a cell number, or skip the example if they cannot be split."""
    assume(len({label for label, _ in cells}) > 1)
    try:
        return split_images(
            {"all": labelled([label for label, _ in cells], [f"cell {cell}" for _, cell in cells])}, select=select
        )
    except UserError:
        assume(False)
        raise


@given(cells=CELLS, select=st.booleans())
def test_every_image_is_in_one_split_and_no_source_in_two(cells: list[tuple[str, int]], select: bool) -> None:
    named = split_or_skip(cells, select=select).named()
    check_no_leakage(named)
    assert sorted(np.concatenate([images.rows for images in named.values()]).tolist()) == list(range(len(cells)))


@given(cells=CELLS, data=st.data())
def test_splits_do_not_depend_on_the_order_or_on_other_images(
    cells: list[tuple[str, int]], data: st.DataObject
) -> None:
    splits = split_or_skip(cells, select=False)
    others = data.draw(st.permutations(cells)), cells + data.draw(CELLS), cells[: len(cells) // 2]
    of_source = {source: name for name, images in splits.named().items() for source in images.sources.tolist()}
    for changed in others:
        for name, images in split_or_skip(list(changed), select=False).named().items():
            assert {of_source.get(source, name) for source in images.sources.tolist()} == {name}


def test_existing_splits_are_used_unchanged() -> None:
    data = arrays(12)
    parts = {"train": data.take(range(0, 36, 2)), "validation": data.take([1, 13, 25]), "test": data.take([3, 15, 27])}
    splits = split_images(parts, select=True)
    assert splits.named() == parts and splits.description == "The splits are those of the data set."
    two = split_images({name: parts[name] for name in ("train", "validation")}, select=True)
    assert list(two.held_out()) == ["validation"] and two.description.endswith("; there is no test split.")
    whole = split_images({name: parts[name] for name in ("train", "test")}, select=False)
    assert whole.train is parts["train"] and list(whole.held_out()) == ["test"]
    with pytest.raises(UserError, match=r"has the splits train, day 2; select one with --split"):
        split_images({"train": parts["train"], "day 2": parts["test"]}, select=False)


def test_a_missing_validation_split_is_taken_from_train() -> None:
    sources = ids_in("train", count=4) + ids_in("validation", count=2) + ids_in("test", count=2)
    train = labelled(list("abababab"), sources)
    splits = split_images({"train": train, "test": labelled(list("ab"), ["x", "y"])}, select=True)
    assert splits.validation.sources.tolist() == sources[4:6] and splits.test.sources.tolist() == ["x", "y"]
    assert splits.train.sources.tolist() == sources[:4] + sources[6:], "the data set has them in train"
    assert "selected 2 source images of 8" in splits.description


def test_small_folders_without_a_validation_split_select_on_test_images() -> None:
    data = labelled(list("ababab"), ids_in("train", count=4) + ids_in("test", count=2))
    selected = split_images({"all": data}, select=True)
    assert list(selected.named()) == ["train", "validation"] and len(selected.validation) == 2
    assert "there is no test split" in selected.description
    assert list(split_images({"all": data}, select=False).named()) == ["train", "test"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (ids_in("train", count=4), "none of 4 source images falls into validation or test"),
        (ids_in("test", count=4), "none of 4 source images falls into train"),
        (ids_in("test", "train", "validation", "train"), "no image of a falls into train"),
    ],
)
def test_images_that_cannot_be_split_are_an_error_with_a_solution(sources: list[str], message: str) -> None:
    data = labelled(["a", "b", "a", "b"], sources)
    for select in (False, True):
        with pytest.raises(UserError, match=f"{message}.*add images, or sort them into folders"):
            split_images({"all": data}, select=select)


def test_a_class_without_test_images_is_named() -> None:
    sources = ids_in("train", count=6) + ids_in("test", count=2)
    splits = split_images({"all": labelled(list("ababccab"), sources)}, select=False)
    assert "No image of c falls into test, so that nothing is measured for it: add images, or" in splits.description
    splits = split_images({"all": labelled(list("abababab"), sources)}, select=False)
    assert "falls into" not in splits.description


def test_few_source_images_are_a_limitation() -> None:
    first, second = limitations_of(arrays(4, per_source=2))
    assert first == "the test has only 6 source images" and second.endswith(
        "fewer than 5 source images of a (2), b (2), c (2)"
    )
    assert limitations_of(arrays(30)) == []


def test_a_source_image_in_two_splits_is_an_error() -> None:
    data = labelled(list("abab"), ["cell 1", "cell 1", "cell 2", "cell 3"])
    check_no_leakage({"train": data.take([0, 1]), "test": data.take([2, 3])})
    with pytest.raises(UserError, match=r"source image 'cell 1' is in train \(0\) and in test \(1\); keep all"):
        check_no_leakage({"train": data.take([0, 2]), "test": data.take([1, 3])})


def test_samples_per_class_are_without_replacement_and_nested() -> None:
    data = arrays(10)
    few, more = sample_per_class(data, 3, 7), sample_per_class(data, 6, 7)
    assert few.counts() == dict.fromkeys("abc", 3) and more.counts() == dict.fromkeys("abc", 6)
    assert len({*more.rows.tolist()}) == 18 and {*few.rows.tolist()} < {*more.rows.tolist()}
    assert few.rows.tolist() != sample_per_class(data, 3, 8).rows.tolist()


def test_a_sample_of_more_images_than_a_class_has_is_an_error() -> None:
    data = labelled(list("aaab"), list("wxyz"))
    with pytest.raises(UserError, match="cannot sample 2 images per class, because b has 1"):
        sample_per_class(data, 2, 0)
    with pytest.raises(UserError, match="choose at least 1"):
        sample_per_class(data, 0, 0)


def test_samples_of_multilabel_images_have_enough_of_each_class() -> None:
    data = labelled([["a"], ["a", "b"], ["b"], ["a", "b"], ["a"], ["b"]], list("uvwxyz"))
    counts = sample_per_class(data, 2, 0).counts()
    assert min(counts.values()) >= 2


def test_a_fraction_is_sampled_from_every_class() -> None:
    data = labelled(["a"] * 40 + ["b"] * 10 + ["c"], [str(number) for number in range(51)])
    assert sample_fraction(data, 0.1, 0).counts() == {"a": 4, "b": 1, "c": 1}
    assert len(sample_fraction(data, 1.0, 0)) == 51
    with pytest.raises(UserError, match="must be above 0 and at most 1"):
        sample_fraction(data, 0.0, 0)
