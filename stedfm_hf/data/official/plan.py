"""Plan of an import: class, split and source of every image, before any image is read.

The helpers are shared by the importers: classes and splits from names, lists of files, seeded random splits, and
balancing of classes.

Source:
    Reference protocol. Seeds and numbers of images are those of the published code. Its random samples cannot be
    reproduced image by image, because its lists of files were not published.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.repository.layout import SPLITS, Crop
from stedfm_hf.runs import UserError

SEED = 42
"""Random seed of the published code."""
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Split for each word that the authors use in names."""
SPLIT_PRIORITY = ("test", "validation", "train")
"""Splits by priority: an image in two splits stays in the first of them, so the test set matches the published one."""

Sampler = Callable[[int, int], Collection[int]]


@dataclass(frozen=True)
class Item:
    """One image with one label; an image with two labels is two items.

    Attributes:
        name: Name of the image in the manifest.
        source: Id of the source image.
        split: Published split; None to choose it by a hash of the source id, as for other data sets.
        label: Class, or None.
        read: Function that reads the image and returns its crops, without source and label. It may raise any exception
            if the file is damaged.
    """

    name: str
    source: str
    split: str | None
    label: str | None
    read: Callable[[], Sequence[Crop]]


@dataclass
class Plan:
    """Images to import, and those that are skipped.

    Attributes:
        classes: Names of the classes in the published order; empty for regression and segmentation.
        items: Images to import.
        skipped: Reason for each image that is not part of the published data set, by name.
        failed: Reason for each file that cannot be read, by name.
        notes: Notes for the user and the dataset card, one sentence each, without a full stop.
        mask_names: Names of the numbers in masks.
    """

    classes: tuple[str, ...]
    items: list[Item] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    mask_names: Mapping[int, str] = field(default_factory=dict)

    def require_classes(self, source: str) -> None:
        """Check that every class has an image, unless files are damaged.

        Args:
            source: Name of the folder or file, for the message.

        Raises:
            UserError: A class has no image, and no file failed.
        """
        present = {item.label for item in self.items}
        if (missing := [name for name in self.classes if name not in present]) and not self.failed:
            raise UserError(
                f"{source}: has no image of {', '.join(missing)} (the classes are {', '.join(self.classes)}). Get all "
                "files of the data set, in the layout of docs/how-to/import-published-sets.md"
            )

    def keep_sources_in_one_split(self) -> None:
        """Skip images whose source image is also in a split with higher priority."""
        splits: dict[str, str | None] = {}
        for item in sort_by_priority(self.items):
            splits.setdefault(item.source, item.split)
        duplicates = [item for item in self.items if splits[item.source] != item.split]
        self.skip((item, f"its source image is also in the split {splits[item.source]!r}") for item in duplicates)
        if duplicates:
            self.notes.append(f"{len(duplicates)} images were skipped, because another split has the same sources")

    def balance(self, splits: Collection[str], sampler: Callable[[], Sampler]) -> None:
        """Sample the same number of images of each class: that of the rarest class in the split.

        Args:
            splits: Splits to balance.
            sampler: Function that returns a new sampler for each split; a sampler takes (n, k) and returns k different
                numbers below n.
        """
        for split in splits:
            classes = [[i for i in self.items if i.split == split and i.label == name] for name in self.classes]
            fewest, sample = min((len(each) for each in classes if each), default=0), sampler()
            kept = {id(each[n]) for each in classes if each for n in sample(len(each), fewest)}
            others = [item for each in classes for item in each if id(item) not in kept]
            reason = f"the published {split} split is balanced: {fewest} images of each class"
            self.skip((item, reason) for item in others)

    def skip(self, items: Iterable[tuple[Item, str]]) -> None:
        """Move items to the skipped images.

        Args:
            items: Items, each with the reason.
        """
        reasons = {id(item): reason for item, reason in items}
        self.skipped |= {item.name: reasons[id(item)] for item in self.items if id(item) in reasons}
        self.items = [item for item in self.items if id(item) not in reasons]


def _priority(split: str | None) -> int:
    """Return the rank of a split in `SPLIT_PRIORITY`, 0 for the highest."""
    return SPLIT_PRIORITY.index(split) if split in SPLIT_PRIORITY else len(SPLIT_PRIORITY)


def sort_by_priority(items: Iterable[Item]) -> list[Item]:
    """Sort images by the priority of their split, test images first, so that later duplicates are recognised.

    Args:
        items: Images to sort; the order within a split is kept.
    """
    return sorted(items, key=lambda item: _priority(item.split))


def numpy_sampler() -> Sampler:
    """Return a sampler that uses NumPy's legacy generator.

    Source:
        Reference protocol of neural-activity-states.
    """
    rng = np.random.RandomState(SEED)
    return lambda n, k: rng.choice(n, k, replace=False).tolist()


def python_sampler() -> Sampler:
    """Return a sampler that uses Python's random generator.

    Source:
        Reference protocol of peroxisome, which sets no seed.
    """
    rng = random.Random(SEED)
    return lambda n, k: rng.sample(range(n), k)


# ------------------------------------------------------------------------------------- names


def find_classes(text: str, classes: Sequence[str]) -> list[str]:
    """Find the classes whose names are whole words of a path: `16hMeOH` does not contain `6hMeOH`.

    Args:
        text: Path or name.
        classes: Names of classes.

    Returns:
        Classes that were found, in the order of `classes`.

    Example:
        >>> find_classes("peroxisome/16hMeOH/6hMeOHs_2.tif", ["4hMeOH", "6hMeOH", "16hMeOH"])
        ['6hMeOH', '16hMeOH']
    """
    found = {name for name in classes if re.search(rf"(?<![0-9A-Za-z]){re.escape(name)}(?![0-9])", text)}
    return [name for name in classes if name in found]


def find_split(name: str) -> str | None:
    """Find the split in the name of a file.

    Args:
        name: Path of the file; its folders are ignored.

    Returns:
        Name of the split, or None if the name contains none.

    Example:
        >>> find_split("peroxisome-testing.txt"), find_split("train_v2.hdf5"), find_split("data.h5")
        ('test', 'train', None)
    """
    words = [
        SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.rpartition("/")[2].lower()) if word in SPLIT_WORDS
    ]
    return words[-1] if words else None


# ------------------------------------------------------------------------------------- splits of files


def read_split_lists(files: SourceFiles, set_name: str, plan: Plan) -> list[tuple[str, str]] | None:
    """Read the splits of files from the lists `<set>-training.txt`, `-validation.txt` and `-testing.txt`.

    A line of a list is a path in the authors' folder, or the last part of one. The file is found by the last parts of
    its path, in any folder. Lines without a file are added to the failures of the plan.

    Args:
        files: Files of the data set.
        set_name: Prefix of the names of the lists.
        plan: Plan of the import.

    Returns:
        Name and split of each file in the order of the lists; None if there are no lists.

    Raises:
        UserError: Two lists are of the same split.
    """
    pattern = re.compile(rf"(?:{re.escape(set_name)}[-_])?(training|validation|testing)\.txt", re.IGNORECASE)
    lists: dict[str, str] = {}
    for name in files.names:
        if match := pattern.fullmatch(name.rpartition("/")[2]):
            split = SPLIT_WORDS[match[1].lower()]
            if split in lists:
                raise UserError(f"{lists[split]} and {name}: two lists of the {split} split. Keep one of them")
            lists[split] = name
    if not lists:
        return None
    present, found = set(files.names), list[tuple[str, str]]()
    by_name = defaultdict[str, list[str]](list)
    for name in files.names:
        by_name[name.rpartition("/")[2]].append(name)
    for split in (split for split in SPLITS if split in lists):
        for line in files.read(lists[split]).decode("utf-8", "replace").splitlines():
            if not (path := line.strip().replace("\\", "/")):
                continue
            parts = path.strip("/").split("/")
            tails = ("/".join(parts[start:]) for start in range(len(parts)))
            matches = [name for name in by_name[parts[-1]] if f"/{name}".endswith(f"/{'/'.join(parts)}")]
            if len(matches) == 1:
                found.append((matches[0], split))
            elif (known := next((tail for tail in tails if tail in present), None)) is not None:
                found.append((known, split))
            else:
                plan.failed[f"{lists[split]}: {'/'.join(parts)}"] = "in the list, but the file does not exist"
    return found


def random_splits(names: Sequence[str], fractions: Mapping[str, float]) -> list[tuple[str, str]]:
    """Split files at random with the seed of the published code.

    Args:
        names: Names of files.
        fractions: Fraction of the files in each split; the last split gets the rest.

    Returns:
        Name and split of each file, in the order of `names`.

    Example:
        >>> [split for _, split in random_splits(["a", "b", "c", "d", "e"], {"train": 0.8, "validation": 0.2})]
        ['train', 'train', 'train', 'validation', 'train']
    """
    order = np.random.RandomState(SEED).permutation(len(names))
    ends = np.cumsum([int(round(fraction * len(names), 9)) for fraction in fractions.values()])[:-1]
    split_of = {
        int(index): split for split, part in zip(fractions, np.split(order, ends), strict=True) for index in part
    }
    return [(name, split_of[index]) for index, name in enumerate(names)]


def list_tiff_files(files: SourceFiles, *exclude: str) -> list[str]:
    """List the TIFF files of a source.

    Args:
        files: Files of the data set.
        *exclude: Words; files whose path contains one of them are excluded.

    Raises:
        UserError: There is no such TIFF file.
    """
    names = [name for name in files.names if name.lower().endswith((".tif", ".tiff"))]
    names = [name for name in names if not any(word in name for word in exclude)]
    if not names:
        raise UserError(
            f"{files.identity['name']}: contains no TIFF file of the data set. Give the authors' folder or zip"
        )
    return names
