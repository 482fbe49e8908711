"""What a trained segmenter must beat without learning anything: one answer for all pixels, chance, and Otsu.

All baselines, those of `wavelets.py` and `forest.py` too, are fitted on the training images alone and then asked for
maps of one image: see :class:`Baseline`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence, Sized
from typing import Protocol, Self

import numpy as np
from skimage.filters import threshold_otsu

from stedfm_hf.runs import UserError

Regions = Sequence[np.ndarray | None]
"""Of each image: true where pixels count (H, W) bool; None: everywhere."""


class Baseline(Protocol):
    """A way from images to maps.

    `fit(images, targets, regions)` takes images (C, H, W) in [0, 1], planes of all classes (L, H, W) and regions;
    `predict(image)` gives maps (L, H, W) float32 in [0, 1]. With `exclusive` (single-label masks) the most probable
    class of a pixel is the answer, as `score_image(..., exclusive=True)` takes it, and `background` is the number of
    the class that is none.
    """

    name: str

    def fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: Regions | None = None) -> Self:
        """Learn from annotated images."""
        ...

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Maps of an image."""
        ...


class _Counting:
    """What baselines share that learn no more than how frequent each class is."""

    shares: np.ndarray = np.zeros(0)

    def fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: Regions | None = None) -> Self:
        """Count the pixels of each class."""
        self.shares = class_shares(targets, regions)
        return self


class Constant(_Counting):
    """The same answer everywhere: every class, or of classes that exclude each other the most frequent one.

    Its IoU is the share of the pixels that are true: what guessing achieves on dense masks.

    Args:
        exclusive: whether classes exclude each other.

    Example:
        >>> image, target = np.zeros((1, 2, 2)), np.array([[[1, 0], [0, 0]]])
        >>> Constant().fit([image], [target]).predict(image).tolist()
        [[[1.0, 1.0], [1.0, 1.0]]]
    """

    name = "constant"

    def __init__(self, *, exclusive: bool = False) -> None:
        self.exclusive = exclusive

    def predict(self, image: np.ndarray) -> np.ndarray:
        """1 for each class that training pixels were of; its share where classes exclude each other."""
        check_fitted(self.shares)
        values = self.shares if self.exclusive else self.shares > 0
        return np.broadcast_to(values[:, None, None], (len(values), *image.shape[1:])).astype(np.float32)


class Otsu(_Counting):
    """Pixels above Otsu's threshold of the image are of every class; it only learns how many there are.

    Of classes that exclude each other the most frequent one has the bright pixels, and the background the others.

    Args:
        exclusive: whether classes exclude each other.
        background: number of the class that is none, then.
        channel: of the image.

    Example:
        >>> image = np.array([[[0.0, 0.1], [0.9, 0.8]]])
        >>> Otsu().fit([image], [np.ones((1, 2, 2))]).predict(image).tolist()
        [[[0.0, 0.0], [1.0, 1.0]]]
    """

    name = "Otsu"

    def __init__(self, *, exclusive: bool = False, background: int = 0, channel: int = 0) -> None:
        self.exclusive, self.background, self.channel = exclusive, background, channel

    def predict(self, image: np.ndarray) -> np.ndarray:
        """The bright pixels, for each class."""
        check_fitted(self.shares)
        plane = plane_of(image, self.channel)
        bright = np.broadcast_to(plane > threshold_otsu(plane), (len(self.shares), *plane.shape))
        return settle(bright, self.shares, self.background if self.exclusive else None)


def class_shares(targets: Sequence[np.ndarray], regions: Regions | None = None) -> np.ndarray:
    """Share of the pixels of each class (L,) among those that count."""
    if not len(targets):
        raise UserError("a baseline needs annotated images to be fitted on")
    true, counted = np.zeros(len(targets[0])), 0
    for number, target in enumerate(targets):
        flat = pixels_of(target, None if regions is None else regions[number])
        true += (flat > 0.5).sum(axis=1)
        counted += flat.shape[1]
    if not counted:
        raise UserError("no pixel of the annotated images counts: all regions are empty")
    return true / counted


def pixels_of(planes: np.ndarray, region: np.ndarray | None) -> np.ndarray:
    """Pixels that count, of planes (L, H, W): (L, n)."""
    planes = np.asarray(planes)
    return planes.reshape(len(planes), -1) if region is None else planes[:, region]


def plane_of(image: np.ndarray, channel: int) -> np.ndarray:
    """A channel of an image (C, H, W) as float64."""
    if image.ndim != 3 or not channel < len(image):
        raise UserError(f"channel {channel} was asked of an image (C, H, W) of the shape {image.shape}")
    plane = np.asarray(image[channel], np.float64)
    if not np.isfinite(plane).all():
        raise UserError("the image has pixels that are no finite numbers; scale it by the processor first")
    return plane


def settle(claims: np.ndarray, shares: np.ndarray, background: int | None) -> np.ndarray:
    """Maps of the pixels that each class claims; a class that no training pixel was of has none.

    Args:
        claims: (L, H, W) bool.
        shares: of the pixels of each class (L,), in the training images.
        background: number of the class that has what nobody claims; None: classes may overlap.

    Returns:
        Maps (L, H, W) float32: 0 and 1; or, with a background, values by which the most frequent class wins a pixel
        that several claim, 0.5 to 1 where claimed.

    Example:
        >>> claims = np.array([[[True, True]], [[True, False]], [[True, False]]])
        >>> settle(claims, np.array([0.8, 0.05, 0.15]), 0).argmax(axis=0).tolist()
        [[2, 0]]
    """
    claims = claims & (shares > 0)[:, None, None]
    if background is None:
        return claims.astype(np.float32)
    maps = claims * ((1.0 + shares) / 2)[:, None, None]
    maps[background] = 0.0
    maps[background] = ~maps.any(axis=0)
    return maps.astype(np.float32)


def check_fitted(learned: Sized) -> None:
    """Refuses to predict before anything was learned."""
    if not len(learned):
        raise UserError("this baseline has not been fitted; call fit(images, targets) first")


class Chance(_Counting):
    """Each pixel is drawn for itself, of every class as often as in the training images.

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
