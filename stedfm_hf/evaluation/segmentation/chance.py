"""Guessing with the right frequency: what any figure has to be far above."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Self

import numpy as np

from stedfm_hf.evaluation.segmentation.baselines import Regions, check_fitted, class_shares


class Chance:
    """Each pixel is drawn for itself, of every class as often as in the training images (ours).

    Where a share p of the pixels is of a class, its IoU comes to p / (2 - p), its AUPR to p and its AUROC to 0.5.

    Args:
        exclusive: whether classes exclude each other.
        seed: of the draws; they depend on nothing else but the image.

    Example:
        >>> image, target = np.zeros((1, 64, 64)), np.ones((1, 64, 64))
        >>> target[:, :48] = 0
        >>> maps = Chance().fit([image], [target]).predict(image)
        >>> round(float((maps >= 0.5).mean()), 1)
        0.2
    """

    name = "chance"

    def __init__(self, *, exclusive: bool = False, seed: int = 0) -> None:
        self.exclusive, self.seed = exclusive, seed
        self.shares = np.zeros(0)

    def fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: Regions | None = None) -> Self:
        """Count the pixels of each class."""
        self.shares = class_shares(targets, regions)
        return self

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Drawn maps: 0 and 1 where classes exclude each other, else values of which a share is 0.5 or more."""
        check_fitted(self.shares)
        rng = np.random.default_rng([self.seed, zlib.crc32(np.ascontiguousarray(image).tobytes())])
        shape = (image.shape[-2], image.shape[-1])
        if self.exclusive:
            ends = np.cumsum(self.shares) / self.shares.sum()
            # The last end may fall short of 1 by rounding.
            drawn = np.minimum(np.searchsorted(ends, rng.random(shape), side="right"), len(ends) - 1)
            return (np.arange(len(ends))[:, None, None] == drawn).astype(np.float32)
        drawn, rare = rng.random((len(self.shares), *shape)), 1 - self.shares[:, None, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(drawn < rare, 0.5 * drawn / rare, 0.5 + 0.5 * (drawn - rare) / (1 - rare)).astype(
                np.float32
            )
