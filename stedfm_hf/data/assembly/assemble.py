"""Assembly of a data set from staged parts: plan, shards, index, preview and card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stedfm_hf.data.assembly.output import ASSEMBLED, RESULTS, DatasetSummary
from stedfm_hf.data.assembly.plan import Plan, make_plan
from stedfm_hf.data.assembly.staging import Staging
from stedfm_hf.data.assembly.write_window import RECORDS, is_written, record_name, write_window
from stedfm_hf.data.publishing.card import CardFacts, write_card
from stedfm_hf.data.publishing.preview import Preview
from stedfm_hf.data.publishing.statistics import Statistics
from stedfm_hf.data.repository.layout import INDEX_FILE, SPLITS, crop_features
from stedfm_hf.data.repository.shards import Shard, Window
from stedfm_hf.data.settings import ROWS_PER_SHARD
from stedfm_hf.data.splits import SPLIT_FRACTIONS, SplitFractions
from stedfm_hf.runs import (
    Manifest,
    Progress,
    UserError,
    counted,
    manifest_path,
    print_note,
    read_json,
    some_of,
    write_json,
)
from stedfm_hf.runs.executors import Workers, run_items
from stedfm_hf.runs.files import move_path, remove_path, scratch_folder
from stedfm_hf.runs.parts import PartStore
from stedfm_hf.runs.storage import is_remote
from stedfm_hf.runs.workers import open_workers

_LAYOUT = "layout.json"
ROWS_PER_PROCESS = 2**15
"""Number of rows for which another process or a cluster is started, which takes some seconds."""


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
    processes: int = 1,
    cluster: Workers | None = None,
) -> DatasetSummary:
    """Write a data set from all staged parts.

    Windows of shards are written independently of each other, and after an interruption only those that are not
    complete. The bytes do not depend on the number of workers. The results replace those of an earlier run only when
    all of them are written. Notes about missing splits and classes are printed.

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
        processes: Largest number of processes that write shards.
        cluster: Open cluster to use instead of processes; small data sets need none.

    Returns:
        Number of crops and source images in each split, and notes.

    Raises:
        UserError: No part holds a crop. The parts are then removed, so that the next run can use other settings.
    """
    plan = make_plan(staging, manifest, fractions, labels, seed)
    if not sum(plan.crops.values()):
        staging.remove()
        reasons = Counter(status.reason for status in manifest.items.values() if status.state != "done")
        frequent = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        record = manifest_path(output, folder=True)
        raise UserError(
            f"{output}: no crop is left of {counted(len(manifest.items), 'input')} ({frequent}); change the settings; "
            f"{record} lists all inputs"
        )
    if is_remote(output):
        cluster = None  # the shards are written in a folder of this machine, and then uploaded
    with scratch_folder(output, ASSEMBLED) as temporary:
        windows = _write_shards(staging, temporary, plan, seed, rows_per_shard, processes, cluster)
        statistics = _write_results(windows, temporary, plan, card, seed)
        for name in RESULTS:
            remove_path(output / name)
            if (temporary / name).exists():
                move_path(temporary / name, output / name)
    notes = _missing_splits_and_labels(plan, fractions, statistics)
    for note in notes:
        print_note(f"note: {note}")
    return DatasetSummary(output, manifest, plan.crops, plan.source_counts(), plan.labels, notes)


def _write_shards(
    staging: Staging,
    folder: Path,
    plan: Plan,
    seed: int,
    rows_per_shard: int,
    processes: int,
    cluster: Workers | None,
) -> list[Window]:
    """Write the windows that are not complete, and return all windows; their records are in the folder.

    A folder of another plan is removed first.
    """
    layout = {"plan": plan.digest, "seed": seed, "rows_per_shard": rows_per_shard}
    if not (folder / _LAYOUT).exists() or read_json(folder / _LAYOUT) != layout:
        remove_path(folder)
        write_json(folder / _LAYOUT, layout)
    for unfinished in (folder / "data").glob(".*"):  # of a killed run
        unfinished.unlink()
    every = list(plan.windows(rows_per_shard))
    remaining = [rows for rows in every if not is_written(folder, rows.window)]
    total, to_write = sum(plan.crops.values()), sum(rows.window.rows for rows in remaining)
    write = partial(write_window, labels=plan.labels, planes=plan.planes, seed=seed)
    most = 1 + to_write // ROWS_PER_PROCESS
    with (
        open_workers(cluster if most > 1 else None, processes=min(processes, len(remaining), most)) as workers,
        Progress(total, description="write", unit="crops", done=total - to_write) as progress,
    ):
        calls = ((staging, folder, rows) for rows in remaining)
        for written in run_items(write, calls, workers=workers):
            progress.update(written)
    return [rows.window for rows in every]


def _write_results(windows: Sequence[Window], folder: Path, plan: Plan, card: CardFacts, seed: int) -> Statistics:
    """Write all files of the data set except the shards and the manifest."""
    schema = crop_features(plan.labels, planes=plan.planes).arrow_schema
    statistics, preview = Statistics(plan.labels, sources=plan.sources), Preview(plan.labels, seed=seed)
    shards: dict[str, list[Shard]] = {split: [] for split in plan.crops}
    records = PartStore(folder / RECORDS)
    for window in windows:
        record = records.read(record_name(window))
        statistics.merge(record.notes["statistics"])
        preview.add(window.split, record.table().cast(schema))
        groups = map(tuple, record.notes["row_groups"])
        shards[window.split] += map(Shard, window.names, groups)
    write_json(folder / INDEX_FILE, index_of(shards, plan.labels, plan.source_counts(), card.mask_names))
    preview.write(folder)
    write_card(folder, card, statistics, preview)
    return statistics


def _missing_splits_and_labels(plan: Plan, fractions: SplitFractions, statistics: Statistics) -> tuple[str, ...]:
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
