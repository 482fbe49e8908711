"""Shared functions of the published segmentation sets: crops with masks, each scaled separately.

Source: reference protocol (crops of 224 pixels, steps, min-max of each crop).
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
"""Distance between crops in pixels: three quarters of a crop."""


def minmax_crop(pixels: np.ndarray, *, legacy: bool, size: int | None = SIZE) -> Crop:
    """Make one crop that is scaled by its minimum and maximum.

    Args:
        pixels: (H, W) pixels of the crop.
        legacy: Store scaled pixels.
        size: Height and width of the crop in pixels; missing pixels are 0 after scaling. None keeps the size.

    Returns:
        Crop without source and label.

    Raises:
        ValueError: The array is not a non-empty image (H, W), or contains NaN or infinite values.

    Example:
        >>> crop = minmax_crop(np.array([[3, 5]], np.uint16), legacy=False, size=None)
        >>> crop.scaling.low, crop.scaling.high, crop.scaling.fitted_on
        (3.0, 5.0, 'crop')
    """
    (crop,) = minmax_crops(pixels, size=size, legacy=legacy)
    return crop if legacy else replace(crop, scaling=replace(crop.scaling, fitted_on="crop"))


def corners(shape: tuple[int, ...], step: int) -> Iterator[tuple[int, int]]:
    """Yield the top left corners (y, x) of crops that cover an image; the last ones extend beyond it.

    Args:
        shape: (..., H, W) of the image.
        step: Distance between crops in pixels.

    Example:
        >>> list(corners((300, 100), 224))
        [(0, 0), (224, 0)]
    """
    yield from product(*(range(0, length, step) for length in shape[-2:]))


def inner_corners(shape: tuple[int, ...], step: int) -> Iterator[tuple[int, int]]:
    """Yield the top left corners (y, x) of crops that lie completely in an image.

    Along an axis that is shorter than a crop, the only position is 0.

    Args:
        shape: (..., H, W) of the image.
        step: Distance between crops in pixels.

    Example:
        >>> list(inner_corners((400, 100), 168))
        [(0, 0), (168, 0)]
    """
    yield from product(*(range(0, max(length - SIZE, 0) + 1, step) for length in shape[-2:]))


def cut_crop(array: np.ndarray, y: int, x: int) -> np.ndarray:
    """Cut 224 x 224 pixels from an image or from planes, padded with zeros.

    Args:
        array: (..., H, W) image or planes.
        y: First row.
        x: First column.
    """
    inside = array[..., y : y + SIZE, x : x + SIZE]
    missing = [(0, SIZE - length) for length in inside.shape[-2:]]
    return np.pad(inside, [*[(0, 0)] * (array.ndim - 2), *missing])


def pixels_inside(shape: tuple[int, ...], y: int, x: int) -> np.ndarray | None:
    """Return the mask of the pixels of a crop that lie in the image.

    Args:
        shape: (..., H, W) of the image.
        y: First row of the crop.
        x: First column of the crop.

    Returns:
        (224, 224) bool; None if the whole crop lies in the image.
    """
    if y + SIZE <= shape[-2] and x + SIZE <= shape[-1]:
        return None
    return cut_crop(np.ones(shape[-2:], bool), y, x)


def rescaled_votes(planes: np.ndarray) -> np.ndarray:
    """Rescale votes so that the smallest value of a crop becomes 0 and the largest 1, over all its planes.

    This is a weakness of the published protocol: if at most one of three annotators marked a pixel of a crop, its
    largest value of 1/3 becomes 1, as if all three had marked it. If all values are equal, they are clipped to [0, 1].

    Args:
        planes: (C, H, W) votes: fraction of the annotators who marked each pixel, for each class.

    Source: reference protocol.

    Example:
        >>> rescaled_votes(np.array([[[0.0, 0.25, 0.5]]])).tolist()
        [[[0.0, 0.5, 1.0]]]
    """
    low, high = planes.min(), planes.max()
    if low == high:
        return np.clip(planes, 0, 1)
    scaled: np.ndarray = (planes - low) / (high - low)
    return scaled


def require_items(where: str, items: int, failed: Mapping[str, str], expected: str) -> None:
    """Raise an error if a source has no annotated image.

    Args:
        where: Name of the source, for the message.
        items: Number of images in the plan.
        failed: Reasons by the name of the file that cannot be read.
        expected: Names of the expected files, for the message.

    Raises:
        UserError: `items` is 0.
    """
    if not items:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(failed.items())[:3])
        raise UserError(f"{where}: no annotated image ({reasons or f'expected {expected}'})")
