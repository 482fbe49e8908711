"""Which images models are tested on: never those that one of them was trained or selected on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stedfm_hf.labels.sourced import SourcedImages
from stedfm_hf.labels.splits import ONE_SPLIT, Images, Splits, check_no_leakage, split_images
from stedfm_hf.labels.training_sources import read_training_sources
from stedfm_hf.runs import UserError, counted

LEAST_SOURCES = 2
"""Source images that must remain of a test of which some were left out."""


def splits_to_test(read: Mapping[str, Images]) -> Splits[Images]:
    """Return the splits of a data set with a test split: where there is none, validation is tested on."""
    splits = split_images(read, select=False)
    if len(splits.test):
        return splits
    how = f"{splits.how} Validation is tested on: a model that was selected on it looks better than it is."
    return replace(splits, validation=splits.test, test=splits.validation, how=how, tested="validation")


def leave_one_out(read: Mapping[str, Images]) -> Splits[Images]:
    """Return every image of one split as train and as test: each is tested with those of other source images."""
    if len(read) > 1:
        name = next(iter(read.values())).name
        raise UserError(f"{name}: has the splits {', '.join(read)}; name the one to leave one out of (--split)")
    ((name, images),) = read.items()
    how = "Every image was tested with all images of other source images (leave one out)."
    return Splits(images, images.take([]), images, how, tested=name, leave_one_out=True)


def chosen_split(read: Mapping[str, Images], split: str | None) -> Splits[Images]:
    """Return the splits with the one that was asked for as the test.

    Args:
        read: Images by split, as they were read.
        split: Split of the data set, or split that is made of a data set without any; None: test, else validation.

    Raises:
        UserError: There is no such split, or one source image is in two.
    """
    check_no_leakage(read)
    name = next(iter(read.values())).name
    if split is not None and split in read:
        none = read[split].take([])
        train = none if split == "train" else read.get("train", none)
        return Splits(train, none, read[split], f"The split {split} of the data set was scored.", tested=split)
    if split is None:
        return splits_to_test(read)
    if set(read) == {ONE_SPLIT}:
        made = split_images(read, select=False)
        if split in (named := made.named()):
            none = made.train.take([])
            train = none if split == "train" else made.train
            return Splits(train, none, named[split], made.how, tested=split)
    raise UserError(f"{name}: has no split {split!r}; there are {', '.join(read)}")


def unused_by(
    models: Mapping[str, str], test: SourcedImages[Any], *, least_classes: int = 0
) -> tuple[np.ndarray, list[str]]:
    """Find the test images that no model was trained or selected on; the others are left out for all models alike.

    Args:
        models: Folder, Hub id or packaged name of each model, by the name it has in reports.
        test: Test images.
        least_classes: Classes that must remain.

    Returns:
        Whether each image stays in the test (n,) bool, and what a report must say about it, a sentence each.

    Raises:
        UserError: Too few source images or classes remain.
    """
    records = {name: read_training_sources(model) for name, model in models.items()}
    used = {name: record.used(test) for name, record in records.items() if record is not None}
    kept = ~np.any([np.zeros(len(test), dtype=bool), *used.values()], axis=0)
    by = {name: int(mask.sum()) for name, mask in used.items() if mask.any()}
    listed = ", ".join(f"{name} ({number})" for name, number in by.items())
    total = counted(len(test), "test image")
    if by:
        left = test.take(kept)
        classes = [name for name, there in left.shown().items() if there.any()]
        if left.source_count < LEAST_SOURCES or len(classes) < least_classes:
            remain = counted(left.source_count, "source image") + (f" ({', '.join(classes)})" if classes else "")
            raise UserError(
                f"{test.name}: {int((~kept).sum())} of {total} are of source images that a model was trained or "
                f"selected on: {listed}; too few remain to test on: {remain}. Add images that no model has seen, name "
                "another data set or split, or leave the model out"
            )
    notes = []
    if by:
        notes.append(
            f"{int((~kept).sum())} of {total} were left out, for all models alike, because a model was trained or "
            f"selected on their source images: {listed}."
        )
    elif used:
        notes.append(f"None of {total} was used to train or select {_and(list(used))}.")
    if unknown := [name for name, record in records.items() if record is None]:
        notes.append(
            f"It is unknown which images {_and(unknown)} {'was' if len(unknown) == 1 else 'were'} trained on."
        )
    return kept, notes


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
