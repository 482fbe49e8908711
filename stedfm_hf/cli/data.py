"""`stedfm data VERB ...`: making, looking at and publishing data sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stedfm_hf.cli.shared import AsJson, complain, index_or_name, print_json
from stedfm_hf.data.settings import ListSettings, PushSettings, StatsSettings
from stedfm_hf.data.splits import SHARES, SplitShares
from stedfm_hf.runs.command_line import add_command

if TYPE_CHECKING:
    from stedfm_hf.data.assembly.assemble import DatasetSummary

data = typer.Typer(
    name="data",
    help="Build, import, simulate, describe and publish data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _report(summary: DatasetSummary, inputs: str, as_json: bool) -> None:
    """What was made of files or members of an archive, what was left out and why, and what the splits lack.

    Raises:
        Exit: with status 1 if some of them failed.
    """
    manifest = summary.manifest
    counts = manifest.counts()
    if as_json:
        known = {"output": str(summary.folder), "crops": summary.crops, "sources": summary.sources}
        print_json(known | {"labels": list(summary.labels), inputs: counts, "failed": manifest.failures()})
    else:
        splits = ", ".join(f"{rows} {split}" for split, rows in summary.crops.items())
        # Of an archive whole ranges are done: only what is not can be counted.
        of = f" of {counts['done']} files" if inputs == "files" else ""
        others = of + "".join(f", {counts[state]} {state}" for state in ("skipped", "failed") if counts[state])
        print(f"{summary.folder}: {sum(summary.crops.values())} crops ({splits}){others}")
        reasons = Counter(status.reason or "" for status in manifest.items.values() if status.state == "skipped")
        for reason, count in reasons.most_common(5):
            print(f"  left out: {count} x {reason}")
        if len(reasons) > 5:
            print(f"  and {len(reasons) - 5} more reasons: see {summary.folder / 'manifest.json'}")
    for note in summary.notes:
        complain(f"note: {note}")
    for item, error in list(manifest.failures().items())[:10]:
        complain(f"failed: {item}: {error}")
    if manifest.exit_status:
        raise typer.Exit(manifest.exit_status)


@data.command("import-archive", epilog="Example: stedfm data import-archive STED-FM-dataset-crops.zip --output crops")
def import_archive(
    archive: Annotated[str, typer.Argument(help="A tar or zip of crops, or its http(s) address.")],
    output: Annotated[Path, typer.Option(help="The folder of the data set to write.")],
    label: Annotated[str, typer.Option(help="Entry of the metadata that is the class; 'none' for no classes.")] = (
        "protein-id"
    ),
    validation: Annotated[float, typer.Option(help="Share of the source images for validation.")] = SHARES.validation,
    test: Annotated[float, typer.Option(help="Share of the source images for the test.")] = SHARES.test,
    seed: Annotated[int, typer.Option(help="Random seed of the order of the crops on disk.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Look at so many members only, from the first.")] = None,
    include_user: Annotated[
        bool, typer.Option("--include-user", help="Keep names of people, paths and file names in the metadata.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin a data set that is there anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a data set of the official STED-FM crop archives, without running the pickles in them.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from stedfm_hf.data.archives.import_archive import import_archive as import_

    summary = import_(
        archive,
        output,
        shares=SplitShares(validation, test),
        seed=seed,
        label_key=None if label == "none" else label,
        include_user=include_user,
        limit=limit,
        overwrite=overwrite,
    )
    _report(summary, "members", as_json)


@data.command("import-set", epilog="Example: stedfm data import-set optim optim-data.zip --output optim")
def import_set(
    name: Annotated[str, typer.Argument(help="The set: see stedfm data list.")],
    source: Annotated[str, typer.Argument(help="The authors' folder, zip, tar or HDF5 file, or its http(s) address.")],
    output: Annotated[Path, typer.Option(help="The folder of the data set to write.")],
    legacy: Annotated[
        bool, typer.Option("--legacy", help="Repeat the reference with its flaws, for published numbers.")
    ] = False,
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Keep all training images of sets that are published balanced.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin a data set that is there anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a data set of a published set, with its classes or masks, splits and scaling.

    Flaws of the reference are corrected; docs/official_sets.md lists them. Stopped, the same command goes on where it
    was.
    """
    from stedfm_hf.data.official.import_set import import_set as import_

    summary = import_(name, source, output, legacy=legacy, keep_all=keep_all, overwrite=overwrite)
    _report(summary, "images", as_json)


@data.command(epilog="Example: stedfm data simulate --preset benchmark-v1 --format dataset --output benchmark-v1")
def simulate(
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    preset: Annotated[
        str | None, typer.Option(help="benchmark-v1 or benchmark-v1-scenes: the frozen sets behind our tables.")
    ] = None,
    structure: Annotated[
        list[str] | None, typer.Option(help="Take this structure; may be given several times. By default all.")
    ] = None,
    per_structure: Annotated[
        int | None, typer.Option(min=1, help="Images of each structure (with --mixed: in all); by default 100.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Names the set; by default 0.")] = None,
    first_index: Annotated[int, typer.Option(min=0, help="Number of the first image.")] = 0,
    image_format: Annotated[str, typer.Option("--format", help="tiff (files) or dataset (a repository).")] = "tiff",
    mixed: Annotated[bool, typer.Option("--mixed", help="Scenes of two to four structures.")] = False,
    masks: Annotated[bool, typer.Option(help="Write masks: 0 background, else the number of the structure.")] = True,
    confocal: Annotated[bool, typer.Option("--confocal", help="Write confocal partners as well.")] = False,
    engine: Annotated[str, typer.Option(help="ours, or pysted where it is installed.")] = "ours",
    height: Annotated[int | None, typer.Option(help="Rows of an image; by default 224.")] = None,
    width: Annotated[int | None, typer.Option(help="Columns of an image; by default 224.")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Side of a pixel in nm; by default 20.")] = None,
    fwhm: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Width of the blur in nm; 45 80.")
    ] = None,
    photons: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Counts at bright places; 12 60.")
    ] = None,
    background: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Counts of the background; 0.3 2.5.")
    ] = None,
    coverage: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Share of pixels touched; 0.12 0.3.")
    ] = None,
    depletion: Annotated[float | None, typer.Option(help="Share of the depletion power, 0 (confocal) to 1.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a core, fewer for a small set.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin an existing folder anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Simulate labelled STED-like images with masks.

    Structures: rings, fibres, microtubules, puncta, clusters, mitochondria, polymer_rings. Stopped, the same command
    goes on where it was.
    """
    from stedfm_hf.data.simulation.fields import SimulationSettings
    from stedfm_hf.data.simulation.simulate import simulate as simulate_images

    physics = {
        "height": height,
        "width": width,
        "pixel_size_nm": pixel_size,
        "fwhm_nm": fwhm,
        "photons": photons,
        "background": background,
        "coverage": coverage,
        "depletion": depletion,
    }
    changed: dict[str, Any] = {name: value for name, value in physics.items() if value is not None}
    made = simulate_images(
        output,
        preset=preset,
        structures=structure or None,
        per_structure=per_structure,
        seed=seed,
        first_index=first_index,
        settings=SimulationSettings(**changed) if changed else None,
        format=image_format,
        mixed=mixed,
        masks=masks,
        confocal=confocal,
        engine=engine,
        workers=workers,
        overwrite=overwrite,
    )
    if as_json:
        print_json({"output": str(output), "images": made.images, **made.manifest.counts()})
    else:
        print(f"{output}: {made.images} simulated images")


@data.command(epilog="Example: stedfm data build recordings/ --labels folder --output my-crops")
def build(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Files, folders and globs.")],
    output: Annotated[Path, typer.Option(help="The folder of the data set to write.")],
    crop: Annotated[int, typer.Option(min=1, help="Side of a crop in pixels.")] = 224,
    stride: Annotated[int | None, typer.Option(min=1, help="Pixels to the next crop; by default the crop.")] = None,
    min_foreground: Annotated[
        float | None, typer.Option(help="Keep crops with more foreground than this share; by default 0.01.")
    ] = None,
    legacy: Annotated[bool, typer.Option("--legacy", help="Keep crops as the reference did: above 0.001.")] = False,
    pixels: Annotated[
        str, typer.Option(help="8bit (scaled by the field's 0.1 and 99.9 percentile) or raw (as in the file).")
    ] = "8bit",
    series: Annotated[
        str | None, typer.Option(help="Take this series only: its name, a pattern (STED*) or its number.")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Take this channel only: its name or number.")] = None,
    min_size: Annotated[
        int | None, typer.Option(help="Least length of both sides of a field; by default the crop.")
    ] = None,
    max_size: Annotated[int | None, typer.Option(help="Greatest length of both sides of a field.")] = None,
    snr: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Take this range of signal to noise only.")
    ] = None,
    reference_selection: Annotated[
        bool, typer.Option("--reference-selection", help="Take what the reference took: series called *sted*, 2-D.")
    ] = False,
    labels: Annotated[
        str | None, typer.Option(metavar="folder|TABLE", help="folder, or a CSV or Parquet table of path and label.")
    ] = None,
    keep_unlabelled: Annotated[
        bool, typer.Option("--keep-unlabelled", help="Take files without a label as well.")
    ] = False,
    masks: Annotated[Path | None, typer.Option(help="Folder with the masks, named like the images.")] = None,
    pixel_size_nm: Annotated[float | None, typer.Option(help="Resample every field to this pixel size.")] = None,
    assume_pixel_size_nm: Annotated[
        float | None, typer.Option(help="Pixel size of files that do not say theirs.")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of the source images for validation.")] = SHARES.validation,
    test: Annotated[float, typer.Option(help="Share of the source images for the test.")] = SHARES.test,
    seed: Annotated[int, typer.Option(help="Random seed of the order of the crops on disk.")] = 0,
    rows_per_shard: Annotated[int, typer.Option(min=1, help="Crops in one Parquet file at most.")] = 1024,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep names of files in the data; by default they get a code.")
    ] = False,
    keep_metadata: Annotated[
        bool, typer.Option("--keep-metadata", help="Keep free text of the files, which may name people.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin a data set that is there anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a data set of crops out of folders of microscope images.

    Stopped, the same command goes on where it was. Files that fail are named, the others are done; manifest.json has
    the status of every file.
    """
    from stedfm_hf.data.building.build import build as build_dataset

    summary = build_dataset(
        inputs,
        output,
        crop=crop,
        stride=stride,
        min_foreground=min_foreground,
        legacy=legacy,
        pixels=pixels,
        series=index_or_name(series),
        channel=index_or_name(channel),
        min_size=min_size,
        max_size=max_size,
        snr=snr,
        reference_selection=reference_selection,
        labels=labels,
        keep_unlabelled=keep_unlabelled,
        masks=masks,
        pixel_size_nm=pixel_size_nm,
        assume_pixel_size_nm=assume_pixel_size_nm,
        shares=SplitShares(validation, test),
        seed=seed,
        rows_per_shard=rows_per_shard,
        keep_names=keep_names,
        keep_metadata=keep_metadata,
        workers=workers,
        overwrite=overwrite,
    )
    _report(summary, "files", as_json)


add_command(
    data,
    "list",
    "stedfm_hf.data.official.registry:list_sets",
    settings=ListSettings,
    example="stedfm data list --json",
)
add_command(
    data,
    "stats",
    "stedfm_hf.data.publishing.stats:dataset_stats",
    settings=StatsSettings,
    example="stedfm data stats my-crops --output my-crops-stats",
)
add_command(
    data,
    "push",
    "stedfm_hf.data.publishing.push:push",
    settings=PushSettings,
    example="stedfm data push my-crops my-lab/my-crops",
)
