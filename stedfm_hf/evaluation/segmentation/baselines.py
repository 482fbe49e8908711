"""Interface of segmentation baselines, and the simplest ones: constant prediction, chance and Otsu's threshold.

Baselines are fitted on the training images and predict the maps of one image at a time.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
from skimage.filters import threshold_otsu

from stedfm_hf.runs import UserError

Regions = Sequence[np.ndarray | None]
"""Mask of the annotated pixels of each image (H, W) bool; None if all pixels are annotated."""


class Baseline(ABC):
    """Segmentation method that is fitted on annotated images; by default to the frequency of each class only.

    Classes are exclusive in single-label masks: a pixel then belongs to its most probable class, as in
    `score_image(..., exclusive=True)`.

    Attributes:
        name: Name in reports.
        frequencies: Frequency of each class among the annotated pixels (L,), after fitting.
    """

    name: str
    frequencies: np.ndarray = np.zeros(0)

    def fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: Regions | None = None) -> Self:
        """Fit the baseline.

        Args:
            images: Scaled images (C, H, W) in [0, 1].
            targets: Masks of all classes (L, H, W) of each image.
            regions: Masks of the annotated pixels; None if all pixels are annotated.

        Returns:
            The fitted baseline.

        Raises:
            UserError: If there are no annotated images or pixels.
        """
        self.frequencies = class_frequencies(targets, regions)
        self._fit(images, targets, [None] * len(images) if regions is None else regions)
        return self

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Predict the maps of all classes.

        Args:
            image: Scaled image (C, H, W) in [0, 1].

        Returns:
            Maps (L, H, W) float32 in [0, 1].

        Raises:
            UserError: If the baseline is not fitted.
        """
        if not len(self.frequencies):
            raise UserError("this baseline is not fitted; call fit(images, targets) first")
        return self._predict(image)

    def _fit(  # noqa: B027 -- the simplest baselines need only the frequencies
        self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: Regions
    ) -> None:
        """Fit what a baseline needs in addition to the frequencies."""

    @abstractmethod
    def _predict(self, image: np.ndarray) -> np.ndarray:
        """Predict the maps after fitting."""


class Constant(Baseline):
    """Constant prediction: every class or, for exclusive classes, the most frequent class.

    Its IoU is the fraction of true pixels, which is high for dense masks.

    Args:
        exclusive: Whether each pixel belongs to one class.

    Example:
        >>> image, target = np.zeros((1, 2, 2)), np.array([[[1, 0], [0, 0]]])
        >>> Constant().fit([image], [target]).predict(image).tolist()
        [[[1.0, 1.0], [1.0, 1.0]]]
    """

    name = "constant"

    def __init__(self, *, exclusive: bool = False) -> None:
        self.exclusive = exclusive

    def _predict(self, image: np.ndarray) -> np.ndarray:
        """Predict 1 for each class in the training images; for exclusive classes, their frequencies."""
        values = self.frequencies if self.exclusive else self.frequencies > 0
        return np.broadcast_to(values[:, None, None], (len(values), *image.shape[1:])).astype(np.float32)


class Otsu(Baseline):
    """Otsu's threshold: pixels above it belong to every class.

    For exclusive classes, bright pixels belong to the most frequent class, and other pixels to the background.

    Args:
        exclusive: Whether each pixel belongs to one class.
        background: Number of the background class, if classes are exclusive.
        channel: Channel of the image.

    Example:
        >>> image = np.array([[[0.0, 0.1], [0.9, 0.8]]])
        >>> Otsu().fit([image], [np.ones((1, 2, 2))]).predict(image).tolist()
        [[[0.0, 0.0], [1.0, 1.0]]]
    """

    name = "Otsu"

    def __init__(self, *, exclusive: bool = False, background: int = 0, channel: int = 0) -> None:
        self.exclusive, self.background, self.channel = exclusive, background, channel

    def _predict(self, image: np.ndarray) -> np.ndarray:
        """Predict the bright pixels for each class."""
        plane = select_channel(image, self.channel)
        bright = np.broadcast_to(plane > threshold_otsu(plane), (len(self.frequencies), *plane.shape))
        return combine_classes(bright, self.frequencies, self.background if self.exclusive else None)


def class_frequencies(targets: Sequence[np.ndarray], regions: Regions | None = None) -> np.ndarray:
    """Compute the frequency of each class among the annotated pixels.

    Args:
        targets: Masks of all classes (L, H, W) of each image.
        regions: Masks of the annotated pixels; None if all pixels are annotated.

    Returns:
        Frequencies (L,) in [0, 1].

    Raises:
        UserError: If there are no annotated images or pixels.
    """
    if not len(targets):
        raise UserError("there are no annotated images to fit the baseline on; add at least one")
    true, counted = np.zeros(len(targets[0])), 0
    for number, target in enumerate(targets):
        flat = region_pixels(target, None if regions is None else regions[number])
        true += (flat > 0.5).sum(axis=1)
        counted += flat.shape[1]
    if not counted:
        raise UserError("no pixel is annotated: the regions of all images are empty")
    return true / counted


def region_pixels(planes: np.ndarray, region: np.ndarray | None) -> np.ndarray:
    """Return the pixels of masks (L, H, W) inside a region: (L, n).

    Args:
        planes: Masks of all classes (L, H, W).
        region: Mask of the pixels to return (H, W) bool; None returns all pixels.
    """
    planes = np.asarray(planes)
    return planes.reshape(len(planes), -1) if region is None else planes[:, region]


def select_channel(image: np.ndarray, channel: int) -> np.ndarray:
    """Return a channel (H, W) float64 of an image (C, H, W).

    Args:
        image: Image (C, H, W).
        channel: Number of the channel.

    Raises:
        UserError: If the channel does not exist, or has pixels that are not finite.
    """
    if image.ndim != 3 or not channel < len(image):
        raise UserError(f"channel {channel} does not exist in an image (C, H, W) of the shape {image.shape}")
    plane = np.asarray(image[channel], np.float64)
    if not np.isfinite(plane).all():
        raise UserError("the image has pixels that are not finite; scale it by the processor first")
    return plane


def combine_classes(masks: np.ndarray, frequencies: np.ndarray, background: int | None) -> np.ndarray:
    """Convert one mask for each class to maps; classes without training pixels are empty.

    Args:
        masks: Predicted pixels of each class (L, H, W) bool.
        frequencies: Frequency of each class in the training images (L,).
        background: Number of the class of all other pixels; None if classes may overlap.

    Returns:
        Maps (L, H, W) float32: 0 or 1 if classes may overlap. Otherwise values from 0.5 to 1 for predicted pixels,
        such that the most frequent class has the highest value where masks overlap.

    Example:
        >>> masks = np.array([[[True, True]], [[True, False]], [[True, False]]])
        >>> combine_classes(masks, np.array([0.8, 0.05, 0.15]), 0).argmax(axis=0).tolist()
        [[2, 0]]
    """
    masks = masks & (frequencies > 0)[:, None, None]
    if background is None:
        return masks.astype(np.float32)
    maps = masks * ((1.0 + frequencies) / 2)[:, None, None]
    maps[background] = 0.0
    maps[background] = ~maps.any(axis=0)
    return maps.astype(np.float32)


class Chance(Baseline):
    """Random pixels, as frequent in each class as in the training images.

    For a class with frequency p, the expected IoU is p / (2 - p), the AUPR p, and the AUROC 0.5.

    Args:
        exclusive: Whether each pixel belongs to one class.
        seed: Random seed. The prediction depends on the seed and the image only.

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

    def _predict(self, image: np.ndarray) -> np.ndarray:
        """Predict random maps: 0 or 1 for exclusive classes, otherwise values that are 0.5 or more in a fraction p."""
        rng = np.random.default_rng([self.seed, zlib.crc32(np.ascontiguousarray(image).tobytes())])
        shape = (image.shape[-2], image.shape[-1])
        if self.exclusive:
            bounds = np.cumsum(self.frequencies) / self.frequencies.sum()
            # The last value may be below 1 by rounding.
            sampled = np.minimum(np.searchsorted(bounds, rng.random(shape), side="right"), len(bounds) - 1)
            return (np.arange(len(bounds))[:, None, None] == sampled).astype(np.float32)
        sampled, rare = rng.random((len(self.frequencies), *shape)), 1 - self.frequencies[:, None, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(sampled < rare, 0.5 * sampled / rare, 0.5 + 0.5 * (sampled - rare) / (1 - rare)).astype(
                np.float32
            )
