"""What is done to training images, whatever they are trained for: a place, a turn, a mild change of intensity (ours).

All of it is a function of (seed, epoch, sample).
"""

from __future__ import annotations

import torch

from stedfm_hf.training.counters import draw, draw_uniform
from stedfm_hf.training.preparation import CROP, CROP_TRIES, TURN

INTENSITY = 4
"""What random numbers are drawn for, beside those of the pretraining."""
GAIN, GAMMA, OFFSET = 0.2, 0.2, 0.02
"""Largest logarithm of the factor and of the exponent, and largest shift, of intensities in [0, 1]."""


def choose_place(wanted: torch.Tensor, size: int, keys: torch.Tensor, *, share: float) -> tuple[int, int]:
    """First row and column of a square: the first of some random places with enough in it, else that with most.

    Args:
        wanted: (H, W) bool, no smaller than `size`.
        size: rows and columns of the square.
        keys: of the sample, (1, 2), see :func:`stedfm_hf.training.counters.sample_keys`.
        share: of the pixels of a square; more than this is enough. 0: any place is.
    """
    height, width = wanted.shape
    if (height, width) == (size, size):
        return 0, 0
    places = draw(keys, 2 * CROP_TRIES, purpose=CROP).reshape(-1, 2)
    fullest, best = -1, (0, 0)
    for place in places:
        top, left = int(place[0]) % (height - size + 1), int(place[1]) % (width - size + 1)
        inside = int(wanted[top : top + size, left : left + size].sum())
        if inside > fullest:
            fullest, best = inside, (top, left)
        if share == 0 or inside > share * size * size:
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
