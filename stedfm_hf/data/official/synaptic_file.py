"""Reader of the HDF5 files of the synaptic segmentation sets: images, annotated crops and votes.

The authors' files contain annotated crops of 80 x 80 pixels with JSON metadata. The reader accepts these layouts and
rejects all others with a message that lists what the file contains:

- `original_images`: a dataset (N, H, W), or a group with one dataset (H, W) per image.
- `crops`: a dataset (N, h, w), or a group with one dataset (h, w) per annotated crop. JSON metadata of the crops: in
  the attribute `metadata` of `crops` (one text per crop, or one text with a list), in a dataset `metadata`, or in the
  attribute `metadata` of each crop. Keys: `image` (name or number of the image) and `bbox` ([y0, x0, y1, x1]), or `y`
  and `x` of the top left corner; `clicks` are points [y, x] within the crop.
- `labels`: the votes for each crop: one fraction per class (4), or one vote per annotator and class (A, 4).
- `masks`: the mask of the structure in each crop: (h, w), one mask per annotator (A, h, w), or, if `labels` has the
  shape (4), one map of votes per class (4, h, w).

The layouts were not tested on the authors' files.

Source: reference protocol (names of the datasets and groups).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.data.official.hdf5 import member, members

CLASSES = ("round", "elongated", "perforated", "multidomains")
MAX_JSON_BYTES = 2**26
_IMAGE = ("image", "image_name", "original_image", "image_id")
_BOX = ("bbox", "bounding_box", "box")
_CLICKS = ("clicks", "points")


@dataclass(frozen=True)
class Annotation:
    """Annotated crop of an image.

    Attributes:
        row: Index of the crop in the datasets of the file.
        image: Name of the image.
        y: Row of the top left corner in the image, in pixels.
        x: Column of the top left corner in the image, in pixels.
        clicks: (n, 2) points y, x in the image, in pixels, or None if the file has none.
    """

    row: int
    image: str
    y: int
    x: int
    clicks: np.ndarray | None


class SynapticFile:
    """Lazy reader of one file of the set.

    Args:
        file: Open `h5py.File`.

    Attributes:
        names: Names of the images.
        annotations: Annotated crops by the name of their image.

    Raises:
        ValueError: The layout of the file is not supported.
    """

    def __init__(self, file: Any) -> None:
        self._images = _Members(member(file, "original_images"), "original_images")
        self._labels = _Members(member(file, "labels"), "labels")
        self._masks = _Members(member(file, "masks"), "masks")
        crops = _Members(member(file, "crops"), "crops")
        if not len(crops) == len(self._labels) == len(self._masks):
            raise ValueError(
                f"has {len(crops)} crops, {len(self._labels)} labels and {len(self._masks)} masks; "
                "these numbers must be equal"
            )
        self.names = self._images.names
        self.annotations: dict[str, list[Annotation]] = {name: [] for name in self.names}
        for row, record in enumerate(_records(file, crops)):
            annotation = _annotation(record, row, self.names)
            self.annotations[annotation.image].append(annotation)

    def image(self, name: str) -> np.ndarray:
        """Return an image, (H, W) in the dtype of the file.

        Args:
            name: Name of the image.

        Raises:
            ValueError: The dataset is not an image.
        """
        pixels = self._images.read(self.names.index(name))
        pixels = pixels[0] if pixels.ndim == 3 and len(pixels) == 1 else pixels
        if pixels.ndim != 2:
            raise ValueError(f"the shape {pixels.shape} is not that of an image (height, width)")
        return pixels

    def votes(self, annotation: Annotation) -> np.ndarray:
        """Return the fraction of annotators who marked each class, (4, h, w) float64 in [0, 1].

        Args:
            annotation: Annotated crop.

        Raises:
            ValueError: The layout of labels and masks is not supported, or they are not votes.
        """
        labels, masks = self._labels.read(annotation.row), self._masks.read(annotation.row)
        return vote_fractions(labels, masks)

    def vote_maps(self, name: str) -> np.ndarray:
        """Sum the votes of all annotated crops of an image, (4, H, W) float32.

        Values may exceed 1 where crops overlap.

        Args:
            name: Name of the image.

        Raises:
            ValueError: A crop lies outside the image, or its labels and masks are not votes.
        """
        shape = self.image(name).shape
        whole = np.zeros((len(CLASSES), *shape), np.float32)
        for annotation in self.annotations[name]:
            votes = self.votes(annotation)
            # A crop at the border may extend beyond the image.
            top, left = max(annotation.y, 0), max(annotation.x, 0)
            bottom, right = min(annotation.y + votes.shape[1], shape[0]), min(annotation.x + votes.shape[2], shape[1])
            if bottom <= top or right <= left:
                raise ValueError(
                    f"crop {annotation.row} at ({annotation.y}, {annotation.x}) lies outside the image {shape}"
                )
            part = votes[:, top - annotation.y : bottom - annotation.y, left - annotation.x : right - annotation.x]
            whole[:, top:bottom, left:right] += part.astype(np.float32)
        return whole


def vote_fractions(labels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Compute the fraction of annotators who marked each class at each pixel.

    Args:
        labels: (4,) fractions, or (A, 4) votes of A annotators.
        masks: (h, w), (A, h, w) or (4, h, w) masks; see the module for the combinations.

    Returns:
        (4, h, w) float64 in [0, 1].

    Raises:
        ValueError: Labels and masks are not votes.

    Example:
        >>> labels = np.array([[1, 0, 0, 0], [0, 0, 1, 0]])  # two annotators who disagree
        >>> vote_fractions(labels, np.array([[True, False]]))[:, 0].tolist()
        [[0.5, 0.0], [0.0, 0.0], [0.5, 0.0], [0.0, 0.0]]
    """
    count = len(CLASSES)
    are_votes = labels.ndim in (1, 2) and labels.shape[-1] == count and labels.shape[0] > 0 and masks.ndim in (2, 3)
    by_class = labels.ndim == 1 and masks.ndim == 3 and len(masks) == count
    by_annotator = labels.ndim == 2 and masks.ndim == 3 and len(masks) == len(labels)
    if not are_votes or not (masks.ndim == 2 or by_class or by_annotator):
        raise ValueError(
            f"has labels {labels.shape} and masks {masks.shape}; supported are labels ({count}) or (annotators, "
            f"{count}) with one mask (h, w), one mask per annotator, or, with labels ({count}), one mask per class"
        )
    votes = labels.astype(np.float64)
    fractions: np.ndarray
    if by_class:
        fractions = masks.astype(np.float64)
    elif by_annotator:
        fractions = np.einsum("ac,ahw->chw", votes, (masks > 0).astype(np.float64)) / len(votes)
    else:
        fractions = (votes.mean(axis=0) if votes.ndim == 2 else votes)[:, None, None] * (masks > 0)
    if not (np.isfinite(fractions).all() and fractions.min() >= 0 and fractions.max() <= 1):
        raise ValueError("contains votes that are not fractions in [0, 1]")
    return fractions


class _Members:
    """Rows of a dataset, or datasets of a group."""

    def __init__(self, holder: Any, name: str) -> None:
        self.is_group = not hasattr(holder, "shape")
        self.holder = holder
        if not self.is_group and not holder.shape:
            raise ValueError(f"{name!r} is a single number, not one entry per row")
        self.names = list(members(holder)) if self.is_group else [str(row) for row in range(holder.shape[0])]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> np.ndarray:
        """Return one row."""
        return np.asarray(member(self.holder, self.names[row])[()] if self.is_group else self.holder[row])


def _records(file: Any, crops: _Members) -> list[Mapping[str, Any]]:
    """Return the JSON metadata of every annotated crop."""
    if "metadata" in crops.holder.attrs:
        stored = crops.holder.attrs["metadata"]
    elif "metadata" in file:
        stored = member(file, "metadata")[()]
    elif crops.is_group:
        stored = [member(crops.holder, name).attrs.get("metadata", "") for name in crops.names]
    else:
        raise ValueError("has no metadata with the positions of its crops")
    texts = [_text(each) for each in np.atleast_1d(np.asarray(stored, dtype=object)).tolist()]
    if len(texts) == 1 and len(crops) != 1:
        records = json.loads(texts[0])
    else:
        records = [json.loads(text) for text in texts]
    if len(records) == 1 and isinstance(records[0], list):
        records = records[0]
    if not isinstance(records, list) or len(records) != len(crops) or not all(isinstance(r, dict) for r in records):
        raise ValueError(f"has metadata that are not one JSON object for each of its {len(crops)} crops")
    return records


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"refused: the metadata have {len(text) / 2**20:.0f} MiB")
    return text


def _annotation(record: Mapping[str, Any], row: int, names: list[str]) -> Annotation:
    """Convert the JSON metadata of an annotated crop; `row` is its index in the file, `names` those of all images.

    Raises:
        ValueError: The metadata have no image or position, or the image is not in the file.
    """
    image = next((record[key] for key in _IMAGE if key in record), None)
    box = next((record[key] for key in _BOX if key in record), None)
    corner = box[:2] if isinstance(box, list) and len(box) >= 2 else [record.get("y"), record.get("x")]
    numbers = [each for each in corner if isinstance(each, int | float)]
    if image is None or len(numbers) < 2:
        raise ValueError(
            f"has metadata of crop {row} without image and bbox (keys: {', '.join(map(str, record)) or 'none'})"
        )
    if str(image) not in names:
        raise ValueError(f"crop {row} belongs to the image {image!r}, which is not in original_images")
    y, x = (round(each) for each in numbers)
    clicks = next((record[key] for key in _CLICKS if key in record), None)
    points = None if clicks is None else np.asarray(clicks, np.float64).reshape(-1, 2) + (y, x)
    return Annotation(row, str(image), y, x, points)
