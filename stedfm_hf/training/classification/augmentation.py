"""What is done to the training images of a classifier (ours).

The reference defines flips and rotations and applies none of them.
"""

from __future__ import annotations

import torch

from stedfm_hf.training.finetuning.augmentation import change_intensities, choose_place, choose_turns
from stedfm_hf.training.preparation import FOREGROUND, MIN_FOREGROUND, middle, turn


def crop_with_foreground(image: torch.Tensor, size: int, keys: torch.Tensor) -> torch.Tensor:
    """A square of an image with foreground in it, where there is any.

    Args:
        image: (C, H, W) in [0, 1], no smaller than `size`.
        size: rows and columns wanted.
        keys: of the sample, (1, 2), see :func:`stedfm_hf.training.counters.sample_keys`.
    """
    lit = image.amax(dim=0) > FOREGROUND
    top, left = choose_place(
        lit.shape, size, keys, share=MIN_FOREGROUND, wanted_in=lambda place: int(lit[place].sum())
    )
    return image[:, top : top + size, left : left + size]


def middle_of(image: torch.Tensor, size: int) -> torch.Tensor:
    """The middle of an image (C, H, W)."""
    return middle(image[None], size)[0]


def augment(images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Turns and mirrors every image in one of eight ways, and changes its intensities a little.

    Args:
        images: (B, C, S, S) in [0, 1].
        keys: of the samples, (B, 2), on the same device.
    """
    return change_intensities(turn(images, choose_turns(keys)), keys)
