"""Preparation of the batches of the diffusion model: images, times, noise and dropped conditions.

Everything that is random about a sample is a function of (seed, epoch, sample), see `random_numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stedfm_hf.training.generation.objective import STEPS
from stedfm_hf.training.preparation import Preparation
from stedfm_hf.training.random_numbers import random_normal, random_uniform, sample_keys

TIME, NOISE, DROPOUT = 11, 12, 13
"""Purposes of random numbers; those of `preparation` are lower."""


@dataclass(frozen=True)
class GenerationPreparation:
    """Preparation of the batches of a training of the diffusion model.

    Attributes:
        seed: Random seed of the run.
        image_size: Size of the images of the network, in pixels; larger crops are cropped.
        augment: Whether images are rotated and mirrored.
        condition_dropout: Probability that a sample is shown without its condition, in [0, 1).

    Example:
        >>> batch = {
        ...     "pixels": torch.zeros(2, 1, 32, 32, dtype=torch.uint8),
        ...     "intensity_range": torch.tensor([[0.0, 255.0]] * 2),
        ...     "index": torch.arange(2),
        ... }
        >>> ready = GenerationPreparation(seed=0, image_size=32)(batch, epoch=0)
        >>> {name: tuple(values.shape) for name, values in ready.items()}
        {'images': (2, 1, 32, 32), 'times': (2,), 'noise': (2, 1, 32, 32), 'keep': (2,)}
    """

    seed: int
    image_size: int
    augment: bool = True
    condition_dropout: float = 0.1

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, Any], *, epoch: int) -> dict[str, torch.Tensor]:
        """Crop, scale and augment a batch, and sample times, noise and dropped conditions.

        Args:
            batch: `pixels` (B, 1, H, W), `intensity_range` (B, 2) and `index` (B,), on the device.
            epoch: Index of the epoch.

        Returns:
            `images` (B, 1, S, S) float32 in [0, 1], `times` (B,) int64, `noise` (B, 1, S, S) and `keep` (B,) bool,
            False for samples whose condition is dropped.
        """
        images, keys = self.images(batch, epoch=epoch), sample_keys(self.seed, epoch, batch["index"])
        times = (random_uniform(keys, 1, purpose=TIME)[:, 0] * STEPS).long()
        noise = random_normal(keys, images[0].numel(), purpose=NOISE).view_as(images)
        keep = random_uniform(keys, 1, purpose=DROPOUT)[:, 0] >= self.condition_dropout
        return {"images": images, "times": times, "noise": noise, "keep": keep}

    def images(self, batch: Mapping[str, Any], *, epoch: int) -> torch.Tensor:
        """Crop, scale and augment the images of a batch, (B, 1, S, S) float32 in [0, 1]; arguments as for a call."""
        crop = Preparation(self.seed, image_size=self.image_size, patches=1, augment=self.augment)
        return crop(batch, epoch=epoch)["pixel_values"]
