"""Assembly of a data set from staged parts: removal of copies, splits, shards, index, preview and card."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.data.assembly.output import ASSEMBLED, RESULTS, DatasetSummary
from stedfm_hf.data.assembly.staging import StagedImage, Staging, images_of
from stedfm_hf.data.publishing.card import CardFacts, write_card
from stedfm_hf.data.publishing.preview import Preview
from stedfm_hf.data.publishing.statistics import Statistics
from stedfm_hf.data.repository.layout import INDEX_FILE, SPLITS, crop_features
from stedfm_hf.data.repository.shards import Shard, SplitWriter
from stedfm_hf.data.settings import ROWS_PER_SHARD
from stedfm_hf.data.splits import SPLIT_FRACTIONS, SplitFractions, split_of
from stedfm_hf.runs import Manifest, Progress, UserError, counted, manifest_path, print_note, some_of, write_json
from stedfm_hf.runs.files import remove_path


@dataclass(frozen=True)
class _Plan:
    """Split of each row, stored as one small number for each row because it is held for all crops.

    Attributes:
        labels: Names of the classes.
        groups_of_parts: Group of each row of a part, by the name of the part; -1 for rows that are dropped. A group
            is the rows of one source, label and split.
        splits: Split of each group.
        crops: Number of rows in each split.
        sources: Number of source images in each split.
        split_by_hash: Whether a split was computed from ids, instead of given by the command.
        planes: Whether a crop has planes or a region.
    """

    labels: tuple[str, ...]
    groups_of_parts: dict[str, np.ndarray]
    splits: np.ndarray
    crops: dict[str, int]
    sources: dict[str, int]
    split_by_hash: bool
    planes: bool

    def split_of_rows(self, name: str) -> np.ndarray:
        """Return the split of each row of a part, "" for rows that are dropped."""
        return np.append(self.splits, "")[self.groups_of_parts[name]]  # the index -1 selects the appended ""


def assemble(
    staging: Staging,
    output: Path,
    *,
    manifest: Manifest,
    card: CardFacts,
    fractions: SplitFractions = SPLIT_FRACTIONS,
    seed: int,
    labels: Sequence[str] | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
) -> DatasetSummary:
    """Write a data set from all staged parts. After an interruption, the parts are kept and assembly starts again.

    The results replace those of an earlier run only when all of them are written. Notes about missing splits and
    classes are printed.

    Args:
        staging: Staged parts; the order of their names is the order of the inputs.
        output: Folder of the data set.
        manifest: Manifest of the run, which gets the status of all inputs.
        card: Content of the card that cannot be computed from the data.
        fractions: Fractions of the splits for images without a given split; see
            `split_of`.
        seed: Random seed of the order of the crops on disk.
        labels: Names of the classes in their order; None uses the labels that occur, sorted.
        rows_per_shard: Largest number of crops in a shard.

    Returns:
        Number of crops and source images in each split, and notes.

    Raises:
        UserError: No part holds a crop. The parts are then removed, so that the next run can use other settings.
    """
    plan = _plan(staging, manifest, fractions, labels)
    if not sum(plan.crops.values()):
        staging.remove()
        reasons = Counter(status.reason for status in manifest.items.values() if status.state != "done")
        frequent = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        record = manifest_path(output, folder=True)
        raise UserError(
            f"{output}: no crop is left of {counted(len(manifest.items), 'input')} ({frequent}); change the settings; "
            f"{record} lists all inputs"
        )
    temporary = output / ASSEMBLED
    remove_path(temporary)
    try:
        statistics = _write_results(staging, temporary, plan, card, seed, rows_per_shard)
        for name in RESULTS:
            remove_path(output / name)
            if (temporary / name).exists():
                (temporary / name).rename(output / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # on a full disk, the next run needs the space
    notes = _missing_splits_and_labels(plan, fractions, statistics)
    for note in notes:
        print_note(f"note: {note}")
    return DatasetSummary(output, manifest, plan.crops, plan.sources, plan.labels, notes)


def _write_results(
    staging: Staging, folder: Path, plan: _Plan, card: CardFacts, seed: int, rows_per_shard: int
) -> Statistics:
    """Write all files of the data set except the manifest."""
    features = crop_features(plan.labels, planes=plan.planes)
    statistics, preview = Statistics(plan.labels), Preview(plan.labels, seed=seed)
    writers = {
        split: SplitWriter(folder, split, rows, features.arrow_schema, seed=seed, rows_per_shard=rows_per_shard)
        for split, rows in plan.crops.items()
    }
    with Progress(sum(plan.crops.values()), description="write", unit="crops") as progress:
        _write(staging, plan, writers, features.arrow_schema, statistics, preview, progress, seed)
    shards = {split: writer.shards for split, writer in writers.items()}
    write_json(folder / INDEX_FILE, index_of(shards, plan.labels, plan.sources, card.mask_names))
    preview.write(folder)
    write_card(folder, card, statistics, preview)
    return statistics


def _missing_splits_and_labels(plan: _Plan, fractions: SplitFractions, statistics: Statistics) -> tuple[str, ...]:
    """Return notes about requested splits without images, and classes without a crop in a split."""
    requested = [name for name in SPLITS if plan.split_by_hash and getattr(fractions, name) > 0]
    notes = [
        f"split {name!r} has no source image; add images, or change the fractions (--validation, --test)"
        for name in requested
        if name not in plan.crops
    ]
    for split, record in statistics.to_json()["splits"].items():
        if missing := [label for label, count in record["labels"].items() if not count]:
            notes.append(f"split {split!r} has no crop of {some_of(missing, 5)}")
    return tuple(notes)


def index_of(
    shards: Mapping[str, Sequence[Shard]],
    labels: Sequence[str] = (),
    sources: Mapping[str, int] = MappingProxyType({}),
    mask_names: Mapping[int, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the content of the index file.

    Args:
        shards: Shards of each split.
        labels: Names of the classes.
        sources: Number of source images in each split.
        mask_names: Names of the numbers in the masks.

    Returns:
        Plain data, with the files and row groups of each split.
    """
    return {
        "format": 3,
        "labels": list(labels),
        "mask_names": {str(number): name for number, name in mask_names.items()},
        "sources": dict(sources),
        "splits": {
            split: [{"file": shard.file, "row_groups": list(shard.row_groups)} for shard in shards_of_split]
            for split, shards_of_split in shards.items()
        },
    }


def _plan(staging: Staging, manifest: Manifest, fractions: SplitFractions, labels: Sequence[str] | None) -> _Plan:
    """Find copies, and assign each row to a split.

    The manifest gets the status of the items of all parts; items that are copies become skipped or get a note.
    """
    originals: dict[bytes, tuple[str, str | None]] = {}
    copies: dict[str, list[str]] = {}
    images_per_item: Counter[str] = Counter()
    number_of_group: dict[tuple[str, str | None, str], int] = {}
    rows_of_group: Counter[int] = Counter()
    groups_of_parts: dict[str, np.ndarray] = {}
    planes = split_by_hash = False
    for part in staging:
        manifest.items.update(part.items)
        planes = planes or part.notes["planes"]
        group_of_image, images = [], images_of(part)
        for image in images:
            item = sys.intern(image.item)
            images_per_item[item] += 1
            if (original := _original(image, item, originals)) is not None:
                original_item, label = original
                conflict = f", which is labelled {label!r}, not {image.label!r}" if label != image.label else ""
                copies.setdefault(item, []).append(original_item + conflict)
                group_of_image.append(-1)
            elif image.rows:
                split = image.split or split_of(image.split_id or image.source, fractions)
                group = number_of_group.setdefault((image.source, image.label, split), len(number_of_group))
                split_by_hash = split_by_hash or image.split is None
                rows_of_group[group] += image.rows
                group_of_image.append(group)
            else:
                group_of_image.append(-1)
        groups_of_parts[part.name] = np.repeat(np.array(group_of_image, np.int32), [image.rows for image in images])
    _record_copies(manifest, copies, images_per_item)
    splits = [split for _, _, split in number_of_group]
    names = labels if labels is not None else sorted({label for _, label, _ in number_of_group if label is not None})
    crops: Counter[str] = Counter()
    sources: dict[str, set[str]] = {}
    for (source, _, _), group in number_of_group.items():
        crops[splits[group]] += rows_of_group[group]
        sources.setdefault(splits[group], set()).add(source)
    order = [*SPLITS, *sorted(set(crops) - set(SPLITS))]
    present = [split for split in order if crops[split]]
    return _Plan(
        tuple(names),
        groups_of_parts,
        np.array(splits, dtype=np.str_),
        {split: crops[split] for split in present},
        {split: len(sources[split]) for split in present},
        split_by_hash,
        planes,
    )


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


def _write(
    staging: Staging,
    plan: _Plan,
    writers: dict[str, SplitWriter],
    schema: pa.Schema,
    statistics: Statistics,
    preview: Preview,
    progress: Progress,
    seed: int,
) -> None:
    """Write the rows of all parts to the shards, and add them to the statistics and the preview, in one pass.

    The parts are read in random order, because neighbouring inputs are often similar.
    """
    names = sorted(plan.groups_of_parts)
    with ExitStack() as stack:
        for writer in writers.values():
            stack.enter_context(writer)
        for number in np.random.default_rng(seed).permutation(len(names)):
            start, splits_of_part = 0, plan.split_of_rows(names[number])
            for table in staging.read(names[number]).row_groups():
                splits = splits_of_part[start : start + table.num_rows]
                start += table.num_rows
                for split in np.unique(splits[splits != ""]).tolist():
                    rows = _with_label_numbers(table.filter(pa.array(splits == split)), plan.labels, schema)
                    writers[split].add(rows)
                    statistics.add(split, rows)
                    preview.add(split, rows)
                    progress.update(rows.num_rows)


def _with_label_numbers(table: pa.Table, labels: tuple[str, ...], schema: pa.Schema) -> pa.Table:
    """Replace names of classes by their numbers, and select the columns of the data set."""
    table = table.select(schema.names)
    number_of = {name: number for number, name in enumerate(labels)}
    numbers = pa.array([number_of.get(name) for name in table["label"].to_pylist()], pa.int64())
    return table.set_column(table.schema.get_field_index("label"), "label", numbers).cast(schema)
