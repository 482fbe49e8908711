"""Random crops of images held in memory: what a short pretraining feeds on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import IterableDataset


class RandomCrops(IterableDataset[dict[str, torch.Tensor]]):
    """An endless stream of batches of augmented crops, each with the noise that decides its mask.

    Batch number n is a function of (seed, n) alone. Of two random places in an image the crop takes the one with more
    contrast, because large parts of a STED image are empty; then one of the eight rotations and reflections.

    Args:
        images: scaled images (H, W) in [0, 1]; those smaller than a crop are mirrored up to its size.
        size: side of a crop, in pixels.
        patches: patches of a crop.
        batch_size: crops in a batch.
        seed: names the stream.

    Example:
        >>> crops = RandomCrops([np.zeros((80, 90), np.float32)], size=64, patches=64, batch_size=2, seed=0)
        >>> {name: tuple(tensor.shape) for name, tensor in crops.batch(0).items()}
        {'pixel_values': (2, 1, 64, 64), 'noise': (2, 64)}
    """

    def __init__(self, images: Sequence[np.ndarray], *, size: int, patches: int, batch_size: int, seed: int) -> None:
        if not images:
            raise ValueError("there are no images to crop")
        self.images = [_at_least(np.asarray(image, np.float32), size) for image in images]
        self.size, self.patches, self.batch_size, self.seed = size, patches, batch_size, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        number = 0
        while True:
            yield self.batch(number)
            number += 1

    def batch(self, number: int) -> dict[str, torch.Tensor]:
        """Batch number `number`: `pixel_values` (B, 1, size, size) float32 and `noise` (B, patches) float32."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        crops = [self._crop(rng) for _ in range(self.batch_size)]
        noise = rng.random((self.batch_size, self.patches), dtype=np.float32)
        return {"pixel_values": torch.from_numpy(np.stack(crops))[:, None], "noise": torch.from_numpy(noise)}

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        image = self.images[rng.integers(len(self.images))]
        tops = rng.integers(0, image.shape[0] - self.size + 1, 2)
        lefts = rng.integers(0, image.shape[1] - self.size + 1, 2)
        one, other = (
            image[top : top + self.size, left : left + self.size] for top, left in zip(tops, lefts, strict=True)
        )
        turned = np.rot90(one if one.var() >= other.var() else other, int(rng.integers(4)))
        return turned.T if rng.integers(2) else turned


def _at_least(image: np.ndarray, size: int) -> np.ndarray:
    if image.ndim != 2:
        raise ValueError(f"crops are cut from images (height, width), not from shape {image.shape}")
    return np.pad(image, [(0, max(0, size - side)) for side in image.shape], mode="symmetric")
