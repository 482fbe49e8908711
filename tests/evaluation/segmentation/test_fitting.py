"""Folds, and that nothing is scored by what was fitted on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.evaluation.segmentation import Chance, Otsu, Scoring, assign_folds, make_baselines
from stedfm_hf.evaluation.segmentation.fitting import Folded, without_training
from stedfm_hf.evaluation.segmentation.scored import scored_of, table_of
from stedfm_hf.evaluation.splits import chosen_split
from stedfm_hf.labels.annotated import AnnotatedImages, from_arrays
from stedfm_hf.labels.splits import split_images
from stedfm_hf.metrics.mask_scores import ScoringProtocol
from stedfm_hf.runs import UserError


def squares(count: int, per_source: int = 1, classes: Sequence[str] | None = None) -> AnnotatedImages:
    """Bright squares on noise; every second image has a square of the second class where there are two."""
    rng, images, masks = np.random.default_rng(0), [], []
    for number in range(count):
        image, mask = rng.random((24, 24)), np.zeros((24, 24), np.uint8)
        for each in range(1, 1 + len(classes or ["one"])):
            top = 2 + 10 * (each - 1)
            image[top : top + 6, 4:10] += 3 * each
            mask[top : top + 6, 4:10] = each if number % 2 or each == 1 else 0
        images.append(image.astype(np.float32))
        masks.append(mask)
    sources = [f"cell {number // per_source}" for number in range(count)]
    return from_arrays("squares", images, masks, classes=classes, sources=sources)


class Remembers:
    """Answers perfectly for images it was fitted on, and with nothing for all others."""

    name = "memory"

    def fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: object = None) -> Self:
        self.known = {image.tobytes(): np.asarray(target) for image, target in zip(images, targets, strict=True)}
        return self

    def predict(self, image: np.ndarray) -> np.ndarray:
        nothing = np.zeros((2, *image.shape[1:]))
        nothing[0] = 1
        return self.known.get(image.tobytes(), nothing)


@given(st.integers(2, 5), st.integers(0, 3))
def test_no_source_is_in_two_folds_and_none_is_empty(folds: int, seed: int) -> None:
    data = squares(10, per_source=2)
    fold = assign_folds(data, folds, seed)
    assert set(fold.tolist()) == set(range(folds))
    assert all(len(set(fold[data.sources == source].tolist())) == 1 for source in set(data.sources.tolist()))


def test_every_image_is_scored_once_by_what_never_saw_it() -> None:
    data = squares(6)
    memory, otsu = (Folded(each, data, assign_folds(data, 3)) for each in (Remembers(), Otsu(exclusive=True)))
    assert sorted(memory.order) == list(range(6))
    for number in memory.order:
        assert Scoring()(data, number, memory.predict(number), "memory").pixels.values["iou"][1] == 0
        assert Scoring()(data, number, otsu.predict(number), "otsu").pixels.values["iou"][1] > 0.9


@pytest.mark.parametrize("folds", [1, 7])
def test_too_few_or_too_many_folds_are_refused(folds: int) -> None:
    with pytest.raises(UserError, match=f"{folds} folds were asked for; 2 to 6 can be made of 6 source images"):
        assign_folds(squares(6), folds)


def test_a_set_without_splits_is_split_as_by_a_fine_tuning() -> None:
    data = squares(60, per_source=2)
    splits = chosen_split({"all": data}, None)
    assert splits.named().keys() == split_images({"all": data}, select=True).named().keys()
    for name, images in split_images({"all": data}, select=True).named().items():
        assert images.fingerprint == splits.named()[name].fingerprint
        assert chosen_split({"all": data}, name).test.fingerprint == images.fingerprint
    whole = chosen_split({"all": data}, "all")
    assert not len(whole.train) and len(whole.test) == 60 and whole.tested == "all"


def test_splits_are_taken_as_they_are() -> None:
    data = squares(12)
    parts = {"train": data.take(range(6)), "validation": data.take(range(6, 9))}
    splits = chosen_split(parts, None)
    assert splits.tested == "validation" and "no test split" in splits.how and splits.train is parts["train"]
    named = chosen_split(parts, "train")
    assert named.test is parts["train"] and not len(named.train)
    with pytest.raises(UserError, match="has no split 'test'; there are train, validation"):
        chosen_split(parts, "test")
    with pytest.raises(UserError, match="has the splits day 1, day 2; name one"):
        chosen_split({"day 1": data.take([0]), "day 2": data.take([1])}, None)
    with pytest.raises(UserError, match="is in train .* and in test"):
        chosen_split({"train": data, "test": data.take([0])}, None)


def test_chance_draws_each_class_as_often_as_it_is() -> None:
    share = np.array([0.7, 0.3])
    target = (np.arange(10_000).reshape(1, 100, 100) < 3000).astype(float)
    image = np.random.default_rng(0).random((1, 100, 100))
    for exclusive in (False, True):
        planes = np.concatenate([1 - target, target])
        maps = Chance(exclusive=exclusive).fit([image], [planes]).predict(image)
        np.testing.assert_allclose((maps >= 0.5).mean(axis=(1, 2)), share, atol=0.02)
        assert maps.min() >= 0 and maps.max() <= 1
        np.testing.assert_array_equal(maps, Chance(exclusive=exclusive).fit([image], [planes]).predict(image))
    for certain in (0.0, 1.0):
        maps = Chance().fit([image], [np.full((1, 100, 100), certain)]).predict(image)
        assert ((maps >= 0.5) == certain).all()


def test_without_a_train_split_only_what_learns_nothing_is_left() -> None:
    one, two = squares(2), squares(2, classes=["a", "b"])
    found = without_training(one, ["otsu", "wavelets", "forest", "constant", "chance"])
    assert list(found) == ["otsu", "wavelets"]
    assert found["otsu"].predict(one.image(0)).argmax(axis=0).sum() == 36
    assert not without_training(two, ["otsu", "wavelets"])
    with pytest.raises(UserError, match="baseline 'magic' is unknown"):
        make_baselines(one, ["magic"])


@pytest.mark.parametrize("protocol", ["default", "reference"])
def test_scores_come_back_from_their_table(protocol: ScoringProtocol) -> None:
    data = squares(2, classes=["a", "b"])
    if protocol == "reference":
        planes = [np.stack([data.target(number) == each for each in (1, 2)]).astype(np.uint8) for number in range(2)]
        data = from_arrays("squares", [data.image(0), data.image(1)], planes, target_type="multi_label")
    scoring = Scoring(protocol=protocol)
    maps = np.full((len(data.classes), 24, 24), 0.1)
    scored = [scoring(data, number, maps, "flat") for number in range(2)]
    table = table_of(scored, data.classes)
    again = scored_of(table, data.classes, scoring)
    assert table_of(again, data.classes).equals(table) and len(table) == 2 * len(data.classes)
    assert again[0].pixels.plain() == scored[0].pixels.plain()
    row = table.to_pylist()[-2 if protocol == "reference" else 2]
    assert row["class"] == data.classes[-2 if protocol == "reference" else 2]
    if protocol == "default":
        assert table.to_pylist()[0]["true_positives"] is None, "regions of the background are no objects"
    else:
        absent = [row for row in table.to_pylist() if row["image_id"] == "0"][-1]
        assert absent["iou"] == absent["weak_aupr"] == -1
