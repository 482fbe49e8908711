"""Segmentation baselines: predictions, fitting inside regions, and errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.evaluation.segmentation import (
    Baseline,
    Constant,
    Otsu,
    PixelForest,
    WaveletSpots,
    score_image,
)
from stedfm_hf.evaluation.segmentation.forest import pixel_features
from stedfm_hf.evaluation.segmentation.wavelets import wavelet_planes
from stedfm_hf.runs import UserError

SIZE = 40


def small_forest(*, exclusive: bool = False) -> PixelForest:
    return PixelForest(exclusive=exclusive, n_estimators=10, n_pixels=1500)


ALL: list[Callable[..., Baseline]] = [Constant, Otsu, WaveletSpots, small_forest]


def spots(seed: int, *, gradient: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (1, H, W) of spots in noise with a background gradient, and its mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((1, SIZE, SIZE), bool)
    for row, column in rng.integers(4, SIZE - 4, (6, 2)):
        mask[0, row - 1 : row + 2, column - 1 : column + 2] = True
    image = 0.6 * mask + rng.normal(0.1, 0.02, mask.shape) + gradient * np.linspace(0, 1, SIZE)
    return np.clip(image, 0, 2).astype(np.float32), mask


def iou(baseline: Baseline, image: np.ndarray, mask: np.ndarray) -> float:
    return float(score_image(baseline.predict(image), mask).values["iou"][0])


@pytest.mark.parametrize("make", ALL)
def test_maps_of_all_classes_are_between_zero_and_one(make: Callable[..., Baseline]) -> None:
    image, mask = spots(0)
    target = np.concatenate([mask, ~mask, np.zeros_like(mask)]).astype(np.float32)
    maps = make().fit([image], [target]).predict(spots(1)[0][:, :30])
    assert maps.shape == (3, 30, SIZE) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    assert not maps[2].any()  # no training pixel has this class


@pytest.mark.parametrize("make", ALL)
def test_exclusive_classes(make: Callable[..., Baseline]) -> None:
    image, mask = spots(0)
    target = np.concatenate([~mask, mask, np.zeros_like(mask)]).astype(np.float32)
    maps = make(exclusive=True).fit([image], [target]).predict(image)
    found = score_image(maps, target, exclusive=True).plain()["iou"]
    assert found[0] is not None and found[0] > 0.9
    assert found[2] is None  # never predicted
    if make is not Constant:
        assert found[1] is not None and found[1] > 0.5


@pytest.mark.parametrize("make", [WaveletSpots, small_forest])
def test_fitted_baselines_tolerate_a_background_gradient_unlike_otsu(make: Callable[..., Baseline]) -> None:
    train = [spots(seed, gradient=1.0) for seed in range(3)]
    image, mask = spots(9, gradient=1.0)
    images, masks = [each for each, _ in train], [each for _, each in train]
    learned = make().fit(images, masks)
    assert iou(learned, image, mask) > 0.6
    assert iou(Otsu().fit(images, masks), image, mask) < 0.4


@pytest.mark.parametrize("make", ALL)
def test_pixels_outside_the_region_are_not_used(make: Callable[..., Baseline]) -> None:
    image, mask = spots(0)
    region = np.zeros((SIZE, SIZE), bool)
    region[:, : SIZE // 2] = True
    wrong = mask.copy()
    wrong[:, :, SIZE // 2 :] = True
    true, false = (make().fit([image], [each], [region]).predict(image) for each in (mask, wrong))
    np.testing.assert_array_equal(true, false)


def test_the_iou_of_a_constant_prediction_is_the_class_frequency() -> None:
    image, mask = spots(0)
    assert iou(Constant().fit([image], [mask]), image, mask) == pytest.approx(mask.mean())


@given(seed=st.integers(0, 1000), rows=st.integers(1, 20), columns=st.integers(1, 20), scales=st.integers(1, 5))
def test_wavelet_planes_sum_to_the_image(seed: int, rows: int, columns: int, scales: int) -> None:
    image = np.random.default_rng(seed).random((rows, columns))
    planes = wavelet_planes(image, scales)
    smooth = image - planes.sum(axis=0)
    assert planes.shape == (scales, rows, columns)
    assert smooth.min() >= image.min() - 1e-9 and smooth.max() <= image.max() + 1e-9
    np.testing.assert_allclose(wavelet_planes(image + 7, scales), planes, atol=1e-9)


def test_a_wavelet_plane_by_hand() -> None:
    point = np.zeros((9, 9))
    point[4, 4] = 1.0
    first, second = wavelet_planes(point, 2)
    assert first[4, 4] == pytest.approx(1 - (6 / 16) ** 2)
    assert first[4, 5] == pytest.approx(-6 * 4 / 256)
    smooth = point - first
    holes = np.array([1, 0, 4, 0, 6, 0, 4, 0, 1]) / 16
    assert second[4, 4] == pytest.approx(smooth[4, 4] - holes @ smooth @ holes)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_constant_images_have_no_spots(value: float) -> None:
    image = np.full((1, 20, 21), value)
    assert not WaveletSpots().fit([image], [image >= 0]).predict(image).any()
    assert not Otsu().fit([image], [image >= 0]).predict(image).any()


def test_spots_do_not_depend_on_the_unit_of_the_image() -> None:
    image, mask = spots(0)
    found = WaveletSpots().fit([image], [mask])
    np.testing.assert_array_equal(found.predict(image), found.predict(image.astype(float) * 1000 + 50))


def test_each_class_has_separate_settings() -> None:
    image, mask = spots(0)
    wide = np.zeros_like(mask)
    wide[0, 5:25, 5:25] = True
    found = WaveletSpots().fit([image + wide], [np.concatenate([mask, wide])]).settings
    assert len(found) == 2 and found[0] != found[1]


def test_a_forest_is_reproducible_from_its_seed() -> None:
    image, mask = spots(0)
    one, same, other = (
        PixelForest(n_estimators=5, n_pixels=300, seed=seed).fit([image], [mask]).predict(image) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@given(seed=st.integers(0, 1000), pixels=st.integers(1, 80))
def test_a_forest_samples_pixels_of_all_images(seed: int, pixels: int) -> None:
    sizes = [20, 0, 30, 7]
    sample = PixelForest(n_pixels=pixels, seed=seed)._sample(sizes)
    assert sum(len(each) for each in sample) == min(pixels, sum(sizes))
    for each, size in zip(sample, sizes, strict=True):
        assert len(np.unique(each)) == len(each)
        assert not len(each) or (each.min() >= 0 and each.max() < size)


def test_features_of_several_channels() -> None:
    image, _ = spots(0)
    two = np.concatenate([image, 1 - image])
    features = pixel_features(two)
    assert features.shape == (SIZE, SIZE, 40) and np.isfinite(features).all()
    np.testing.assert_array_equal(features[..., :20], pixel_features(image))


def test_invalid_arguments_raise_errors() -> None:
    image, mask = spots(0)
    broken = image.copy()
    broken[0, 3, 3] = np.nan
    for make in ALL:
        with pytest.raises(UserError, match="is not fitted"):
            make().predict(image)
        with pytest.raises(UserError, match="no annotated images"):
            make().fit([], [])
        with pytest.raises(UserError, match="regions of all images are empty"):
            make().fit([image], [mask], [np.zeros((SIZE, SIZE), bool)])
        if make is not Constant:
            with pytest.raises(UserError, match="not finite"):
                make().fit([image], [mask]).predict(broken)
    with pytest.raises(UserError, match="channel 2 does not exist"):
        Otsu(channel=2).fit([image], [mask]).predict(image)
    with pytest.raises(UserError, match="2 x 2 pixels"):
        pixel_features(np.zeros((1, 1, 5)))
