"""Test images of an evaluation, without images that a model was trained or selected on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stedfm_hf.labels.sourced import SourcedImages
from stedfm_hf.labels.splits import ONE_SPLIT, Images, Splits, check_no_leakage, split_images
from stedfm_hf.labels.training_sources import read_training_sources
from stedfm_hf.runs import UserError, counted
from stedfm_hf.weights.packaged import PACKAGED

MIN_SOURCES = 2
"""Smallest number of test source images after exclusion."""


def evaluation_splits(read: Mapping[str, Images]) -> Splits[Images]:
    """Return the splits of a data set; without a test split, the validation split is the test split.

    Args:
        read: Images by split.

    Raises:
        UserError: If the images cannot be split.
    """
    splits = split_images(read, select=False)
    if len(splits.test):
        return splits
    description = (
        f"{splits.description} The validation split is the test split: scores of models selected on it are too high."
    )
    return replace(
        splits, validation=splits.test, test=splits.validation, description=description, test_split="validation"
    )


def leave_one_out(read: Mapping[str, Images]) -> Splits[Images]:
    """Use every image of one split for training and for testing, without pairs of the same source image.

    Args:
        read: Images by split.

    Raises:
        UserError: If there are several splits.
    """
    if len(read) > 1:
        name = next(iter(read.values())).name
        raise UserError(f"{name}: has the splits {', '.join(read)}; select one with --split")
    ((name, images),) = read.items()
    description = (
        "Leave-one-out: every image is classified by its neighbours among the images of all other source images."
    )
    return Splits(images, images.take([]), images, description, test_split=name, leave_one_out=True)


def select_split(read: Mapping[str, Images], split: str | None) -> Splits[Images]:
    """Select the split to test on, and the images to train and validate on.

    Args:
        read: Images by split.
        split: Name of the split to test on; None selects `test`, or `validation` if there is no `test`. A data set
            without splits is split by source image.

    Raises:
        UserError: If the split does not exist, or a source image is in two splits.
    """
    check_no_leakage(read)
    name = next(iter(read.values())).name
    if split is not None and split in read:
        none = read[split].take([])
        train = none if split == "train" else read.get("train", none)
        return Splits(train, none, read[split], f"The split {split} of the data set is scored.", test_split=split)
    if split is None:
        return evaluation_splits(read)
    choices = list(read)
    if set(read) == {ONE_SPLIT}:
        made = split_images(read, select=False)
        choices = list(named := made.named())
        if split in named:
            none = made.train.take([])
            train = none if split == "train" else made.train
            return Splits(train, none, named[split], made.description, test_split=split)
    raise UserError(f"{name}: has no split {split!r}; choose from {', '.join(choices)}")


def searched_split(read: Mapping[str, Images], split: str | None) -> Splits[Images]:
    """Return one split for queries and for the images to rank, as train and as test; without splits, all images.

    Nothing is trained, so that images without splits need none.

    Args:
        read: Images by split.
        split: Name of the split; None selects `test`, or `validation` if there is no `test`.

    Raises:
        UserError: If the split does not exist, or a source image is in two splits.
    """
    if set(read) == {ONE_SPLIT} and split in (None, ONE_SPLIT):
        images, name, description = read[ONE_SPLIT], ONE_SPLIT, "All images are searched."
    else:
        selected = select_split(read, split)
        images, name = selected.test, selected.test_split
        description = f"{selected.description} The images of the split {name} are searched."
    return Splits(images, images.take([]), images, description, test_split=name, leave_one_out=True)


def exclude_training_images(
    models: Mapping[str, str], test: SourcedImages[Any], *, min_classes: int = 0
) -> tuple[np.ndarray, list[str]]:
    """Find the test images that no model was trained or selected on.

    Args:
        models: Folder, Hub id or packaged name of each model, by its name in reports.
        test: Test images.
        min_classes: Smallest number of classes that must remain.

    Returns:
        Whether to keep each test image (n,) bool, and notes for the report, in sentences.

    Raises:
        UserError: If too few source images or classes remain.
    """
    records = {name: read_training_sources(model) for name, model in models.items()}
    used = {name: record.used(test) for name, record in records.items() if record is not None}
    kept = ~np.any([np.zeros(len(test), dtype=bool), *used.values()], axis=0)
    used_counts = {name: int(mask.sum()) for name, mask in used.items() if mask.any()}
    listed = ", ".join(f"{name} ({number})" for name, number in used_counts.items())
    total = counted(len(test), "test image")
    if used_counts:
        remaining = test.take(kept)
        classes = [name for name, present in remaining.class_presence().items() if present.any()]
        if remaining.source_count < MIN_SOURCES or len(classes) < min_classes:
            remain = counted(remaining.source_count, "source image") + (f" ({', '.join(classes)})" if classes else "")
            raise UserError(
                f"{test.name}: {int((~kept).sum())} of {total} are from source images that a model was trained or "
                f"selected on: {listed}. Too few remain: {remain}. Add other images, choose another data set or "
                "split, "
                "or leave out the model"
            )
    notes = []
    if used_counts:
        notes.append(
            f"{int((~kept).sum())} of {total} are excluded for all methods, because a model was trained or "
            "selected on "
            f"their source images: {listed}."
        )
    elif used:
        notes.append(f"None of {total} was used to train or select {_join(list(used))}.")
    notes += [
        f"{name} was {PACKAGED[model].partition(':')[0]}." for name, model in models.items() if model in PACKAGED
    ]
    if unknown := [name for name, record in records.items() if record is None and models[name] not in PACKAGED]:
        notes.append(
            f"It is unknown which images {_join(unknown)} {'was' if len(unknown) == 1 else 'were'} trained on."
        )
    return kept, notes


def _join(names: Sequence[str]) -> str:
    """Join names by commas and "and"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
