"""The one rule for the axis order of arrays without axis names."""

from __future__ import annotations

import pytest

from stedfm_hf.modeling.axes_stedfm import channel_axis


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((64, 64, 2), 2),
        ((512, 300, 1), 2),
        ((512, 300, 3), 2),
        ((5, 300, 4), 2),
        ((3, 300, 512), 0),
        ((64, 300, 512), 0),
        ((300, 512, 5), 0),
        ((2, 300, 4), 0),
        ((4, 4, 4), 0),
        ((1, 1, 1), 0),
    ],
)
def test_the_channels_are_last_only_where_no_image_is_that_narrow(shape: tuple[int, ...], axis: int) -> None:
    assert channel_axis(shape) == axis


def test_other_numbers_of_axes_are_refused() -> None:
    with pytest.raises(ValueError):
        channel_axis((2, 2))
