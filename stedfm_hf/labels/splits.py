"""Train, validation and test splits of labelled or annotated images: the existing ones, or splits by source image id.

`split_of` splits by a hash of the source image id only, so every command that reads the
same images puts the same source images into the same splits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from stedfm_hf.data.splits import SPLIT_FRACTIONS, split_of
from stedfm_hf.labels.sourced import SourcedImages, first_failure
from stedfm_hf.runs import UserError, counted

ONE_SPLIT = "all"
"""Name of the single split of images without splits."""
FEW_SOURCES, FEW_PER_CLASS = 20, 5
"""Least numbers of source images in the test split, and of each of its classes, that allow conclusions."""
_FIX = "add images, or sort them into folders called train, validation and test"

Images = TypeVar("Images", bound=SourcedImages[Any])


def check_split(name: str, split: str | None, splits: Collection[str]) -> None:
    """Refuse a split that does not exist.

    Args:
        name: Name of the data in the message.
        split: Requested split; None for all.
        splits: Names of the existing splits; only `ONE_SPLIT` if there are none.

    Raises:
        UserError: If the split does not exist; the message names those that do.
    """
    if split is None or split in splits:
        return
    if set(splits) == {ONE_SPLIT}:
        raise UserError(f"{name}: has no splits, so {split!r} cannot be selected; omit the split")
    raise UserError(f"{name}: has no split {split!r}; choose from {', '.join(splits)}")


@dataclass(frozen=True)
class Splits(Generic[Images]):
    """Images to train on, to select a model on and to test on.

    Attributes:
        train: Training images.
        validation: Images that models or settings are selected on; may be empty.
        test: Images that the results are measured on; may be empty.
        description: Description of how the splits were made, in sentences.
        test_split: Name of the split that `test` was taken from.
        leave_one_out: Whether train and test are the same images, and each image is tested with the images of other
            source images; otherwise no source image is in two splits.
    """

    train: Images
    validation: Images
    test: Images
    description: str
    test_split: str = "test"
    leave_one_out: bool = False

    def named(self) -> dict[str, Images]:
        """Return the non-empty splits by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in named.items() if len(images)}

    def held_out(self) -> dict[str, Images]:
        """Return validation and test, if they are not empty."""
        return {name: images for name, images in self.named().items() if name != "train"}

    def take(self, kept: Mapping[str, np.ndarray]) -> Splits[Images]:
        """Return the splits with a subset of their images.

        Args:
            kept: Whether to keep each image, (n,) bool, by split.
        """
        return replace(self, **{name: getattr(self, name).take(mask) for name, mask in kept.items()})

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return the numbers of images, source images and images or pixels per class, by split, as JSON types."""
        return {
            name: {"images": len(images), "sources": images.source_count, "classes": images.counts()}
            for name, images in self.named().items()
        }

    def failed(self) -> dict[str, str]:
        """Return the reason by name of each unreadable image."""
        return {image_id: reason for images in self.named().values() for image_id, reason in images.failed.items()}

    def counts(self) -> str:
        """Return the number of images in each split as text."""
        if self.leave_one_out:  # one set of images is train and test
            return counted(len(self.test), "image")
        return ", ".join(counted(len(images), f"{name} image") for name, images in self.named().items())


def split_images(read: Mapping[str, Images], *, select: bool) -> Splits[Images]:
    """Use the existing splits, and make those that are missing.

    Images without splits are split by a hash of their source image id. If only the validation split is missing and a
    model is selected on it, the hash takes it from train. With few source images a split may be empty. If that is the
    validation split, models are selected on the test images, and there is no test split.

    Args:
        read: Images by split: one split of any name, or two or three of train, validation and test.
        select: Whether a model is selected on the validation split, which must then exist.

    Raises:
        UserError: A source image is in two splits, no image is held out, or train lacks a class.

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> sources = [f"cell {number // 2}" for number in range(8)]
        >>> data = from_arrays("d", [np.eye(4)] * 8, list("aababbbb"), sources=sources)
        >>> splits = split_images({"all": data}, select=True)
        >>> {name: sorted(set(images.sources.tolist())) for name, images in splits.named().items()}
        {'train': ['cell 1', 'cell 3'], 'validation': ['cell 2'], 'test': ['cell 0']}
    """
    check_no_leakage(read)
    if len(read) == 1:
        splits = _split_by_hash(*next(iter(read.items())))
    else:
        splits = _use_existing(read, select)
    if select and not len(splits.validation):
        splits = replace(
            splits,
            validation=splits.test,
            test=splits.validation,
            description=f"{splits.description} No source image falls into validation: models are selected on the "
            "images of the test split, and there is no test split.",
        )
    return splits


def _use_existing(read: Mapping[str, Images], select: bool) -> Splits[Images]:
    """Return the existing splits; if models are selected and there is no validation, a hash takes it from train.

    Raises:
        UserError: If there is no train split, or neither validation nor test; or the new train split lacks a class.
    """
    first = next(iter(read.values()))
    if "train" not in read or not {"validation", "test"} & set(read):
        raise UserError(f"{first.name}: has the splits {', '.join(read)}; select one with --split")
    none = first.take([])
    train, validation, test = (read.get(name, none) for name in ("train", "validation", "test"))
    description = "The splits are those of the data set" + ("." if len(test) else "; there is no test split.")
    if len(validation) or not select:
        return Splits(train, validation, test, description)
    selected = _split_of_each(train) == "validation"
    description = (
        "There is no validation split: a hash of the id of each source image of train selected "
        f"{counted(train.take(selected).source_count, 'source image')} of {train.source_count} for it."
    )
    splits = Splits(train.take(~selected), train.take(selected), test, description)
    _check_train(splits, train)
    return splits


def _split_by_hash(name: str, whole: Images) -> Splits[Images]:
    """Split images without splits by a hash of their source image ids, in the fractions `SPLIT_FRACTIONS`.

    Raises:
        UserError: If train is empty or lacks a class, or no image is held out.
    """
    split = _split_of_each(whole)
    train, validation, test = (whole.take(split == name) for name in ("train", "validation", "test"))
    fractions = ", ".join(
        f"{100 * getattr(SPLIT_FRACTIONS, name):.0f} % {name}" for name in ("train", "validation", "test")
    )
    existing = "There are no splits" if name == ONE_SPLIT else f"There is one split ({name})"
    description = f"{existing}: a hash of the id of each source image decides its split ({fractions}, on average)."
    splits = Splits(train, validation, test, description)
    _check_train(splits, whole)
    missing = [_missing_classes(name, images, whole) for name, images in splits.held_out().items()]
    return replace(splits, description=" ".join([description, *filter(None, missing)]))


def _missing_classes(name: str, images: Images, whole: Images) -> str:
    """Return a sentence on classes of which no image is in a split; empty if there are none."""
    available, counts = whole.counts(), images.counts()
    missing = [each for each, count in available.items() if count and not counts[each]]
    if not missing:
        return ""
    return f"No image of {', '.join(missing)} falls into {name}, so that nothing is measured for it: {_FIX}."


def _split_of_each(images: SourcedImages[Any]) -> np.ndarray:
    return np.array([split_of(source) for source in images.sources.tolist()], dtype=object)


def _check_train(splits: Splits[Images], whole: Images) -> None:
    """Raise an error if a split by hash left train empty, held out no image, or left train without a class."""
    if not len(splits.train) or not splits.held_out():
        where = "train" if splits.held_out() else "validation or test"
        raise UserError(
            f"{whole.name}: none of {counted(whole.source_count, 'source image')} falls into {where}, which a hash of "
            f"its id decides; {_FIX}{first_failure(whole)}"
        )
    available = whole.counts()
    if missing := [name for name, count in splits.train.counts().items() if not count and available[name]]:
        raise UserError(
            f"{whole.name}: no image of {', '.join(missing)} falls into train, which a hash of each source image "
            f"id decides; {_FIX}"
        )


def check_no_leakage(splits: Mapping[str, SourcedImages[Any]]) -> None:
    """Raise an error if two splits share a source image.

    Args:
        splits: Images by split.

    Raises:
        UserError: A source image is in two splits.

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)] * 2, list("ab"), sources=["cell 1", "cell 1"])
        >>> try:
        ...     check_no_leakage({"train": data.take([0]), "test": data.take([1])})
        ... except UserError as error:
        ...     print(str(error).partition(";")[0])
        d: source image 'cell 1' is in train (0) and in test (1)
    """
    names = list(splits)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            one, two = splits[name], splits[other]
            shared = sorted({*one.sources.tolist()} & {*two.sources.tolist()})
            if shared:
                first, second = (int(np.flatnonzero(each.sources == shared[0])[0]) for each in (one, two))
                more = f", and {len(shared) - 1} more are in both" if len(shared) > 1 else ""
                raise UserError(
                    f"{one.name}: source image {shared[0]!r} is in {name} ({one.image_ids[first]}) and in {other} "
                    f"({two.image_ids[second]}){more}; keep all images of a source image, and copies, in one split"
                )


def limitations_of(test: SourcedImages[Any]) -> list[str]:
    """Return why metrics of these images allow no conclusion; empty if there is no such reason.

    Args:
        test: Images of the test split.

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> limitations_of(from_arrays("d", [np.eye(4)] * 40, list("ab") * 20))
        []
    """
    count, limitations = test.source_count, []
    if count < FEW_SOURCES:
        limitations.append(f"the test has only {counted(count, 'source image')}")
    each = {name: len(set(test.sources[present].tolist())) for name, present in test.class_presence().items()}
    few = [f"{name} ({number})" for name, number in each.items() if number < FEW_PER_CLASS]
    if few:
        limitations.append(f"the test has fewer than {FEW_PER_CLASS} source images of {', '.join(few)}")
    return limitations
