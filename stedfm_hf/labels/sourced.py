"""Base class of labelled and annotated images: a sequence whose items know their source image."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar, overload

import numpy as np

from stedfm_hf.images import StedImage
from stedfm_hf.runs import counted

Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True, eq=False, kw_only=True)
class SourcedImages(Sequence[Item]):
    """Images of a data set; every array among the fields has one entry per image.

    Attributes:
        name: Name of the data set.
        fingerprint: SHA-256 of pixels, labels and sources; it does not depend on the path of the data set.
        sources: Source image id of each row, (n,) str; all rows of a source image belong to one split.
        contents: Id of the file or of the pixels of each row, (n,) str; it does not depend on the name of the file. ""
            where unknown.
        image_ids: Name of each image in the data set, (n,) str.
        rows: Row number of each image in the data set, (n,) int64.
        simulated: Whether the data set declares its images as simulated.
        failed: Reason by name of the unreadable images of this split; these images have no row.
    """

    name: str
    fingerprint: str
    sources: np.ndarray
    contents: np.ndarray = field(repr=False)
    image_ids: np.ndarray = field(repr=False)
    rows: np.ndarray = field(repr=False)
    simulated: bool = False
    failed: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if any(len(column) != len(self.rows) for column in self._columns().values()):
            raise ValueError("every array must have one entry per row")

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> Self: ...
    def __getitem__(self, number: int | slice) -> Item | Self:
        return self.take(np.arange(len(self))[number]) if isinstance(number, slice) else self.item(number)

    def __iter__(self) -> Iterator[Item]:
        return (self.item(number) for number in range(len(self)))

    @abstractmethod
    def item(self, number: int) -> Item:
        """Return one element of the sequence.

        Args:
            number: Index of the image.
        """

    @property
    def source_count(self) -> int:
        """Number of source images."""
        return len(set(self.sources.tolist()))

    @property
    def sources_unknown(self) -> bool:
        """Whether no source images are known, so that each image counts as a separate source image."""
        return bool((self.sources == self.contents).all() or (self.sources == self.image_ids).all())

    @abstractmethod
    def class_presence(self) -> dict[str, np.ndarray]:
        """Return by class whether each image shows it, (n,) bool; empty for data without classes."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return the number of images or pixels by class; empty for data without classes."""

    def take(self, numbers: Sequence[int] | np.ndarray) -> Self:
        """Return a subset of the images, with the same classes.

        Args:
            numbers: Indices in the order to return, or a boolean mask, (n,).
        """
        chosen = np.asarray(numbers)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        whole = len(chosen) == len(self) and bool((chosen == np.arange(len(self))).all())
        fingerprint = self.fingerprint if whole else sha256_of(self.fingerprint, chosen.tobytes())
        columns: dict[str, Any] = {name: column[chosen] for name, column in self._columns().items()}
        return replace(self, fingerprint=fingerprint, **columns)

    def _columns(self) -> dict[str, np.ndarray]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def digest_of(settings: Sequence[Any], *parts: str) -> str:
    """Return the SHA-256 of the reading options and of the digests of the parts.

    Args:
        settings: Options that decide how the parts are read; JSON types.
        parts: Digest of each part, hexadecimal.

    Example:
        >>> digest_of([None, 0], "ab") == digest_of([None, 1], "ab")
        False
    """
    return hashlib.sha256(json.dumps([*settings, *parts]).encode()).hexdigest()


def in_memory(images: Sequence[np.ndarray]) -> list[StedImage]:
    """Wrap arrays as images without pixel size, named by their index.

    Args:
        images: Pixels (H, W) or (C, H, W) of each image.

    Example:
        >>> [image.array.shape for image in in_memory([np.zeros((4, 5))])]
        [(1, 4, 5)]
    """
    arrays = [np.asarray(image) if np.ndim(image) == 3 else np.asarray(image)[None] for image in images]
    return [
        StedImage(array, None, tuple(map(str, range(len(array)))), {}, str(number), "image")
        for number, array in enumerate(arrays)
    ]


def first_failure(images: SourcedImages[Any]) -> str:
    """Return the number of unreadable images and the first reason, as the end of a message; empty without any.

    Args:
        images: Images of a data set, or of one of its splits.
    """
    if not images.failed:
        return ""
    image_id, reason = next(iter(images.failed.items()))
    return f". {counted(len(images.failed), 'image')} failed; first: {image_id}: {reason}"


def sha256_of(text: str, content: bytes) -> str:
    """Return the SHA-256 of a text followed by bytes, hexadecimal.

    Example:
        >>> sha256_of("a", b"b")[:8]
        'fb8e20fc'
    """
    return hashlib.sha256(text.encode() + content).hexdigest()
