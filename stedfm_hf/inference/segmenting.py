"""The run of `segment`: segment and record every field of every source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from stedfm_hf.data.sources import Source, chunks
from stedfm_hf.inference.devices import devices_of
from stedfm_hf.inference.field_batches import FieldBatch
from stedfm_hf.inference.field_records import FIELDS, OBJECTS, PARTS, FieldRecords, SegmentResult
from stedfm_hf.inference.field_task import KINDS, SUFFIXES, FieldTask, field_schema, object_schema
from stedfm_hf.inference.resuming import remove_maps, unfinished
from stedfm_hf.inference.segmenter import Segmenter
from stedfm_hf.inference.settings import SegmentSettings
from stedfm_hf.inference.stepwise import scaling_of
from stedfm_hf.modeling.blending_stedfm import default_tile_overlap
from stedfm_hf.runs import Progress, UserError, print_note
from stedfm_hf.runs.attempts import BATCH_ATTEMPTS
from stedfm_hf.runs.executors import Workers, run_calls
from stedfm_hf.runs.notes import ItemNotes
from stedfm_hf.runs.output import open_output
from stedfm_hf.runs.workers import open_workers

BATCH, BATCH_BYTES = 16, 2**26
"""Largest number of files, and of bytes of several files, that a worker segments in one call."""


def segment_fields(
    settings: SegmentSettings,
    folder: Path,
    sources: Sequence[Source],
    skipped: Mapping[str, int],
    segmenter: Segmenter,
    cluster: Workers | None = None,
) -> SegmentResult:
    """Segment the fields of some sources (see `stedfm_hf.inference.segment`), on an open cluster if there is one."""
    tile_size, tile_overlap = checked_tiles(segmenter, settings.tile_size, settings.tile_overlap)
    scaling = scaling_of(segmenter, settings.normalization, settings.intensity_range)
    channel = segmenter.processor.channel if settings.channel is None else settings.channel
    task = FieldTask(
        segmenter,
        folder,
        threshold=checked_threshold(segmenter, settings.threshold),
        min_area_px=settings.min_area_px,
        tile_size=tile_size,
        tile_overlap=tile_overlap,
        batch_size=settings.batch_size,
        probabilities=checked_probabilities(segmenter, settings.probabilities),
        overlay=settings.overlay,
        suffix=SUFFIXES[settings.format],
    )
    config = segmenter.model.config
    with open_output(
        folder,
        "segment",
        settings,
        results=[FIELDS, OBJECTS],
        temporary=[PARTS],
        resolved={
            "target_type": config.target_type,
            "classes": list(segmenter.classes),
            "threshold": task.threshold,
            "tile_size": tile_size,
            "tile_overlap": tile_overlap,
            "precision": segmenter.precision,
            "channel": channel,
            **scaling,
        },
        options={"device": str(segmenter.model.device), "skipped_files": dict(skipped)},
        model=segmenter.name,
        weights_sha256=segmenter.weights_sha256,
        overwrite=settings.overwrite,
        remove_items=partial(remove_maps, folder, kinds=KINDS),
    ) as output:
        records = FieldRecords(output, field_schema(segmenter), object_schema(config.num_channels))

        def remove_results(paths: Collection[str]) -> None:
            records.remove_results(paths)
            remove_maps(folder, paths, KINDS)

        remaining = unfinished(output.manifest, sources, remove_results, begun=records.begun)
        if remaining and output.finished:
            output.reopen()
        try:
            with open_workers(cluster, devices=devices_of(settings.device, settings.backend)) as workers:
                batch = FieldBatch(records.parts, task, settings.series, channel, scaling, survives=workers.elsewhere)
                _segment_sources(remaining, len(sources), batch, records, workers)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the GPU does not have enough memory for {settings.batch_size} tiles of {tile_size} pixels; "
                "lower --batch-size"
            ) from error
        records.finish([source.path for source in sources])
    result = SegmentResult(folder, output.manifest)
    if result.fields and not sum(result.objects.values()):
        if settings.min_area_px > 1:
            print_note(
                f"no object has {settings.min_area_px} pixels or more (--min-area-px); the label image also shows "
                "smaller ones"
            )
        else:
            print_note("no pixel belongs to a class; inspect the probability maps")
    return result


def _segment_sources(
    remaining: Sequence[Source], total: int, batch: FieldBatch, records: FieldRecords, workers: Workers
) -> None:
    """Segment the sources that are not done yet, and record and report the status of each.

    In this process the manifest is saved between any two sources, elsewhere between batches.
    """
    notes = ItemNotes()
    with Progress(total, description="segment", done=total - len(remaining)) as progress:
        shown = None if workers.elsewhere else progress
        calls = ((chunk, shown) for chunk in chunks(remaining, BATCH if workers.elsewhere else 1, BATCH_BYTES))
        for (chunk, _), done in run_calls(batch, calls, workers=workers, attempts=BATCH_ATTEMPTS):
            done.record(records.manifest, chunk, notes)
            for message in done.messages:
                progress.note(message)
            if shown is None:
                progress.update(len(chunk))
            records.save_at_times()
    notes.print()


def checked_tiles(segmenter: Segmenter, tile_size: int | None, tile_overlap: int | None) -> tuple[int, int]:
    """Return the tile size and the tile overlap, in pixels."""
    patch_size = segmenter.model.config.patch_size
    size = segmenter.model.config.image_size if tile_size is None else tile_size
    if size < 1 or size % patch_size:
        raise UserError(f"tile size {size} is not usable; choose a multiple of {patch_size} pixels")
    overlap = default_tile_overlap(size, patch_size) if tile_overlap is None else tile_overlap
    if not 0 <= overlap < size:
        raise UserError(f"tile overlap {overlap} is out of range; choose 0 to {size - 1} pixels for tiles of {size}")
    return size, overlap


def checked_threshold(segmenter: Segmenter, threshold: float | None) -> float | None:
    """Return the threshold; None if every pixel has one class."""
    if segmenter.single:
        if threshold is not None:
            raise UserError(
                f"model {segmenter.name}: assigns its most probable class to every pixel, without a threshold; "
                "remove --threshold"
            )
        return None
    threshold = 0.5 if threshold is None else threshold
    if segmenter.model.config.target_type != "regression" and not 0 <= threshold < 1:
        raise UserError(f"threshold {threshold} is out of range; it must be at least 0 and below 1")
    return threshold


def checked_probabilities(segmenter: Segmenter, probabilities: str | None) -> str | None:
    """Return the type of the probability maps, or None."""
    if probabilities == "uint8" and segmenter.model.config.target_type == "regression":
        raise UserError(f"model {segmenter.name}: predicts values, which 8 bit cannot hold; choose float32 or none")
    return probabilities
