"""What is done to training images: a place, a turn and a mild change of intensity, by (seed, epoch, sample) (ours).

The reference defines flips and rotations and applies none of them.
"""

from __future__ import annotations

import torch

from stedfm_hf.training.counters import draw, draw_uniform
from stedfm_hf.training.preparation import CROP, CROP_TRIES, FOREGROUND, MIN_FOREGROUND, TURN, middle, turn

INTENSITY = 4
"""What random numbers are drawn for, beside those of the pretraining."""
GAIN, GAMMA, OFFSET = 0.2, 0.2, 0.02
"""Largest logarithm of the factor and of the exponent, and largest shift, of intensities in [0, 1]."""


def crop_with_foreground(image: torch.Tensor, size: int, keys: torch.Tensor) -> torch.Tensor:
    """The first of some random places that has enough foreground, else the one with most of it.

    Args:
        image: (C, H, W) in [0, 1], no smaller than `size`.
        size: rows and columns wanted.
        keys: of the sample, (1, 2), see :func:`stedfm_hf.training.counters.sample_keys`.
    """
    height, width = image.shape[1:]
    if (height, width) == (size, size):
        return image
    places = draw(keys, 2 * CROP_TRIES, purpose=CROP).reshape(-1, 2)
    lit, fullest, best = image.amax(dim=0) > FOREGROUND, -1, image[:, :size, :size]
    for place in places:
        top, left = int(place[0]) % (height - size + 1), int(place[1]) % (width - size + 1)
        inside = int(lit[top : top + size, left : left + size].sum())
        if inside > fullest:
            fullest, best = inside, image[:, top : top + size, left : left + size]
        if inside > MIN_FOREGROUND * size * size:
            break
    return best


def middle_of(image: torch.Tensor, size: int) -> torch.Tensor:
    """The middle of an image (C, H, W)."""
    return middle(image[None], size)[0]


def augment(images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Turns and mirrors every image in one of eight ways, and changes its intensities a little.

    A microscope has no upright, and neither dye nor laser nor detector gives the same brightness twice: each image
    becomes gain * x ** gamma + offset, cut to [0, 1].

    Args:
        images: (B, C, S, S) in [0, 1].
        keys: of the samples, (B, 2), on the same device.
    """
    turned = turn(images, draw(keys, 1, purpose=TURN)[:, 0] % 8)
    chosen = 2 * draw_uniform(keys, 3, purpose=INTENSITY)[:, :, None, None, None] - 1
    gain, gamma, offset = chosen.unbind(1)
    return ((GAIN * gain).exp() * turned ** (GAMMA * gamma).exp() + OFFSET * offset).clamp(0, 1)
