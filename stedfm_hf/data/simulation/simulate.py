"""`stedfm data simulate`: many simulated fields as TIFF files or as a data set repository (ours)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from stedfm_hf.data.simulation.benchmark_v1 import Preset, find_preset
from stedfm_hf.data.simulation.fields import (
    SimulatedField,
    SimulationSettings,
    class_id,
    generator,
    in_order,
    simulate_field,
)
from stedfm_hf.data.simulation.structures import STRUCTURES
from stedfm_hf.runs import ItemStatus, Manifest, Progress, UserError, atomic_path, manifest_path
from stedfm_hf.runs.executors import cores, run_items

VERB = "data simulate"
FORMATS = ("tiff", "dataset")
ENGINES = ("ours", "pysted")
PER_STRUCTURE = 100
PER_PART = 64
"""Fields between two steps of writing: what a kill can cost."""
WORTH_A_PROCESS = {"ours": 1000, "pysted": 20}
"""Fields below which one more process is not worth the seconds it takes to start."""
INDEX_FILE = "index.json"
MADE = ("images", "masks", "confocal", "data", "preview", "figures", INDEX_FILE, "README.md", ".staging")
"""What a run may have written into its folder besides the manifest, and `overwrite` therefore removes."""
MIXED = "mixed"


@dataclass(frozen=True)
class Recipe:
    """What every field of a set has in common.

    Args:
        name: of the set; begins the ids of its fields.
        seed: of everything random.
        settings: the physics.
        masks: whether to write masks.
        confocal: whether to write confocal partners.
        engine: "ours" or "pysted".
    """

    name: str
    seed: int
    settings: SimulationSettings
    masks: bool
    confocal: bool
    engine: str

    def field(self, job: Job) -> SimulatedField:
        """Simulates one field."""
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

    Args:
        structures: what it shows; several make a mixed scene.
        index: number of the field.
        split: the split it belongs to, or None.
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


@dataclass(frozen=True)
class SimulationResult:
    """What `simulate` made.

    Args:
        folder: the folder that was written.
        images: fields in it.
        manifest: settings, versions and every field.
    """

    folder: Path
    images: int
    manifest: Manifest


def simulate(
    output: str | os.PathLike[str],
    *,
    preset: str | None = None,
    structures: Sequence[str] | None = None,
    per_structure: int | None = None,
    splits: Mapping[str, int] | None = None,
    seed: int | None = None,
    first_index: int = 0,
    settings: SimulationSettings | None = None,
    format: str = "tiff",
    mixed: bool = False,
    masks: bool = True,
    confocal: bool = False,
    engine: str = "ours",
    workers: int | None = None,
    overwrite: bool = False,
) -> SimulationResult:
    """Writes simulated STED images with their truth; stopped, the same call goes on where it was.

    TIFF files: `images/STRUCTURE/STRUCTURE_NNNNN.tif`, 16-bit counts with the pixel size as ImageJ has it, and the
    same path below `masks` and `confocal`. A data set: the layout of :mod:`stedfm_hf.data.repository.layout`, raw
    counts with the 0.1 and 99.9 percentile of each image as its range.

    Args:
        output: folder to write.
        preset: "benchmark-v1" makes that data set with its splits; with `per_structure` and a `first_index` of 1000
            or more, other fields of the same kind, all to train on.
        structures: classes to simulate; None takes all.
        per_structure: fields of each structure (of mixed scenes: in all), 100 by default.
        splits: instead, fields of each structure by split; their indices follow each other.
        seed: names the set, 0 by default.
        first_index: number of the first field; disjoint ranges of numbers are disjoint sets.
        settings: physical parameters; None takes the defaults.
        format: "tiff" or "dataset".
        mixed: simulate scenes of two to four of the structures, for segmentation.
        masks: write the class of every pixel (0 background, else :func:`stedfm_hf.data.simulation.fields.class_id`).
        confocal: write the confocal partner of every image, in a data set as a row of its own (series "confocal").
        engine: "ours", or "pysted" where that package is installed.
        workers: processes; None takes one a core, fewer for a small set. A script that takes more than one needs
            `if __name__ == "__main__":`.
        overwrite: begin anew.

    Returns:
        The folder and the manifest.

    Raises:
        UserError: an argument is wrong, the preset leaves no choice about one, or the folder holds something else.

    Example:
        >>> made = simulate("simulated", structures=["rings", "puncta"], per_structure=2, workers=1)
        >>> sorted(made.manifest.items)[:2], made.images
        (['puncta/puncta_00000.tif', 'puncta/puncta_00001.tif'], 4)
    """
    chosen = dict(structures=structures, splits=splits, seed=seed, settings=settings, mixed=mixed or None)
    known = None if preset is None else find_preset(preset)
    if known is not None:
        _check_preset(known, chosen, per_structure, first_index, engine)
        structures, seed, settings, mixed = known.structures, known.seed, known.settings, known.mixed
        splits = known.splits if per_structure is None else {"train": per_structure}
    names = in_order(tuple(STRUCTURES) if structures is None else structures)
    settings, seed = settings or SimulationSettings(), seed or 0
    counts: dict[str | None, int] = {None: PER_STRUCTURE if per_structure is None else per_structure}
    if splits:
        counts = dict(splits.items())
    _check(counts, seed, first_index, format, engine, workers)
    if mixed and len(names) < 2:
        raise UserError("a mixed scene takes two structures or more; name another one")
    if engine == "pysted":
        from stedfm_hf.data.simulation.pysted_engine import check_pysted

        check_pysted()
    name = preset or f"{'pysted-' if engine == 'pysted' else ''}seed-{seed}"
    recipe = Recipe(name, seed, settings, masks, confocal, engine)
    jobs = list(_jobs(names, counts, first_index, seed, mixed=mixed))
    folder = Path(output)
    manifest = Manifest(
        VERB,
        settings={
            "preset": preset,
            "structures": names,
            "fields": {split or "all": count for split, count in counts.items()},
            "first_index": first_index,
            "format": format,
            "mixed": mixed,
            "masks": masks,
            "confocal": confocal,
            "engine": engine,
            "physics": asdict(settings),
        },
        options={"workers": workers},
        seed=seed,
    )
    try:
        if not _resume(folder, manifest, overwrite):
            _make(folder, recipe, jobs, names, manifest, format, workers)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror or error}); mend that, and the same command goes on"
        ) from error
    return SimulationResult(folder, len(jobs), manifest)


def _make(
    folder: Path,
    recipe: Recipe,
    jobs: Sequence[Job],
    names: Sequence[str],
    manifest: Manifest,
    format: str,
    workers: int | None,
) -> None:
    parts = [jobs[start : start + PER_PART] for start in range(0, len(jobs), PER_PART)]
    if format == "tiff":
        _run(partial(_write_tiffs, folder, recipe), parts, set(), workers, recipe.engine)
        for job in jobs:
            manifest.done(job.item)
        manifest.finish()
        manifest.save(manifest_path(folder, folder=True))
    else:
        _write_dataset(folder, recipe, parts, names, manifest, workers)


def _check_preset(
    preset: Preset, chosen: Mapping[str, Any], per_structure: int | None, first_index: int, engine: str
) -> None:
    fixed = [name for name, value in chosen.items() if value is not None] + ["engine"] * (engine != "ours")
    if fixed:
        raise UserError(f"preset {preset.name} fixes {', '.join(fixed)}; leave that out, or leave out the preset")
    if per_structure is None and first_index:
        raise UserError(f"preset {preset.name} has its own fields; first_index goes with per_structure")
    if per_structure is not None and first_index < preset.free_from:
        raise UserError(
            f"fields below {preset.free_from} of preset {preset.name} are for scoring; give first_index "
            f"{preset.free_from} or more with per_structure"
        )


def _check(
    counts: Mapping[str | None, int], seed: int, first_index: int, format: str, engine: str, workers: int | None
) -> None:
    for name, value, known in (("format", format, FORMATS), ("engine", engine, ENGINES)):
        if value not in known:
            raise UserError(f"{name} {value!r} is unknown; choose {' or '.join(known)}")
    if min(counts.values()) < 1 or (workers is not None and workers < 1):
        raise UserError("numbers of fields and of workers must be 1 or more")
    if min(seed, first_index) < 0:
        raise UserError("seed and first_index must be 0 or more")


def _jobs(
    names: Sequence[str], counts: Mapping[str | None, int], first: int, seed: int, *, mixed: bool
) -> Iterator[Job]:
    """All fields; the structures take turns, so that a part has some of each."""
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


def _resume(folder: Path, manifest: Manifest, overwrite: bool) -> bool:
    """Makes the folder ready; whether it holds a finished data set (of files, those that are missing are made)."""
    record = manifest_path(folder, folder=True)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder to write")
    begun = record.is_file()
    if folder.is_dir() and any(not each.name.startswith(".") for each in folder.iterdir()):
        if not begun or Manifest.load(record).verb != VERB:
            raise UserError(f"{folder}: holds something else than simulated images; name a new or empty folder")
    if begun and overwrite:
        # Should this be cut off, no later run may take what is left for its own.
        Manifest(VERB, settings={"removed": True}).save(record)
        for name in MADE:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if begun and not overwrite:
        before = Manifest.load(record)
        manifest.resume_from(before)
        if before.ended is not None and (folder / INDEX_FILE).exists():
            manifest.ended, manifest.seconds = before.ended, before.seconds
            return True
    manifest.save(record)
    return False


def _run(
    write: Callable[[int, Sequence[Job]], int],
    parts: Sequence[Sequence[Job]],
    done: set[int],
    workers: int | None,
    engine: str,
) -> None:
    """Does the parts that are not done."""
    left = [(number, part) for number, part in enumerate(parts) if number not in done]
    todo, images = (sum(len(part) for _, part in some) for some in (left, enumerate(parts)))
    most = workers or max(1, min(cores(), todo // WORTH_A_PROCESS[engine]))
    with Progress(images, description="simulate", done=images - todo) as progress:
        for count in run_items(write, left, workers=min(most, max(len(left), 1))):
            progress.update(count)


def _write_tiffs(folder: Path, recipe: Recipe, number: int, jobs: Sequence[Job]) -> int:
    """Writes the files that are not there yet; a file that is there is whole."""
    for job in jobs:
        wanted = {"confocal": recipe.confocal, "masks": recipe.masks, "images": True}
        paths = {kind: folder / kind / job.item for kind, asked in wanted.items() if asked}
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


def _write_dataset(
    folder: Path,
    recipe: Recipe,
    parts: Sequence[Sequence[Job]],
    names: Sequence[str],
    manifest: Manifest,
    workers: int | None,
) -> None:
    from stedfm_hf.data.assembly.assemble import assemble
    from stedfm_hf.data.assembly.staging import Staging

    staging = Staging(folder)
    for leftover in staging.folder.glob(".*.tmp.*"):
        leftover.unlink()
    _run(partial(_write_part, folder, recipe), parts, set(staging.numbers()), workers, recipe.engine)
    labelled = any(job.label for part in parts for job in part)
    assemble(
        staging,
        folder,
        manifest=manifest,
        card=_card(folder, recipe, names, manifest),
        seed=recipe.seed,
        labels=names if labelled else None,
    )


def _write_part(folder: Path, recipe: Recipe, number: int, jobs: Sequence[Job]) -> int:
    from stedfm_hf.data.assembly.staging import Part, StagedImage, Staging
    from stedfm_hf.data.repository.layout import Crop, Scaling
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
                    foreground=float(np.count_nonzero(field.mask) / field.mask.size),
                    metadata=_facts(recipe, job, field),
                )
            )
        images.append(StagedImage(job.item, source, "", len(shown), job.label, job.split))
    Staging(folder).write(number, crops, Part(tuple(images), {job.item: ItemStatus("done") for job in jobs}))
    return len(jobs)


def _card(folder: Path, recipe: Recipe, names: Sequence[str], manifest: Manifest) -> Any:
    from stedfm_hf.data.publishing.card import CardFacts

    engine = "pySTED" if recipe.engine == "pysted" else "a Gaussian point spread function and Poisson noise"
    matched = recipe.engine == "ours" and bool(recipe.settings.match_with)
    limits = [
        "Sizes and densities of the structures are typical ones, not fitted to real images: an accuracy on this set "
        "compares methods, and says little about real images."
    ]
    if matched:
        limits.append(
            "Every noise-free field has the sorted intensities of a field of a random structure, so that brightness "
            "does not give the class away; the brightness of a place is therefore no measure of emitters."
        )
    return CardFacts(
        title=recipe.name if "benchmark" in recipe.name else f"Simulated STED images ({recipe.name})",
        made_by=f"stedfm {VERB}",
        description=(
            "All images are simulated, none was recorded: "
            f"clouds of emitters of {len(names)} structures ({', '.join(names)}), imaged with {engine}."
        ),
        settings={**manifest.settings, "seed": recipe.seed},
        simulated=True,
        source_note="Computed by the simulator of stedfm-hf; every field can be made again from its seed and index.",
        mask_names={0: "background", **{class_id(name): name for name in names}} if recipe.masks else {},
        limits=tuple(limits),
    )
