"""Train, validation and test of labelled or annotated images: taken as they are, or made by the one rule.

The rule is :func:`stedfm_hf.data.splits.split_of`, which looks at the id of a source image only, so that every command
that reads the same images puts the same source images into the same splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from stedfm_hf.data.splits import SPLIT_FRACTIONS, split_of
from stedfm_hf.labels.sourced import SourcedImages
from stedfm_hf.runs import UserError, counted

ONE_SPLIT = "all"
"""Name of the only split of images that have none."""
FEW_SOURCES, FEW_PER_CLASS = 20, 5
"""Fewer source images than these in the test, or of one of its classes: no conclusion can be drawn."""
_MEND = "add images, or sort them into splits (folders) train, validation and test, and take all splits of a data set"

Images = TypeVar("Images", bound=SourcedImages[Any])


@dataclass(frozen=True)
class Splits(Generic[Images]):
    """Images to train on, to select a model on and to test it on.

    Attributes:
        train: Images to learn from.
        validation: Images a model or a setting is selected on; may be empty.
        test: Images the result is measured on; may be empty.
        how: How the splits came about, in sentences.
        tested: Name of the split that `test` was taken from.
        leave_one_out: Whether train and test are the same images, each tested with those of other source images;
            otherwise no source image is in two splits.
    """

    train: Images
    validation: Images
    test: Images
    how: str
    tested: str = "test"
    leave_one_out: bool = False

    def named(self) -> dict[str, Images]:
        """Return the splits that hold images, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in named.items() if len(images)}

    def held_out(self) -> dict[str, Images]:
        """Return validation and test, where they hold images."""
        return {name: images for name, images in self.named().items() if name != "train"}

    def take(self, kept: Mapping[str, np.ndarray]) -> Splits[Images]:
        """Return some of the images of some splits.

        Args:
            kept: Whether each image is kept (bool), by split.
        """
        return replace(self, **{name: getattr(self, name).take(mask) for name, mask in kept.items()})

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return the number of images and source images, and the counts of each class, by split, as plain data."""
        return {
            name: {"images": len(images), "sources": images.source_count, "classes": images.counts()}
            for name, images in self.named().items()
        }

    def failed(self) -> dict[str, str]:
        """Return the images that could not be read, with the reason."""
        return {place: reason for images in self.named().values() for place, reason in images.failed.items()}

    def counts(self) -> str:
        """Return how many images each split has, in words."""
        return ", ".join(counted(len(images), f"{name} image") for name, images in self.named().items())


def split_images(read: Mapping[str, Images], *, select: bool) -> Splits[Images]:
    """Take the splits that there are, and make those that are missing.

    Images without splits are split by the rule. Where only the validation split is missing and a model is selected on
    it, the rule takes it from train. A few source images may leave a split empty: if that is the validation split, the
    images of the test are used to select, and there is no test.

    Args:
        read: Images by split, as they were read: one split of any name, or some of train, validation and test.
        select: Whether a model is selected on the validation split, so that there must be one.

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
        splits = _by_rule(*next(iter(read.items())))
    else:
        splits = _as_they_are(read, select)
    if select and not len(splits.validation):
        splits = replace(
            splits,
            validation=splits.test,
            test=splits.validation,
            how=f"{splits.how} No source image falls into validation: the images of the test are used to select, and "
            "there is no test split.",
        )
    return splits


def _as_they_are(read: Mapping[str, Images], select: bool) -> Splits[Images]:
    first = next(iter(read.values()))
    if "train" not in read or not {"validation", "test"} & set(read):
        raise UserError(f"{first.name}: has the splits {', '.join(read)}; name one (--split)")
    none = first.take([])
    train, validation, test = (read.get(name, none) for name in ("train", "validation", "test"))
    how = "The splits are those of the data set" + ("." if len(test) else "; there is no test split.")
    if len(validation) or not select:
        return Splits(train, validation, test, how)
    selected = _split_of_each(train) == "validation"
    how = (
        "There is no validation split: a hash of the ids of the source images of train took "
        f"{counted(train.take(selected).source_count, 'source image')} of {train.source_count} for it."
    )
    splits = Splits(train.take(~selected), train.take(selected), test, how)
    _check_train(splits, train)
    return splits


def _by_rule(name: str, whole: Images) -> Splits[Images]:
    split = _split_of_each(whole)
    train, validation, test = (whole.take(split == name) for name in ("train", "validation", "test"))
    fractions = ", ".join(
        f"{100 * getattr(SPLIT_FRACTIONS, name):.0f} % {name}" for name in ("train", "validation", "test")
    )
    given = "There are no splits" if name == ONE_SPLIT else f"There is one split ({name})"
    how = f"{given}: a hash of the id of each source image decides its split ({fractions}, on average)."
    splits = Splits(train, validation, test, how)
    _check_train(splits, whole)
    return splits


def _split_of_each(images: SourcedImages[Any]) -> np.ndarray:
    return np.array([split_of(source) for source in images.sources.tolist()], dtype=object)


def _check_train(splits: Splits[Images], whole: Images) -> None:
    """Refuses splits made by the rule that cannot be learned from or tested on."""
    if not len(splits.train) or not splits.held_out():
        where = "train" if splits.held_out() else "validation or test"
        raise UserError(
            f"{whole.name}: none of {counted(whole.source_count, 'source image')} falls into {where}, which a hash of "
            f"each decides; {_MEND}"
        )
    there = whole.counts()
    if missing := [name for name, count in splits.train.counts().items() if not count and there[name]]:
        raise UserError(
            f"{whole.name}: no image of {', '.join(missing)} falls into train, which a hash of each source image "
            f"decides; {_MEND}"
        )


def check_no_leakage(splits: Mapping[str, SourcedImages[Any]]) -> None:
    """Refuse splits that share a source image.

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
                more = f", as are {len(shared) - 1} more" if len(shared) > 1 else ""
                raise UserError(
                    f"{one.name}: source image {shared[0]!r} is in {name} ({one.image_ids[first]}) and in {other} "
                    f"({two.image_ids[second]}){more}; keep all images of a source image, and copies, in one split"
                )


def limitations_of(test: SourcedImages[Any]) -> list[str]:
    """Return why no conclusion can be drawn from metrics of these images; empty where one can."""
    count, found = test.source_count, []
    if count < FEW_SOURCES:
        found.append(f"the test has only {counted(count, 'source image')}")
    each = {name: len(set(test.sources[there].tolist())) for name, there in test.shown().items()}
    few = [f"{name} ({number})" for name, number in each.items() if number < FEW_PER_CLASS]
    if few:
        found.append(f"of these classes it has fewer than {FEW_PER_CLASS} source images: {', '.join(few)}")
    return found
