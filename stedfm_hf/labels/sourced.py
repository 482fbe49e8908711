"""Images that know the source image they were cut from: what labelled and annotated ones share."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar, overload

import numpy as np

from stedfm_hf.images import StedImage

Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True, eq=False, kw_only=True)
class SourcedImages(Sequence[Item]):
    """Images of a data set; every array among the fields has an entry for each.

    Args:
        name: of the data set.
        fingerprint: sha256 of what it is: pixels, what is known of them, and sources; not of where it lies.
        sources: (n,) str, id of the source image of every row; rows of one source image are in one split.
        contents: (n,) str, id of the file or of the pixels of every row, whatever it is called; "" where unknown.
        image_ids: (n,) str, name of every image in its data set.
        rows: (n,) int64, the number of every row in the data set.
        simulated: whether the data set says that its images were simulated.
        failed: images of this split that could not be read, with the reason; they are no rows.
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
            raise ValueError("every array must have an entry for every row")

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
        """What an image is as an element of the sequence."""

    @property
    def source_count(self) -> int:
        """How many source images there are."""
        return len(set(self.sources.tolist()))

    @property
    def are_own_sources(self) -> bool:
        """Whether nothing is known of source images, so that every image counts as one of its own."""
        return bool((self.sources == self.contents).all() or (self.sources == self.image_ids).all())

    @abstractmethod
    def shown(self) -> dict[str, np.ndarray]:
        """Of every class which images show it, (n,) bool; empty where there are no classes."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """How much there is of every class, images or pixels; empty where there are no classes."""

    def take(self, numbers: Sequence[int] | np.ndarray) -> Self:
        """Some of the images, with the same classes.

        Args:
            numbers: which, in the order wanted, or whether each is wanted (bool).
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
    """SHA-256 of how something is read, and of its parts' own."""
    return hashlib.sha256(json.dumps([*settings, *parts]).encode()).hexdigest()


def in_memory(images: Sequence[np.ndarray]) -> list[StedImage]:
    """Arrays (H, W) or (C, H, W) as images that a file could hold, named by their numbers."""
    arrays = [np.asarray(image) if np.ndim(image) == 3 else np.asarray(image)[None] for image in images]
    return [
        StedImage(array, None, tuple(map(str, range(len(array)))), {}, str(number), "image")
        for number, array in enumerate(arrays)
    ]


def sha256_of(text: str, content: bytes) -> str:
    """SHA-256 of a text and the bytes behind it, hexadecimal."""
    return hashlib.sha256(text.encode() + content).hexdigest()
