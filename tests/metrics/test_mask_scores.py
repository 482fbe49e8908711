"""Pixel metrics: agreement with scikit-learn, invariances, and undefined values."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from stedfm_hf.evaluation.segmentation import planes_of, predicted_pixels, score_image
from stedfm_hf.metrics.mask_scores import PIXEL_METRICS
from stedfm_hf.runs import UserError

SEEDS = st.integers(0, 10_000)


def example(seed: int, classes: int = 2, size: int = 9, rate: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Maps with ties, and a target."""
    rng = np.random.default_rng(seed)
    return rng.random((classes, size, size + 1)).round(1), (rng.random((classes, size, size + 1)) < rate).astype(float)


@given(seed=SEEDS, rate=st.floats(0.0, 1.0))
def test_scores_agree_with_scikit_learn(seed: int, rate: float) -> None:
    maps, target = example(seed, rate=rate)
    found = score_image(maps, target)
    for number in range(2):
        truth, values = target[number].ravel() > 0.5, maps[number].ravel()
        predicted = values > 0.5
        if truth.any() or predicted.any():
            assert found.values["iou"][number] == pytest.approx(jaccard_score(truth, predicted, zero_division=0))
            assert found.values["dice"][number] == pytest.approx(f1_score(truth, predicted, zero_division=0))
        if truth.any() and not truth.all():
            assert found.values["aupr"][number] == pytest.approx(average_precision_score(truth, values))
            assert found.values["auroc"][number] == pytest.approx(roc_auc_score(truth, values))
        else:
            assert np.isnan([found.values[name][number] for name in ("aupr", "auroc")]).all()


@given(seed=SEEDS, threshold=st.floats(0.05, 0.95))
def test_dice_is_a_function_of_iou(seed: int, threshold: float) -> None:
    maps, target = example(seed)
    found = score_image(maps, target, threshold=threshold).values
    np.testing.assert_allclose(found["dice"], 2 * found["iou"] / (1 + found["iou"]))


@given(seed=SEEDS)
def test_scores_do_not_depend_on_pixel_positions(seed: int) -> None:
    maps, target = example(seed)
    order = np.random.default_rng(seed).permutation(maps[0].size)
    shuffled = [each.reshape(2, -1)[:, order].reshape(each.shape) for each in (maps, target)]
    here, there = score_image(maps, target), score_image(*shuffled)
    for name in PIXEL_METRICS:
        np.testing.assert_allclose(here.values[name], there.values[name])


@given(seed=SEEDS)
def test_a_perfect_prediction_scores_one_and_its_inverse_zero(seed: int) -> None:
    _, target = example(seed)
    target[:, 0, 0], target[:, 0, 1] = 0, 1
    perfect, inverse = score_image(target, target).values, score_image(1 - target, target).values
    assert all((perfect[name] == 1).all() for name in PIXEL_METRICS)
    assert all((inverse[name] == 0).all() for name in ("iou", "dice", "auroc"))


@given(seed=SEEDS, rows=st.integers(1, 9), columns=st.integers(1, 10))
def test_scoring_a_region_equals_scoring_the_crop(seed: int, rows: int, columns: int) -> None:
    maps, target = example(seed)
    region = np.zeros(maps.shape[1:], bool)
    region[:rows, :columns] = True
    masked, cropped = score_image(maps, target, region), score_image(*(e[:, :rows, :columns] for e in (maps, target)))
    for name in PIXEL_METRICS:
        np.testing.assert_array_equal(masked.values[name], cropped.values[name])


@given(seed=SEEDS)
def test_areas_depend_on_the_order_of_probabilities_only(seed: int) -> None:
    maps, target = example(seed)
    one, other = score_image(maps, target).values, score_image(maps**3 / 2, target).values
    for name in ("aupr", "auroc"):
        np.testing.assert_allclose(one[name], other[name])


def test_undefined_scores_are_none() -> None:
    none, every = np.zeros((1, 2, 2)), np.ones((1, 2, 2))
    nowhere = np.zeros((2, 2), bool)
    undefined = dict.fromkeys(PIXEL_METRICS, [None])
    assert score_image(none, none).plain() == undefined
    assert score_image(every, every, nowhere).plain() == undefined
    assert score_image(every, none).plain() == undefined | {"iou": [0.0], "dice": [0.0]}
    assert score_image(every, every).plain() == undefined | {"iou": [1.0], "dice": [1.0]}


def test_soft_targets_are_true_above_one_half() -> None:
    maps = np.array([[[0.9, 0.6, 0.2]]])
    found = score_image(maps, np.array([[[0.75, 0.5, 0.25]]])).values
    assert found["iou"][0] == 0.5
    assert found["auroc"][0] == 1.0


def test_exclusive_classes_use_the_most_probable_class() -> None:
    maps = np.array([[[0.4, 0.2]], [[0.35, 0.45]], [[0.25, 0.35]]])
    target, counted = planes_of(np.array([[0, 1]]), "single_label", 3)
    found = score_image(maps, target, counted, exclusive=True).plain()
    assert found["iou"] == [1.0, 1.0, None]
    assert score_image(maps, target, counted).plain()["iou"] == [0.0, 0.0, None]  # no probability exceeds one half
    assert predicted_pixels(maps, exclusive=True).sum(axis=0).tolist() == [[1, 1]]


def test_planes_of_every_target_type() -> None:
    planes, counted = planes_of(np.array([[2, 255], [0, 2]]), "single_label", 3)
    assert planes.argmax(axis=0)[counted].tolist() == [2, 0, 2]
    assert counted.tolist() == [[True, False], [True, True]]
    assert planes[:, 0, 1].tolist() == [0, 0, 0]
    for target_type in ("multi_label", "soft"):
        planes, counted = planes_of(np.full((2, 3, 4), 1, np.uint8), target_type, 2)
        assert planes.dtype == np.float32 and planes.all() and counted.all() and counted.shape == (3, 4)


def test_invalid_arguments_raise_errors() -> None:
    maps = np.full((1, 2, 2), 0.5)
    with pytest.raises(UserError, match=r"probabilities \(1, 2, 2\) and target \(1, 2, 3\)"):
        score_image(maps, np.zeros((1, 2, 3)))
    with pytest.raises(UserError, match=r"region \(3, 3\) must have the shape \(2, 2\)"):
        score_image(maps, maps, np.ones((3, 3), bool))
    with pytest.raises(UserError, match="1 of 4 probabilities are not finite"):
        score_image(np.array([[[np.nan, 0], [0, 0]]]), maps)
    with pytest.raises(UserError, match="range from 0 to 255"):
        score_image(maps, np.array([[[0, 255], [0, 0]]]))
    with pytest.raises(UserError, match="range from nan"):
        score_image(maps, np.array([[[0, np.nan], [0, 0]]]))
    with pytest.raises(UserError, match=r"class number 7, but there are 3 classes \(0 to 2\)"):
        planes_of(np.array([[0, 7]]), "single_label", 3)
    with pytest.raises(UserError, match=r"must have the shape \(H, W\)"):
        planes_of(np.zeros((1, 2, 2)), "single_label", 3)
    with pytest.raises(UserError, match=r"2 classes must have the shape \(2, H, W\)"):
        planes_of(np.zeros((1, 2, 2)), "soft", 2)
    with pytest.raises(UserError, match="choose default or reference"):
        score_image(maps, maps, protocol=cast(Any, "other"))
