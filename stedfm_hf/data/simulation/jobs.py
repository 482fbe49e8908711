"""List of the fields to simulate, and their output as TIFF files or crops of a data set."""

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
from stedfm_hf.data.simulation.fields import SimulatedField, random_generator, simulate_field
from stedfm_hf.data.simulation.physics import SimulationSettings, sort_structures
from stedfm_hf.runs import ItemStatus, atomic_path

MIXED = "mixed"


@dataclass(frozen=True)
class Recipe:
    """Settings that all fields of a set share.

    Attributes:
        name: Name of the set, prefix of the ids of its fields.
        seed: Random seed of the set.
        settings: Physical parameters.
        masks: Whether to write masks.
        confocal: Whether to write confocal partners.
        engine: Simulator, "builtin" or "pysted".
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
        structures: Structures in the field; a mixed scene has two or more.
        index: Number of the field.
        split: Split of the field, or None.
    """

    structures: tuple[str, ...]
    index: int
    split: str | None

    @property
    def label(self) -> str | None:
        """Structure of the field, or None for a mixed scene."""
        return self.structures[0] if len(self.structures) == 1 else None

    @property
    def item(self) -> str:
        """Path relative to the folder of images, also the name in the manifest.

        Example:
            >>> Job(("rings",), 7, "test").item, Job(("rings", "puncta"), 7, None).item
            ('test/rings/rings_00007.tif', 'mixed_00007.tif')
        """
        name = f"{self.label or MIXED}_{self.index:05d}.tif"
        return "/".join(part for part in (self.split, self.label, name) if part)


def list_jobs(
    names: Sequence[str], counts: Mapping[str | None, int], first: int, seed: int, *, mixed: bool
) -> Iterator[Job]:
    """List all fields of a set, alternating between structures so that each part contains all of them.

    Args:
        names: Names of the structures.
        counts: Number of fields in each split: of each structure, or in total if `mixed`.
        first: Index of the first field.
        seed: Random seed of the set.
        mixed: Whether a field shows two to four structures.

    Yields:
        One job per field.
    """
    for split, count in counts.items():
        for index in range(first, first + count):
            if mixed:
                yield Job(_choose_structures(names, seed, index), index, split)
            else:
                yield from (Job((name,), index, split) for name in names)
        first += count


def _choose_structures(names: Sequence[str], seed: int, index: int) -> tuple[str, ...]:
    """Choose the two to four structures of a mixed scene."""
    rng = random_generator(MIXED, seed, index)
    count = int(rng.integers(2, min(4, len(names)) + 1))
    return tuple(sort_structures([names[number] for number in rng.choice(len(names), count, replace=False)]))


def tiff_paths(folder: Path, recipe: Recipe, job: Job) -> dict[str, Path]:
    """Return the path of each file of a field, by folder name: images, masks, confocal."""
    requested = {"confocal": recipe.confocal, "masks": recipe.masks, "images": True}
    return {kind: folder / kind / job.item for kind, write in requested.items() if write}


def write_tiffs(folder: Path, recipe: Recipe, name: str, jobs: Sequence[Job]) -> int:
    """Write the missing TIFF files of a part; existing files are complete, because they are written atomically.

    Args:
        folder: Output folder.
        recipe: Settings of the set.
        name: Name of the part, unused here.
        jobs: Fields of the part.

    Returns:
        Number of fields.
    """
    for job in jobs:
        paths = tiff_paths(folder, recipe, job)
        if all(path.exists() for path in paths.values()):
            continue
        field = recipe.field(job)
        planes = {"images": field.image, "masks": field.mask, "confocal": field.confocal}
        for kind, path in paths.items():
            plane = planes[kind]
            assert plane is not None  # `paths` has `confocal` only if it is requested
            _write_tiff(path, plane, recipe.settings.pixel_size_nm, _metadata(recipe, job, field))
    return len(jobs)


def _write_tiff(path: Path, plane: np.ndarray, pixel_size_nm: float, metadata: Mapping[str, Any]) -> None:
    """Write one image as an ImageJ TIFF file, with pixel size and metadata."""
    pixels_per_um = 1000.0 / pixel_size_nm
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            plane,
            imagej=True,
            resolution=(pixels_per_um, pixels_per_um),
            metadata={"axes": "YX", "unit": "um", "Info": json.dumps(metadata)},
        )


def _metadata(recipe: Recipe, job: Job, field: SimulatedField) -> dict[str, Any]:
    """Return the metadata of a field, as stored in TIFF files and rows."""
    return {
        "simulated": True,
        "set": recipe.name,
        "seed": recipe.seed,
        "index": job.index,
        "depletion": recipe.settings.depletion,
        **field.parameters,
    }


def write_part(folder: Path, recipe: Recipe, name: str, jobs: Sequence[Job]) -> int:
    """Simulate fields and write them as one part of a data set.

    Args:
        folder: Output folder.
        recipe: Settings of the set.
        name: Name of the part.
        jobs: Fields of the part.

    Returns:
        Number of fields.
    """
    from stedfm_hf.modeling.image_processing_stedfm import fit_intensity_range

    size = recipe.settings.pixel_size_nm
    crops, images = [], []
    for job in jobs:
        field = recipe.field(job)
        source = f"{recipe.name}/{job.item.removesuffix('.tif').split('/')[-1]}"
        planes = {"STED": field.image, "confocal": field.confocal}
        written = {series: plane for series, plane in planes.items() if plane is not None}
        for series, plane in written.items():
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
                    metadata=_metadata(recipe, job, field),
                )
            )
        images.append(StagedImage(job.item, source, "", len(written), job.label, job.split))
    Staging(folder).write_crops(name, crops, images, {job.item: ItemStatus("done") for job in jobs})
    return len(jobs)
