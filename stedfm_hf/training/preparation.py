"""From a batch of the stream to the input of the masked autoencoder, on the device.

8- or 16-bit pixels come to the device as they are stored; there they are scaled, cropped, turned and masked. What
happens to a sample is a function of (seed, epoch, sample), see :mod:`stedfm_hf.training.random_numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stedfm_hf.data import to_unit_range
from stedfm_hf.training.random_numbers import random_integers, random_ranks, sample_keys

MASK, ROTATION, CROP = 1, 2, 3
"""What random numbers are drawn for."""
FLIPS = (0, 2, 5, 7)
"""Of the eight turns those that mirror rows, columns, both or none."""
CROP_TRIES = 10
SPARSE = 4
"""Rows and columns from one that is looked at to the next, in the search for foreground."""
FOREGROUND = 0.02
"""A pixel above this is foreground for the choice of a crop (reference protocol)."""
MIN_FOREGROUND = 0.01


@dataclass(frozen=True)
class Preparation:
    """Makes the input of a training step.

    Args:
        seed: of the run.
        image_size: side of the model's images; larger ones are cropped at a random place with foreground.
        patches: patches of such an image.
        augment: whether images are turned and mirrored, and crops are random; else crops are of the middle.
        flips_only: mirrored only, not turned by a quarter (reference protocol).

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
        """Scales, crops, turns and masks.

        Args:
            batch: `pixels` (B, 1, H, W), `intensity_range` (B, 2) and `index` (B,), on the device.
            epoch: number of the epoch.

        Returns:
            `pixel_values` (B, 1, S, S) float32 in [0, 1] and `noise` (B, N) int64, whose order is the mask.
        """
        keys = sample_keys(self.seed, epoch, batch["index"])
        # Cut first, scaled then: of a field of 224 pixels a model of 64 sees a twelfth.
        images = to_unit_range(self._crop(batch["pixels"], batch["intensity_range"], keys), batch["intensity_range"])
        if self.augment:
            turns = torch.tensor(FLIPS if self.flips_only else range(8), device=images.device)
            images = rotate_and_flip(images, turns[random_integers(keys, 1, purpose=ROTATION)[:, 0] % len(turns)])
        return {"pixel_values": images, "noise": random_ranks(keys, self.patches, purpose=MASK)}

    def _crop(self, images: torch.Tensor, intensity_range: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """The best of some random image_ids: the first with enough foreground, else the one with most of it."""
        size, (height, width) = self.image_size, images.shape[2:]
        if (height, width) == (size, size):
            return images
        if not self.augment:
            return center_crop(images, size)
        places = random_integers(keys, 2 * CROP_TRIES, purpose=CROP).reshape(-1, CROP_TRIES, 2)
        tops, lefts = places[..., 0] % (height - size + 1), places[..., 1] % (width - size + 1)
        # Sums over every square by an integral image of every fourth row and column, enough for a share; whole
        # numbers, so that every device finds the same.
        low, high = intensity_range.unbind(1)
        level = (low + FOREGROUND * (high - low))[:, None, None]
        stored = images[:, 0, ::SPARSE, ::SPARSE]
        stored = stored if images.is_floating_point() else stored.to(torch.int32)
        lit = torch.nn.functional.pad((stored > level).to(torch.int32), (1, 0, 1, 0))
        sums = lit.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        one = torch.arange(len(images), device=images.device)[:, None]
        side, above, before = max(1, size // SPARSE), tops // SPARSE, lefts // SPARSE
        inside = (
            sums[one, above + side, before + side]
            - sums[one, above, before + side]
            - sums[one, above + side, before]
            + sums[one, above, before]
        )
        enough = (inside > MIN_FOREGROUND * side * side).to(torch.int32)
        # The first with enough; if there is none, the fullest.
        rank = enough * (2 * side * side + CROP_TRIES) - enough * torch.arange(CROP_TRIES, device=images.device)
        chosen = (torch.where(enough.bool(), rank, inside)).argmax(dim=1, keepdim=True)
        top, left = tops.gather(1, chosen), lefts.gather(1, chosen)
        span = torch.arange(size, device=images.device)
        rows, columns = (top + span)[:, :, None], (left + span)[:, None, :]
        return images[:, 0][one[:, :, None], rows, columns][:, None]


def center_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle of images.

    Args:
        images: (B, C, H, W), no smaller than `size`.
        size: rows and columns wanted.
    """
    top, left = (images.shape[2] - size) // 2, (images.shape[3] - size) // 2
    return images[:, :, top : top + size, left : left + size]


def rotate_and_flip(images: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """One of the eight rotations and reflections of every square image.

    Args:
        images: (B, C, S, S).
        number: (B,), 0 to 7: quarter turns, and 4 more for a reflection.
    """
    size = images.shape[-1]
    side = torch.arange(size, device=images.device)
    rows, columns = torch.broadcast_to(side[:, None], (size, size)), torch.broadcast_to(side[None, :], (size, size))
    back = size - 1
    # Where each pixel of the turned image comes from, for all eight; a gather then does them at once.
    origins = [(rows, columns), (columns, back - rows), (back - rows, back - columns), (back - columns, rows)]
    origins += [(column, row) for row, column in origins]
    flat = torch.stack([(row * size + column).reshape(-1) for row, column in origins])[number]
    return images.flatten(2).gather(2, flat[:, None, :].expand(-1, images.shape[1], -1)).view_as(images)
