"""Score the images of `find`, and write their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stedfm_hf.acquisition.figures import write_figure
from stedfm_hf.acquisition.finders import Finder
from stedfm_hf.acquisition.regions import REGION_SCHEMA, Region
from stedfm_hf.acquisition.selection import (
    RegionChoice,
    Select,
    cell_size,
    check_finite,
    ranked_regions,
    region_columns,
)
from stedfm_hf.acquisition.stage import Stage
from stedfm_hf.discovery.search.place_files import write_rois
from stedfm_hf.inference.loading import Loaded
from stedfm_hf.inference.maps import write_map_tiff
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.inference.stepwise import table_of
from stedfm_hf.inference.tables import OF_IMAGE

KINDS = {"scores": "tif", "regions": "png", "rois": "zip"}
"""Kinds of files that are written for an image, with their suffixes."""


@dataclass(frozen=True)
class FindWriter:
    """Function that scores an image, finds its regions and writes its files (`annotate` of `process_sources`).

    Attributes:
        folder: Folder to write `<path of the image>.scores<number>.tif`, `.regions<number>.png` and
            `.rois<number>.zip` to.
        finder: Finder.
        score: Function that returns the score maps (L, rows, cols) of scaled pixels (C, H, W).
        select: Function that selects the regions of a class.
        names: Names of the maps.
        quantity: Quantity that the maps show.
        cell: Size of a cell of the maps, in pixels of the input of the model.
        limits: Values at the ends of the colours; None uses the minimum and the maximum.
        stage: Calibration of the stage, or None.
        rois: Whether ROIs are written.
    """

    folder: Path
    finder: Finder
    score: Callable[[np.ndarray], np.ndarray]
    select: Select
    names: tuple[str, ...]
    quantity: str
    cell: int
    limits: tuple[float, float] | None
    stage: Stage | None
    rois: bool

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Fact:
        """Score an image, write its files, and return its regions as `regions`, one mapping of columns for each.

        Without regions, `remark` says why, unless the regions are those of the reference.

        Raises:
            ValueError: If the score is not finite, or the size or the position of a region is not known.
        """
        cell = cell_size(fact, pixels, self.cell)
        values = self.score(pixels)
        check_finite(values)
        ranked = ranked_regions(values, self.names, self.select, fact, cell)
        files = {kind: f"{fact['path']}.{kind}{fact['image_number']}.{suffix}" for kind, suffix in KINDS.items()}
        low, high = self.limits or (float(values.min()), float(values.max()))
        limits = (low, high if high > low else low + 1.0)
        write_map_tiff(self.folder / files["scores"], values, self.names, limits, cell, fact)
        by_class = {
            name: {rank: region for rank, (label, region) in ranked.items() if label == name} for name in self.names
        }
        about = fact | {"cell": self.cell}
        write_figure(
            self.folder / files["regions"], about, pixels, values, self.names, by_class, self.quantity, limits
        )
        if self.rois and ranked:
            write_rois(self.folder / files["rois"], {rank: region for rank, (_, region) in ranked.items()})
        names = {"map_file": files["scores"], "overlay_file": files["regions"]}
        found: Fact = {"regions": [self._columns(fact, rank, *each) | names for rank, each in ranked.items()]}
        if not ranked and isinstance(self.select, RegionChoice):
            found["remark"] = self.select.why_none(values, self.names)
        return found

    def _columns(self, fact: Fact, rank: int, label: str, region: Region) -> Fact:
        """Return the columns of a region in the table."""
        position = None
        if self.stage is not None:
            y, x = region.centre
            position = self.stage.position_um(fact["path"], y=y, x=x)
        return region_columns(rank, label, region, fact, position)


def region_table(results: list[tuple[Fact, np.ndarray]], loaded: Loaded) -> pa.Table:
    """Return the table of the regions of some images, in the order of the images and of their ranks."""
    rows = [{name: fact[name] for name, _ in OF_IMAGE} | each for fact, _ in results for each in fact["regions"]]
    return table_of(rows, REGION_SCHEMA, loaded, {})
