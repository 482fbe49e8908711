"""Process the images of many sources in batches (shared by `embed`, `classify`, `explain` and `generate`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf.data.sources import Source, chunks
from stedfm_hf.exports.runtime_models import RuntimeModel
from stedfm_hf.inference.loading import Loaded, has_fast_bfloat16
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.inference.resuming import unfinished
from stedfm_hf.inference.source_batches import SourceBatch
from stedfm_hf.inference.tables import Parts, parts_name
from stedfm_hf.runs import Progress, UserError
from stedfm_hf.runs.attempts import BATCH_ATTEMPTS
from stedfm_hf.runs.executors import InThisProcess, Workers, run_calls
from stedfm_hf.runs.notes import ItemNotes
from stedfm_hf.runs.output import Output, open_output

CHUNK = 64
"""Largest number of files in a batch: between two writes, which a killed run loses at most."""
LONG = 60.0
"""Remaining time in seconds from which on a faster precision is suggested."""


def process_sources(
    parts: Parts,
    sources: Sequence[Source],
    batch: SourceBatch,
    *,
    workers: Workers | None = None,
    remove_results: Callable[[Collection[str]], None] | None = None,
) -> None:
    """Read, compute and write the sources that are not done yet; failed sources are recorded and reported.

    The sources are processed in batches. The batches, the rows of each and their order depend on the sources alone,
    not on the workers.

    Args:
        parts: Store of the rows; its manifest records the items that are done.
        sources: All sources.
        batch: Function that processes a batch of sources.
        workers: Workers to call it on; None calls it in this process.
        remove_results: Function that removes the files of sources that have changed, and those of killed processes.
    """
    manifest = parts.manifest
    workers = InThisProcess() if workers is None else workers
    in_parts = set(parts.store.items())
    remaining = len(unfinished(manifest, sources, remove_results))
    if remaining and parts.output.finished:
        parts.output.reopen()
    batch = replace(batch, survives=workers.elsewhere)
    notes, hint = ItemNotes(), _speed_hint(batch.prepare.loaded)
    with Progress(len(sources), description=manifest.command, done=len(sources) - remaining) as progress:
        # Batches of the whole list, so that a resumed run computes the same batches as one without interruption.
        recorded = manifest.items
        whole = chunks([each for each in sources if each.path not in recorded or each.path in in_parts], CHUNK)
        left = ((place, [each for each in chunk if each.path not in recorded]) for place, chunk in enumerate(whole))
        shown = None if workers.elsewhere else progress
        names = parts.store.new_names()
        calls = ((next(names), place, chunk, shown) for place, chunk in left if chunk)
        for (_, _, chunk, _), done in run_calls(batch, calls, workers=workers, attempts=BATCH_ATTEMPTS):
            done.record(manifest, chunk, notes)
            for message in done.messages:
                progress.note(message)
            if shown is None:
                progress.update(len(chunk))
            if hint and progress.rate and (len(sources) - progress.count) / progress.rate > LONG:
                progress.note(hint)
                hint = None
    notes.print()
    if remove_results is not None:
        remove_results(())  # what workers that were killed have left
    parts.finish()


def table_of(rows: list[Fact], schema: pa.Schema, loaded: Loaded, columns: dict[str, Any]) -> pa.Table:
    """Return a table of `schema` from the given columns, the facts of the rows and the model."""
    columns = columns | {
        "model": [loaded.name] * len(rows),
        "weights_sha256": [loaded.weights_sha256] * len(rows),
    }
    columns |= {name: [row[name] for row in rows] for name in schema.names if name not in columns}
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)


def open_table(
    target: Path,
    command: str,
    settings: Any,
    loaded: Loaded,
    resolved: Mapping[str, Any],
    skipped: Mapping[str, int],
    options: Mapping[str, Any] | None = None,
    remove_items: Callable[[Collection[str]], None] | None = None,
) -> AbstractContextManager[Output]:
    """Open the table that a command writes; see `open_output`."""
    return open_output(
        target,
        command,
        settings,
        results=[target.name],
        temporary=[parts_name(target)],
        resolved={"precision": loaded.precision, **resolved},
        options={"device": str(loaded.model.device), "skipped_files": dict(skipped), **(options or {})},
        model=loaded.name,
        weights_sha256=loaded.weights_sha256,
        is_folder=False,
        overwrite=settings.overwrite,
        remove_items=remove_items,
    )


def scaling_of(
    loaded: Loaded, normalization: str | None, intensity_range: tuple[float, float] | None
) -> dict[str, Any]:
    """Return the scaling of intensities: the options, or the settings of the processor."""
    processor = loaded.processor
    if intensity_range is not None and normalization not in (None, "fixed"):
        raise UserError(
            f"the normalization {normalization!r} has no intensity range; remove --intensity-range, or use `fixed`"
        )
    if normalization == "fixed" and intensity_range is None and processor.intensity_range is None:
        raise UserError("the normalization `fixed` needs an intensity range; add --intensity-range LOW HIGH")
    if normalization is None:
        normalization = processor.normalization if intensity_range is None else "fixed"
    scaling = {
        "normalization": normalization,
        "percentiles": processor.percentiles,
        "intensity_range": processor.intensity_range if intensity_range is None else list(intensity_range),
        "target_pixel_size_nm": processor.target_pixel_size_nm,
    }
    try:
        processor.prepare(np.zeros((1, 1)), pixel_size_nm=1, **scaling)
    except ValueError as error:
        raise UserError(str(error)) from error
    return scaling


def check_tile_size(loaded: Loaded, tile_size: int | str | None) -> None:
    """Refuse a tile size that does not fit the model."""
    patch_size = loaded.model.config.patch_size
    if tile_size not in ("auto", None) and (
        not isinstance(tile_size, int) or tile_size <= 0 or tile_size % patch_size
    ):
        raise UserError(
            f"tile size {tile_size!r} is not usable; choose auto, none or a multiple of {patch_size} pixels"
        )


def _speed_hint(loaded: Loaded) -> str | None:
    on_torch = not isinstance(loaded.model, RuntimeModel)
    if on_torch and loaded.model.dtype == torch.float32 and has_fast_bfloat16(loaded.model.device):
        return "stedfm: this takes a while; --precision auto computes in bfloat16 here, two to three times as fast"
    return None
