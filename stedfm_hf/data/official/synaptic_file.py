"""The files of the synaptic segmentation sets: annotated places, what their annotators said, and the whole images.

What is known of the files are the names of their members and that the annotations are places of 80 x 80 pixels with
JSON beside them. What is read is written out here, and everything else is refused by a message that says what was
found:

- `original_images`: a data set (N, H, W), or a group with a data set (H, W) for each image.
- `crops`: a data set (N, h, w), or a group with a data set (h, w) for each place. JSON for each place: in the
  attribute `metadata` of `crops` (a text for each, or one with a list), in a data set `metadata`, or in the attribute
  `metadata` of each place. It says `image` (name or number of the image) and `bbox` ([y0, x0, y1, x1]) or `y` and `x`
  of the top left corner; `clicks` are points [y, x] in the place.
- `labels`: the votes for each place: a share for each class (4), or a vote of each annotator for each class (A, 4).
- `masks`: for each place where the structure is: (h, w), one for each annotator (A, h, w), or, beside votes (4), one
  of votes for each class (4, h, w).

(Names of the members: reference protocol. How they are laid out: ours, not tried on the authors' files.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.data.official.hdf5 import get_member, list_members

CLASSES = ("round", "elongated", "perforated", "multidomains")
MOST_JSON = 2**20
_IMAGE = ("image", "image_name", "original_image", "image_id")
_BOX = ("bbox", "bounding_box", "box")
_CLICKS = ("clicks", "points")


@dataclass(frozen=True)
class Place:
    """An annotated place.

    Args:
        row: its number, for the file's data sets.
        image: name of its image.
        y: row of its top left corner in the image.
        x: column of it.
        clicks: (n, 2) points y, x in the image, or None where the file has none.
    """

    row: int
    image: str
    y: int
    x: int
    clicks: np.ndarray | None


class SynapticFile:
    """One of the authors' files; images and annotations are read when they are asked for.

    Args:
        file: the open HDF5 file.

    Attributes:
        names: of the images.
        places: by the name of their image.

    Raises:
        ValueError: the file is laid out otherwise.
    """

    def __init__(self, file: Any) -> None:
        self._images = _Members(get_member(file, "original_images"), "original_images")
        self._labels = _Members(get_member(file, "labels"), "labels")
        self._masks = _Members(get_member(file, "masks"), "masks")
        crops = _Members(get_member(file, "crops"), "crops")
        if not len(crops) == len(self._labels) == len(self._masks):
            raise ValueError(
                f"has {len(crops)} crops, {len(self._labels)} labels and {len(self._masks)} masks: not one of each"
            )
        self.names = self._images.names
        self.places: dict[str, list[Place]] = {name: [] for name in self.names}
        for row, record in enumerate(_records(file, crops)):
            place = _place(record, row, self.names)
            self.places[place.image].append(place)

    def image(self, name: str) -> np.ndarray:
        """An image (H, W).

        Raises:
            ValueError: it is none.
        """
        pixels = self._images.read(self.names.index(name))
        pixels = pixels[0] if pixels.ndim == 3 and len(pixels) == 1 else pixels
        if pixels.ndim != 2:
            raise ValueError(f"is {pixels.shape}, not an image (height, width)")
        return pixels

    def votes(self, place: Place) -> np.ndarray:
        """The share of the annotators who saw each class at each pixel, (4, h, w) float64 from 0 to 1.

        Raises:
            ValueError: labels and masks are laid out otherwise, or are no votes.
        """
        labels, masks = self._labels.read(place.row), self._masks.read(place.row)
        return shares(labels, masks)

    def pasted(self, name: str) -> np.ndarray:
        """The votes of all places of an image, added, (4, H, W) float32; they may be above 1 where places overlap."""
        shape = self.image(name).shape
        whole = np.zeros((len(CLASSES), *shape), np.float32)
        for place in self.places[name]:
            votes = self.votes(place)
            # A place at the border may reach beyond it.
            top, left = max(place.y, 0), max(place.x, 0)
            bottom, right = min(place.y + votes.shape[1], shape[0]), min(place.x + votes.shape[2], shape[1])
            if bottom <= top or right <= left:
                raise ValueError(f"place {place.row} at {place.y}, {place.x} lies outside of the image {shape}")
            part = votes[:, top - place.y : bottom - place.y, left - place.x : right - place.x]
            whole[:, top:bottom, left:right] += part.astype(np.float32)
        return whole


def shares(labels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of the annotators for each class at each pixel, of what a file has for a place.

    Raises:
        ValueError: these are no votes.

    Example:
        >>> labels = np.array([[1, 0, 0, 0], [0, 0, 1, 0]])  # two annotators, who see two different things
        >>> shares(labels, np.array([[True, False]]))[:, 0].tolist()
        [[0.5, 0.0], [0.0, 0.0], [0.5, 0.0], [0.0, 0.0]]
    """
    count = len(CLASSES)
    fits = labels.ndim in (1, 2) and labels.shape[-1] == count and labels.shape[0] > 0 and masks.ndim in (2, 3)
    by_class = labels.ndim == 1 and masks.ndim == 3 and len(masks) == count
    by_annotator = labels.ndim == 2 and masks.ndim == 3 and len(masks) == len(labels)
    if not fits or not (masks.ndim == 2 or by_class or by_annotator):
        raise ValueError(
            f"has labels {labels.shape} and masks {masks.shape}; read are votes ({count}) or (annotators, {count}) "
            f"with a mask (h, w), one for each annotator, or beside votes ({count}) one for each class"
        )
    votes = labels.astype(np.float64)
    found: np.ndarray
    if by_class:
        found = masks.astype(np.float64)
    elif by_annotator:
        found = np.einsum("ac,ahw->chw", votes, (masks > 0).astype(np.float64)) / len(votes)
    else:
        found = (votes.mean(axis=0) if votes.ndim == 2 else votes)[:, None, None] * (masks > 0)
    if not (np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1):
        raise ValueError("holds votes that are no shares from 0 to 1")
    return found


class _Members:
    """The rows of a data set, or the data sets of a group."""

    def __init__(self, found: Any, name: str) -> None:
        self.is_group = not hasattr(found, "shape")
        self.found = found
        if not self.is_group and not found.shape:
            raise ValueError(f"its {name!r} is a single number")
        self.names = list(list_members(found)) if self.is_group else [str(row) for row in range(found.shape[0])]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> np.ndarray:
        return np.asarray(get_member(self.found, self.names[row])[()] if self.is_group else self.found[row])


def _records(file: Any, crops: _Members) -> list[Mapping[str, Any]]:
    """The JSON of every place."""
    if "metadata" in crops.found.attrs:
        stored = crops.found.attrs["metadata"]
    elif "metadata" in file:
        stored = get_member(file, "metadata")[()]
    elif crops.is_group:
        stored = [get_member(crops.found, name).attrs.get("metadata", "") for name in crops.names]
    else:
        raise ValueError("has no metadata of its crops, which say where in the images they are")
    texts = [_text(each) for each in np.atleast_1d(np.asarray(stored, dtype=object)).tolist()]
    if len(texts) == 1 and len(crops) != 1:
        records = json.loads(texts[0])
    else:
        records = [json.loads(text) for text in texts]
    if len(records) == 1 and isinstance(records[0], list):
        records = records[0]
    if not isinstance(records, list) or len(records) != len(crops) or not all(isinstance(r, dict) for r in records):
        raise ValueError(f"has metadata that are no JSON object for each of its {len(crops)} crops")
    return records


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if len(text) > 64 * MOST_JSON:
        raise ValueError(f"refused, because its metadata have {len(text) / 2**20:.0f} MiB")
    return text


def _place(record: Mapping[str, Any], row: int, names: list[str]) -> Place:
    image = next((record[key] for key in _IMAGE if key in record), None)
    box = next((record[key] for key in _BOX if key in record), None)
    corner = box[:2] if isinstance(box, list) and len(box) >= 2 else [record.get("y"), record.get("x")]
    numbers = [each for each in corner if isinstance(each, int | float)]
    if image is None or len(numbers) < 2:
        raise ValueError(
            f"has metadata of crop {row} without image and bbox (but {', '.join(map(str, record)) or 'nothing'})"
        )
    if str(image) not in names:
        raise ValueError(f"has a crop {row} of an image {image!r} that is not in original_images")
    y, x = (round(each) for each in numbers)
    clicks = next((record[key] for key in _CLICKS if key in record), None)
    points = None if clicks is None else np.asarray(clicks, np.float64).reshape(-1, 2) + (y, x)
    return Place(row, str(image), y, x, points)
