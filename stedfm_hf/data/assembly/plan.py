"""Plan of a data set: removal of copies, split of each image, and the layout of the shards.

The plan depends on the staged parts, the fractions and the seed only. It holds a few bytes for each image.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from stedfm_hf.data.assembly.staging import StagedImage, Staging, images_of
from stedfm_hf.data.publishing.bounded_counts import SourceCounts
from stedfm_hf.data.repository.layout import SPLITS
from stedfm_hf.data.repository.shards import Window, windows
from stedfm_hf.data.splits import SplitFractions, split_of
from stedfm_hf.runs import Manifest


@dataclass(frozen=True, eq=False)
class PlannedPart:
    """Images of a part.

    Attributes:
        name: Name of the part.
        lengths: Number of rows of each image, (n,).
        splits: Number of the split of each image in `Plan.splits`, -1 for images that are dropped, (n,).
    """

    name: str
    lengths: np.ndarray
    splits: np.ndarray

    def rows_of(self, split: int) -> np.ndarray:
        """Return whether each row of the part is in a split, (rows,) bool."""
        return np.repeat(self.splits == split, self.lengths)

    def count(self, split: int) -> int:
        """Return the number of rows in a split."""
        return int(self.lengths[self.splits == split].sum())


@dataclass(frozen=True, eq=False)
class WindowRows:
    """Staged rows of a window of shards.

    Attributes:
        window: Shards to write.
        parts: Name of each part with rows of the window, and whether each of its rows belongs to it, as packed bits
            with their number.
    """

    window: Window
    parts: tuple[tuple[str, bytes, int], ...]


@dataclass(eq=False)
class Plan:
    """Split of each image.

    Attributes:
        parts: Images of each part, in the order in which the parts are written, which is random because neighbouring
            inputs are often similar.
        labels: Names of the classes.
        splits: Names of the splits.
        crops: Number of rows in each split that has any, in the usual order of the splits.
        sources: Source images of each split.
        split_by_hash: Whether a split was computed from ids, instead of given by the command.
        planes: Whether a crop has planes or a region.
        digest: Hash of everything that decides the content of the shards, except the seed and the number of rows of a
            shard.
    """

    parts: list[PlannedPart] = field(default_factory=list)
    labels: tuple[str, ...] = ()
    splits: list[str] = field(default_factory=list)
    crops: dict[str, int] = field(default_factory=dict)
    sources: SourceCounts = field(default_factory=SourceCounts)
    split_by_hash: bool = False
    planes: bool = False
    digest: str = ""

    def source_counts(self) -> dict[str, int]:
        """Return the number of source images in each split."""
        return {split: self.sources.count(split) for split in self.crops}

    def windows(self, rows_per_shard: int) -> Iterator[WindowRows]:
        """Yield the windows of all splits with their rows.

        Args:
            rows_per_shard: Largest number of rows of a shard.
        """
        for split, rows in self.crops.items():
            number = self.splits.index(split)
            ends = np.cumsum([part.count(number) for part in self.parts])
            for window in windows(split, rows, rows_per_shard):
                yield WindowRows(window, tuple(self._parts_of(window, number, ends)))

    def _parts_of(self, window: Window, split: int, ends: np.ndarray) -> Iterator[tuple[str, bytes, int]]:
        """Yield the parts of a window, given the number of rows of the split up to the end of each part."""
        first, last = window.first_row, window.first_row + window.rows
        for position in range(np.searchsorted(ends, first, side="right"), len(ends)):
            part = self.parts[position]
            selected = part.rows_of(split)
            numbers = np.flatnonzero(selected)
            begin = int(ends[position]) - len(numbers)
            if begin >= last:
                return
            selected[numbers[: max(0, first - begin)]] = False
            selected[numbers[last - begin :]] = False
            if selected.any():
                yield part.name, np.packbits(selected).tobytes(), len(selected)


def make_plan(
    staging: Staging, manifest: Manifest, fractions: SplitFractions, labels: Sequence[str] | None, seed: int
) -> Plan:
    """Find copies, and assign each image to a split.

    The manifest gets the status of the items of all parts; items that are copies become skipped or get a note.

    Args:
        staging: Staged parts; the order of their names is the order of the inputs.
        manifest: Manifest of the run.
        fractions: Fractions of the splits for images without a given split; see `split_of`.
        labels: Names of the classes in their order; None uses the labels that occur, sorted.
        seed: Random seed of the order of the parts.
    """
    plan, digest = Plan(), hashlib.sha256()
    originals: dict[bytes, tuple[str, str | None]] = {}
    copies: dict[str, list[str]] = {}
    images_per_item: Counter[str] = Counter()
    crops: Counter[str] = Counter()
    found_labels: set[str] = set()
    for part in staging:
        manifest.items.update(part.items)
        plan.planes = plan.planes or part.notes["planes"]
        images, numbers, sources = images_of(part), list[int](), defaultdict[str, set[str]](set)
        for image in images:
            item = sys.intern(image.item)
            images_per_item[item] += 1
            if (original := _original(image, item, originals)) is not None:
                original_item, label = original
                conflict = f", which is labelled {label!r}, not {image.label!r}" if label != image.label else ""
                copies.setdefault(item, []).append(original_item + conflict)
                numbers.append(-1)
            elif image.rows:
                split = image.split or split_of(image.split_id or image.source, fractions)
                plan.split_by_hash = plan.split_by_hash or image.split is None
                if split not in plan.splits:
                    plan.splits.append(split)
                numbers.append(plan.splits.index(split))
                crops[split] += image.rows
                sources[split].add(image.source)
                if image.label is not None:
                    found_labels.add(image.label)
            else:
                numbers.append(-1)
        for split, names in sources.items():
            plan.sources.add(split, names)
        lengths = np.array([image.rows for image in images], np.int32)
        plan.parts.append(PlannedPart(part.name, lengths, np.array(numbers, np.int16)))
        stamp = part.path.stat()
        digest.update(
            json.dumps([part.name, part.notes["images"], numbers, stamp.st_size, stamp.st_mtime_ns]).encode()
        )
    _record_copies(manifest, copies, images_per_item)
    plan.labels = tuple(labels) if labels is not None else tuple(sorted(found_labels))
    order = [*SPLITS, *sorted(set(crops) - set(SPLITS))]
    plan.crops = {split: crops[split] for split in order if crops[split]}
    plan.parts = [plan.parts[number] for number in np.random.default_rng(seed).permutation(len(plan.parts))]
    digest.update(json.dumps([plan.labels, plan.splits, plan.planes]).encode())
    plan.digest = digest.hexdigest()
    return plan


def _original(
    image: StagedImage, item: str, originals: dict[bytes, tuple[str, str | None]]
) -> tuple[str, str | None] | None:
    """Return the item and label of the first image with the same content.

    Otherwise, or if the image has no content hash, return None. The image is then the original, and is added to
    `originals`, which maps hashes of contents to the item and label of their first image.
    """
    if not image.content:
        return None
    key = hashlib.blake2b(image.content.encode(), digest_size=16).digest()  # a fifth of the memory of the string
    original = originals.get(key)
    if original is None:
        originals[key] = item, None if image.label is None else sys.intern(image.label)
    return original


def _record_copies(manifest: Manifest, copies: dict[str, list[str]], images_per_item: Counter[str]) -> None:
    """Record copies in the manifest: an item with copies only is skipped, any other item gets a note.

    `copies` holds the originals of the copies of each item, and `images_per_item` the number of all images of an item.
    """
    for item, originals in copies.items():
        if len(originals) == images_per_item[item]:
            manifest.skipped(item, f"exact copy of {originals[0]}")
        else:
            note = manifest.items[item].reason if item in manifest.items else None
            copied = f"{len(originals)} of {images_per_item[item]} images are exact copies ({originals[0]})"
            manifest.done(item, f"{note}; {copied}" if note else copied)
