"""Masks as they are stored, before anything is known of the classes, and what counting their pixels tells."""

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
"""Name of a plane that is no class: where the annotation counts."""

_AT_ONCE = 2**22

Key = int | str
"""What a file calls a class: the number of a plane, group or polygon, or a name."""


@dataclass(frozen=True, eq=False)
class StoredMask:
    """The planes of a mask.

    Args:
        planes: (P, H, W) uint8 or uint16, or float32 in [0, 1].
        keys: of every plane, what the file calls it; () where it says nothing.
        outlines: whether they were filled from outlines: then a class that a file does not name has no pixel in it.
        region: (H, W) bool, where the annotation counts; None: everywhere.
    """

    planes: np.ndarray
    keys: tuple[Key, ...] = ()
    outlines: bool = False
    region: np.ndarray | None = None


@dataclass(frozen=True)
class MaskFacts:
    """What is known of a mask without its pixels.

    Args:
        keys: as of the mask.
        outlines: as of the mask.
        planes: how many.
        values: how many pixels of all planes hold each whole number; None for fractions.
        positive: of every plane, how many pixels are above 0.
        touched: how many pixels are above 0 in any plane.
        size: pixels of a plane.
    """

    keys: tuple[Key, ...]
    outlines: bool
    planes: int
    values: Mapping[int, int] | None
    positive: tuple[int, ...]
    touched: int
    size: int


def whole_numbers(planes: np.ndarray) -> np.ndarray:
    """Planes in the smallest type that holds them: uint8 or uint16, or float32 where there are fractions.

    Raises:
        ImageReadError: NaN, numbers below 0 or above 65535, or fractions beside numbers above 1.

    Example:
        >>> whole_numbers(np.array([[[0.0, 2.0]]])).dtype.name, whole_numbers(np.array([[[0, 0.5]]])).dtype.name
        ('uint8', 'float32')
    """
    if not planes.size:
        raise ImageReadError("has no pixels; export it again")
    if planes.dtype.kind == "b":
        return planes.astype(np.uint8)
    if planes.dtype.kind == "f" and not np.isfinite(planes).all():
        raise ImageReadError("holds NaN or infinite numbers; save 0 where nothing is annotated")
    low, high = planes.min(), planes.max()
    if planes.dtype.kind == "f" and (planes % 1).any():
        if low < 0 or high > 1:
            raise ImageReadError(f"holds fractions from {low:g} to {high:g}; a soft mask holds numbers from 0 to 1")
        return planes.astype(np.float32)
    if low < 0 or high > LARGEST:
        raise ImageReadError(f"holds numbers from {low:g} to {high:g}; the numbers of classes are from 0 to {LARGEST}")
    return planes.astype(np.uint16 if high > 255 else np.uint8)


def count(mask: StoredMask) -> MaskFacts:
    """Counts the pixels of a mask.

    Example:
        >>> facts = count(StoredMask(np.array([[[0, 2], [2, 1]]], np.uint8)))
        >>> facts.values, facts.touched
        ({0: 1, 1: 1, 2: 2}, 3)
    """
    planes = mask.planes
    values: dict[int, int] | None = None
    if planes.dtype.kind != "f":
        flat, total = planes.reshape(-1), np.zeros(np.iinfo(planes.dtype).max + 1, np.int64)
        for start in range(0, len(flat), _AT_ONCE):  # counting makes 64-bit numbers of all it is given
            total += np.bincount(flat[start : start + _AT_ONCE], minlength=len(total))
        values = {int(value): int(total[value]) for value in np.flatnonzero(total)}
    positive = tuple(int(np.count_nonzero(plane)) for plane in planes)
    touched = positive[0] if len(planes) == 1 else int(np.count_nonzero(planes.any(axis=0)))
    return MaskFacts(mask.keys, mask.outlines, len(planes), values, positive, touched, planes[0].size)


def take_region(planes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Parts the plane called region from those of classes.

    Returns:
        The other planes, their names, and the region (H, W) bool or None.
    """
    lower = [name.lower() for name in names]
    if REGION not in lower:
        return planes, tuple(names), None
    place = lower.index(REGION)
    others = [number for number in range(len(planes)) if number != place]
    if not others:
        raise ImageReadError("holds a region and no class; add a plane for each class")
    return planes[others], tuple(names[number] for number in others), as_region(planes[place])


def as_region(plane: np.ndarray) -> np.ndarray:
    """A region of interest, (H, W) bool."""
    region = plane > 0
    if not region.any():
        raise ImageReadError("has an empty region of interest; mark what was annotated, or leave the region out")
    return region


class Reads(Protocol):
    """Reads the image and the mask of a row."""

    def image(self, number: int) -> StedImage:
        """The image, not scaled."""

    def mask(self, number: int) -> StoredMask:
        """The mask, before anything is known of the classes."""


@dataclass(frozen=True, eq=False)
class MaskedRows:
    """Images that have a mask.

    Args:
        facts: of the mask of every row.
        sources: source image of every row.
        image_ids: name of every row, for errors.
        contents: id of the image file or of the pixels of every row; "" where unknown.
        rows: number of every row for `reads`.
        digest: sha256 of pixels, masks and how they are read.
        reads: reads the image and the mask of a row.
        failed: what cannot be read, with the reason; they are no rows.
        unmasked: images that have no mask; they are no rows either.
    """

    facts: Sequence[MaskFacts]
    sources: Sequence[str]
    image_ids: Sequence[str]
    contents: Sequence[str]
    rows: Sequence[int]
    digest: str
    reads: Reads
    failed: Mapping[str, str] = field(default_factory=dict)
    unmasked: Sequence[str] = ()


@dataclass(frozen=True)
class Checked:
    """What is known of an image and its mask that were read.

    Attributes:
        facts: Of the mask.
        shape: Height and width of the image.
        digest: SHA-256 of image and mask.
        content: Id of the image file, or of the pixels of the image.
    """

    facts: MaskFacts
    shape: tuple[int, int]
    digest: str
    content: str


def check_shows_something(array: np.ndarray) -> None:
    """Refuses an image (C, H, W) with a channel of NaN or infinities alone; where only some pixels are, they are 0."""
    if array.dtype.kind == "f" and not np.isfinite(array).any(axis=(1, 2)).all():
        raise ImageReadError("holds no finite number, in one channel at least; export it again")


def content_digest(image: StedImage, mask: StoredMask) -> str:
    """SHA-256 of an image and its mask as they were read, however they are stored."""
    region = [] if mask.region is None else [mask.region]
    digest = hashlib.sha256(repr((image.pixel_size_nm, image.channel_names, mask.keys, mask.outlines)).encode())
    for array in (image.array, mask.planes, *region):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
