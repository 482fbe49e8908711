"""Labelled images to evaluate and fine-tune models on.

Images are read on access and scaled as their data set defines; each knows its source image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stedfm_hf.images import StedImage
from stedfm_hf.labels.labelled.reading import (
    ReadImage,
    Rows,
    is_class_folder,
    is_simulated,
    read_class_folder,
    read_repository,
)
from stedfm_hf.labels.labelled.targets import Targets, read_targets
from stedfm_hf.labels.sourced import SourcedImages, in_memory, sha256_of
from stedfm_hf.labels.splits import check_split
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.runs import UserError, escaped

Task = Literal["classes", "multilabel", "regression"]
_LABEL = "label"
_STRATA = 4
"""Number of quantile bins of the targets of a regression, for stratified splits."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledImages(SourcedImages[np.ndarray]):
    """Images with their labels and sources; see `SourcedImages` for the other fields.

    Attributes:
        classes: Names of the classes; empty for a regression.
        labels: Class of each image, (n,) int64; targets of a regression, (n,) float64; or multilabel targets of 0 and
            1, (n, C) int64.
        reader: Function that reads the unscaled image of a row of the data set.
        unlabelled: Names of the images that were excluded because they have no label.

    Example:
        >>> images = [np.zeros((8, 8)), np.ones((8, 8)), np.ones((8, 8))]
        >>> data = from_arrays("squares", images, ["dark", "bright", "bright"], sources=["a", "b", "b"])
        >>> len(data), data.classes, data.labels.tolist(), data.take([1]).sources.tolist()
        (3, ('bright', 'dark'), [1, 0, 0], ['b'])
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    reader: ReadImage = field(repr=False)
    unlabelled: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """Type of the labels: one class per image, multilabel, or a regression."""
        return "multilabel" if self.labels.ndim == 2 else "regression" if not self.classes else "classes"

    def stored(self, number: int) -> StedImage:
        """Return an image unscaled, with the intensities that mean 0 and 1 where they are known.

        Args:
            number: Index of the image.
        """
        return self.reader(int(self.rows[number]))

    def image(self, number: int) -> np.ndarray:
        """Return an image scaled as its data set defines, or with the default scaling of the models for image files.

        Args:
            number: Index of the image.

        Returns:
            (C, H, W) float32 in [0, 1].
        """
        return _SCALING.prepare(self.stored(number))

    item = image

    @property
    def strata(self) -> np.ndarray:
        """Stratum of each image, (n,) int64: its class, its combination of classes, or the quartile of its target."""
        if self.task == "classes":
            return self.labels
        if self.task == "multilabel":
            return np.unique(self.labels, axis=0, return_inverse=True)[1].reshape(-1)
        edges = np.quantile(self.labels, np.arange(1, _STRATA) / _STRATA)
        return np.searchsorted(edges, self.labels, side="right")

    def class_presence(self) -> dict[str, np.ndarray]:
        """Return by class whether each image belongs to it, (n,) bool; empty for a regression."""
        table = self.labels > 0 if self.task == "multilabel" else self.labels[:, None] == np.arange(len(self.classes))
        return {name: table[:, number] for number, name in enumerate(self.classes)}

    def counts(self) -> dict[str, int]:
        """Return the number of images by class; empty for a regression."""
        if self.task == "regression":
            return {}
        number = (
            self.labels.sum(axis=0)
            if self.task == "multilabel"
            else np.bincount(self.labels, minlength=len(self.classes))
        )
        return {name: int(count) for name, count in zip(self.classes, number, strict=True)}


_SCALING = StedFmImageProcessor()


def from_arrays(
    name: str, images: Sequence[np.ndarray], labels: Sequence[Any], *, sources: Sequence[str] | None = None
) -> LabelledImages:
    """Build labelled images from arrays in memory.

    Args:
        name: Name of the data set.
        images: Pixels (H, W) or (C, H, W) of each image; scaled as the default of the models, even floats in [0, 1].
        labels: Class name, whole number, list of class names, or decimal number of each image; see
            `read_targets`.
        sources: Source image id of each image; None: each image is a separate source image.

    Raises:
        UserError: The labels have no valid or no common type, or all images are of one class.

    Example:
        >>> data = from_arrays("cells", [np.eye(8), np.ones((8, 8))], ["thin", "full"])
        >>> data.task, data.counts()
        ('classes', {'full': 1, 'thin': 1})
    """
    image_ids = [str(number) for number in range(len(images))]
    wrapped, digest = in_memory(images), hashlib.sha256()
    for array in (image.array for image in wrapped):
        digest.update(repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes())
    unknown = [""] * len(images)
    rows = Rows(labels, (), sources or image_ids, image_ids, unknown, digest.hexdigest(), wrapped.__getitem__)
    return _labelled({"all": rows}, name, False)["all"]


def read_labelled(
    data: str | os.PathLike[str],
    split: str | None = None,
    *,
    target: str | None = None,
    series: str | int | None = None,
    channel: str | int | None = None,
    source_pattern: str | None = None,
) -> dict[str, LabelledImages]:
    """Read labelled images by split.

    Args:
        data: Data set (local folder or Hub id), or folder with one subfolder of image files per class, named like the
            class. If the top-level folders are called train, validation (valid, val) and test, they are the splits.
        split: Name of the only split to return; None: all.
        target: Column of the labels, or key of the column `metadata`; default `label`. Names and whole numbers are
            classes, decimal numbers are targets of a regression, lists are multilabel.
        series: Series of image files to read; None if each file has one.
        channel: Channel of image files to read; None: all.
        source_pattern: Regular expression for the paths of image files; the text that its first group (or the whole
            pattern) matches is the source image id. None: the id is a hash of the file, so that copies share it.

    Returns:
        The images by split; `{"all": ...}` if there are no splits. Unreadable images are listed in `failed`, images
        without a label in `unlabelled`.

    Raises:
        UserError: There are no labels, or labels of one class only; train lacks a class of another split; labels are
            neither int, str nor float; targets are NaN; or no image can be read.

    Example:
        >>> splits = read_labelled("benchmark-v1")  # doctest: +SKIP
        >>> splits["train"].classes  # doctest: +SKIP
        ('fibres', 'puncta', 'rings')
    """
    if is_class_folder(data):
        if target is not None:
            raise UserError(
                f"{data}: a folder of classes, whose names are the labels. Omit --target, which is for data sets."
            )
        rows = read_class_folder(Path(data), series=series, channel=channel, source_pattern=source_pattern)
        check_split(os.fspath(data), split, rows)
        rows = {name: each for name, each in rows.items() if split in (None, name)}
    else:
        if source_pattern is not None:
            raise UserError(
                f"{data}: a data set, which contains source image ids. Omit the source pattern: it is for image files."
            )
        rows = read_repository(data, split, target or _LABEL)
    path = Path(data)
    name = escaped(path.resolve().name if path.exists() else os.fspath(data))
    return _labelled(rows, name, is_simulated(data))


def _labelled(splits: Mapping[str, Rows], name: str, simulated: bool) -> dict[str, LabelledImages]:
    """Assign the same class numbers in all splits, and return the labelled images of each split that has some.

    Raises:
        UserError: If all images are of one class, train lacks a class, or the labels have an unsupported type.
    """
    image_ids = [image_id for rows in splits.values() for image_id in rows.image_ids]
    entries = [entry for rows in splits.values() for entry in rows.entries]
    names = next(iter(splits.values())).names
    targets = read_targets(entries, names=names, where=name, image_ids=image_ids)
    if len(targets.classes) == 1:
        raise UserError(
            f"{name}: all images are of one class ({targets.classes[0]}); add images of at least one other class"
        )
    by_split, before = {}, 0
    for split, rows in splits.items():
        by_split[split] = _images_of_split(rows, targets, before, name, simulated)
        before += len(rows.entries)
    by_split = {split: data for split, data in by_split.items() if len(data)}
    _check_train(by_split, name)
    return by_split


def _images_of_split(rows: Rows, targets: Targets, before: int, name: str, simulated: bool) -> LabelledImages:
    """Build the labelled images of one split from the targets of all splits.

    Args:
        rows: Rows of the split.
        targets: Targets of the rows of all splits, which are numbered one split after the other.
        before: Number of rows in the splits before this one.
        name: Name of the data set.
        simulated: Whether its images are simulated.
    """
    in_split = (targets.rows >= before) & (targets.rows < before + len(rows.entries))
    row_numbers, values = targets.rows[in_split] - before, targets.values[in_split]
    sources = np.array(list(rows.sources), dtype=str)[row_numbers]
    content = f"{targets.classes}{sources.tolist()}".encode() + values.tobytes() + row_numbers.tobytes()
    return LabelledImages(
        name=name,
        fingerprint=sha256_of(rows.digest, content),
        classes=targets.classes,
        labels=values,
        sources=sources,
        image_ids=np.array(list(rows.image_ids), dtype=str)[row_numbers],
        contents=np.array(list(rows.contents), dtype=str)[row_numbers],
        reader=rows.reader,
        rows=row_numbers,
        simulated=simulated,
        failed=rows.failed,
        unlabelled=tuple(
            rows.image_ids[number] for number in sorted({*range(len(rows.entries))} - {*row_numbers.tolist()})
        ),
    )


def _check_train(splits: Mapping[str, LabelledImages], name: str) -> None:
    """Raise a UserError if train exists and has no image of a class that another split has."""
    train = splits.get("train")
    if train is None or train.task == "regression":
        return
    missing = [label for label, count in train.counts().items() if not count]
    if missing:
        split = next(key for key, data in splits.items() if data.counts()[missing[0]])
        raise UserError(
            f"{name}: no image of class {', '.join(missing)} is in train, but {split} has some; move source images "
            "of the class to train, or exclude the class"
        )
