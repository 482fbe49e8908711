"""From the parts of a data set to a repository: copies removed, splits made, shards, index, preview and card written.

The last step of every producer (`build`, `import_archive`, `simulate`). It begins anew when it was interrupted: the
parts stay until everything is in its place. (Ours.)
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from stedfm_hf.data.assembly.staging import StagedImage, Staging
from stedfm_hf.data.publishing.card import CardFacts, write_card
from stedfm_hf.data.publishing.preview import Preview
from stedfm_hf.data.publishing.statistics import Statistics
from stedfm_hf.data.repository.layout import INDEX_FILE, SPLITS, crop_features
from stedfm_hf.data.repository.shards import ROWS_PER_SHARD, Shard, SplitWriter
from stedfm_hf.data.splits import SHARES, SplitShares, split_of
from stedfm_hf.runs import Manifest, Progress, UserError, manifest_path, read_json, some_of, write_json

WHAT_IS_MADE = ("data", "preview", "figures", INDEX_FILE, "README.md")
"""What a repository consists of, besides its manifest."""


@dataclass(frozen=True)
class DatasetSummary:
    """What is in a repository.

    Args:
        folder: the repository.
        crops: rows of every split.
        sources: source images of every split.
        labels: names of the classes.
        manifest: the record of the run.
        notes: what one should know about the splits, a sentence each.
    """

    folder: Path
    crops: dict[str, int]
    sources: dict[str, int]
    labels: tuple[str, ...]
    manifest: Manifest
    notes: tuple[str, ...] = ()


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
    places: dict[int, np.ndarray]
    splits: np.ndarray
    crops: dict[str, int]
    sources: dict[str, int]
    by_rule: bool
    planes: bool

    def targets(self, number: int) -> np.ndarray:
        """The split of each row of a part, "" for none."""
        return np.append(self.splits, "")[self.places[number]]


def assemble(
    staging: Staging,
    output: Path,
    *,
    manifest: Manifest,
    card: CardFacts,
    shares: SplitShares = SHARES,
    seed: int,
    labels: Sequence[str] | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
) -> DatasetSummary:
    """Makes the repository out of all parts of a staging area, and removes the parts.

    Args:
        staging: the parts; the order of their numbers is the order of the inputs.
        output: the repository.
        manifest: gets the statuses of all inputs, is finished and written.
        card: what the card says beside what is in the data.
        shares: shares of the splits, for images that have none yet; see :func:`~stedfm_hf.data.splits.split_of`.
        seed: random seed of the order of the crops on disk.
        labels: names of the classes in their order; None takes those that occur, sorted.
        rows_per_shard: crops of a shard at most.

    Returns:
        What is in the repository.

    Raises:
        UserError: no part holds a crop; the statuses are in the manifest then, which is written.
    """
    plan = _plan(staging, manifest, shares, labels)
    record = manifest_path(output, folder=True)
    if not sum(plan.crops.values()):
        manifest.save(record)
        staging.remove()  # so that other settings may be tried at once
        reasons = Counter(status.reason for status in manifest.items.values() if status.state != "done")
        often = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        raise UserError(f"{output}: no crop is left of {len(manifest.items)} inputs ({often}); see {record}")
    fresh = staging.folder / "assembled"
    shutil.rmtree(fresh, ignore_errors=True)
    features = crop_features(plan.labels, planes=plan.planes)
    statistics, preview = Statistics(plan.labels), Preview(plan.labels, seed=seed)
    shards: dict[str, Sequence[Shard]] = {}
    writers = {
        split: SplitWriter(fresh, split, rows, features.arrow_schema, seed=seed, rows_per_shard=rows_per_shard)
        for split, rows in plan.crops.items()
    }
    with Progress(sum(plan.crops.values()), description="write", unit="crops") as progress:
        _write(staging, plan, writers, features.arrow_schema, statistics, preview, progress, seed)
    for split, writer in writers.items():
        shards[split] = writer.shards
    write_json(fresh / INDEX_FILE, index_of(shards))
    preview.write(fresh)
    write_card(fresh, card, statistics, preview)
    for name in WHAT_IS_MADE:
        _replace(fresh / name, output / name)
    manifest.finish()
    manifest.save(record)
    staging.remove()
    notes = _gaps(plan, shares, statistics)
    return DatasetSummary(output, plan.crops, plan.sources, plan.labels, manifest, notes)


def _gaps(plan: _Plan, shares: SplitShares, statistics: Statistics) -> tuple[str, ...]:
    """Splits that were asked for and are not there, and classes that a split has no crop of."""
    asked = [name for name in SPLITS if plan.by_rule and getattr(shares, name) > 0]
    notes = [
        f"no source image is in the split {name!r}; add images, or give other shares (--validation, --test)"
        for name in asked
        if name not in plan.crops
    ]
    for split, figures in statistics.to_json()["splits"].items():
        if missing := [label for label, count in figures["labels"].items() if not count]:
            notes.append(f"split {split!r} has no crop of {some_of(missing, 5)}")
    return tuple(notes)


def read_summary(output: Path, manifest: Manifest) -> DatasetSummary:
    """What is in a repository that is whole.

    Args:
        output: the repository.
        manifest: the record of the run that made it.

    Raises:
        UserError: a part of it is missing.
    """
    index = read_json(output / INDEX_FILE)
    crops, sources, labels = dict[str, int](), dict[str, int](), tuple[str, ...]()
    try:
        for split, shards in index["splits"].items():
            seen = set[str]()
            for shard in shards:
                with pq.ParquetFile(output / shard["file"]) as file:
                    seen.update(file.read(["source"])["source"].unique().to_pylist())
                    features = Features.from_arrow_schema(file.schema_arrow)
            labels = tuple(getattr(features["label"], "names", None) or ())
            crops[split], sources[split] = sum(sum(shard["groups"]) for shard in shards), len(seen)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UserError(f"{output}: is not whole ({error}); make it again with --overwrite") from error
    return DatasetSummary(output, crops, sources, labels, manifest)


def index_of(shards: dict[str, Sequence[Shard]]) -> dict[str, Any]:
    """The content of the index file."""
    return {
        "format": 1,
        "splits": {
            split: [{"file": s.file, "groups": list(s.groups)} for s in each] for split, each in shards.items()
        },
    }


def _plan(staging: Staging, manifest: Manifest, shares: SplitShares, labels: Sequence[str] | None) -> _Plan:
    originals: dict[bytes, tuple[str, str | None]] = {}
    copies: dict[str, list[str]] = {}
    images_of: Counter[str] = Counter()
    places: dict[tuple[str, str | None, str], int] = {}
    rows: Counter[int] = Counter()
    rows_of_parts: dict[int, np.ndarray] = {}
    planes = by_rule = False
    for number in staging.numbers():
        part = staging.read_part(number)
        manifest.items.update(part.statuses)
        planes = planes or part.planes
        place_of = []
        for image in part.images:
            item = sys.intern(image.item)
            images_of[item] += 1
            if (original := _original(image, item, originals)) is not None:
                other, label = original
                conflict = f", which is labelled {label!r}, not {image.label!r}" if label != image.label else ""
                copies.setdefault(item, []).append(other + conflict)
                place_of.append(-1)
            elif image.rows:
                split = image.split or split_of(image.split_id or image.source, shares)
                place = places.setdefault((image.source, image.label, split), len(places))
                by_rule = by_rule or image.split is None
                rows[place] += image.rows
                place_of.append(place)
            else:
                place_of.append(-1)
        rows_of_parts[number] = np.repeat(np.array(place_of, np.int32), [image.rows for image in part.images])
    _record_copies(manifest, copies, images_of)
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


def _record_copies(manifest: Manifest, copies: dict[str, list[str]], images_of: Counter[str]) -> None:
    for item, originals in copies.items():
        if len(originals) == images_of[item]:
            manifest.skipped(item, f"exact copy of {originals[0]}")
        else:
            note = manifest.items[item].reason if item in manifest.items else None
            copied = f"{len(originals)} of {images_of[item]} images are exact copies ({originals[0]})"
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
    numbers = np.random.default_rng(seed).permutation(sorted(plan.places))
    with ExitStack() as stack:
        for writer in writers.values():
            stack.enter_context(writer)
        for number in numbers:
            for table, targets in _rows(staging, int(number), plan.targets(int(number))):
                for split in np.unique(targets[targets != ""]).tolist():
                    chosen = _labelled(table.filter(pa.array(targets == split)), plan.labels, schema)
                    writers[split].add(chosen)
                    statistics.add(split, chosen)
                    preview.add(split, chosen)
                    progress.update(chosen.num_rows)


def _rows(staging: Staging, number: int, targets: np.ndarray) -> Iterator[tuple[pa.Table, np.ndarray]]:
    start = 0
    for table in staging.read_rows(number):
        yield table, targets[start : start + table.num_rows]
        start += table.num_rows


def _labelled(table: pa.Table, labels: tuple[str, ...], schema: pa.Schema) -> pa.Table:
    """Names of classes as their numbers, and the columns of the repository."""
    table = table.select(schema.names)
    number = {name: place for place, name in enumerate(labels)}
    codes = pa.array([number.get(name) for name in table["label"].to_pylist()], pa.int64())
    return table.set_column(table.schema.get_field_index("label"), "label", codes).cast(schema)


def _replace(fresh: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    if fresh.exists():
        fresh.rename(target)
