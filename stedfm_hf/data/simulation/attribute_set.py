"""Data set of simulated crops with known attributes, see `attributes`.

Every crop is from another source image. Its attributes, nuisances, seed and index are in the column `metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stedfm_hf.data.assembly.output import DatasetSummary, open_dataset, read_summary
from stedfm_hf.data.assembly.staging import StagedImage, Staging, part_name
from stedfm_hf.data.repository.layout import Crop, Scaling
from stedfm_hf.data.simulation.attributes import ATTRIBUTES, PHYSICS, RANGES, simulate_attributes
from stedfm_hf.runs import ItemStatus, Manifest, Progress, options
from stedfm_hf.runs.executors import run_items
from stedfm_hf.runs.settings import option, settings, takes_settings

COMMAND = "data simulate attributes"
NAME = "attributes-v1"
"""Name of the set, prefix of the ids of its crops."""
COUNTS = {"train": 12_000, "validation": 1_000, "test": 1_000}
"""Default number of crops of each structure in each split."""
PER_PART = 1000
"""Crops per part; an interrupted run loses at most the unfinished parts."""
Job = tuple[str, int, str]
"""Structure, index and split of a crop."""


@settings
class AttributeSetSettings:
    """Settings of `simulate_attribute_set`."""

    output: str | Path = option(affects_result=False, help="Folder to write.")
    counts: Mapping[str, int] = option(
        default_factory=lambda: dict(COUNTS), help="Number of crops of each structure in each split."
    )
    seed: int = option(0, minimum=0, help="Random seed of the crops.")
    workers: int = option(1, minimum=1, affects_result=False, help="Number of processes.")
    overwrite: bool = options.overwrite()


@takes_settings(AttributeSetSettings)
def simulate_attribute_set(settings: AttributeSetSettings) -> DatasetSummary:
    """Write a data set of simulated crops with known attributes; if interrupted, the same call resumes.

    The label of a crop is its structure. Indices are consecutive across splits, so the same counts and seed always
    give the same crops. A script that uses two or more workers needs `if __name__ == "__main__":`.

    Raises:
        UserError: The output folder contains other files.

    Example:
        >>> import tempfile
        >>> made = simulate_attribute_set(tempfile.mkdtemp(), counts={"train": 3, "validation": 1})
        >>> made.crops, made.labels
        ({'train': 6, 'validation': 2}, ('actin', 'puncta'))
    """
    output = Path(settings.output)
    resolved = {"ranges": RANGES, "pixel_size_nm": PHYSICS.pixel_size_nm, "photons": PHYSICS.photons}
    with open_dataset(output, COMMAND, settings, resolved=resolved) as opened:
        if opened.finished:
            return read_summary(output, opened.manifest)
        from stedfm_hf.data.assembly.assemble import assemble

        staging = Staging(output)
        jobs = list_jobs(settings.counts)
        parts = [
            (part_name(start // PER_PART), jobs[start : start + PER_PART]) for start in range(0, len(jobs), PER_PART)
        ]
        missing = [part for part in parts if part[0] not in staging.names()]
        with Progress(
            len(jobs), description="simulate", done=len(jobs) - sum(len(part) for _, part in missing)
        ) as bar:
            for count in run_items(partial(_write_part, output, settings.seed), missing, workers=settings.workers):
                bar.update(count)
        return assemble(
            staging,
            output,
            manifest=opened.manifest,
            card=_card(opened.manifest),
            seed=settings.seed,
            labels=list(ATTRIBUTES),
        )


def list_jobs(counts: Mapping[str, int]) -> list[Job]:
    """List the crops of a set, alternating between structures.

    Args:
        counts: Number of crops of each structure in each split.

    Example:
        >>> list_jobs({"train": 1, "test": 1})
        [('actin', 0, 'train'), ('puncta', 0, 'train'), ('actin', 1, 'test'), ('puncta', 1, 'test')]
    """
    splits = [split for split, count in counts.items() for _ in range(count)]
    return [(structure, index, split) for index, split in enumerate(splits) for structure in ATTRIBUTES]


def _write_part(output: Path, seed: int, name: str, jobs: Sequence[Job]) -> int:
    """Simulate crops, write them as one part of a data set, and return their number."""
    from stedfm_hf.modeling.image_processing_stedfm import fit_intensity_range  # imports torch

    crops, images, size = [], [], PHYSICS.pixel_size_nm
    for structure, index, split in jobs:
        simulated = simulate_attributes(structure, seed=seed, index=index)
        low, high = fit_intensity_range(simulated.image[None])[0].tolist()
        source = f"{NAME}/{structure}_{index:06d}"
        crops.append(
            Crop(
                pixels=simulated.image,
                scaling=Scaling(low, high, applied=False, quantiles=(0.001, 0.999)),
                source=source,
                label=structure,
                pixel_size_nm=(size, size),
                series="STED",
                metadata={
                    "simulated": True,
                    "set": NAME,
                    "seed": seed,
                    "index": index,
                    **simulated.parameters,
                    **simulated.attributes,
                },
            )
        )
        images.append(StagedImage(source, source, "", 1, structure, split))
    Staging(output).write_crops(name, crops, images, {image.item: ItemStatus("done") for image in images})
    return len(jobs)


def _card(manifest: Manifest) -> Any:
    """Return the content of the dataset card."""
    from stedfm_hf.data.publishing.card import CardFacts

    return CardFacts(
        title=f"Simulated STED crops with known attributes ({NAME})",
        command="stedfm_hf.data.simulation.attribute_set.simulate_attribute_set",
        description=(
            "All crops are simulated; none was recorded on a microscope. They show actin, whose rings and fibres are "
            "mixed continuously, or puncta of varying density. The column `metadata` holds the true attributes."
        ),
        settings=manifest.settings,
        simulated=True,
        source_note="Computed by the simulator of stedfm-hf; seed and index reproduce every crop.",
        limitations=(
            "Sizes and densities are typical values, not fitted to real images. The set tests whether a method finds "
            "known attributes; it does not predict results on real images.",
        ),
    )
