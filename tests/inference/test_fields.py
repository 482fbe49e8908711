"""A field in rows, and its maps at the pixels of the file."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from stedfm_hf.inference.fields import Field, resized_bands
from stedfm_hf.modeling.image_processing_stedfm import resample
from stedfm_hf.modeling.maps_stedfm import resampled_size


@trials(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(1, 30)] * 2), st.tuples(*[st.integers(1, 60)] * 2), st.integers(1, 8))
def test_maps_are_brought_to_the_pixels_of_the_file(
    source: tuple[int, int], target: tuple[int, int], step: int
) -> None:
    map = np.random.default_rng(0).random((2, *source), dtype=np.float32)
    bands = ((top, map[:, top : top + step]) for top in range(0, source[0], step))
    found = list(resized_bands(bands, source, target))
    assert [top for top, _ in found] == list(np.cumsum([0, *(band.shape[1] for _, band in found[:-1])]))
    expected = torch.nn.functional.interpolate(torch.from_numpy(map)[None], size=target, mode="bilinear")[0]
    np.testing.assert_allclose(np.concatenate([band for _, band in found], axis=1), expected, atol=1e-5)


@trials(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(2, 60)] * 2), st.tuples(*[st.floats(0.2, 4)] * 2), st.integers(1, 9))
def test_rows_of_another_pixel_size_are_those_of_the_whole_image(
    shape: tuple[int, int], factors: tuple[float, float], step: int
) -> None:
    seen = resampled_size(shape, factors)
    assume(seen[1] > 1)  # torch does not look at the other rows of an image that becomes one pixel wide
    image = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    expected = resample(image, factors)
    field = Field("", "", image, np.array([[0.0, 1.0]] * 2), True, None, seen)
    rows = [field.rows(top, min(top + step, seen[0])) for top in range(0, seen[0], step)]
    np.testing.assert_allclose(np.concatenate(rows, axis=1), expected, atol=2e-5)
