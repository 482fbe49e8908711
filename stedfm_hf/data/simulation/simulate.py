"""The command `stedfm data simulate`: write simulated fields as TIFF files or as a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedfm_hf.data.assembly.output import RESULTS, disk_errors, open_dataset
from stedfm_hf.data.assembly.staging import FOLDER, Staging, part_name
from stedfm_hf.data.repository.layout import INDEX_FILE
from stedfm_hf.data.settings import SimulateSettings
from stedfm_hf.data.simulation.benchmark_v1 import Preset, find_preset
from stedfm_hf.data.simulation.physics import SimulationSettings, class_id, sort_structures
from stedfm_hf.data.simulation.structures import STRUCTURES
from stedfm_hf.runs import Manifest, Progress, UserError, counted, write_json
from stedfm_hf.runs.dask_cluster import open_cluster
from stedfm_hf.runs.executors import Workers, cores, run_items
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.workers import open_workers

if TYPE_CHECKING:
    from stedfm_hf.data.publishing.card import CardFacts
    from stedfm_hf.data.simulation.jobs import Job, Recipe

COMMAND = "data simulate"
KINDS = ("images", "masks", "confocal")
"""Names of the folders of TIFF files."""
PER_STRUCTURE = 100
PER_PART = 64
"""Fields per part; an interrupted run loses at most the unfinished parts."""
FIELDS_PER_PROCESS = {"builtin": 1000, "pysted": 20}
"""Number of fields per process, by engine; for fewer fields, starting a process takes longer than it saves."""


@dataclass(frozen=True)
class SimulationResult(OutputResult):
    """Result of a simulation.

    Attributes:
        images: Number of simulated images.
    """

    images: int

    def summary(self) -> str:
        """Return one line with the number of images."""
        return f"{self.output}: {counted(self.images, 'simulated image')}"

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON data, with the number of images."""
        return super().to_json() | {"images": self.images}


@takes_settings(SimulateSettings)
def simulate(settings: SimulateSettings) -> SimulationResult:
    """Write simulated STED images with their ground truth; if interrupted, the same call resumes.

    TIFF files are written to `images/STRUCTURE/STRUCTURE_NNNNN.tif` (16-bit counts with ImageJ pixel size), and to the
    same path in `masks` and `confocal`. Data sets have the layout of `layout`. Pixels
    are raw counts; the intensity range of an image is its 0.1 and 99.9 percentiles, and confocal partners are rows of
    the series `confocal`. `index.json` names the numbers in the masks.

    A preset with `per_structure` and a `first_index` of 1000 or more gives additional fields for training. A script
    that uses two or more workers needs `if __name__ == "__main__":`.

    Raises:
        UserError: An argument is invalid, the preset fixes it, or the output folder contains other files.

    Example:
        >>> import tempfile
        >>> made = simulate(tempfile.mkdtemp(), structures=["rings", "puncta"], per_structure=2, workers=1)
        >>> sorted(made.manifest.items)[:2], made.images
        (['puncta/puncta_00000.tif', 'puncta/puncta_00001.tif'], 4)
    """
    preset = None if settings.preset is None else find_preset(settings.preset)
    if preset is not None:
        settings = _apply_preset(settings, preset)
    names = sort_structures(tuple(STRUCTURES) if settings.structures is None else settings.structures)
    physics = SimulationSettings(**settings.physics) if preset is None else preset.settings
    counts: dict[str | None, int] = {None: settings.per_structure or PER_STRUCTURE}
    if settings.splits:
        counts = {split: count for split, count in dict(settings.splits).items() if count}
    seed = settings.seed or 0
    if settings.mixed and len(names) < 2:
        raise UserError("a mixed scene needs two structures or more; add another one to structures")
    if settings.engine == "pysted":
        from stedfm_hf.data.simulation.pysted_engine import check_pysted

        check_pysted()
    mask_names = {0: "background", **{class_id(name): name for name in names}} if settings.masks else {}
    resolved = {
        "structures": names,
        "splits": {split or "all": count for split, count in counts.items()},
        "seed": seed,
        "mixed": settings.mixed,
        **asdict(physics),
    }
    with (
        open_cluster(settings.cluster) as cluster,
        disk_errors(Path(settings.output)),
        _open(settings, resolved) as output,
    ):
        # This module imports scipy, tifffile and torch.
        from stedfm_hf.data.simulation.jobs import Recipe, list_jobs, tiff_paths, write_part, write_tiffs

        name = settings.preset or f"{'pysted-' if settings.engine == 'pysted' else ''}seed-{seed}"
        recipe = Recipe(name, seed, physics, settings.masks, settings.confocal, settings.engine)
        jobs = list(list_jobs(names, counts, settings.first_index, seed, mixed=settings.mixed))
        if settings.format == "tiff":
            files = (path for job in jobs for path in tiff_paths(output.path, recipe, job).values())
            if not output.finished or not all(path.exists() for path in files):
                _run(partial(write_tiffs, output.path, recipe), jobs, (), settings, cluster)
                write_json(output.path / INDEX_FILE, {"mask_names": {str(n): each for n, each in mask_names.items()}})
                for job in jobs:
                    output.manifest.done(job.item)
        elif not output.finished:
            staging = Staging(output.path)
            _run(partial(write_part, output.path, recipe), jobs, staging.names(), settings, cluster)
            card = _card(recipe, names, output.manifest, mask_names)
            _assemble(staging, output, card, names, settings, cluster)
    return SimulationResult(output.path, output.manifest, len(jobs))


def _apply_preset(settings: SimulateSettings, preset: Preset) -> SimulateSettings:
    """Return the settings with the values of a preset; refuse settings that the preset fixes."""
    given = {name: getattr(settings, name) for name in ("structures", "splits", "seed")} | settings.physics
    given |= {"mixed": settings.mixed or None, "engine": None if settings.engine == "builtin" else settings.engine}
    if fixed := [name for name, value in given.items() if value is not None]:
        raise UserError(f"preset {preset.name} fixes {', '.join(fixed)}; remove that option, or the preset")
    if settings.per_structure is None and settings.first_index:
        raise UserError(f"preset {preset.name} fixes its field indices; set per_structure together with first_index")
    if settings.per_structure is not None and settings.first_index < preset.free_from:
        raise UserError(
            f"fields below {preset.free_from} of preset {preset.name} are reserved for its splits; "
            f"with per_structure, set first_index to {preset.free_from} or more"
        )
    splits = dict(preset.splits) if settings.per_structure is None else {"train": settings.per_structure}
    return replace(
        settings,
        structures=list(preset.structures),
        splits=splits,
        per_structure=None,
        seed=preset.seed,
        mixed=preset.mixed,
    )


def _open(settings: SimulateSettings, resolved: Mapping[str, Any]) -> AbstractContextManager[Output]:
    """Open the output folder for TIFF files or a data set."""
    path = Path(settings.output)
    if settings.format == "dataset":
        return open_dataset(path, COMMAND, settings, resolved=resolved, temporary=KINDS)
    results = [kind for kind, write in zip(KINDS, (True, settings.masks, settings.confocal), strict=True) if write]
    return open_output(
        path,
        COMMAND,
        settings,
        results=results,
        temporary=[*KINDS, *RESULTS, FOLDER],
        resolved=resolved,
        overwrite=settings.overwrite,
    )


def _run(
    write: Callable[[str, Sequence[Job]], int],
    jobs: Sequence[Job],
    done: Sequence[str],
    settings: SimulateSettings,
    cluster: Workers | None,
) -> None:
    """Simulate the fields of all parts that are not done yet, in one or more processes.

    Args:
        write: Function that simulates and writes the fields of a part, given its name; returns their number.
        jobs: All fields of the set.
        done: Names of the parts that an earlier run completed.
        settings: Settings of the command, for the number of processes.
        cluster: Open cluster that simulates them instead, or None.
    """
    parts = [jobs[start : start + PER_PART] for start in range(0, len(jobs), PER_PART)]
    named_parts = [(part_name(number), part) for number, part in enumerate(parts)]
    to_write = [(name, part) for name, part in named_parts if name not in done]
    fields = sum(len(part) for _, part in to_write)
    processes = settings.workers or max(1, min(cores(), fields // FIELDS_PER_PROCESS[settings.engine]))
    with (
        open_workers(cluster, processes=min(processes, max(len(to_write), 1))) as workers,
        Progress(len(jobs), description="simulate", done=len(jobs) - fields) as progress,
    ):
        for count in run_items(write, to_write, workers=workers):
            progress.update(count)


def _assemble(
    staging: Staging,
    output: Output,
    card: CardFacts,
    names: Sequence[str],
    settings: SimulateSettings,
    cluster: Workers | None,
) -> None:
    """Assemble the parts into a data set."""
    from stedfm_hf.data.assembly.assemble import assemble

    labelled = not output.manifest.settings["mixed"]
    assemble(
        staging,
        output.path,
        manifest=output.manifest,
        card=card,
        seed=output.manifest.settings["seed"],
        labels=names if labelled else None,
        processes=settings.workers or cores(),
        cluster=cluster,
    )


def _card(recipe: Recipe, names: Sequence[str], manifest: Manifest, mask_names: Mapping[int, str]) -> CardFacts:
    """Return the content of the dataset card."""
    from stedfm_hf.data.publishing.card import CardFacts

    engine = "pySTED" if recipe.engine == "pysted" else "a Gaussian point spread function and Poisson noise"
    matched = recipe.engine == "builtin" and bool(recipe.settings.match_with)
    limitations = [
        "Sizes and densities of the structures are typical values, not fitted to real images. Accuracies on this set "
        "compare methods; they do not predict accuracies on real images."
    ]
    if matched:
        limitations.append(
            "Every noise-free field is matched to the sorted intensities of a field of a random structure, so that "
            "brightness does not reveal the class. The brightness of a pixel is therefore not proportional to its "
            "number of emitters."
        )
    return CardFacts(
        title=recipe.name if "benchmark" in recipe.name else f"Simulated STED images ({recipe.name})",
        command=f"stedfm {COMMAND}",
        description=(
            "All images are simulated; none was recorded on a microscope. "
            f"They show emitters of {len(names)} structures ({', '.join(names)}), imaged with {engine}."
        ),
        settings=manifest.settings,
        simulated=True,
        source_note="Computed by the simulator of stedfm-hf; seed and index reproduce every field.",
        mask_names=mask_names,
        limitations=tuple(limitations),
    )
