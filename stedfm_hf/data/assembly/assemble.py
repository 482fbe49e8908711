"""From staged parts to a data set: copies removed, splits made, shards, index, preview and card written."""

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
from stedfm_hf.runs import Manifest, Progress, UserError, manifest_path, print_note, some_of, write_json
from stedfm_hf.runs.files import remove_path


@dataclass(frozen=True)
class _Plan:
    """Which rows go where. Small, because it is of all crops: a number of each row, and what the numbers mean.

    Args:
        labels: names of the classes.
        places: for every part the place of each of its rows, -1 for none.
        splits: of every place.
        crops: rows of every split.
        sources: source images of every split.
        by_rule: whether splits were made here, not by the producer.
        planes: whether a crop has planes or a region.
    """

    labels: tuple[str, ...]
    places: dict[str, np.ndarray]
    splits: np.ndarray
    crops: dict[str, int]
    sources: dict[str, int]
    by_rule: bool
    planes: bool

    def targets(self, name: str) -> np.ndarray:
        """The split of each row of a part, "" for none."""
        return np.append(self.splits, "")[self.places[name]]


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
    """Make a data set of all staged parts. If interrupted, it begins again: the parts stay.

    Args:
        staging: The parts; the order of their names is the order of the inputs.
        output: Folder of the data set.
        manifest: Manifest of the run; gets the status of every input.
        card: What the card says besides what is in the data.
        fractions: Shares of the splits, for images that have none yet; see :func:`~stedfm_hf.data.splits.split_of`.
        seed: Random seed of the order of the crops on disk.
        labels: Names of the classes in their order; None takes those that occur, sorted.
        rows_per_shard: Largest number of crops in a shard.

    Raises:
        UserError: No part holds a crop.
    """
    plan = _plan(staging, manifest, fractions, labels)
    if not sum(plan.crops.values()):
        staging.remove()  # so that other settings may be tried at once
        reasons = Counter(status.reason for status in manifest.items.values() if status.state != "done")
        often = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        record = manifest_path(output, folder=True)
        raise UserError(f"{output}: no crop is left of {len(manifest.items)} inputs ({often}); see {record}")
    fresh = output / ASSEMBLED
    remove_path(fresh)
    try:
        statistics = _write_results(staging, fresh, plan, card, seed, rows_per_shard)
        for name in RESULTS:
            remove_path(output / name)
            if (fresh / name).exists():
                (fresh / name).rename(output / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # on a full disk, it takes the space that is needed
    notes = _gaps(plan, fractions, statistics)
    for note in notes:
        print_note(f"note: {note}")
    return DatasetSummary(output, manifest, plan.crops, plan.sources, plan.labels, notes)


def _write_results(
    staging: Staging, fresh: Path, plan: _Plan, card: CardFacts, seed: int, rows_per_shard: int
) -> Statistics:
    features = crop_features(plan.labels, planes=plan.planes)
    statistics, preview = Statistics(plan.labels), Preview(plan.labels, seed=seed)
    writers = {
        split: SplitWriter(fresh, split, rows, features.arrow_schema, seed=seed, rows_per_shard=rows_per_shard)
        for split, rows in plan.crops.items()
    }
    with Progress(sum(plan.crops.values()), description="write", unit="crops") as progress:
        _write(staging, plan, writers, features.arrow_schema, statistics, preview, progress, seed)
    shards = {split: writer.shards for split, writer in writers.items()}
    write_json(fresh / INDEX_FILE, index_of(shards, plan.labels, plan.sources, card.mask_names))
    preview.write(fresh)
    write_card(fresh, card, statistics, preview)
    return statistics


def _gaps(plan: _Plan, fractions: SplitFractions, statistics: Statistics) -> tuple[str, ...]:
    """Splits that were asked for and are not there, and classes that a split has no crop of."""
    asked = [name for name in SPLITS if plan.by_rule and getattr(fractions, name) > 0]
    notes = [
        f"no source image is in the split {name!r}; add images, or give other fractions (--validation, --test)"
        for name in asked
        if name not in plan.crops
    ]
    for split, figures in statistics.to_json()["splits"].items():
        if missing := [label for label, count in figures["labels"].items() if not count]:
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
    """
    return {
        "format": 3,
        "labels": list(labels),
        "mask_names": {str(number): name for number, name in mask_names.items()},
        "sources": dict(sources),
        "splits": {
            split: [{"file": s.file, "row_groups": list(s.row_groups)} for s in each] for split, each in shards.items()
        },
    }


def _plan(staging: Staging, manifest: Manifest, fractions: SplitFractions, labels: Sequence[str] | None) -> _Plan:
    originals: dict[bytes, tuple[str, str | None]] = {}
    copies: dict[str, list[str]] = {}
    count_of: Counter[str] = Counter()
    places: dict[tuple[str, str | None, str], int] = {}
    rows: Counter[int] = Counter()
    rows_of_parts: dict[str, np.ndarray] = {}
    planes = by_rule = False
    for part in staging:
        manifest.items.update(part.items)
        planes = planes or part.notes["planes"]
        place_of, images = [], images_of(part)
        for image in images:
            item = sys.intern(image.item)
            count_of[item] += 1
            if (original := _original(image, item, originals)) is not None:
                other, label = original
                conflict = f", which is labelled {label!r}, not {image.label!r}" if label != image.label else ""
                copies.setdefault(item, []).append(other + conflict)
                place_of.append(-1)
            elif image.rows:
                split = image.split or split_of(image.split_id or image.source, fractions)
                place = places.setdefault((image.source, image.label, split), len(places))
                by_rule = by_rule or image.split is None
                rows[place] += image.rows
                place_of.append(place)
            else:
                place_of.append(-1)
        rows_of_parts[part.name] = np.repeat(np.array(place_of, np.int32), [image.rows for image in images])
    _record_copies(manifest, copies, count_of)
    splits = [split for _, _, split in places]
    names = labels if labels is not None else sorted({label for _, label, _ in places if label is not None})
    crops: Counter[str] = Counter()
    sources: dict[str, set[str]] = {}
    for (source, _, _), place in places.items():
        crops[splits[place]] += rows[place]
        sources.setdefault(splits[place], set()).add(source)
    order = [*SPLITS, *sorted(set(crops) - set(SPLITS))]
    present = [split for split in order if crops[split]]
    return _Plan(
        tuple(names),
        rows_of_parts,
        np.array(splits, dtype=np.str_),
        {split: crops[split] for split in present},
        {split: len(sources[split]) for split in present},
        by_rule,
        planes,
    )


def _original(
    image: StagedImage, item: str, originals: dict[bytes, tuple[str, str | None]]
) -> tuple[str, str | None] | None:
    """The item with the same content that came before, and its label; else this becomes the original."""
    if not image.content:
        return None
    key = hashlib.blake2b(image.content.encode(), digest_size=16).digest()  # a fifth of the memory of the text
    original = originals.get(key)
    if original is None:
        originals[key] = item, None if image.label is None else sys.intern(image.label)
    return original


def _record_copies(manifest: Manifest, copies: dict[str, list[str]], count_of: Counter[str]) -> None:
    for item, originals in copies.items():
        if len(originals) == count_of[item]:
            manifest.skipped(item, f"exact copy of {originals[0]}")
        else:
            note = manifest.items[item].reason if item in manifest.items else None
            copied = f"{len(originals)} of {count_of[item]} images are exact copies ({originals[0]})"
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
    """One pass over the parts, in an order of its own: neighbours among the inputs are alike."""
    names = sorted(plan.places)
    with ExitStack() as stack:
        for writer in writers.values():
            stack.enter_context(writer)
        for number in np.random.default_rng(seed).permutation(len(names)):
            start, targets_of_part = 0, plan.targets(names[number])
            for table in staging.read(names[number]).row_groups():
                targets = targets_of_part[start : start + table.num_rows]
                start += table.num_rows
                for split in np.unique(targets[targets != ""]).tolist():
                    chosen = _labelled(table.filter(pa.array(targets == split)), plan.labels, schema)
                    writers[split].add(chosen)
                    statistics.add(split, chosen)
                    preview.add(split, chosen)
                    progress.update(chosen.num_rows)


def _labelled(table: pa.Table, labels: tuple[str, ...], schema: pa.Schema) -> pa.Table:
    """Names of classes as their numbers, and the columns of the repository."""
    table = table.select(schema.names)
    number = {name: place for place, name in enumerate(labels)}
    codes = pa.array([number.get(name) for name in table["label"].to_pylist()], pa.int64())
    return table.set_column(table.schema.get_field_index("label"), "label", codes).cast(schema)
