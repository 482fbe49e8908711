"""Cropping of fields: bit-identical to the formulas of the reference, for every dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.filters import threshold_otsu

from stedfm_hf.data.building.cropping import (
    QUANTILES,
    REFERENCE_MIN_FOREGROUND,
    CropRule,
    IntensityScale,
    crop_positions,
    fit_scale,
    grid,
)
from stedfm_hf.runs import UserError

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=24)
DTYPES = st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64, np.float32, np.float64])


@st.composite
def planes(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(DTYPES))
    if dtype.kind == "f":
        numbers = st.floats(-1e6, 1e6, width=32) | st.integers(-3, 3).map(float)
        return draw(hnp.arrays(dtype, SHAPES, elements=numbers))
    limits = np.iinfo(str(dtype))
    least, most = max(limits.min, -(2**40)), min(limits.max, 2**40)
    return draw(hnp.arrays(dtype, SHAPES, elements=st.integers(max(least, -3), 3) | st.integers(least, most)))


def by_the_formula(plane: np.ndarray, quantiles: tuple[float, float]) -> tuple[float, float, np.ndarray] | None:
    """Quantiles and 8-bit field by the formula of the reference, in float64."""
    field = plane.astype(np.float64)
    low, high = np.quantile(field, quantiles)
    if low == high:
        return None
    return low, high, (np.clip((field - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@given(planes(), st.sampled_from([QUANTILES, (0.0, 1.0), (0.1, 0.73)]))
def test_scaling_and_threshold_are_those_of_the_formula(plane: np.ndarray, quantiles: tuple[float, float]) -> None:
    expected, scale = by_the_formula(plane, quantiles), fit_scale(plane, quantiles)
    if expected is None or scale is None:
        assert expected is None or len(np.unique(expected[2])) == 1
        assert scale is None
        return
    low, high, eight_bit = expected
    assert (scale.low, scale.high) == (low, high)
    np.testing.assert_array_equal(scale.to_8bit(plane), eight_bit)
    threshold = threshold_otsu(eight_bit)
    assert scale.threshold == threshold
    foreground = eight_bit > threshold
    np.testing.assert_array_equal(scale.is_foreground(plane), foreground)
    clipped = np.clip(plane.astype(np.float64), low, high)
    noise = clipped[~foreground].std()
    if scale.snr is not None:
        np.testing.assert_allclose(scale.snr, clipped[foreground].mean() / noise, rtol=1e-4)
    else:
        assert noise < 1e-5 * (high - low)


def test_a_field_of_several_histogram_blocks_is_scaled_like_a_small_one() -> None:
    """More pixels than one block of the histogram."""
    plane = np.random.default_rng(0).poisson(3.0, (1500, 1001)).astype(np.uint16)
    scale = fit_scale(plane)
    assert scale is not None
    expected = by_the_formula(plane, QUANTILES)
    assert expected is not None
    np.testing.assert_array_equal(scale.to_8bit(plane), expected[2])
    same = fit_scale(plane.astype(np.float32))
    assert same is not None
    assert (same.low, same.high, same.threshold) == (scale.low, scale.high, scale.threshold)
    assert same.snr == pytest.approx(scale.snr)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_field_without_contrast_has_no_scale(dtype: str) -> None:
    assert fit_scale(np.full((8, 8), 7, dtype)) is None
    sparse = np.zeros((64, 64), dtype)
    sparse[0, :4] = 90  # fewer than one pixel in a thousand: both quantiles are 0
    assert fit_scale(sparse) is None


def test_values_that_are_not_finite_are_ignored_by_quantiles_and_get_a_defined_value() -> None:
    plane = np.arange(100, dtype=np.float32).reshape(10, 10)
    plane[0, :3] = np.nan, np.inf, -np.inf
    scale = fit_scale(plane, (0.0, 1.0))
    assert scale is not None
    assert (scale.low, scale.high) == (3.0, 99.0)
    assert scale.to_8bit(plane)[0, :3].tolist() == [0, 255, 0]
    assert fit_scale(np.full((4, 4), np.nan, np.float32)) is None


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 200))
def test_the_grid_reaches_both_borders_and_repeats_nothing(size: int, stride: int, more: int) -> None:
    length = size + more
    starts = grid(length, CropRule(size, stride))
    assert starts == sorted(set(starts))
    assert starts[0] == 0 and starts[-1] <= length - size
    assert set(starts[:-1]) <= set(range(0, length, stride))
    if stride <= size:  # no gap
        assert starts[-1] == length - size
        assert all(after - before <= size for before, after in zip(starts, starts[1:], strict=False))


def test_the_grid_of_the_reference() -> None:
    assert grid(224, CropRule()) == [0]
    assert grid(448, CropRule()) == [0, 224]
    assert grid(500, CropRule()) == [0, 224, 276]
    assert grid(1024, CropRule()) == [0, 224, 448, 672, 800]


def test_a_hand_made_field_is_cropped_as_in_the_reference() -> None:
    """300 x 500: rows 0 and 76, columns 0, 224 and 276. Background 10, bright spots of 110."""
    field = np.full((300, 500), 10, np.uint16)
    field[::2, ::2] = 12  # a quarter of the pixels: the background has a little texture
    field[0:10, 0:40] = 110  # 400 pixels: in the crop at (0, 0) only
    field[290:300, 490:500] = 110  # 100 pixels, in the last corner: in the crop at (76, 276) only
    field[100, 224:275] = 110  # 51 pixels in both rows of crops at column 224, none of them from column 276 on
    field[20, 450:500] = 110  # 50 pixels: in the crop at (0, 276), as column 224 ends at 447
    field[299, 0] = 5000  # one pixel far too bright: it is clipped
    scale = fit_scale(field)
    assert scale is not None
    # 602 of 150 000 pixels are bright, 0.4 %: the 0.999 quantile is 110, the 0.001 quantile 10.
    assert (scale.low, scale.high) == (10.0, 110.0)
    assert scale.to_8bit(np.array([[0, 10, 11, 12, 60, 109, 110, 5000]], np.uint16)).tolist() == [
        [0, 0, 2, 5, 127, 252, 255, 255]  # 255 * 0.01 = 2.55 and 255 * 0.99 = 252.45 are truncated, not rounded
    ]
    kept = {
        (position.y, position.x): round(position.foreground_fraction * 224**2)
        for position in crop_positions(field, scale, CropRule(min_foreground=REFERENCE_MIN_FOREGROUND))
    }
    # Of the six crops (0, 276) has 50 pixels, not above 50.176, and (76, 0) the one pixel that is too bright.
    assert kept == {(0, 0): 400, (0, 224): 51, (76, 224): 51, (76, 276): 100}
    assert list(crop_positions(field, scale, CropRule())) == []  # the default requires more than 501 pixels


@pytest.mark.parametrize("rule", [{"size": 0}, {"stride": 0}, {"min_foreground": 1.0}, {"min_foreground": -0.1}])
def test_invalid_rules_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        CropRule(**rule)


def test_a_scale_works_on_parts_of_its_field() -> None:
    field = np.arange(-50, 350, dtype=np.int16).reshape(20, 20)
    scale = fit_scale(field, (0.0, 1.0))
    assert isinstance(scale, IntensityScale)
    np.testing.assert_array_equal(scale.to_8bit(field[3:9, 2:7]), scale.to_8bit(field)[3:9, 2:7])
