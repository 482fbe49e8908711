"""The run of `segment`: segment and record every field of every source."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from stedfm_hf.data.sources import Source
from stedfm_hf.inference.field_records import FIELDS, OBJECTS, PARTS, FieldRecords, SegmentResult
from stedfm_hf.inference.field_task import KINDS, SUFFIXES, FieldTask, field_schema, object_schema
from stedfm_hf.inference.fields import Field, read_fields
from stedfm_hf.inference.resuming import remove_maps, unfinished
from stedfm_hf.inference.segmenter import Segmenter
from stedfm_hf.inference.settings import SegmentSettings
from stedfm_hf.inference.stepwise import scaling_of
from stedfm_hf.modeling.blending_stedfm import default_tile_overlap
from stedfm_hf.runs import Progress, UserError, print_note, some_of
from stedfm_hf.runs.notes import ItemNotes
from stedfm_hf.runs.output import open_output


def segment_fields(
    settings: SegmentSettings,
    folder: Path,
    sources: Sequence[Source],
    skipped: Mapping[str, int],
    segmenter: Segmenter,
) -> SegmentResult:
    """Segment the fields of some sources (see `stedfm_hf.inference.segment`)."""
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
        file_notes = ItemNotes()
        try:
            with Progress(len(sources), description="segment", done=len(sources) - len(remaining)) as progress:
                for source in remaining:
                    fields = read_fields(source, segmenter, settings.series, channel, scaling)
                    _segment_source(source, fields, task, records, progress, file_notes)
                    progress.update()
                    records.save_at_times()
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the GPU does not have enough memory for {settings.batch_size} tiles of {tile_size} pixels; "
                "lower --batch-size"
            ) from error
        file_notes.print()
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


def _segment_source(
    source: Source,
    fields: Iterable[Field],
    task: FieldTask,
    records: FieldRecords,
    progress: Progress,
    file_notes: ItemNotes,
) -> None:
    """Segment the fields of a source that are not done yet, and record the status of the source.

    A ValueError or MemoryError fails this source only, and is printed. Fields without signal are segmented with a
    warning.
    """
    manifest, number = records.manifest, 0
    without_signal: dict[str, list[int]] = {}
    read_with: dict[str, None] = {}
    try:
        for field in fields:
            number += 1
            read_with |= dict.fromkeys(field.notes)
            if why := field.no_signal():
                without_signal.setdefault(why, []).append(number)
            if not records.has(source.path, number):
                records.add(source.path, number, *task(field, source.path, number))
    except (ValueError, MemoryError) as error:
        manifest.failed(source.path, str(error) or type(error).__name__)
        # Readers name the file in their own way; it is named here by the path of the tables.
        reason = (manifest.items[source.path].reason or "").rpartition(f"{Path(source.path).name}: ")[2]
        progress.note(f"stedfm: error: {source.path}: {reason}")
    else:
        notes = [] if number == 1 else [f"{number} fields"]
        for why, numbers in without_signal.items():
            where = "" if number == 1 else f" in field{'' if len(numbers) == 1 else 's'} {some_of(numbers)}"
            notes.append(f"no signal{where} ({why})")
            progress.note(f"stedfm: {source.path}: {notes[-1]}")
        file_notes.add(source.path, read_with)
        manifest.done(source.path, "; ".join(filter(None, [", ".join(notes), *read_with])) or None)


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
