"""Settings of the commands `stedfm data ...`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from stedfm_hf.data.splits import SPLIT_FRACTIONS, SplitFractions
from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import argument, option, settings

ROWS_PER_SHARD = 1024
"""Largest number of crops in a shard."""
PHYSICS = (
    "height",
    "width",
    "pixel_size_nm",
    "fwhm_nm",
    "photons",
    "background",
    "coverage",
    "match_with",
    "depletion",
    "confocal_fwhm_nm",
    "occupied",
)
"""Physical parameters of a simulation: fields of `SimulateSettings` and of `SimulationSettings`."""
LABEL_KEY = "protein-id"
"""Entry of the metadata in the authors' archives that is the class."""


def _dataset_folder() -> Any:
    return option(decides=False, metavar="DIR", help="Folder of the data set to write.")


def _named_count(text: str) -> tuple[str, int]:
    """Convert `NAME=N`.

    >>> _named_count("train=300")
    ('train', 300)
    """
    name, _, count = text.partition("=")
    if not name or not count.isdecimal():
        raise UserError(f"split {text!r} is not NAME=N, such as train=300")
    return name, int(count)


def _rows_per_shard() -> Any:
    return option(ROWS_PER_SHARD, minimum=1, help="Largest number of crops in one Parquet file.")


def _share(of: str, default: float) -> Any:
    return option(default, help=f"Share of the source images for {of}, decided by a hash of each image.")


@settings
class ListSettings:
    """List the published sets, and where their files come from."""


@settings
class StatsSettings:
    """Count crops, labels and source images, and measure intensities.

    Reads the whole data set once, with little memory; from the Hub, nothing is stored.
    """

    dataset: str | Path = argument(help="Folder of a data set, or its id on the Hub; `@revision` may follow the id.")
    output: Path | None = option(
        None, decides=False, help="Folder to write: stats.json, and a histogram and a contact sheet as PNG and SVG."
    )
    overwrite: bool = options.overwrite()


@settings
class PushSettings:
    """Publish a data set on the Hugging Face Hub.

    The data set is checked first, and private unless --public is given. If interrupted, run the same command again to
    resume.
    """

    dataset: Path = argument(help="Folder of the data set.")
    hub_id: str = argument(help="OWNER/NAME on the Hub; created if it is not there.")
    public: bool = option(False, help="Make the data set visible to everybody; one that is there must be public, too.")
    manifest: bool = option(False, help="Publish manifest.json, too: it names every input file.")
    allow_paths: bool = option(False, help="Publish even if sources or metadata hold absolute paths.")


@settings
class BuildSettings:
    """Make a data set of crops from folders of microscope images.

    If interrupted, run the same command again to resume. Unreadable files are skipped and listed; the exit status is
    then 1. manifest.json has the status of every file.
    """

    inputs: options.Inputs = argument(
        decides=False, multiple=True, metavar="INPUT", help="Image files, folders (searched recursively) and globs."
    )
    output: str | Path = _dataset_folder()
    crop_size: int = option(224, minimum=1, help="Height and width of a crop, in pixels.")
    stride: int | None = option(None, minimum=1, help="Step from crop to crop, in pixels; by default the crop size.")
    min_foreground: float | None = option(
        None, help="Share of foreground above which a crop is kept; by default 0.01, of the reference 0.001."
    )
    protocol: str = options.protocol(
        "takes plain 2-D series named *sted* of above 224 pixels, and crops with above 0.1 % of foreground"
    )
    pixels: str = option(
        "8bit",
        choices=("8bit", "raw"),
        help="Stored pixels: 8bit (scaled by the 0.1 and 99.9 percentile of the field) or raw (as in the file).",
    )
    series: str | int | None = option(
        None,
        parse=options.index_or_name,
        metavar="NAME|INDEX",
        help="Series to take of each file: a name, a pattern (STED*) or an index; by default all.",
    )
    channel: str | int | None = options.channel()
    min_size: int | None = option(
        None, help="Smallest height and width of a field, in pixels; by default the crop size."
    )
    max_size: int | None = option(None, help="Largest height and width of a field, in pixels.")
    snr: tuple[float, float] | None = option(None, metavar="LOW HIGH", help="Range of signal-to-noise ratios to take.")
    labels: str | Path | None = option(
        None, metavar="folder|TABLE", help="Classes: folder (the first one below INPUT), or a table of path and label."
    )
    keep_unlabelled: bool = option(False, help="Take files without a label, too.")
    masks: str | Path | None = option(None, metavar="DIR", help="Folder with the masks, named like the images.")
    pixel_size_nm: float | None = option(None, help="Pixel size to resample every field to, in nm.")
    assume_pixel_size_nm: float | None = option(None, help="Pixel size of files that do not state theirs, in nm.")
    validation: float = _share("validation", SPLIT_FRACTIONS.validation)
    test: float = _share("the test", SPLIT_FRACTIONS.test)
    seed: int = options.seed("the order of the crops on disk")
    rows_per_shard: int = _rows_per_shard()
    keep_names: bool = option(False, help="Keep names of files in the data; by default each file gets a code.")
    keep_metadata: bool = option(False, help="Keep free text of the files, which may name people.")
    workers: int | None = options.workers("processes")
    overwrite: bool = options.overwrite()

    @property
    def split_fractions(self) -> SplitFractions:
        """Shares of the splits."""
        return SplitFractions(self.validation, self.test)

    def check(self) -> None:
        """Refuse values that contradict each other.

        Raises:
            UserError: Names them.
        """
        _ = self.split_fractions
        if self.protocol == options.REFERENCE and self.min_foreground is not None:
            raise UserError("the reference protocol has its own min_foreground (0.001); leave that out")
        for name in ("pixel_size_nm", "assume_pixel_size_nm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} is {value}; it must be above 0")
        if self.min_foreground is not None and not 0 <= self.min_foreground < 1:
            raise UserError(f"min_foreground is {self.min_foreground}; it must be from 0 to below 1")
        if self.min_size is not None and self.min_size < self.crop_size:
            raise UserError(f"min_size {self.min_size} is below the crop size of {self.crop_size} pixels")
        if self.max_size is not None and self.max_size < (self.min_size or self.crop_size):
            raise UserError(
                f"max_size {self.max_size} is below the smallest size of {self.min_size or self.crop_size}"
            )
        if self.snr is not None and not self.snr[0] <= self.snr[1]:
            raise UserError(f"no signal-to-noise ratio is from {self.snr[0]} to {self.snr[1]}; give LOW HIGH")


@settings
class ImportArchiveSettings:
    """Make a data set of the official STED-FM crop archives, without running the pickles in them.

    If interrupted, run the same command again to resume.
    """

    archive: str | Path = argument(decides=False, help="Tar or zip of crops, or its http(s) address.")
    output: str | Path = _dataset_folder()
    label_key: str | None = option(
        LABEL_KEY,
        parse=lambda text: None if text == "none" else text,
        metavar="KEY|none",
        help="Entry of the metadata that is the class; none for no classes.",
    )
    validation: float = _share("validation", SPLIT_FRACTIONS.validation)
    test: float = _share("the test", SPLIT_FRACTIONS.test)
    seed: int = options.seed("the order of the crops on disk")
    limit: int | None = option(None, minimum=1, help="Number of members to look at, from the first; by default all.")
    keep_metadata: bool = option(False, help="Keep names of people, paths and file names in the metadata.")
    rows_per_shard: int = _rows_per_shard()
    overwrite: bool = options.overwrite()

    @property
    def split_fractions(self) -> SplitFractions:
        """Shares of the splits."""
        return SplitFractions(self.validation, self.test)

    def check(self) -> None:
        """Refuse shares that are none."""
        _ = self.split_fractions


@settings
class ImportSetSettings:
    """Make a data set of a published set, with its classes or masks, splits and scaling.

    Flaws of the reference are corrected; docs/how-to/import-published-sets.md lists them.
    If interrupted, run the same command again
    to resume.
    """

    name: str = argument(help="Name of the set: see stedfm data list.")
    source: str | Path = argument(
        decides=False, help="Folder, zip, tar or HDF5 file of the authors, or its http(s) address."
    )
    output: str | Path = _dataset_folder()
    protocol: str = options.protocol("repeats the flaws of the published code, for published numbers")
    keep_all: bool = option(False, help="Keep all training images of sets that are published balanced.")
    rows_per_shard: int = _rows_per_shard()
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse what contradicts the reference."""
        if self.protocol == options.REFERENCE and self.keep_all:
            raise UserError("the reference protocol balances the classes and keep_all does not; take one of the two")


@settings
class SimulateSettings:
    """Simulate labelled STED-like images with masks.

    Structures: rings, fibres, microtubules, puncta, clusters, mitochondria, polymer_rings. If interrupted, run the
    same command again to resume.
    """

    output: str | Path = option(decides=False, metavar="DIR", help="Folder to write.")
    preset: str | None = option(
        None, help="benchmark-v1 or benchmark-v1-scenes: the frozen sets that accuracies are measured on."
    )
    structures: list[str] | None = option(None, metavar="NAME ...", help="Structures to simulate; by default all.")
    per_structure: int | None = option(
        None, minimum=1, help="Number of images of each structure (of mixed scenes: in all); by default 100."
    )
    splits: dict[str, int] | list[tuple[str, int]] | None = option(
        None,
        multiple=True,
        parse=_named_count,
        metavar="NAME=N",
        help="Number of images of each structure in each split, such as train=300 test=100, instead of per_structure.",
    )
    seed: int | None = option(None, minimum=0, help="Random seed of the images; by default 0.")
    first_index: int = option(0, minimum=0, help="Number of the first image; disjoint numbers are disjoint images.")
    format: str = option("tiff", choices=("tiff", "dataset"), help="tiff (files) or dataset (a data set of crops).")
    mixed: bool = option(False, help="Simulate scenes of two to four structures, for segmentation.")
    masks: bool = option(True, help="Write masks: 0 is background, other numbers are structures.")
    confocal: bool = option(False, help="Write the confocal partner of every image, too.")
    engine: str = option(
        "builtin", choices=("builtin", "pysted"), help="Simulator: builtin, or pysted where that package is installed."
    )
    height: int | None = option(None, help="Height of an image, in pixels; by default 224.")
    width: int | None = option(None, help="Width of an image, in pixels; by default 224.")
    pixel_size_nm: float | None = option(None, help="Pixel size, in nm; by default 20.")
    fwhm_nm: tuple[float, float] | None = option(
        None, metavar="LOW HIGH", help="Width of the point spread function, in nm; by default 45 80."
    )
    photons: tuple[float, float] | None = option(
        None, metavar="LOW HIGH", help="Counts at bright places; by default 12 60."
    )
    background: tuple[float, float] | None = option(
        None, metavar="LOW HIGH", help="Counts of the background; by default 0.3 2.5."
    )
    coverage: tuple[float, float] | None = option(
        None, metavar="LOW HIGH", help="Share of pixels that a structure touches; by default 0.12 0.3."
    )
    match_with: list[str] | None = option(
        None, metavar="NAME ...", help="Structures whose intensities an image may take over; by default all."
    )
    depletion: float | None = option(None, help="Share of the depletion power, from 0 (confocal) to 1; by default 1.")
    confocal_fwhm_nm: float | None = option(
        None, help="Width of the point spread function without depletion, in nm; by default 240."
    )
    occupied: float | None = option(
        None, help="Smallest share of bright pixels; emptier images are simulated again; by default 0.04."
    )
    workers: int | None = options.workers("processes")
    overwrite: bool = options.overwrite()

    @property
    def physics(self) -> dict[str, Any]:
        """The physical parameters that are given."""
        given = {name: value for name in PHYSICS if (value := getattr(self, name)) is not None}
        return given | ({"match_with": tuple(self.match_with)} if self.match_with is not None else {})

    def check(self) -> None:
        """Refuse two numbers of images."""
        if self.splits is not None and self.per_structure is not None:
            raise UserError("splits and per_structure both give the number of images; give one of the two")
