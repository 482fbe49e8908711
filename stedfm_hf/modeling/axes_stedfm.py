"""Axis order of arrays without axis names: the one rule of the whole package."""

from collections.abc import Sequence

MAX_CHANNELS_LAST = 4
"""Largest number of channels that are recognised on the last axis: grey with alpha, colour, colour with alpha."""


def channel_axis(shape: Sequence[int]) -> int:
    """Return which of three axes without names holds the channels: the first (0) or the last (2).

    The channels are last where the last axis is shorter than both other axes and at most `MAX_CHANNELS_LAST` long,
    because no image is that narrow. All other arrays are channels first, with any number of channels.

    Args:
        shape: Lengths of the three axes.

    Raises:
        ValueError: If there are not three axes.

    Example:
        >>> channel_axis((64, 64, 2)), channel_axis((512, 300, 3))
        (2, 2)
        >>> channel_axis((3, 64, 64)), channel_axis((64, 512, 512)), channel_axis((3, 3, 3))
        (0, 0, 0)
    """
    first, second, last = shape
    return 2 if last <= MAX_CHANNELS_LAST and last < min(first, second) else 0


__all__ = ["MAX_CHANNELS_LAST", "channel_axis"]
