"""Simulated fields: which there are, and how they are written, as TIFF files or as crops of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from stedfm_hf.data.assembly.staging import StagedImage, Staging
from stedfm_hf.data.repository.layout import Crop, Scaling
from stedfm_hf.data.simulation.fields import SimulatedField, generator, simulate_field
from stedfm_hf.data.simulation.physics import SimulationSettings, in_order
from stedfm_hf.runs import ItemStatus, atomic_path

MIXED = "mixed"


@dataclass(frozen=True)
class Recipe:
    """What all fields of a set have in common.

    Attributes:
        name: Name of the set; begins the ids of its fields.
        seed: Random seed.
        settings: Physical parameters.
        masks: Whether masks are written.
        confocal: Whether confocal partners are written.
        engine: "builtin" or "pysted".
    """

    name: str
    seed: int
    settings: SimulationSettings
    masks: bool
    confocal: bool
    engine: str

    def field(self, job: Job) -> SimulatedField:
        """Simulate one field."""
        if self.engine == "pysted":
            from stedfm_hf.data.simulation.pysted_engine import simulate_field_with_pysted as simulator
        else:
            simulator = simulate_field
        return simulator(
            job.structures, seed=self.seed, index=job.index, settings=self.settings, confocal=self.confocal
        )


@dataclass(frozen=True)
class Job:
    """One field to simulate.

    Attributes:
        structures: Structures that it shows; several make a mixed scene.
        index: Number of the field.
        split: Split that it belongs to, or None.
    """

    structures: tuple[str, ...]
    index: int
    split: str | None

    @property
    def label(self) -> str | None:
        """Its class, where it shows one structure only."""
        return self.structures[0] if len(self.structures) == 1 else None

    @property
    def item(self) -> str:
        """Path below the folder of the images, and name in the manifest.

        >>> Job(("rings",), 7, "test").item, Job(("rings", "puncta"), 7, None).item
        ('test/rings/rings_00007.tif', 'mixed_00007.tif')
        """
        name = f"{self.label or MIXED}_{self.index:05d}.tif"
        return "/".join(part for part in (self.split, self.label, name) if part)


def list_jobs(
    names: Sequence[str], counts: Mapping[str | None, int], first: int, seed: int, *, mixed: bool
) -> Iterator[Job]:
    """List all fields; the structures take turns, so that a part has some of each."""
    for split, count in counts.items():
        for index in range(first, first + count):
            if mixed:
                yield Job(_cast(names, seed, index), index, split)
            else:
                yield from (Job((name,), index, split) for name in names)
        first += count


def _cast(names: Sequence[str], seed: int, index: int) -> tuple[str, ...]:
    """Which two to four of the structures a mixed scene shows."""
    rng = generator(MIXED, seed, index)
    count = int(rng.integers(2, min(4, len(names)) + 1))
    return tuple(in_order([names[place] for place in rng.choice(len(names), count, replace=False)]))


def tiff_paths(folder: Path, recipe: Recipe, job: Job) -> dict[str, Path]:
    """Return the files of a field."""
    wanted = {"confocal": recipe.confocal, "masks": recipe.masks, "images": True}
    return {kind: folder / kind / job.item for kind, asked in wanted.items() if asked}


def write_tiffs(folder: Path, recipe: Recipe, name: str, jobs: Sequence[Job]) -> int:
    """Write the files that are not there yet; a file that is there is complete."""
    for job in jobs:
        paths = tiff_paths(folder, recipe, job)
        if all(path.exists() for path in paths.values()):
            continue
        field = recipe.field(job)
        planes = {"images": field.image, "masks": field.mask, "confocal": field.confocal}
        for kind, path in paths.items():
            plane = planes[kind]
            assert plane is not None
            _write_tiff(path, plane, recipe.settings.pixel_size_nm, _facts(recipe, job, field))
    return len(jobs)


def _write_tiff(path: Path, plane: np.ndarray, pixel_size_nm: float, facts: Mapping[str, Any]) -> None:
    pixels_per_um = 1000.0 / pixel_size_nm
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            plane,
            imagej=True,
            resolution=(pixels_per_um, pixels_per_um),
            metadata={"axes": "YX", "unit": "um", "Info": json.dumps(facts)},
        )


def _facts(recipe: Recipe, job: Job, field: SimulatedField) -> dict[str, Any]:
    return {
        "simulated": True,
        "set": recipe.name,
        "seed": recipe.seed,
        "index": job.index,
        "depletion": recipe.settings.depletion,
        **field.facts,
    }


def write_part(folder: Path, recipe: Recipe, name: str, jobs: Sequence[Job]) -> int:
    """Write fields as a part of a data set."""
    from stedfm_hf.modeling.image_processing_stedfm import fit_intensity_range

    size = recipe.settings.pixel_size_nm
    crops, images = [], []
    for job in jobs:
        field = recipe.field(job)
        source = f"{recipe.name}/{job.item.removesuffix('.tif').split('/')[-1]}"
        planes = {"STED": field.image, "confocal": field.confocal}
        shown = {series: plane for series, plane in planes.items() if plane is not None}
        for series, plane in shown.items():
            low, high = fit_intensity_range(plane[None])[0].tolist()
            crops.append(
                Crop(
                    pixels=plane,
                    scaling=Scaling(low, high, applied=False, quantiles=(0.001, 0.999)),
                    source=source,
                    label=job.label,
                    mask=field.mask if recipe.masks else None,
                    pixel_size_nm=(size, size),
                    series=series,
                    foreground_fraction=float(np.count_nonzero(field.mask) / field.mask.size),
                    metadata=_facts(recipe, job, field),
                )
            )
        images.append(StagedImage(job.item, source, "", len(shown), job.label, job.split))
    Staging(folder).write_crops(name, crops, images, {job.item: ItemStatus("done") for job in jobs})
    return len(jobs)
