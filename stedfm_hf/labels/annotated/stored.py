"""Masks as stored, before the classes are known, and their pixel counts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from stedfm_hf.images import ImageReadError, StedImage

LARGEST = 65535
BACKGROUND = "background"
REGION = "region"
"""Name of the plane that marks the annotated pixels; not a class."""

_AT_ONCE = 2**22

Key = int | str
"""Identifier of a class in a file: the number of a plane, group or polygon, or a name."""


@dataclass(frozen=True, eq=False)
class StoredMask:
    """Planes of a mask.

    Attributes:
        planes: Planes, (P, H, W) uint8 or uint16, or float32 in [0, 1].
        keys: Name or number of each plane in the file; () if the file defines none.
        outlines: Whether the planes were filled from outlines; a class that the file does not name then has no pixel.
        region: Pixels that were annotated, (H, W) bool; None: all.
        fractions: Whether the outlines were fractions of the image, as YOLO writes them; numbers of classes then
            start at 0.
        numbered: Whether the numbers are those of objects of one class.
    """

    planes: np.ndarray
    keys: tuple[Key, ...] = ()
    outlines: bool = False
    region: np.ndarray | None = None
    fractions: bool = False
    numbered: bool = False


@dataclass(frozen=True)
class MaskFacts:
    """Pixel counts of a mask.

    Attributes:
        keys: Keys of the mask.
        outlines: Whether the mask was filled from outlines.
        planes: Number of planes.
        values: Number of pixels in all planes by whole number; None for fractions.
        positive: Number of pixels above 0 in each plane.
        touched: Number of pixels that are above 0 in any plane.
        size: Number of pixels of a plane.
        fractions: Whether the outlines were fractions of the image.
        numbered: Whether the numbers are those of objects of one class.
    """

    keys: tuple[Key, ...]
    outlines: bool
    planes: int
    values: Mapping[int, int] | None
    positive: tuple[int, ...]
    touched: int
    size: int
    fractions: bool = False
    numbered: bool = False


def to_smallest_dtype(planes: np.ndarray) -> np.ndarray:
    """Convert planes to the smallest type that holds them: uint8, uint16, or float32 for fractions.

    Args:
        planes: Planes of a mask, (P, H, W) of any numeric type.

    Raises:
        ImageReadError: The planes contain NaN, numbers below 0 or above 65535, or fractions and numbers above 1.

    Example:
        >>> [to_smallest_dtype(np.array([[[0, top]]])).dtype.name for top in (2.0, 300, 0.5)]
        ['uint8', 'uint16', 'float32']
    """
    if not planes.size:
        raise ImageReadError("has no pixels; export the mask again")
    if planes.dtype.kind == "b":
        return planes.astype(np.uint8)
    if planes.dtype.kind == "f" and not np.isfinite(planes).all():
        raise ImageReadError("contains NaN or infinite numbers; save 0 where nothing is annotated")
    low, high = planes.min(), planes.max()
    if planes.dtype.kind == "f" and (planes % 1).any():
        if low < 0 or high > 1:
            raise ImageReadError(
                f"contains fractions from {low:g} to {high:g}; scale soft masks to numbers from 0 to 1"
            )
        return planes.astype(np.float32)
    if low < 0 or high > LARGEST:
        raise ImageReadError(f"contains numbers from {low:g} to {high:g}; use class numbers from 0 to {LARGEST}")
    return planes.astype(np.uint16 if high > 255 else np.uint8)


def count_pixels(mask: StoredMask) -> MaskFacts:
    """Count the pixels of a mask.

    Args:
        mask: Planes of the mask.

    Example:
        >>> facts = count_pixels(StoredMask(np.array([[[0, 2], [2, 1]]], np.uint8)))
        >>> facts.values, facts.touched
        ({0: 1, 1: 1, 2: 2}, 3)
    """
    planes = mask.planes
    values: dict[int, int] | None = None
    if planes.dtype.kind != "f":
        flat, total = planes.reshape(-1), np.zeros(np.iinfo(planes.dtype).max + 1, np.int64)
        for start in range(0, len(flat), _AT_ONCE):  # bincount converts its input to 64-bit integers
            total += np.bincount(flat[start : start + _AT_ONCE], minlength=len(total))
        values = {int(value): int(total[value]) for value in np.flatnonzero(total)}
    positive = tuple(int(np.count_nonzero(plane)) for plane in planes)
    touched = positive[0] if len(planes) == 1 else int(np.count_nonzero(planes.any(axis=0)))
    return MaskFacts(
        mask.keys,
        mask.outlines,
        len(planes),
        values,
        positive,
        touched,
        planes[0].size,
        fractions=mask.fractions,
        numbered=mask.numbered,
    )


def split_region(planes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Split the plane called region from the planes of classes.

    Args:
        planes: Planes of a mask, (P, H, W).
        names: Name of each plane.

    Returns:
        The other planes, their names, and the region (H, W) bool or None.

    Raises:
        ImageReadError: There is no other plane, or the region is empty.

    Example:
        >>> planes, names, region = split_region(np.ones((2, 4, 4)), ["rings", "region"])
        >>> planes.shape, names, region.all().item()
        ((1, 4, 4), ('rings',), True)
    """
    lower = [name.lower() for name in names]
    if REGION not in lower:
        return planes, tuple(names), None
    index = lower.index(REGION)
    others = [number for number in range(len(planes)) if number != index]
    if not others:
        raise ImageReadError("contains a region but no class; add a plane for each class")
    return planes[others], tuple(names[number] for number in others), to_region(planes[index])


def to_region(plane: np.ndarray) -> np.ndarray:
    """Convert a plane to a region of interest, (H, W) bool.

    Args:
        plane: Pixels (H, W); above 0 inside of the region.

    Raises:
        ImageReadError: The region is empty.
    """
    region = plane > 0
    if not region.any():
        raise ImageReadError("has an empty region of interest; mark the annotated pixels, or remove the region")
    return region


class PairReader(Protocol):
    """Interface of the readers of images and masks."""

    def image(self, number: int) -> StedImage:
        """Return the unscaled image of a row."""

    def mask(self, number: int) -> StoredMask:
        """Return the stored mask of a row."""


@dataclass(frozen=True, eq=False)
class MaskedRows:
    """Images that have a mask.

    Attributes:
        facts: Pixel counts of the mask of each row.
        sources: Source image id of each row.
        image_ids: Name of each row, for messages.
        contents: Id of the image file or of the pixels of each row; "" where unknown.
        rows: Number of each row for `reader`.
        digest: SHA-256 of pixels, masks and reading options.
        reader: Reader of the image and the mask of a row.
        failed: Reason by name of the unreadable images or masks; these have no row.
        without_mask: Names of the images without a mask; these have no row either.
    """

    facts: Sequence[MaskFacts]
    sources: Sequence[str]
    image_ids: Sequence[str]
    contents: Sequence[str]
    rows: Sequence[int]
    digest: str
    reader: PairReader
    failed: Mapping[str, str] = field(default_factory=dict)
    without_mask: Sequence[str] = ()


@dataclass(frozen=True)
class Checked:
    """Result of reading an image and its mask once.

    Attributes:
        facts: Pixel counts of the mask.
        shape: Height and width of the image in pixels.
        digest: SHA-256 of image and mask.
        content: Id of the image file, or of the pixels of the image.
        notes: What was assumed or left out while the image was read.
    """

    facts: MaskFacts
    shape: tuple[int, int]
    digest: str
    content: str
    notes: tuple[str, ...] = ()


def check_finite(array: np.ndarray) -> None:
    """Raise an error if a channel of an image holds no finite number; single NaN pixels are read as 0.

    Args:
        array: Pixels, (C, H, W).

    Raises:
        ImageReadError: A channel holds NaN or infinite numbers only.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).any(axis=(1, 2)).all():
        raise ImageReadError("has a channel without finite numbers; export the image again")


def content_digest(image: StedImage, mask: StoredMask) -> str:
    """Return the SHA-256 of an image and its mask, which does not depend on how they are stored.

    Args:
        image: Unscaled image.
        mask: Stored mask.
    """
    region = [] if mask.region is None else [mask.region]
    digest = hashlib.sha256(repr((image.pixel_size_nm, image.channel_names, mask.keys, mask.outlines)).encode())
    for array in (image.array, mask.planes, *region):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
