"""Which images are on which side: never a source on two of them, and it is said how they were made."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from stedfm_hf.labels.labelled import LabelledImages, from_arrays
from stedfm_hf.runs import UserError
from stedfm_hf.training.classification import material
from stedfm_hf.training.classification.arguments import DataArguments
from stedfm_hf.training.classification.material import draw, read_material
from stedfm_hf.training.finetuning.sides import Material


def labelled(sources: int = 20) -> LabelledImages:
    """Two crops a source."""
    names = [f"cell {number // 2}" for number in range(2 * sources)]
    return from_arrays("d", [np.eye(8)] * len(names), [number // 2 % 2 for number in range(len(names))], sources=names)


def read(monkeypatch: pytest.MonkeyPatch, splits: dict[str, LabelledImages], **words: Any) -> Material[LabelledImages]:
    monkeypatch.setattr(material, "read_labelled", lambda *_, **__: splits)
    return read_material(DataArguments(dataset="d", **words))


@pytest.mark.parametrize("given", [("all",), ("train",), ("train", "test"), ("train", "validation", "test")])
def test_no_source_is_on_two_sides(monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]) -> None:
    whole = labelled(24)
    share = len(whole) // len(given)
    found = read(monkeypatch, {name: whole[place * share : (place + 1) * share] for place, name in enumerate(given)})
    sides = [set(each.sources.tolist()) for each in (found.train, *found.sides().values())]
    assert all(not one & other for one, other in combinations(sides, 2))
    assert (found.test is None) == (given == ("train",))
    assert ("cut by source image" in found.how) == ("validation" not in given)
    assert ("there is no test split" in found.how) == (given == ("train",))


def test_the_cut_does_not_depend_on_the_seed_of_a_run_and_draws_do(monkeypatch: pytest.MonkeyPatch) -> None:
    words = DataArguments(dataset="d", labels_per_class=3)
    found = read(monkeypatch, {"train": labelled(20)})
    again = read(monkeypatch, {"train": labelled(20)})
    assert found.train.places.tolist() == again.train.places.tolist()
    draws = [draw(found.train, words, seed).places.tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2] and len(draws[0]) == 6


def test_a_source_on_two_sides_of_the_data_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = labelled(20)
    with pytest.raises(UserError, match="source image .* is in train and in validation"):
        read(monkeypatch, {"train": whole[:21], "validation": whole[21:]})


def test_a_class_of_one_source_cannot_be_missing_in_train_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = labelled(12)
    few = whole.take(np.flatnonzero((whole.labels == 0) | (whole.sources == "cell 1")))
    for seed in range(4):
        try:
            assert all(read(monkeypatch, {"train": few}, split_seed=seed).train.counts().values())
        except UserError as error:
            assert "no image of class 1 is left in train" in str(error)


def test_two_ways_to_draw_are_one_too_many() -> None:
    with pytest.raises(UserError, match="give one of them"):
        DataArguments(dataset="d", labels_per_class=3, label_fraction=0.1)


def test_a_split_that_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="d: has no splits; leave --test_split out"):
        read(monkeypatch, {"all": labelled(20)}, test_split="day 2")
