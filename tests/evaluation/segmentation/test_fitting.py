"""Folds, splits, and baselines that are never scored on their training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.evaluation.segmentation import Baseline, Chance, Otsu, Scorer, assign_folds, make_baselines
from stedfm_hf.evaluation.segmentation.fitting import CrossValidatedBaseline, untrained_baselines
from stedfm_hf.evaluation.segmentation.scores import scores_from_table, scores_to_table
from stedfm_hf.evaluation.splits import select_split
from stedfm_hf.labels.annotated import AnnotatedImages, from_arrays
from stedfm_hf.labels.splits import split_images
from stedfm_hf.metrics.mask_scores import ScoringProtocol
from stedfm_hf.runs import UserError


def squares(count: int, per_source: int = 1, classes: Sequence[str] | None = None) -> AnnotatedImages:
    """Create bright squares on noise; with two classes, every second image has a square of the second class."""
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


class Memory(Baseline):
    """Baseline that is perfect on training images and predicts background otherwise."""

    name = "memory"

    def _fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: object) -> None:
        self.known = {image.tobytes(): np.asarray(target) for image, target in zip(images, targets, strict=True)}

    def _predict(self, image: np.ndarray) -> np.ndarray:
        background = np.zeros((2, *image.shape[1:]))
        background[0] = 1
        return self.known.get(image.tobytes(), background)


@given(st.integers(2, 5), st.integers(0, 3))
def test_no_source_is_in_two_folds_and_none_is_empty(folds: int, seed: int) -> None:
    data = squares(10, per_source=2)
    fold = assign_folds(data, folds, seed)
    assert set(fold.tolist()) == set(range(folds))
    assert all(len(set(fold[data.sources == source].tolist())) == 1 for source in set(data.sources.tolist()))


def test_each_image_is_scored_once_by_a_fit_without_it() -> None:
    data = squares(6)
    memory, otsu = (
        CrossValidatedBaseline(each, data, assign_folds(data, 3)) for each in (Memory(), Otsu(exclusive=True))
    )
    assert sorted(memory.order) == list(range(6))
    for number in memory.order:
        assert Scorer()(data, number, memory.predict(number), "memory").pixels.values["iou"][1] == 0
        assert Scorer()(data, number, otsu.predict(number), "otsu").pixels.values["iou"][1] > 0.9


@pytest.mark.parametrize("folds", [1, 7])
def test_too_few_or_too_many_folds_raise_errors(folds: int) -> None:
    with pytest.raises(UserError, match=f"{folds} folds are not possible with 6 source images; choose 2 to 6"):
        assign_folds(squares(6), folds)


def test_folds_of_one_source_image_raise_an_error_that_lists_failed_images() -> None:
    data = replace(squares(1), failed={"b.tif": "not a TIFF file"})
    with pytest.raises(
        UserError, match=r"only 1 source image to score.*1 image failed; first: b\.tif: not a TIFF file"
    ):
        assign_folds(data, 2)


def test_a_data_set_without_splits_is_split_as_for_fine_tuning() -> None:
    data = squares(60, per_source=2)
    splits = select_split({"all": data}, None)
    assert splits.named().keys() == split_images({"all": data}, select=True).named().keys()
    for name, images in split_images({"all": data}, select=True).named().items():
        assert images.fingerprint == splits.named()[name].fingerprint
        assert select_split({"all": data}, name).test.fingerprint == images.fingerprint
    whole = select_split({"all": data}, "all")
    assert not len(whole.train) and len(whole.test) == 60 and whole.test_split == "all"


def test_existing_splits_are_kept() -> None:
    data = squares(12)
    parts = {"train": data.take(range(6)), "validation": data.take(range(6, 9))}
    splits = select_split(parts, None)
    assert (
        splits.test_split == "validation" and "no test split" in splits.description and splits.train is parts["train"]
    )
    named = select_split(parts, "train")
    assert named.test is parts["train"] and not len(named.train)
    with pytest.raises(UserError, match="has no split 'test'; choose from train, validation"):
        select_split(parts, "test")
    with pytest.raises(UserError, match="has the splits day 1, day 2; select one with --split"):
        select_split({"day 1": data.take([0]), "day 2": data.take([1])}, None)
    with pytest.raises(UserError, match="is in train .* and in test"):
        select_split({"train": data, "test": data.take([0])}, None)


def test_chance_predicts_each_class_with_its_frequency() -> None:
    frequencies = np.array([0.7, 0.3])
    target = (np.arange(10_000).reshape(1, 100, 100) < 3000).astype(float)
    image = np.random.default_rng(0).random((1, 100, 100))
    for exclusive in (False, True):
        planes = np.concatenate([1 - target, target])
        maps = Chance(exclusive=exclusive).fit([image], [planes]).predict(image)
        np.testing.assert_allclose((maps >= 0.5).mean(axis=(1, 2)), frequencies, atol=0.02)
        assert maps.min() >= 0 and maps.max() <= 1
        np.testing.assert_array_equal(maps, Chance(exclusive=exclusive).fit([image], [planes]).predict(image))
    for certain in (0.0, 1.0):
        maps = Chance().fit([image], [np.full((1, 100, 100), certain)]).predict(image)
        assert ((maps >= 0.5) == certain).all()


def test_baselines_without_training_images() -> None:
    one, two = squares(2), squares(2, classes=["a", "b"])
    found = untrained_baselines(one, ["otsu", "wavelets", "forest", "constant", "chance"])
    assert list(found) == ["otsu", "wavelets"]
    assert found["otsu"].predict(one.image(0)).argmax(axis=0).sum() == 36
    assert not untrained_baselines(two, ["otsu", "wavelets"])
    with pytest.raises(UserError, match="baseline 'magic' is unknown"):
        make_baselines(one, ["magic"])


@pytest.mark.parametrize("protocol", ["default", "reference"])
def test_scores_are_restored_from_their_table(protocol: ScoringProtocol) -> None:
    data = squares(2, classes=["a", "b"])
    if protocol == "reference":
        planes = [np.stack([data.target(number) == each for each in (1, 2)]).astype(np.uint8) for number in range(2)]
        data = from_arrays("squares", [data.image(0), data.image(1)], planes, target_type="multi_label")
    scorer = Scorer(protocol=protocol)
    maps = np.full((len(data.classes), 24, 24), 0.1)
    scored = [scorer(data, number, maps, "flat") for number in range(2)]
    table = scores_to_table(scored, data.classes)
    again = scores_from_table(table, data.classes, scorer)
    assert scores_to_table(again, data.classes).equals(table) and len(table) == 2 * len(data.classes)
    assert again[0].pixels.plain() == scored[0].pixels.plain()
    row = table.to_pylist()[-2 if protocol == "reference" else 2]
    assert row["class"] == data.classes[-2 if protocol == "reference" else 2]
    if protocol == "default":
        assert table.to_pylist()[0]["true_positives"] is None, "the background has no objects"
    else:
        absent = [row for row in table.to_pylist() if row["image_id"] == "0"][-1]
        assert absent["iou"] == absent["weak_aupr"] == -1
