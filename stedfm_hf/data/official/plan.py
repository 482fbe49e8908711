"""Import plan of a published set: the class, split and source of every image, before any image is read.

Every module of a set defines `plan(files, *, legacy, keep_all)`, which returns a `Plan`, and `CORRECTIONS`, the
differences from the published code. The functions here are shared by several sets: classes in paths, lists of files,
seeded splits, and balancing of classes. The published lists of sampled images are not available; balancing uses the
same seed and the same numbers of images, not the same images.

Source: reference protocol.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.repository.layout import SPLITS, Crop
from stedfm_hf.runs import UserError

SEED = 42
"""Random seed of the reference protocol."""
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Split names by the words in the authors' file names."""
SPLIT_PRIORITY = ("test", "validation", "train")
"""Order in which splits keep an image that is in several; the test set stays comparable with the published one."""
NO_LISTS = "the source has no lists of files; splits follow the rule that produced the published lists"
HASHED_SPLITS = "files without a split in their names were split 70 / 15 / 15 by a hash of the source id"

Sampler = Callable[[int, int], Collection[int]]
"""Function (n, k) that returns k different indices below n."""


@dataclass(frozen=True)
class Item:
    """One image of a set with one label; an image of two classes gives two items.

    Attributes:
        name: Name in the manifest.
        source: Id of the source image.
        split: Published split; None: decided by a hash of the source id.
        label: Class name, or None.
        read: Function that reads the image and returns its crops, whose `source` and `label` may be empty; it may
            raise any exception for a damaged file.
    """

    name: str
    source: str
    split: str | None
    label: str | None
    read: Callable[[], Sequence[Crop]]


@dataclass
class Plan:
    """Images to import, and files that are skipped or failed.

    Attributes:
        classes: Class names in the published order; empty for regression and segmentation.
        items: Images to import.
        skipped: Reasons by the name of the image or file that is not part of the set.
        failed: Reasons by the name of the file that cannot be read.
        notes: Notes for the user, one sentence each.
        mask_names: Class names by the value in masks with one plane.
    """

    classes: tuple[str, ...]
    items: list[Item] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    mask_names: Mapping[int, str] = field(default_factory=dict)

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Record a file as failed if the block cannot read it.

        Args:
            name: Name of the file.

        Example:
            >>> plan = Plan(())
            >>> with plan.reading("a.h5"):
            ...     raise OSError("file is truncated")
            >>> plan.failed
            {'a.h5': 'cannot be read (file is truncated); download it again'}
        """
        try:
            yield
        except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
            self.failed[name] = f"cannot be read ({error}); download it again"

    @property
    def failures(self) -> str:
        """Reasons of all failed files in one line."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.failed.items())

    def require_classes(self, where: str) -> None:
        """Raise an error if a class has no image, unless a file failed.

        Args:
            where: Name of the source, for the message.

        Raises:
            UserError: A class has no image.
        """
        present = {item.label for item in self.items}
        if (missing := [name for name in self.classes if name not in present]) and not self.failed:
            raise UserError(
                f"{where}: no image of {', '.join(missing)} (classes: {', '.join(self.classes)}). Download all files "
                "of the set; docs/how-to/import-published-sets.md describes the layout."
            )

    def keep_one_split_per_source(self) -> None:
        """Skip images whose source is also in a split with a higher priority, and add a note with their number."""
        split_of_source: dict[str, str | None] = {}
        for item in by_split_priority(self.items):
            split_of_source.setdefault(item.source, item.split)
        dropped = [item for item in self.items if split_of_source[item.source] != item.split]
        self.skip(
            (item, f"the source image is also in the split {split_of_source[item.source]!r}") for item in dropped
        )
        if dropped:
            self.notes.append(f"{len(dropped)} images were skipped because their sources are also in another split")

    def balance(self, splits: Collection[str], new_sampler: Callable[[], Sampler]) -> None:
        """Sample as many images of each class as the rarest class has, and skip the others.

        Args:
            splits: Splits to balance.
            new_sampler: Function that returns a seeded sampler; it is called once per split.
        """
        for split in splits:
            classes = [[i for i in self.items if i.split == split and i.label == name] for name in self.classes]
            fewest, sample = min((len(each) for each in classes if each), default=0), new_sampler()
            kept = {id(each[n]) for each in classes if each for n in sample(len(each), fewest)}
            dropped = [item for each in classes for item in each if id(item) not in kept]
            reason = f"the published {split} split is balanced ({fewest} images per class)"
            self.skip((item, reason) for item in dropped)

    def skip(self, items: Iterable[tuple[Item, str]]) -> None:
        """Move items to `skipped`.

        Args:
            items: Items with their reasons.
        """
        # By identity, because two items can have the same name.
        reason_of = {id(item): reason for item, reason in items}
        self.skipped |= {item.name: reason_of[id(item)] for item in self.items if id(item) in reason_of}
        self.items = [item for item in self.items if id(item) not in reason_of]


def _priority(split: str | None) -> int:
    return SPLIT_PRIORITY.index(split) if split in SPLIT_PRIORITY else len(SPLIT_PRIORITY)


def by_split_priority(items: Iterable[Item]) -> list[Item]:
    """Sort items by the priority of their split: images of the test set come first.

    Args:
        items: Items of all splits.
    """
    return sorted(items, key=lambda item: _priority(item.split))


def numpy_sampler() -> Sampler:
    """Return a sampler that uses `numpy.random.RandomState` with seed 42.

    Source: reference protocol of neural-activity-states.
    """
    rng = np.random.RandomState(SEED)
    return lambda n, k: rng.choice(n, k, replace=False).tolist()


def python_sampler() -> Sampler:
    """Return a sampler that uses `random.Random` with seed 42.

    Source: reference protocol of peroxisome, which sets no seed.
    """
    rng = random.Random(SEED)
    return lambda n, k: rng.sample(range(n), k)


# ------------------------------------------------------------------------------------- names


def classes_in(text: str, classes: Sequence[str]) -> list[str]:
    """Return the classes whose names are whole words of a text: `16hMeOH` does not contain `6hMeOH`.

    Args:
        text: Path of a file.
        classes: Class names.

    Returns:
        Class names in the order of `classes`.

    Example:
        >>> classes_in("peroxisome/16hMeOH/6hMeOHs_2.tif", ["4hMeOH", "6hMeOH", "16hMeOH"])
        ['6hMeOH', '16hMeOH']
    """
    found = {name for name in classes if re.search(rf"(?<![0-9A-Za-z]){re.escape(name)}(?![0-9])", text)}
    return [name for name in classes if name in found]


def split_in(name: str) -> str | None:
    """Return the split in the name of a file, or None.

    Args:
        name: Path or name of a file.

    Example:
        >>> split_in("peroxisome-testing.txt"), split_in("train_v2.hdf5"), split_in("data.h5")
        ('test', 'train', None)
    """
    words = [
        SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.rpartition("/")[2].lower()) if word in SPLIT_WORDS
    ]
    return words[-1] if words else None


# ------------------------------------------------------------------------------------- splits of files


def listed_splits(files: SourceFiles, set_name: str, plan: Plan) -> list[tuple[str, str]] | None:
    """Read the lists `<set>-training.txt`, `<set>-validation.txt` and `<set>-testing.txt`.

    A line is a path below the authors' root folder. A file matches if the last parts of its path are equal.

    Args:
        files: Files of the set.
        set_name: Name of the set.
        plan: Plan whose `failed` receives missing files.

    Returns:
        Pairs of file name and split in the order of the lists; None if there are no lists.

    Raises:
        UserError: There are two lists of a split.
    """
    pattern = re.compile(rf"(?:{re.escape(set_name)}[-_])?(training|validation|testing)\.txt", re.IGNORECASE)
    lists: dict[str, str] = {}
    for name in files.names:
        if match := pattern.fullmatch(name.rpartition("/")[2]):
            split = SPLIT_WORDS[match[1].lower()]
            if split in lists:
                raise UserError(f"{lists[split]} and {name}: two lists of the {split} split. Remove one of them.")
            lists[split] = name
    if not lists:
        return None
    present, pairs = set(files.names), list[tuple[str, str]]()
    by_name = defaultdict[str, list[str]](list)
    for name in files.names:
        by_name[name.rpartition("/")[2]].append(name)
    for split in (split for split in SPLITS if split in lists):
        for line in files.read(lists[split]).decode("utf-8", "replace").splitlines():
            if not (path := line.strip().replace("\\", "/")):
                continue
            parts = path.strip("/").split("/")
            # The listed path is the end of the path of one file, or the path of a file is an end of the listed path.
            matches = [name for name in by_name[parts[-1]] if f"/{name}".endswith(f"/{'/'.join(parts)}")]
            ends = ("/".join(parts[start:]) for start in range(len(parts)))
            if len(matches) == 1:
                pairs.append((matches[0], split))
            elif (end_of_path := next((end for end in ends if end in present), None)) is not None:
                pairs.append((end_of_path, split))
            else:
                plan.failed[f"{lists[split]}: {'/'.join(parts)}"] = "listed, but the file is missing"
    return pairs


def seeded_splits(names: Sequence[str], fractions: Mapping[str, float]) -> list[tuple[str, str]]:
    """Split files at random with seed 42; the last split gets the remainder.

    Args:
        names: Names of the files.
        fractions: Fraction of the files per split, in [0, 1].

    Returns:
        Pairs of file name and split, in the order of `names`.

    Example:
        >>> [split for _, split in seeded_splits(["a", "b", "c", "d", "e"], {"train": 0.8, "validation": 0.2})]
        ['train', 'train', 'train', 'validation', 'train']
    """
    order = np.random.RandomState(SEED).permutation(len(names))
    # The rounding keeps a product such as 0.29 * 100 = 28.999999999999996 from being truncated to 28.
    ends = np.cumsum([int(round(fraction * len(names), 9)) for fraction in fractions.values()])[:-1]
    split_of = {
        int(index): split for split, part in zip(fractions, np.split(order, ends), strict=True) for index in part
    }
    return [(name, split_of[index]) for index, name in enumerate(names)]


def tiff_names(files: SourceFiles, *exclude: str) -> list[str]:
    """Return the TIFF files of a source.

    Args:
        files: Files of the set.
        exclude: Words; files whose paths contain one are excluded.

    Raises:
        UserError: There is no such file.
    """
    names = [name for name in files.names if name.lower().endswith((".tif", ".tiff"))]
    names = [name for name in names if not any(word in name for word in exclude)]
    if not names:
        raise UserError(
            f"{files.identity['name']}: contains no TIFF file of the set. Pass the authors' folder or zip."
        )
    return names
