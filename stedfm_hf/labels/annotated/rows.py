"""Images that have a mask, wherever they are from, before anything is known of the classes (ours)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from stedfm_hf.images import ImageReadError, StedImage
from stedfm_hf.labels.annotated.stored import MaskFacts, StoredMask


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
        places: name of every row, for errors.
        contents: id of the image file or of the pixels of every row; "" where unknown.
        rows: number of every row for `reads`.
        digest: sha256 of pixels, masks and how they are read.
        reads: reads the image and the mask of a row.
        failed: what cannot be read, with the reason; they are no rows.
        unmasked: images that have no mask; they are no rows either.
    """

    facts: Sequence[MaskFacts]
    sources: Sequence[str]
    places: Sequence[str]
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


def digest_of(settings: Sequence[Any], *parts: str) -> str:
    """SHA-256 of how something is read, and of its parts' own."""
    return hashlib.sha256(json.dumps([*settings, *parts]).encode()).hexdigest()
