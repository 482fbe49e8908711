"""Which images are in which split: never a source image in two, and it is reported how they were made."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from stedfm_hf.labels.labelled import LabelledImages, from_arrays
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import UserError
from stedfm_hf.training import classify
from stedfm_hf.training.classify import read_splits, sample_images
from stedfm_hf.training.finetuning.settings import ClassificationSettings


def labelled(sources: int = 20) -> LabelledImages:
    """Two crops a source."""
    names = [f"cell {number // 2}" for number in range(2 * sources)]
    return from_arrays("d", [np.eye(8)] * len(names), [number // 2 % 2 for number in range(len(names))], sources=names)


def settings_of(**options: Any) -> ClassificationSettings:
    return ClassificationSettings("demo", "lab/d", output="run", **options)


def read(monkeypatch: pytest.MonkeyPatch, splits: dict[str, LabelledImages], **words: Any) -> Splits[LabelledImages]:
    monkeypatch.setattr(classify, "read_labelled_images", lambda *_, **__: splits)
    return read_splits(settings_of(**words))


@pytest.mark.parametrize("given", [("all",), ("train",), ("train", "test"), ("train", "validation", "test")])
def test_no_source_is_in_two_splits(monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]) -> None:
    whole = labelled(48)
    share = len(whole) // len(given)
    found = read(monkeypatch, {name: whole[place * share : (place + 1) * share] for place, name in enumerate(given)})
    splits = [set(each.sources.tolist()) for each in found.named().values()]
    assert len(splits) == 3 and all(not one & other for one, other in combinations(splits, 2))
    assert ("a hash of the id" in found.description) == ("validation" not in given)


def test_other_names_of_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = labelled(24)
    days = {f"day {number}": whole[16 * number : 16 * (number + 1)] for number in range(3)}
    found = read(monkeypatch, days, train_split="day 0", validation_split="day 1", test_split="day 2")
    assert found.named() == dict(zip(("train", "validation", "test"), days.values(), strict=True))
    with pytest.raises(UserError, match="d: no split 'train'; set --train-split to one of: day 0, day 1, day 2"):
        read(monkeypatch, days)
    with pytest.raises(UserError, match="d: no split 'day 9'; set --validation-split"):
        read(monkeypatch, days, train_split="day 0", validation_split="day 9")


def test_the_split_does_not_depend_on_the_seed_of_a_run_and_samples_do(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(labels_per_class=3)
    found = read(monkeypatch, {"train": labelled(20)})
    samples = [sample_images(found.train, settings, seed).image_ids.tolist() for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2] and len(samples[0]) == 6


def test_a_source_in_two_splits_of_the_data_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = labelled(20)
    with pytest.raises(UserError, match="source image .* is in train .* and in validation"):
        read(monkeypatch, {"train": whole[:21], "validation": whole[21:]})


def test_only_one_way_to_sample_is_allowed() -> None:
    with pytest.raises(UserError, match="give one of them"):
        settings_of(labels_per_class=3, label_fraction=0.1)


def test_a_split_option_without_splits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="d: the data set has no splits; remove --test-split"):
        read(monkeypatch, {"all": labelled(20)}, test_split="day 2")
