"""What the published segmentation sets share: crops that carry a mask, scaled each by itself.

(Crops of 224 pixels, steps, min-max of each crop: reference protocol. Padding that does not count: ours.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from stedfm_hf.data.official.pixels import SIZE, minmax_crops
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.runs import UserError

STEP = 168
"""From one crop to the next: three quarters of a crop."""


def minmax_crop(pixels: np.ndarray, *, legacy: bool, size: int | None = SIZE) -> Crop:
    """One crop, scaled by its own least and greatest value; what is missing to `size` is 0 after scaling.

    Example:
        >>> crop = minmax_crop(np.array([[3, 5]], np.uint16), legacy=False, size=None)
        >>> crop.scaling.low, crop.scaling.high, crop.scaling.fitted_on
        (3.0, 5.0, 'crop')
    """
    (crop,) = minmax_crops(pixels, size=size, legacy=legacy)
    return crop if legacy else replace(crop, scaling=replace(crop.scaling, fitted_on="crop"))


def corners(shape: tuple[int, ...], step: int) -> Iterator[tuple[int, int]]:
    """Top left corners of crops that cover all of an image; the last ones reach beyond it.

    >>> list(corners((300, 100), 224))
    [(0, 0), (224, 0)]
    """
    yield from product(*(range(0, side, step) for side in shape[-2:]))


def inner_corners(shape: tuple[int, ...], step: int) -> Iterator[tuple[int, int]]:
    """Top left corners of the crops that lie in an image as a whole; of a smaller one, its own.

    >>> list(inner_corners((400, 100), 168))
    [(0, 0), (168, 0)]
    """
    yield from product(*(range(0, max(side - SIZE, 0) + 1, step) for side in shape[-2:]))


def cut(array: np.ndarray, y: int, x: int) -> np.ndarray:
    """224 x 224 of an image or of planes; zeros where it ends before."""
    piece = array[..., y : y + SIZE, x : x + SIZE]
    missing = [(0, SIZE - side) for side in piece.shape[-2:]]
    return np.pad(piece, [*[(0, 0)] * (array.ndim - 2), *missing])


def real_pixels(shape: tuple[int, ...], y: int, x: int) -> np.ndarray | None:
    """Where a crop shows the image, (H, W) bool; None if that is everywhere."""
    if y + SIZE <= shape[-2] and x + SIZE <= shape[-1]:
        return None
    return cut(np.ones(shape[-2:], bool), y, x)


def stretched(planes: np.ndarray) -> np.ndarray:
    """Votes as the reference has them: all planes of a crop together by their least and greatest value.

    A mask of one vote in three becomes as sure as one of three. Without contrast they stay as they are.
    """
    low, high = planes.min(), planes.max()
    if low == high:
        return np.clip(planes, 0, 1)
    scaled: np.ndarray = (planes - low) / (high - low)
    return scaled


def require_items(where: str, items: int, failed: Mapping[str, str], wanted: str) -> None:
    """Raises UserError if nothing of a set was found."""
    if not items:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(failed.items())[:3])
        raise UserError(f"{where}: holds no annotated image ({reasons or f'looked for {wanted}'})")
