"""Changes of the acquisition: units, noise, determinism, intensity ranges and the reference protocol."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from stedfm_hf.data.simulation.physics import SIGMA_PER_FWHM
from stedfm_hf.evaluation.robustness.counts import PEAK_COUNTS, Calibration
from stedfm_hf.evaluation.robustness.families import Family, default_families
from stedfm_hf.evaluation.robustness.images import change_images
from stedfm_hf.evaluation.robustness.reference import reference_families
from stedfm_hf.evaluation.settings import FAMILIES, REFERENCE_FAMILIES
from stedfm_hf.images import StedImage
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor, fit_intensity_range
from stedfm_hf.runs import UserError
from tests.labels.labelled_data import arrays

NM = Calibration()
PX = Calibration(unit="px", psf_fwhm=3.0)


def sted(array: np.ndarray, pixel_size: float | None = 20.0) -> StedImage:
    size = None if pixel_size is None else (pixel_size, pixel_size)
    return StedImage(np.asarray(array)[None], size, ("0",), {}, "a.tif", "image")


def family(name: str, calibration: Calibration = NM, pixel_size: float = 20.0) -> Family:
    return default_families(calibration, pixel_size=pixel_size, names=[name])[0]


def changed(name: str, image: StedImage, level: float, seed: int = 0, image_id: str = "x") -> np.ndarray:
    calibration = PX if image.pixel_size_nm is None else NM
    return (
        family(name, calibration).apply(image, level, calibration=calibration, seed=seed, image_id=image_id).array[0]
    )


def noise(mean: float, size: int = 128) -> StedImage:
    return sted(np.random.default_rng(0).poisson(mean, (size, size)).astype(np.uint16))


def test_names_of_all_families() -> None:
    assert tuple(each.name for each in default_families(NM)) == FAMILIES
    assert tuple(each.name for each in reference_families()) == REFERENCE_FAMILIES
    with pytest.raises(UserError, match="family 'mixed' is unknown; choose from photons, background"):
        default_families(NM, names=["mixed"])


@pytest.mark.parametrize("each", [*default_families(NM), *reference_families()], ids=lambda each: each.name)
def test_another_process_changes_images_equally(each: Family) -> None:
    data = change_images(arrays(2), each, each.levels[-1], calibration=PX)
    pickle = pytest.importorskip("distributed.protocol.pickle")
    again = pickle.loads(pickle.dumps(data.reader))
    np.testing.assert_array_equal(again(int(data.rows[1])).array, data.stored(1).array)


@pytest.mark.parametrize("each", [*default_families(NM), *reference_families()], ids=lambda each: each.name)
def test_levels_are_ordered_and_the_first_changes_nothing(each: Family) -> None:
    image = noise(20.0, 32)
    assert each.apply(image, each.identity, calibration=NM) is image
    if each.ordered:
        positions = [each.position(level) for level in each.levels]
        assert positions == sorted(set(positions))
        assert [each.level_at(place) for place in positions] == pytest.approx(list(each.levels))
    for level in each.levels[1:]:
        pixels = each.apply(image, level, calibration=NM, image_id="x").array
        assert pixels.dtype == np.float32 and np.isfinite(pixels).all()
        again = each.apply(image, level, calibration=NM, image_id="x").array
        np.testing.assert_array_equal(pixels, again)
        other = each.apply(image, level, calibration=NM, image_id="x", seed=1).array
        assert each.random or np.array_equal(pixels, other)


@pytest.mark.parametrize("name", ["photons", "background", "psf", "bleaching", "poisson"])
def test_noise_depends_on_seed_and_image_only(name: str) -> None:
    each = next(each for each in [*default_families(NM), *reference_families()] if each.name == name)
    image = noise(20.0, 32)

    def pixels(seed: int = 0, image_id: str = "x") -> np.ndarray:
        return each.apply(image, each.levels[-1], calibration=NM, seed=seed, image_id=image_id).array

    assert not np.array_equal(pixels(), pixels(seed=1))
    assert not np.array_equal(pixels(), pixels(image_id="y"))


def test_changed_data_do_not_depend_on_the_order_of_the_images() -> None:
    data, photons = arrays(4), family("photons", PX)
    whole = change_images(data, photons, 5.0, calibration=PX)
    part = change_images(data.take([7, 2]), photons, 5.0, calibration=PX)
    np.testing.assert_array_equal(whole.stored(7).array, part.stored(0).array)
    np.testing.assert_array_equal(whole.stored(2).array, part.stored(1).array)
    keys = {
        change_images(data, photons, level, calibration=PX, seed=n).fingerprint for level in (5, 2) for n in (0, 1)
    }
    assert len({*keys, data.fingerprint}) == 5
    gain = family("gain", PX)
    assert len({change_images(data, gain, 50.0, calibration=PX, seed=n).fingerprint for n in (0, 1)}) == 1


def test_fewer_photons_keep_poisson_noise() -> None:
    image = noise(100.0)
    peak = float(fit_intensity_range(image.array)[0, 1])
    pixels = changed("photons", image, 10.0)
    expected = 100.0 * 10.0 / peak
    assert pixels.mean() == pytest.approx(expected, rel=0.02) and pixels.var() == pytest.approx(expected, rel=0.06)
    np.testing.assert_array_equal(changed("photons", image, 1000.0), image.array[0])  # the image has fewer


def test_background_offset_and_gain() -> None:
    image = noise(20.0)
    pixels = changed("background", image, 30.0)
    assert pixels.mean() == pytest.approx(50.0, rel=0.01) and pixels.var() == pytest.approx(50.0, rel=0.06)
    np.testing.assert_array_equal(changed("offset", image, 10.0), image.array[0] + 10)
    np.testing.assert_allclose(changed("gain", image, 50.0), image.array[0] * 1.5)
    processor = StedFmImageProcessor()
    for name, level in (("offset", 100.0), ("gain", 200.0)):  # percentiles remove both
        again = processor.prepare(replace(image, array=changed(name, image, level)[None]))
        np.testing.assert_allclose(again, processor.prepare(image), atol=1e-5)


def test_the_point_spread_function_has_the_requested_width() -> None:
    point = np.zeros((65, 65))
    point[32, 32] = 1e8
    current = gaussian_filter(point, 60.0 / 20.0 * SIGMA_PER_FWHM)
    profile = changed("psf", sted(np.round(current).astype(np.int64)), 200.0).sum(axis=0)
    offsets = (np.arange(65) - 32) * 20.0
    width = math.sqrt(float((profile * offsets**2).sum() / profile.sum())) / SIGMA_PER_FWHM
    assert width == pytest.approx(200.0, rel=0.02)
    flat = changed("psf", noise(50.0), 200.0)
    assert flat.var() == pytest.approx(50.0, rel=0.08)  # shot noise is not averaged away


def test_drift_moves_the_last_row_by_the_level() -> None:
    lines = np.zeros((41, 64))
    lines[:, 32] = 100
    pixels = changed("drift", sted(lines.astype(np.uint16)), 200.0)
    columns = pixels.argmax(axis=1)
    assert columns[0] == 32 and abs(columns[-1] - 32) == 10 and abs(columns[20] - 32) == 5
    assert (pixels.sum(axis=1) == 100).all()


def test_larger_pixels_and_rotation_change_the_pixel_size() -> None:
    image = replace(noise(20.0, 64), pixel_size_nm=(20.0, 10.0))
    larger = family("pixel-size").apply(image, 40.0, calibration=NM)
    assert larger.array.shape == (1, 32, 16) and larger.pixel_size_nm == (40.0, 40.0)
    assert np.isin(larger.array, image.array).all()
    turned = family("rotation").apply(image, 90.0, calibration=NM)
    assert turned.pixel_size_nm == (10.0, 20.0)
    np.testing.assert_array_equal(turned.array[0], np.rot90(image.array[0]))
    np.testing.assert_array_equal(changed("flip", image, 2.0), image.array[0, ::-1])


def test_saturation_gamma_and_bleaching() -> None:
    ramp = np.tile(np.arange(100, dtype=np.uint16), (100, 1))
    assert (changed("saturation", sted(ramp), 10.0) == changed("saturation", sted(ramp), 10.0).max()).mean() >= 0.1
    peak = float(fit_intensity_range(ramp[None])[0, 1])
    np.testing.assert_allclose(changed("gamma", sted(ramp), 100.0), ramp.astype(float) ** 2 / peak, rtol=1e-5)
    rows = changed("bleaching", noise(100.0, 256), 75.0).mean(axis=1)
    assert rows[:8].mean() == pytest.approx(100.0, rel=0.05) and rows[-8:].mean() == pytest.approx(25.0, rel=0.1)


def test_lengths_are_in_pixels_without_a_pixel_size() -> None:
    image = replace(noise(20.0, 64), pixel_size_nm=None)
    by_name = {each.name: each for each in default_families(PX)}
    assert {by_name[name].unit for name in ("psf", "drift", "pixel-size")} == {"px"}
    assert by_name["drift"].levels == (0.0, 2.5, 5.0, 10.0, 20.0, 40.0)
    assert by_name["pixel-size"].apply(image, 2.0, calibration=PX).array.shape == (1, 32, 32)
    known = Calibration(pixel_size_nm=20.0)
    assert family("pixel-size").apply(image, 40.0, calibration=known).array.shape == (1, 32, 32)


def test_images_that_are_not_counts_have_assumed_counts() -> None:
    image = sted(np.random.default_rng(0).random((128, 128), dtype=np.float32))
    peak = float(fit_intensity_range(image.array)[0, 1])
    assumed = Calibration(peak_counts=PEAK_COUNTS)
    pixels = family("photons").apply(image, 5.0, calibration=assumed).array
    assert pixels.mean() == pytest.approx(0.5 * 5.0 / PEAK_COUNTS, rel=0.02)
    counts = pixels / peak * PEAK_COUNTS
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)


def test_the_intensity_range_of_a_crop_moves_with_the_change() -> None:
    image = noise(40.0)
    (low, high) = map(float, fit_intensity_range(image.array)[0])
    offset = family("offset")
    whole = replace(image, intensity_range=(low, high))
    assert offset.apply(whole, 10.0, calibration=NM).intensity_range is None  # the crop is the whole image
    crop = replace(image, intensity_range=(0.0, 1.5 * high))
    assert offset.apply(crop, 10.0, calibration=NM).intensity_range == pytest.approx((10.0, 1.5 * high + 10))
    dim = replace(image, intensity_range=(0.0, 1000.0))
    assert offset.apply(dim, 10.0, calibration=NM).intensity_range == pytest.approx((10.0, 1010.0))
    assert family("gain").apply(dim, 50.0, calibration=NM).intensity_range == pytest.approx((0.0, 1500.0))


def test_the_reference_protocol_changes_scaled_images() -> None:
    image = noise(40.0, 64)
    processor = StedFmImageProcessor()
    scaled = processor.prepare(image)[0].astype(np.float64)
    by_name = {each.name: each for each in reference_families(["gaussian-blur", "poisson", "contrast", "geometric"])}

    def pixels(name: str, level: float) -> np.ndarray:
        return processor.prepare(by_name[name].apply(image, level, calibration=NM, image_id="x"))[0]

    kernel = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.5**2))
    kernel /= kernel.sum()
    padded = np.pad(scaled, 2, mode="reflect")
    rows = sum(weight * padded[n : n + 64] for n, weight in enumerate(kernel))
    literal = sum(weight * rows[:, n : n + 64] for n, weight in enumerate(kernel))
    np.testing.assert_allclose(pixels("gaussian-blur", 0.5), literal, atol=1e-5)
    added = np.round((pixels("poisson", 3.0) - scaled)[scaled < 0.9] * 255)
    assert added.mean() == pytest.approx(3.0, rel=0.1) and added.min() >= 0
    curve = 1 / (1 + np.exp(10 * (0.4 - (scaled - scaled.min()) / np.ptp(scaled))))
    np.testing.assert_allclose(pixels("contrast", 2.0), (curve - curve.min()) / np.ptp(curve), atol=1e-5)
    assert not np.array_equal(pixels("geometric", 1.0), scaled)
