"""The run of `find`: load the finder and its model, and score every image of every source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from stedfm_hf.acquisition.finder_files import FILES, StoredFinder, load_finder
from stedfm_hf.acquisition.finders import Finder, ForestFinder
from stedfm_hf.acquisition.reference import ReferencePreparation, Windows, reference_map, reference_regions
from stedfm_hf.acquisition.regions import REGION_SCHEMA, Region
from stedfm_hf.acquisition.result import CSV, TABLE
from stedfm_hf.acquisition.score_maps import score_map
from stedfm_hf.acquisition.selection import RegionChoice
from stedfm_hf.acquisition.settings import FindSettings
from stedfm_hf.acquisition.stage import Stage
from stedfm_hf.acquisition.writing import KINDS, FindWriter, region_table
from stedfm_hf.data.sources import Source
from stedfm_hf.inference.devices import devices_of
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.inference.preparation import Fact, Preparation
from stedfm_hf.inference.resuming import remove_maps
from stedfm_hf.inference.source_batches import SourceBatch
from stedfm_hf.inference.stepwise import process_sources
from stedfm_hf.inference.tables import TableParts, parts_name, read_table, write_csv
from stedfm_hf.interpretability.fields import Tiles, tiles_of
from stedfm_hf.runs import UserError, atomic_path, print_note, sha256_file
from stedfm_hf.runs.executors import Workers
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.runs.workers import open_workers

NO_ROIFILE = 'note: ROIs for Fiji are not written, because they need roifile. Run: pip install "stedfm-hf[roi]"'


def run_find(
    settings: FindSettings,
    folder: Path,
    sources: Sequence[Source],
    skipped: Mapping[str, int],
    cluster: Workers | None = None,
) -> tuple[Output, pa.Table]:
    """Find structures in the images of the sources (see `stedfm_hf.acquisition.find`).

    Args:
        settings: Settings of the command.
        folder: Folder to write.
        sources: Sources of the images.
        skipped: Number of skipped files by suffix.
        cluster: Open cluster that scores them; None uses the devices of this machine.
    """
    stored = load_finder(settings.finder)
    protocol = stored.record["protocol"]
    if settings.protocol not in (None, protocol):
        raise UserError(
            f"finder {settings.finder}: was fitted with --protocol {protocol}; fit one with --protocol "
            f"{settings.protocol}, or leave --protocol out"
        )
    stage = None if settings.stage is None else Stage.load(settings.stage)
    encoder = stored.load_encoder(
        settings.model, device=settings.device, precision=settings.precision, backend=settings.backend
    )
    channel = stored.record.get("channel") if settings.channel is None else settings.channel
    writer = find_writer(settings, folder, stored, encoder, stage)
    kind = ReferencePreparation if protocol == REFERENCE else Preparation
    prepare = kind(encoder, settings.series, channel, stored.record["scaling"])
    remove_results, target = partial(remove_maps, folder, kinds=KINDS), folder / TABLE
    with open_output(
        folder,
        "find",
        settings,
        results=[TABLE, CSV],
        temporary=[parts_name(target)],
        resolved={
            **stored.record["scaling"],
            "channel": channel,
            "protocol": protocol,
            "precision": encoder.precision,
            "finder_sha256": _finder_sha256(Path(settings.finder)),
            "stage_sha256": None if settings.stage is None else sha256_file(settings.stage),
        },
        options={"device": str(encoder.model.device), "skipped_files": dict(skipped)},
        model=encoder.name,
        weights_sha256=encoder.weights_sha256,
        overwrite=settings.overwrite,
        remove_items=remove_results,
    ) as output:
        try:
            parts = TableParts(output, REGION_SCHEMA, target)
            batch = SourceBatch(
                parts.store,
                prepare,
                _nothing,
                partial(region_table, loaded=encoder),
                settings.workers,
                annotate=writer,
            )
            with open_workers(cluster, devices=devices_of(settings.device, settings.backend)) as workers:
                process_sources(parts, sources, batch, workers=workers, remove_results=remove_results)
        except torch.OutOfMemoryError as error:
            raise UserError("the GPU does not have enough memory; lower --batch-size or --tile-size") from error
        table = read_table(target, REGION_SCHEMA)
        if not output.finished:
            with atomic_path(folder / CSV) as temporary:
                write_csv(table, temporary)
            if not writer.rois:
                print_note(NO_ROIFILE)
    return output, table


def find_writer(
    settings: FindSettings, folder: Path, stored: StoredFinder, encoder: Encoder, stage: Stage | None
) -> FindWriter:
    """Make the function that scores an image and writes its files.

    Args:
        settings: Settings of the command.
        folder: Folder to write.
        stored: Finder.
        encoder: Encoder that the finder was fitted with.
        stage: Calibration of the stage, or None.
    """
    finder, config = stored.finder, encoder.model.config
    names, rois = finder.classes, find_spec("roifile") is not None
    limits = (0.0, 1.0) if finder.quantity == "probability" else None
    min_scores = dict(zip(finder.classes, finder.min_scores, strict=True))
    size = float(config.image_size) if settings.region_size_px is None else settings.region_size_px
    if stored.record["protocol"] == REFERENCE:
        windows = Windows(encoder, settings.batch_size)
        quantity = finder.quantity
        if isinstance(finder, ForestFinder):
            names, quantity, limits = ("class",), "number of the class", (0.0, float(len(finder.classes)))
        return FindWriter(
            folder,
            finder,
            partial(_score_reference, finder, windows),
            partial(_select_reference, finder, round(size), settings.count),
            names,
            quantity,
            1,
            limits,
            stage,
            rois,
        )
    tiles: Tiles = tiles_of(encoder, settings.tile_size, settings.tile_overlap, settings.batch_size)

    if settings.min_score is not None:
        min_scores = dict.fromkeys(min_scores, settings.min_score)
    select = RegionChoice(min_scores, settings.count, size, settings.region_size_um, settings.min_distance_px)
    score = partial(score_map, finder, encoder, tiles)
    return FindWriter(folder, finder, score, select, names, finder.quantity, tiles.patch_size, limits, stage, rois)


def _score_reference(finder: Finder, windows: Windows, pixels: np.ndarray) -> np.ndarray:
    """Return the published map of scaled pixels (1, H, W)."""
    return reference_map(finder, windows, pixels[0])


def _select_reference(
    finder: Finder, size: int, count: int, name: str, values: np.ndarray, fact: Fact, cell: tuple[float, float]
) -> list[Region]:
    """Select the published regions of a class (`Select`); a forest has none."""
    return [] if isinstance(finder, ForestFinder) else reference_regions(values, size, count)


def _finder_sha256(folder: Path) -> str:
    """Return the SHA-256 of the files of a finder."""
    return " ".join(sha256_file(folder / name) for name in FILES if (folder / name).is_file())


def _nothing(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield an empty array for each image: `FindWriter` computes everything, as it knows the facts."""
    return (np.empty(0) for _ in images)
