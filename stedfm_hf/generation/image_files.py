"""Process every image of the inputs with a pipeline, and write a TIFF and rows of a table for each: one skeleton."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.data.sources import Source
from stedfm_hf.generation.loading import LoadedPipeline
from stedfm_hf.generation.settings import AttributeWalkSettings, GenerateSettings
from stedfm_hf.inference.maps import write_map_tiff
from stedfm_hf.inference.preparation import Fact, Preparation
from stedfm_hf.inference.resuming import remove_maps
from stedfm_hf.inference.source_batches import SourceBatch
from stedfm_hf.inference.stepwise import open_table, process_sources, scaling_of, table_of
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL, TableParts, TableResult, read_table
from stedfm_hf.reports.figures import middle
from stedfm_hf.runs import UserError

ROWS = "rows"
"""Fact that holds the rows of an image."""


@dataclass(frozen=True)
class Stack:
    """Images that were made from an image.

    Attributes:
        kind: Name in the file: `<path>.<kind><number>.tif`.
        images: Images (n, H, W) float32 in [0, 1].
        names: Name of each image.
        rows: Columns of each image for the table.
    """

    kind: str
    images: np.ndarray
    names: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


Make = Callable[[Fact, np.ndarray], list[Stack]]
"""Function that makes images from an image (H, W) in [0, 1] of the size of the network."""


def make_images(
    settings: GenerateSettings | AttributeWalkSettings,
    command: str,
    sources: Sequence[Source],
    skipped: Mapping[str, int],
    loaded: LoadedPipeline,
    columns: Sequence[tuple[str, pa.DataType]],
    make: Make,
    *,
    table: str,
    kinds: Collection[str],
    resolved: Mapping[str, Any],
) -> TableResult:
    """Make images from every input image that is not done yet.

    Args:
        settings: Settings of the command; `output` is a folder.
        command: Name of the command.
        sources: Input images.
        skipped: Number of skipped files by suffix.
        loaded: Pipeline.
        columns: Columns of a row, in addition to those of the image, `file` and those of the model.
        make: Function that makes images from an image.
        table: Name of the table in the output folder.
        kinds: Names of the stacks, for the files of changed inputs that are removed.
        resolved: Settings that are known only now.
    """
    folder = Path(settings.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another output") from error
    scaling = scaling_of(loaded.encoder, None, None)
    channel = loaded.encoder.processor.channel if settings.channel is None else settings.channel
    schema = pa.schema([*OF_IMAGE, *columns, ("file", pa.string()), *OF_MODEL])
    remove = partial(remove_maps, folder, kinds=kinds)
    with open_table(
        folder / table, command, settings, loaded.encoder, {**scaling, **resolved}, skipped, remove_items=remove
    ) as output:
        parts = TableParts(output, schema)
        batch = SourceBatch(
            parts.store,
            Preparation(loaded.encoder, settings.series, channel, scaling),
            _no_arrays,
            partial(_table, schema=schema, loaded=loaded),
            threads=1,
            annotate=_Writer(folder, make, loaded.size_px),
        )
        process_sources(parts, sources, batch, remove_results=remove)
    return TableResult(folder / table, output.manifest, read_table(folder / table, schema))


@dataclass
class _Writer:
    """Function that makes the images of one image, writes their files and returns their rows."""

    folder: Path
    make: Make
    size_px: int

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Fact:
        height, width = pixels.shape[1:]
        if min(height, width) < self.size_px:
            raise ValueError(
                f"is {height} x {width} pixels, smaller than the {self.size_px} x {self.size_px} pixels of the "
                "network; give larger images"
            )
        crop = middle(np.asarray(pixels[0], np.float32), self.size_px)
        cell = fact["height"] / height, fact["width"] / width
        rows: list[Fact] = []
        for stack in self.make(fact, crop):
            name = f"{fact['path']}.{stack.kind}{fact['image_number']}.tif"
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_map_tiff(self.folder / name, stack.images, stack.names, (0.0, 1.0), cell, fact)
            rows += [dict(row) | {"file": name} for row in stack.rows]
        return {ROWS: rows}


def _no_arrays(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Return an empty array for every image: the rows are among its facts."""
    for _ in images:
        yield np.zeros(0, np.float32)


def _table(results: list[tuple[Fact, np.ndarray]], *, schema: pa.Schema, loaded: LoadedPipeline) -> pa.Table:
    rows = [fact | row for fact, _ in results for row in fact[ROWS]]
    return table_of(rows, schema, loaded.encoder, {})
