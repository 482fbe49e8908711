"""What an importer plans before anything is read: which image is of which class, split and source.

The helpers here are what several sets share: how a class is found in a path, lists of files, seeded splits, and the
drawing of as many images of each class as the rarest has. (Protocol: reference; the draws of the reference cannot be
repeated image by image, because its lists were not published: seed and counts are the same.)
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
"""That of every draw of the reference that has one."""
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""The authors' words for splits."""
STRONGEST_FIRST = ("test", "validation", "train")
"""Which split keeps an image that is in several: the test set stays comparable with the published one."""

Choose = Callable[[int, int], Collection[int]]


@dataclass(frozen=True)
class Item:
    """One image of a set, in one role: an image that two classes claim makes two.

    Args:
        name: how the manifest names it.
        source: id of its source image.
        split: where it was published; None: decided by a hash of the source id, as in every data set.
        label: its class, or None.
        read: reads it and gives its crops, which need no source and no label; raises whatever damaged files raise.
    """

    name: str
    source: str
    split: str | None
    label: str | None
    read: Callable[[], Sequence[Crop]]


@dataclass
class Plan:
    """What is to be imported.

    Args:
        classes: names of the classes in the published order; empty for a regression.
        items: the images.
        left_out: those that the set leaves out, with the reason.
        failed: files that cannot be read, with the reason.
        notes: what the user should know, a sentence each.
        mask_names: what the numbers in plain masks mean.
    """

    classes: tuple[str, ...]
    items: list[Item] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    mask_names: Mapping[int, str] = field(default_factory=dict)

    def require_classes(self, where: str) -> None:
        """Raises UserError if a class has no image and no damaged file can be why."""
        there = {item.label for item in self.items}
        if (missing := [name for name in self.classes if name not in there]) and not self.failed:
            raise UserError(
                f"{where}: has no image of {', '.join(missing)} (looked for {', '.join(self.classes)}); get all files "
                "of the set, laid out as docs/how-to/import-published-sets.md says"
            )

    def one_side(self) -> None:
        """Leaves out images whose source is in a stronger split as well."""
        sides: dict[str, str | None] = {}
        order = sorted(self.items, key=lambda item: _strength(item.split))
        for item in order:
            sides.setdefault(item.source, item.split)
        lost = [item for item in self.items if sides[item.source] != item.split]
        self.leave_out((item, f"its source image is in the split {sides[item.source]!r} as well") for item in lost)
        if lost:
            self.notes.append(f"{len(lost)} images were left out, because their sources are in another split as well")

    def balance(self, splits: Collection[str], choose: Callable[[], Choose]) -> None:
        """Keeps of each class as many images as the rarest one has, in each of some splits.

        Args:
            splits: where.
            choose: begins a stream of draws for each split: (n, k) gives k different numbers below n.
        """
        for split in splits:
            classes = [[i for i in self.items if i.split == split and i.label == name] for name in self.classes]
            fewest, draw = min((len(each) for each in classes if each), default=0), choose()
            kept = {id(each[n]) for each in classes if each for n in draw(len(each), fewest)}
            lost = [item for each in classes for item in each if id(item) not in kept]
            reason = f"the published {split} split has as many of each class ({fewest})"
            self.leave_out((item, reason) for item in lost)

    def leave_out(self, items: Iterable[tuple[Item, str]]) -> None:
        """Moves items to those that are left out, each with its reason."""
        lost = {id(item): reason for item, reason in items}
        self.left_out |= {item.name: lost[id(item)] for item in self.items if id(item) in lost}
        self.items = [item for item in self.items if id(item) not in lost]


def _strength(split: str | None) -> int:
    return STRONGEST_FIRST.index(split) if split in STRONGEST_FIRST else len(STRONGEST_FIRST)


def in_order_of_strength(items: Iterable[Item]) -> list[Item]:
    """Images of the test set first, so that what comes again later is known."""
    return sorted(items, key=lambda item: _strength(item.split))


def numpy_samples() -> Choose:
    """NumPy's old generator with the reference's seed, as neural-activity-states has it."""
    rng = np.random.RandomState(SEED)
    return lambda n, k: rng.choice(n, k, replace=False).tolist()


def python_samples() -> Choose:
    """Python's own generator, as peroxisome has it; the reference forgets the seed."""
    rng = random.Random(SEED)
    return lambda n, k: rng.sample(range(n), k)


# ------------------------------------------------------------------------------------- names


def classes_in(text: str, classes: Sequence[str]) -> list[str]:
    """The classes that a path names, as whole words: `16hMeOH` is not `6hMeOH`.

    >>> classes_in("peroxisome/16hMeOH/6hMeOHs_2.tif", ["4hMeOH", "6hMeOH", "16hMeOH"])
    ['6hMeOH', '16hMeOH']
    """
    found = {name for name in classes if re.search(rf"(?<![0-9A-Za-z]){re.escape(name)}(?![0-9])", text)}
    return [name for name in classes if name in found]


def split_in(name: str) -> str | None:
    """The split that the name of a file says, or None.

    >>> split_in("peroxisome-testing.txt"), split_in("train_v2.hdf5"), split_in("data.h5")
    ('test', 'train', None)
    """
    words = [
        SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.rpartition("/")[2].lower()) if word in SPLIT_WORDS
    ]
    return words[-1] if words else None


# ------------------------------------------------------------------------------------- splits of files


def listed_splits(files: SourceFiles, set_name: str, plan: Plan) -> list[tuple[str, str]] | None:
    """The files of the lists `<set>-training.txt`, `-validation.txt` and `-testing.txt`, with their split.

    A line is a path from the authors' root folder, or the end of one; the file is found by the last parts, wherever it
    lies now. What is not there is noted in the plan.

    Returns:
        Names of files and splits in the order of the lists; None where there are no lists.

    Raises:
        UserError: a list is there twice.
    """
    pattern = re.compile(rf"(?:{re.escape(set_name)}[-_])?(training|validation|testing)\.txt", re.IGNORECASE)
    lists: dict[str, str] = {}
    for name in files.names:
        if match := pattern.fullmatch(name.rpartition("/")[2]):
            split = SPLIT_WORDS[match[1].lower()]
            if split in lists:
                raise UserError(f"{lists[split]} and {name}: two lists of the {split} split; keep one")
            lists[split] = name
    if not lists:
        return None
    there, found = set(files.names), list[tuple[str, str]]()
    of_name = defaultdict[str, list[str]](list)
    for name in files.names:
        of_name[name.rpartition("/")[2]].append(name)
    for split in (split for split in SPLITS if split in lists):
        for line in files.read(lists[split]).decode("utf-8", "replace").splitlines():
            if not (path := line.strip().replace("\\", "/")):
                continue
            parts = path.strip("/").split("/")
            tails = ("/".join(parts[start:]) for start in range(len(parts)))
            longer = [name for name in of_name[parts[-1]] if f"/{name}".endswith(f"/{'/'.join(parts)}")]
            if len(longer) == 1:
                found.append((longer[0], split))
            elif (present := next((tail for tail in tails if tail in there), None)) is not None:
                found.append((present, split))
            else:
                plan.failed[f"{lists[split]}: {'/'.join(parts)}"] = "is in the list, but no such file is there"
    return found


def seeded_splits(names: Sequence[str], shares: Mapping[str, float]) -> list[tuple[str, str]]:
    """Deals files out at random, by the reference's seed; the last split gets the rest.

    >>> [split for _, split in seeded_splits(["a", "b", "c", "d", "e"], {"train": 0.8, "validation": 0.2})]
    ['train', 'train', 'train', 'validation', 'train']
    """
    order = np.random.RandomState(SEED).permutation(len(names))
    ends = np.cumsum([int(round(share * len(names), 9)) for share in shares.values()])[:-1]
    split_of = {
        int(place): split for split, places in zip(shares, np.split(order, ends), strict=True) for place in places
    }
    return [(name, split_of[place]) for place, name in enumerate(names)]


def tiff_names(files: SourceFiles, *without: str) -> list[str]:
    """The TIFF files of a source whose path holds none of some words; there is one at least."""
    names = [name for name in files.names if name.lower().endswith((".tif", ".tiff"))]
    names = [name for name in names if not any(word in name for word in without)]
    if not names:
        raise UserError(f"{files.identity['name']}: holds no TIFF file of the set; name the authors' folder or zip")
    return names
