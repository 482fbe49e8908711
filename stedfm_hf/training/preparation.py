"""Preprocessing of pretraining batches on the device: cropping, scaling, augmentation and masking.

Pixels are transferred to the device in the stored data type, 8 or 16 bits. The preprocessing of a sample is a function
of (seed, epoch, sample), see `random_numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stedfm_hf.data import to_unit_range
from stedfm_hf.training.random_numbers import random_integers, random_ranks, sample_keys

MASK, ROTATION, CROP = 1, 2, 3
"""Purposes of random numbers."""
FLIPS = (0, 2, 5, 7)
"""Numbers of `rotate_and_flip` that mirror rows, columns, both or none."""
CROP_TRIES = 10
"""Number of random crops from which one is selected."""
STRIDE = 4
"""Distance in pixels of the rows and columns that are examined in the search for foreground."""
FOREGROUND = 0.02
"""Scaled intensity above which a pixel is foreground, in the selection of a crop (reference protocol)."""
MIN_FOREGROUND = 0.01
"""Fraction of foreground pixels above which a crop is selected at once."""


@dataclass(frozen=True)
class Preparation:
    """Preprocessing of the batches of a training.

    Attributes:
        seed: Random seed of the run.
        image_size: Size of the images of the model in pixels; larger images are cropped at a random position with
            foreground.
        patches: Number of patches of an image.
        augment: Whether images are rotated and mirrored, and crops are random; otherwise crops are central.
        flips_only: Whether images are only mirrored, not rotated by 90 degrees (reference protocol).

    Example:
        >>> batch = {
        ...     "pixels": torch.zeros(2, 1, 40, 50, dtype=torch.uint8),
        ...     "intensity_range": torch.tensor([[0.0, 255.0]] * 2),
        ...     "index": torch.arange(2),
        ... }
        >>> ready = Preparation(seed=0, image_size=32, patches=4)(batch, epoch=0)
        >>> {name: tuple(values.shape) for name, values in ready.items()}
        {'pixel_values': (2, 1, 32, 32), 'noise': (2, 4)}
    """

    seed: int
    image_size: int
    patches: int
    augment: bool = True
    flips_only: bool = False

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, Any], *, epoch: int) -> dict[str, torch.Tensor]:
        """Crop, scale, augment and mask a batch.

        Args:
            batch: `pixels` (B, 1, H, W), `intensity_range` (B, 2) and `index` (B,), on the device.
            epoch: Index of the epoch.

        Returns:
            `pixel_values` (B, 1, S, S) float32 in [0, 1], and `noise` (B, N) int64, whose order determines the mask.
        """
        keys = sample_keys(self.seed, epoch, batch["index"])
        # Cropping first is faster: a crop of 64 pixels is a twelfth of an image of 224 pixels.
        images = to_unit_range(self._crop(batch["pixels"], batch["intensity_range"], keys), batch["intensity_range"])
        if self.augment:
            turns = torch.tensor(FLIPS if self.flips_only else range(8), device=images.device)
            images = rotate_and_flip(images, turns[random_integers(keys, 1, purpose=ROTATION)[:, 0] % len(turns)])
        return {"pixel_values": images, "noise": random_ranks(keys, self.patches, purpose=MASK)}

    def _crop(self, images: torch.Tensor, intensity_range: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Crop each image at random, (B, 1, size, size): the first of `CROP_TRIES` crops with enough foreground.

        If no crop has enough, the one with most is taken; without augmentation, the centre. Images of the final size
        are returned unchanged.

        Args:
            images: Stored images (B, 1, H, W), unscaled.
            intensity_range: Intensities that become 0 and 1, (B, 2).
            keys: Random keys of the images, (B,).
        """
        size, (height, width) = self.image_size, images.shape[2:]
        if (height, width) == (size, size):
            return images
        if not self.augment:
            return center_crop(images, size)
        positions = random_integers(keys, 2 * CROP_TRIES, purpose=CROP).reshape(-1, CROP_TRIES, 2)
        tops, lefts = positions[..., 0] % (height - size + 1), positions[..., 1] % (width - size + 1)
        # Foreground counts of all crops from an integral image of every fourth row and column; integers, so that all
        # devices agree.
        low, high = intensity_range.unbind(1)
        level = (low + FOREGROUND * (high - low))[:, None, None]
        stored = images[:, 0, ::STRIDE, ::STRIDE]
        stored = stored if images.is_floating_point() else stored.to(torch.int32)
        is_foreground = torch.nn.functional.pad((stored > level).to(torch.int32), (1, 0, 1, 0))
        sums = is_foreground.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        image_index = torch.arange(len(images), device=images.device)[:, None]
        length, first_rows, first_columns = max(1, size // STRIDE), tops // STRIDE, lefts // STRIDE
        foreground_counts = (
            sums[image_index, first_rows + length, first_columns + length]
            - sums[image_index, first_rows, first_columns + length]
            - sums[image_index, first_rows + length, first_columns]
            + sums[image_index, first_rows, first_columns]
        )
        enough = (foreground_counts > MIN_FOREGROUND * length * length).to(torch.int32)
        # The first crop with enough foreground; if there is none, the one with most.
        rank = enough * (2 * length * length + CROP_TRIES) - enough * torch.arange(CROP_TRIES, device=images.device)
        chosen = (torch.where(enough.bool(), rank, foreground_counts)).argmax(dim=1, keepdim=True)
        top, left = tops.gather(1, chosen), lefts.gather(1, chosen)
        span = torch.arange(size, device=images.device)
        rows, columns = (top + span)[:, :, None], (left + span)[:, None, :]
        return images[:, 0][image_index[:, :, None], rows, columns][:, None]


def center_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return the central squares of images.

    Args:
        images: Images (B, C, H, W), at least `size` pixels high and wide.
        size: Height and width of the crops in pixels.

    Returns:
        Crops (B, C, size, size).

    Example:
        >>> center_crop(torch.arange(4).view(1, 1, 1, 4).expand(1, 1, 4, 4), 2)[0, 0, 0].tolist()
        [1, 2]
    """
    top, left = (images.shape[2] - size) // 2, (images.shape[3] - size) // 2
    return images[:, :, top : top + size, left : left + size]


def rotate_and_flip(images: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """Apply one of the eight rotations and reflections to every square image.

    Args:
        images: Images (B, C, S, S).
        number: Number of the transform of each image, 0 to 7, (B,): number of rotations by 90 degrees, plus 4 for a
            transposition.

    Returns:
        Transformed images (B, C, S, S).

    Example:
        >>> image = torch.arange(4).view(1, 1, 2, 2)
        >>> rotate_and_flip(image, torch.tensor([2]))[0, 0].tolist()
        [[3, 2], [1, 0]]
    """
    size = images.shape[-1]
    index = torch.arange(size, device=images.device)
    rows, columns = torch.broadcast_to(index[:, None], (size, size)), torch.broadcast_to(index[None, :], (size, size))
    back = size - 1
    # The origin of each pixel of the transformed image, for all eight transforms.
    origins = [(rows, columns), (columns, back - rows), (back - rows, back - columns), (back - columns, rows)]
    origins += [(column, row) for row, column in origins]
    flat = torch.stack([(row * size + column).reshape(-1) for row, column in origins])[number]
    return images.flatten(2).gather(2, flat[:, None, :].expand(-1, images.shape[1], -1)).view_as(images)
