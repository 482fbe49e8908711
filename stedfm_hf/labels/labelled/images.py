"""Labelled images: what models are evaluated and fine-tuned on.

Images are read when they are asked for, scaled as their repository says, and know the source image they were cut from.
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
    Read,
    Rows,
    is_class_folder,
    is_simulated,
    read_class_folder,
    read_repository,
)
from stedfm_hf.labels.labelled.targets import Targets, read_targets
from stedfm_hf.labels.sourced import SourcedImages, in_memory, sha256_of
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.runs import UserError

Task = Literal["classes", "multilabel", "regression"]
_LABEL = "label"
_STRATA = 4
"""Parts of equal size that the targets of a regression are cut into, to be spread over the splits alike."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledImages(SourcedImages[np.ndarray]):
    """Images with their labels and sources; see :class:`SourcedImages` for the other fields.

    Args:
        classes: names of the classes; empty for a regression.
        labels: (n,) int64 number of the class, (n,) float64 for a regression, (n, C) int64 of 0 and 1 where an image
            has several classes.
        reads: reads the image of a row of the data set, not scaled.
        unlabelled: images that were left out because they have no label, by name.

    Example:
        >>> images = [np.zeros((8, 8)), np.ones((8, 8)), np.ones((8, 8))]
        >>> data = from_arrays("squares", images, ["dark", "bright", "bright"], sources=["a", "b", "b"])
        >>> len(data), data.classes, data.labels.tolist(), data.take([1]).sources.tolist()
        (3, ('bright', 'dark'), [1, 0, 0], ['b'])
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    reads: Read = field(repr=False)
    unlabelled: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """One of several classes, several classes at once, or a number to predict."""
        return "multilabel" if self.labels.ndim == 2 else "regression" if not self.classes else "classes"

    def stored(self, number: int) -> StedImage:
        """An image as it is stored, with the intensities that mean 0 and 1 where they are known."""
        return self.reads(int(self.rows[number]))

    def image(self, number: int) -> np.ndarray:
        """An image (C, H, W) float32 in [0, 1], scaled as the repository says; of files, as the models' default."""
        return _SCALING.prepare(self.stored(number))

    item = image

    @property
    def strata(self) -> np.ndarray:
        """The class, the combination of classes, or a quarter of the range of targets."""
        if self.task == "classes":
            return self.labels
        if self.task == "multilabel":
            return np.unique(self.labels, axis=0, return_inverse=True)[1].reshape(-1)
        edges = np.quantile(self.labels, np.arange(1, _STRATA) / _STRATA)
        return np.searchsorted(edges, self.labels, side="right")

    def shown(self) -> dict[str, np.ndarray]:
        """Of every class which images are of it; empty for a regression."""
        table = self.labels > 0 if self.task == "multilabel" else self.labels[:, None] == np.arange(len(self.classes))
        return {name: table[:, number] for number, name in enumerate(self.classes)}

    def counts(self) -> dict[str, int]:
        """How many images every class has; empty for a regression."""
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
    """Labelled images of arrays in memory.

    Args:
        name: of the data set.
        images: (H, W) or (C, H, W) each; scaled as the models' default, floats in [0, 1] too.
        labels: a name or whole number, a list of names, or a decimal number each; see
            :func:`stedfm_hf.labels.labelled.targets.read_targets`.
        sources: source image of each; None: each is a source of its own.
    """
    places = [str(number) for number in range(len(images))]
    wrapped, digest = in_memory(images), hashlib.sha256()
    for array in (image.array for image in wrapped):
        digest.update(repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes())
    rows = Rows(labels, (), sources or places, places, [""] * len(places), digest.hexdigest(), wrapped.__getitem__)
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
    """Reads labelled images by split.

    Args:
        data: a data set repository (local folder or Hub id), or a folder with one folder for each class of image
            files, whose name is the class; folders called train, validation (valid, val) and test around those are
            splits.
        split: the only split wanted, or None for all.
        target: column of the labels, or entry of the column `metadata`; by default `label`. Names and whole numbers
            are classes, decimal numbers are for a regression, lists are several classes at once.
        series: of files: the one to take; None where files have one.
        channel: of files: the one to take; None takes all.
        source_pattern: of files: regular expression; what its first group (or the whole) matches in the path is the
            id of the source image. None: the id is a hash of the bytes of the file, so that copies are of one source.

    Returns:
        The splits by name; `{"all": ...}` where there are none. Images that cannot be read are named in `failed`,
        those without a label in `unlabelled`.

    Raises:
        UserError: there are no labels, or of one class only; a class of another split is missing in train; labels
            are neither int nor str nor numbers; targets are NaN; no image can be read.

    Example:
        >>> splits = read_labelled("benchmark-v1")  # doctest: +SKIP
        >>> splits["train"].classes  # doctest: +SKIP
        ('fibres', 'puncta', 'rings')
    """
    if is_class_folder(data):
        if target is not None:
            raise UserError(f"{data}: is a folder of classes, whose names are the labels; --target is for data sets")
        rows = read_class_folder(Path(data), series=series, channel=channel, source_pattern=source_pattern)
        if split is not None and split not in rows:
            raise UserError(f"{data}: has no split {split!r}; there are {', '.join(rows)}")
        rows = {name: each for name, each in rows.items() if split in (None, name)}
    else:
        if source_pattern is not None:
            raise UserError(f"{data}: is a data set, which says its source images itself; a pattern is for files")
        rows = read_repository(data, split, target or _LABEL)
    path = Path(data)
    name = path.resolve().name if path.exists() else os.fspath(data)
    return _labelled(rows, name, is_simulated(data))


def _labelled(splits: Mapping[str, Rows], name: str, simulated: bool) -> dict[str, LabelledImages]:
    """Numbers the classes of all splits alike."""
    places = [place for rows in splits.values() for place in rows.image_ids]
    entries = [entry for rows in splits.values() for entry in rows.entries]
    names = next(iter(splits.values())).names
    targets = read_targets(entries, names=names, where=name, image_ids=places)
    if len(targets.classes) == 1:
        raise UserError(
            f"{name}: all images are of one class ({targets.classes[0]}); there must be two or more to tell apart"
        )
    found, before = {}, 0
    for split, rows in splits.items():
        found[split] = _of_split(rows, targets, before, name, simulated)
        before += len(rows.entries)
    found = {split: data for split, data in found.items() if len(data)}
    _check_train(found, name)
    return found


def _of_split(rows: Rows, targets: Targets, before: int, name: str, simulated: bool) -> LabelledImages:
    own = (targets.rows >= before) & (targets.rows < before + len(rows.entries))
    chosen, values = targets.rows[own] - before, targets.values[own]
    sources = np.array(list(rows.sources), dtype=str)[chosen]
    content = f"{targets.classes}{sources.tolist()}".encode() + values.tobytes() + chosen.tobytes()
    return LabelledImages(
        name=name,
        fingerprint=sha256_of(rows.digest, content),
        classes=targets.classes,
        labels=values,
        sources=sources,
        image_ids=np.array(list(rows.image_ids), dtype=str)[chosen],
        contents=np.array(list(rows.contents), dtype=str)[chosen],
        reads=rows.read,
        rows=chosen,
        simulated=simulated,
        failed=rows.failed,
        unlabelled=tuple(
            rows.image_ids[number] for number in sorted({*range(len(rows.entries))} - {*chosen.tolist()})
        ),
    )


def _check_train(splits: Mapping[str, LabelledImages], name: str) -> None:
    train = splits.get("train")
    if train is None or train.task == "regression":
        return
    missing = [label for label, count in train.counts().items() if not count]
    if missing:
        split = next(key for key, data in splits.items() if data.counts()[missing[0]])
        raise UserError(
            f"{name}: no image of class {', '.join(missing)} is in train, but there are some in {split}; move some "
            "source images of it to train, or leave the class out"
        )
