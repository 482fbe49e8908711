"""Morphology features: known objects, and defined values of images that have few objects or none."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import ellipse

from stedfm_hf.evaluation.morphology import MORPHOLOGY, detect_spots, morphology_features

PIXEL_UM = 0.02


def _discs(centres: list[tuple[int, int]], size: int = 96, radius: float = 5.5) -> np.ndarray:
    """Cones with one peak each."""
    y, x = np.mgrid[:size, :size]
    distance = np.min([np.hypot(y - row, x - column) for row, column in centres], axis=0)
    return np.where(distance < radius, 0.8 - 0.1 * distance, 0.0)


def _features(image: np.ndarray, mask: np.ndarray | None = None, pixel_size_um: float = PIXEL_UM) -> dict[str, float]:
    found = morphology_features([image], [image > 0 if mask is None else mask], pixel_size_um=pixel_size_um)
    assert np.isfinite(found.values).all()
    return dict(zip(MORPHOLOGY, found.values[0].tolist(), strict=True))


def test_features_of_three_discs() -> None:
    """Two discs are 20 pixels (0.4 µm) apart, and the third is 50 pixels (1 µm) from the second."""
    image = _discs([(20, 20), (20, 40), (70, 40)])
    found, area = _features(image), float((image > 0).sum() / 3)
    assert found["area"] == area
    assert found["mean_intensity"] == pytest.approx(image.sum() / area / 3)
    assert found["nearest_neighbour"] == pytest.approx((0.4 + 0.4 + 1.0) / 3)
    assert found["density"] == pytest.approx((1 + 1 + 0) / 3 / (np.pi * 0.25)), "an object is not its own neighbour"
    assert found["peaks"] == 1.0 and found["solidity"] > 0.9 and found["eccentricity"] < 0.1
    assert found["major_axis"] == pytest.approx(found["minor_axis"], rel=0.05)
    assert found["snr"] == pytest.approx(found["mean_intensity"] * 256), "a black background counts as one grey level"


def test_peaks_outside_of_objects_do_not_count() -> None:
    image = _discs([(20, 20), (70, 70)])
    only_first = np.zeros(image.shape, bool)
    only_first[:48, :48] = image[:48, :48] > 0
    assert _features(image, only_first)["peaks"] == 1.0
    twice = image.copy()
    twice[20, 24] = 1.0
    assert _features(twice)["peaks"] == 1.5 and _features(twice, pixel_size_um=0.005)["peaks"] == 1.0


def test_an_ellipse_is_eccentric_and_the_pixel_size_scales_distances() -> None:
    image = np.zeros((96, 96))
    image[ellipse(48, 48, 8, 30)] = 0.7
    found = _features(image)
    assert found["eccentricity"] > 0.9 and found["major_axis"] > 3 * found["minor_axis"]
    near, far = (_features(_discs([(20, 20), (20, 40)]), pixel_size_um=size) for size in (0.01, 0.03))
    assert far["nearest_neighbour"] == pytest.approx(3 * near["nearest_neighbour"])
    assert near["density"] > 0 == far["density"]


def test_signal_to_noise_ratio() -> None:
    image = _discs([(30, 30)]) + 0.1
    assert _features(image, image > 0.2)["snr"] == pytest.approx((image[image > 0.2].mean() - 0.1) / 0.1)


@pytest.mark.parametrize("image", [np.zeros((40, 40)), np.full((40, 40), 0.3), np.ones((2, 9)), np.zeros((1, 1))])
def test_images_without_objects_have_defined_values_and_are_counted(image: np.ndarray) -> None:
    for masks in (None, [np.zeros(image.shape, bool)]):
        found = morphology_features([image], masks)
        row = dict(zip(MORPHOLOGY, found.values[0].tolist(), strict=True))
        assert found.objects.tolist() == [0] and np.isfinite(found.values).all()
        assert all(row[name] == 0.0 for name in MORPHOLOGY if name not in ("blur", "entropy"))
        assert row["blur"] == 1.0 and row["entropy"] == 0.0


def test_one_object_that_fills_the_image_or_is_black_has_defined_values() -> None:
    whole = _features(np.ones((30, 40)))
    assert whole["nearest_neighbour"] == pytest.approx(50 * PIXEL_UM) and whole["density"] == 0.0
    black = _features(np.zeros((30, 40)), np.pad(np.ones((5, 5), bool), ((9, 16), (9, 26))))
    assert black["mean_intensity"] == pytest.approx(0.0, abs=1e-9) and black["area"] == 25.0
    line = np.zeros((30, 40), bool)
    line[3, 4:20] = True
    assert _features(line.astype(float), line)["minor_axis"] < 1


def test_spots_are_found_in_noise() -> None:
    rng, centres = np.random.default_rng(0), [(20, 20), (30, 70), (75, 45)]
    y, x = np.mgrid[:96, :96]
    clean = sum(np.exp(-((y - row) ** 2 + (x - column) ** 2) / 40) for row, column in centres)
    noisy = rng.poisson(20 * clean + 2) / 40
    found = morphology_features([noisy])
    assert found.objects.tolist() == [3] and all(detect_spots(noisy)[centre] for centre in centres)


def test_invalid_arguments_raise_errors() -> None:
    with pytest.raises(ValueError, match="pixel_size_um must be above 0"):
        morphology_features([np.zeros((4, 4))], pixel_size_um=0)
    with pytest.raises(ValueError, match="shape"):
        morphology_features([np.zeros((1, 4, 4))])
    with pytest.raises(ValueError, match="finite"):
        morphology_features([np.full((4, 4), np.nan)])
    with pytest.raises(ValueError, match="mask"):
        morphology_features([np.zeros((4, 4))], [np.zeros((5, 4), bool)])
    assert morphology_features([]).values.shape == (0, 13)
