"""Objects of a mask that is given in bands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import regionprops

from stedfm_hf.inference.objects import NEIGHBOURS, Components, Hulls


@trials(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 30), st.integers(1, 9), st.floats(0.2, 0.7))
def test_bands_do_not_change_the_objects(seed: int, height: int, width: int, step: int, share: float) -> None:
    random = np.random.default_rng(seed)
    mask, raw = random.random((height, width)) < share, random.normal(size=(1, height, width)).astype(np.float32)
    found, hulls = Components(), Hulls()
    for top in range(0, height, step):
        band = np.s_[top : top + step]
        found.add(top, mask[band], raw[0, band], raw[:, band])
    measures = found.finish(2)
    numbers = np.concatenate([found.numbers(top, mask[top : top + step]) for top in range(0, height, step)])
    for top in range(0, height, step):
        hulls.add(top, numbers[top : top + step])
    solidity = hulls.solidity(measures["area_px"])
    inside, _ = ndimage.label(mask, NEIGHBOURS)
    expected = [each for each in regionprops(inside, raw[0]) if each.area >= 2]
    assert measures["number"].tolist() == list(range(1, len(expected) + 1))
    for index, each in enumerate(expected):
        assert (numbers[tuple(each.coords.T)] == index + 1).all() and measures["area_px"][index] == each.area
        assert measures["mean_intensity_0"][index] == pytest.approx(each.intensity_mean, abs=1e-5)
        assert measures["eccentricity"][index] == pytest.approx(each.eccentricity, abs=1e-4)
    assert (numbers > 0).sum() == measures["area_px"].sum() and (solidity <= 1 + 1e-9).all()


def test_the_solidity_of_shapes_drawn_by_hand() -> None:
    numbers = np.zeros((12, 20), np.int64)
    numbers[1:4, 1:9] = 1
    numbers[6:11, 1:6] = 2
    numbers[7:11, 2:6] = 0  # an L of 9 pixels
    numbers[6, 10] = numbers[7, 11] = 3
    found = Hulls()
    for top in (0, 7):
        found.add(top, numbers[top : top + 7] if top == 0 else numbers[7:])
    assert found.solidity(np.array([24, 9, 2])) == pytest.approx([1, 9 / 17, 2 / 3])
