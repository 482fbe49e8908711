"""What is done to training images, whatever they are trained for: a place, a turn, a mild change of intensity (ours).

All of it is a function of (seed, epoch, sample).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from stedfm_hf.training.counters import draw, draw_uniform
from stedfm_hf.training.preparation import CROP, CROP_TRIES, TURN

INTENSITY = 4
"""What random numbers are drawn for, beside those of the pretraining."""
GAIN, GAMMA, OFFSET = 0.2, 0.2, 0.02
"""Largest logarithm of the factor and of the exponent, and largest shift, of intensities in [0, 1]."""


def choose_place(
    shape: Sequence[int],
    size: int,
    keys: torch.Tensor,
    *,
    share: float,
    wanted_in: Callable[[tuple[slice, slice]], int],
) -> tuple[int, int]:
    """First row and column of a square: the first of some random places with enough in it, else that with most.

    Args:
        shape: (H, W) of the image, no smaller than `size`.
        size: rows and columns of the square.
        keys: of the sample, (1, 2), see :func:`stedfm_hf.training.counters.sample_keys`.
        share: of the pixels of a square; more than this is enough. 0: any place is.
        wanted_in: counts the pixels that are wanted in a square; a large image is not looked at as a whole.
    """
    height, width = shape
    if (height, width) == (size, size):
        return 0, 0
    places = draw(keys, 2 * CROP_TRIES, purpose=CROP).reshape(-1, 2)
    fullest, best = -1, (0, 0)
    for place in places:
        top, left = int(place[0]) % (height - size + 1), int(place[1]) % (width - size + 1)
        if share == 0:
            return top, left
        inside = wanted_in((slice(top, top + size), slice(left, left + size)))
        if inside > fullest:
            fullest, best = inside, (top, left)
        if inside > share * size * size:
            break
    return best


def choose_turns(keys: torch.Tensor) -> torch.Tensor:
    """One of eight rotations and reflections of every sample, (B,): a microscope has no upright."""
    return draw(keys, 1, purpose=TURN)[:, 0] % 8


def change_intensities(images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Changes the intensities of every image a little: neither dye nor laser nor detector is the same twice.

    Each image becomes gain * x ** gamma + offset, cut to [0, 1].

    Args:
        images: (B, C, S, S) in [0, 1].
        keys: of the samples, (B, 2), on the same device.
    """
    chosen = 2 * draw_uniform(keys, 3, purpose=INTENSITY)[:, :, None, None, None] - 1
    gain, gamma, offset = chosen.unbind(1)
    return ((GAIN * gain).exp() * images ** (GAMMA * gamma).exp() + OFFSET * offset).clamp(0, 1)
