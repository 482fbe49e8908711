"""Read, compute and write the images of many sources in steps (shared by `embed` and `classify`)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf.data.sources import Source, chunks
from stedfm_hf.exports.runtime_models import RuntimeModel
from stedfm_hf.images import StedImage
from stedfm_hf.images.regions import RowArray
from stedfm_hf.inference.loading import Loaded, has_fast_bfloat16
from stedfm_hf.inference.resuming import unfinished
from stedfm_hf.inference.tables import Parts, parts_name
from stedfm_hf.modeling.image_processing_stedfm import apply_intensity_range, fit_scaling
from stedfm_hf.runs import Manifest, Progress, UserError
from stedfm_hf.runs.notes import ItemNotes
from stedfm_hf.runs.output import Output, open_output

CHUNK = 64
"""Number of files between two writes, which a killed run loses at most."""
AHEAD = 64, 128 * 2**20
"""Number and size in bytes of the files that are prefetched."""
LARGE = 2048 * 2048
"""Number of pixels of an image from which the progress of its rows is shown."""
LONG = 60.0
"""Remaining time in seconds from which on a faster precision is suggested."""
Fact = dict[str, Any]
"""Facts about an image for its rows: path, series, channel, ...; `size` is the size of the input of the model."""


@dataclass(frozen=True)
class Prepared:
    """Source that was read: its scaled images with the facts for their rows and notes on the file, or an error."""

    path: str
    images: tuple[tuple[dict[str, Any], np.ndarray], ...]
    notes: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Preparation:
    """Function that reads a source and scales its images; called in the reading threads."""

    loaded: Loaded
    series: str | int | None
    channel: str | int | None
    scaling: dict[str, Any]

    def __call__(self, source: Source) -> Prepared:
        """Read and scale a source; an error fails this source only."""
        try:
            images = source.read(self.series, self.channel)
            notes = tuple(dict.fromkeys(note for image in images for note in image.notes))
            return Prepared(source.path, tuple(self._images(source, images)), notes)
        except (ValueError, OSError, MemoryError) as error:
            return Prepared(source.path, (), error=str(error) or type(error).__name__)

    def _images(self, source: Source, images: list[StedImage]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Scale the images of a source, one by one, and return them with the facts for their rows.

        Models with one channel get each channel as a separate image (1, H, W); others need images with their number of
        channels.
        """
        channels = self.loaded.model.config.num_channels
        while images:
            image = images.pop(0)  # the pixels of the file are freed as soon as they are scaled
            scaled = self._scaled(image)
            facts = {
                "path": source.path,
                "series": image.series,
                "height": image.array.shape[1],
                "width": image.array.shape[2],
                "pixel_size_nm": list(image.pixel_size_nm) if image.pixel_size_nm else None,
            }
            if channels == 1:
                for number, name in enumerate(image.channel_names):
                    yield facts | {"channel": name}, scaled[number : number + 1]
            elif len(scaled) == channels:
                yield facts | {"channel": "+".join(image.channel_names)}, scaled
            else:
                raise ValueError(f"has {len(scaled)} channels, and the model takes {channels}")

    def _scaled(self, image: StedImage) -> np.ndarray:
        """Return the scaled image (C, H, W) float32; rows of a large one are scaled when they are used.

        A large image that must be resampled is held as a whole.
        """
        array, processor = image.array, self.loaded.processor
        if not isinstance(array, RowArray) or self.scaling["target_pixel_size_nm"] is not None:
            whole = replace(image, array=np.asarray(array))
            return processor.prepare(whole, channel=None, **self.scaling)
        limits, clip = fit_scaling(array, self.scaling, image.intensity_range)
        if self.scaling["normalization"] in ("fixed", "none"):
            # The other scalings have read every pixel: a damaged file must fail here, not between the tiles.
            deque((row for plane in array for row in plane), maxlen=0)

        def read(top: int, bottom: int) -> np.ndarray:
            return apply_intensity_range(array[:, top:bottom], limits, clip=clip)

        return cast(np.ndarray, RowArray(read, array.shape, np.dtype(np.float32)))


def process_sources(
    parts: Parts,
    sources: Sequence[Source],
    prepare: Preparation,
    compute: Callable[[Iterator[np.ndarray]], Iterable[np.ndarray]],
    tabulate: Callable[[list[tuple[Fact, np.ndarray]]], pa.Table],
    *,
    workers: int | None,
    annotate: Callable[[Fact, np.ndarray], Fact] | None = None,
    remove_results: Callable[[Collection[str]], None] | None = None,
) -> None:
    """Read, compute and write the sources that are not done yet; failed sources are recorded and reported.

    Args:
        parts: Store of the rows; its manifest records the items that are done.
        sources: All sources.
        prepare: Function that reads and scales a source.
        compute: Function that returns one array for every prepared image, in their order.
        tabulate: Function that makes the table of images and arrays.
        workers: Number of threads that read.
        annotate: Function called with every prepared image before it is computed; returns more facts for its rows. If
            it raises a ValueError, the source has failed.
        remove_results: Function that removes the files that `annotate` wrote for sources that have changed.
    """
    manifest = parts.manifest
    remaining = unfinished(manifest, sources, remove_results)
    if remaining and parts.output.finished:
        parts.output.reopen()
    threads = workers or min(os.cpu_count() or 1, 8)
    with (
        Progress(len(sources), description=manifest.command, done=len(sources) - len(remaining)) as progress,
        ThreadPoolExecutor(threads, thread_name_prefix="stedfm-read") as pool,
    ):
        ready, notes = _prefetch(pool, prepare, remaining), ItemNotes()
        hint = _speed_hint(prepare.loaded)
        for chunk in chunks(remaining, CHUNK):
            try:
                results = _compute(islice(ready, len(chunk)), compute, annotate, manifest, progress, notes)
                parts.add(tabulate(results), [source.path for source in chunk])
            except BaseException:
                # Their rows are not written, so that the next run must process them again.
                for source in chunk:
                    manifest.items.pop(source.path, None)
                raise
            if hint and progress.rate and (len(sources) - progress.count) / progress.rate > LONG:
                progress.note(hint)
                hint = None
    notes.print()
    parts.finish()


def _compute(
    prepared: Iterable[Prepared],
    compute: Callable[[Iterator[np.ndarray]], Iterable[np.ndarray]],
    annotate: Callable[[Fact, np.ndarray], Fact] | None,
    manifest: Manifest,
    progress: Progress,
    notes: ItemNotes,
) -> list[tuple[Fact, np.ndarray]]:
    """Compute the images of some sources, record the status of each source, and return the results."""
    facts: list[Fact] = []
    errors: dict[str, str | None] = {}
    noted: dict[str, str | None] = {}

    def images() -> Iterator[np.ndarray]:
        """Yield the images in order; as a side effect, collect the facts of each, and the error of each source."""
        for source in prepared:
            errors[source.path] = source.error
            noted[source.path] = notes.add(source.path, source.notes)
            for fact, whole in source.images:
                with _rows_progress(whole, source.path) as pixels:
                    try:
                        more = annotate(fact, pixels) if annotate else {}
                    except ValueError as error:
                        errors[source.path] = str(error)
                        break
                    facts.append(fact | more | {"size": pixels.shape[1:]})
                    yield pixels
            progress.update()

    values = list(compute(images()))
    for fact, value in zip(facts, values, strict=True):
        if not np.isfinite(value).all():
            errors[fact["path"]] = "the result is not finite; try --precision float32"
    for path, error in errors.items():
        if error is None:
            manifest.done(path, noted[path])
        else:
            manifest.failed(path, error)
            # Readers name the file in their own way; it is named here by the path of the table.
            reason = (manifest.items[path].reason or "").rpartition(f"{Path(path).name}: ")[2]
            progress.note(f"stedfm: error: {path}: {reason}")
    return [(fact, value) for fact, value in zip(facts, values, strict=True) if errors[fact["path"]] is None]


@contextmanager
def _rows_progress(pixels: np.ndarray, path: str) -> Iterator[np.ndarray]:
    """Yield the pixels (C, H, W) of an image; if it is large, reading its rows from top to bottom shows progress."""
    height, width = pixels.shape[1:]
    if height * width < LARGE:
        yield pixels
        return
    with Progress(height, description=path, unit="rows") as progress:

        def read(top: int, bottom: int) -> np.ndarray:
            progress.update(max(0, top - progress.count))
            return pixels[:, top:bottom]

        yield cast(np.ndarray, RowArray(read, (len(pixels), height, width), pixels.dtype))
        progress.update(height - progress.count)


def table_of(rows: list[Fact], schema: pa.Schema, loaded: Loaded, columns: dict[str, Any]) -> pa.Table:
    """Return a table of `schema` from the given columns, the facts of the rows and the model."""
    columns = columns | {
        "model": [loaded.name] * len(rows),
        "weights_sha256": [loaded.weights_sha256] * len(rows),
    }
    columns |= {name: [row[name] for row in rows] for name in schema.names if name not in columns}
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)


def _prefetch(
    pool: ThreadPoolExecutor, read: Callable[[Source], Prepared], sources: Iterable[Source]
) -> Iterator[Prepared]:
    """Yield sources in order; up to `AHEAD` files and bytes are read before they are needed."""
    waiting: deque[tuple[Future[Prepared], int]] = deque()
    max_files, max_bytes = AHEAD
    for source in sources:
        while waiting and (len(waiting) >= max_files or sum(size for _, size in waiting) + source.size > max_bytes):
            yield waiting.popleft()[0].result()
        waiting.append((pool.submit(read, source), source.size))
    while waiting:
        yield waiting.popleft()[0].result()


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
