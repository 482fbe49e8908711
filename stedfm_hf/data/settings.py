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
"""Entry of the metadata in the official archives that is the class."""


def _dataset_folder(*, storage: bool = False) -> Any:
    return option(affects_result=False, metavar="DIR", storage=storage, help="Folder of the data set to write.")


def _named_count(text: str) -> tuple[str, int]:
    """Convert `NAME=N` to the name of a split and a number of images.

    Example:
        >>> _named_count("train=300")
        ('train', 300)
    """
    name, _, count = text.partition("=")
    if not name or not count.isdecimal():
        raise UserError(f"split {text!r} is not NAME=N; write a name and a number, such as train=300")
    return name, int(count)


def _rows_per_shard() -> Any:
    return option(ROWS_PER_SHARD, minimum=1, help="Largest number of crops in one Parquet file.")


def _split_fraction(name: str, default: float) -> Any:
    return option(
        default, help=f"Fraction of the source images in the {name} split, selected by a hash of each image."
    )


@settings
class ListSettings:
    """List the published data sets that can be imported, and where their files come from."""


@settings
class StatsSettings:
    """Count crops, labels and source images, and measure intensities.

    The command reads the data set once. Data sets on the Hub are streamed, not stored.
    """

    dataset: str | Path = argument(
        storage=True, help="Folder of a data set, also in an object store, or Hub id, optionally with `@revision`."
    )
    output: Path | None = option(
        None,
        affects_result=False,
        help="Folder to write: stats.json, and a histogram and a contact sheet as PNG and SVG.",
    )
    overwrite: bool = options.overwrite()


@settings
class PushSettings:
    """Publish a data set on the Hugging Face Hub.

    The command checks the data set first. The repository is private unless --public is given. If interrupted, run the
    same command again to resume.
    """

    dataset: Path = argument(help="Folder of the data set.")
    hub_id: str = argument(help="OWNER/NAME on the Hub; the repository is created if it does not exist.")
    public: bool = option(False, help="Create a public repository; an existing one must be public already.")
    manifest: bool = option(False, help="Also publish manifest.json, which lists all input files by name.")
    allow_paths: bool = option(False, help="Publish even if source names or metadata contain absolute paths.")
    overwrite: bool = option(False, help="Replace another version of the data set on the Hub.")


@settings
class BuildSettings:
    """Make a data set of crops from microscope images.

    Unreadable files are skipped and listed; the exit status is then 1. manifest.json has the status of all files. If
    interrupted, run the same command again to resume.
    """

    inputs: options.Inputs = argument(
        affects_result=False,
        multiple=True,
        metavar="INPUT",
        storage=True,
        help="Image files, folders (searched recursively) and globs; also URLs of object stores, and of files.",
    )
    output: str | Path = _dataset_folder(storage=True)
    crop_size: int = option(224, minimum=1, help="Height and width of a crop, in pixels.")
    stride: int | None = option(
        None, minimum=1, help="Distance between neighbouring crops, in pixels; by default the crop size."
    )
    min_foreground: float | None = option(
        None,
        help="Fraction of foreground above which a crop is kept; by default 0.01 (0.001 with --protocol reference).",
    )
    protocol: str = options.protocol(
        "uses 2-D series named *sted*, larger than 224 x 224 pixels, and crops with more than 0.1 % foreground"
    )
    pixels: str = option(
        "8bit",
        choices=("8bit", "raw"),
        help="Stored pixels: 8bit (scaled by the 0.1 and 99.9 percentiles of the field) or raw (as in the file).",
    )
    series: str | int | None = option(
        None,
        parse=options.index_or_name,
        metavar="NAME|INDEX",
        help="Series of each file to use: a name, a pattern (STED*) or an index; by default all.",
    )
    channel: str | int | None = options.channel()
    min_size: int | None = option(
        None, help="Smallest height and width of a field, in pixels; by default the crop size."
    )
    max_size: int | None = option(None, help="Largest height and width of a field, in pixels.")
    snr: tuple[float, float] | None = option(
        None, metavar="LOW HIGH", help="Smallest and largest signal-to-noise ratio of a field; by default all."
    )
    labels: str | Path | None = option(
        None,
        metavar="folder|TABLE",
        help="Class labels: folder (name of the first folder inside INPUT), or a CSV, TSV or Parquet table with "
        "columns path and label.",
    )
    keep_unlabelled: bool = option(False, help="Keep files without a label.")
    masks: str | Path | None = option(None, metavar="DIR", help="Folder of the masks, named like the images.")
    pixel_size_nm: float | None = option(None, help="Pixel size to which all fields are resampled, in nm.")
    assume_pixel_size_nm: float | None = option(None, help="Pixel size of files without one, in nm.")
    validation: float = _split_fraction("validation", SPLIT_FRACTIONS.validation)
    test: float = _split_fraction("test", SPLIT_FRACTIONS.test)
    seed: int = options.seed("the order of the crops on disk")
    rows_per_shard: int = _rows_per_shard()
    keep_names: bool = option(False, help="Keep file names in the data; by default each file gets a code.")
    keep_metadata: bool = option(False, help="Keep all metadata of the files, including text that may name people.")
    workers: int | None = options.workers("processes")
    cluster: str | None = options.cluster()
    overwrite: bool = options.overwrite()

    @property
    def split_fractions(self) -> SplitFractions:
        """Fractions of the validation and test splits."""
        return SplitFractions(self.validation, self.test)

    def check(self) -> None:
        """Check that the values are in range and do not contradict each other.

        Raises:
            UserError: A value is out of range, or two values contradict each other.
        """
        _ = self.split_fractions
        if self.protocol == options.REFERENCE and self.min_foreground is not None:
            raise UserError("the reference protocol sets min_foreground to 0.001; leave min_foreground out")
        for name in ("pixel_size_nm", "assume_pixel_size_nm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} is {value}; it must be above 0")
        if self.min_foreground is not None and not 0 <= self.min_foreground < 1:
            raise UserError(f"min_foreground is {self.min_foreground}; give a fraction from 0 to below 1")
        if self.min_size is not None and self.min_size < self.crop_size:
            raise UserError(
                f"min_size {self.min_size} is below the crop size of {self.crop_size} pixels; increase min_size or "
                "reduce crop_size"
            )
        smallest = self.min_size or self.crop_size
        if self.max_size is not None and self.max_size < smallest:
            raise UserError(f"max_size {self.max_size} is below the smallest size of {smallest} pixels; increase it")
        if self.snr is not None and not self.snr[0] <= self.snr[1]:
            raise UserError(f"snr {self.snr[0]} {self.snr[1]} is not a range; give LOW HIGH, such as 1.5 20")


@settings
class ImportArchiveSettings:
    """Make a data set from an official STED-FM crop archive, without running the pickles in it.

    If interrupted, run the same command again to resume.
    """

    archive: str | Path = argument(affects_result=False, help="Tar or zip archive of crops, or its http(s) URL.")
    output: str | Path = _dataset_folder()
    label_key: str | None = option(
        LABEL_KEY,
        parse=lambda text: None if text == "none" else text,
        metavar="KEY|none",
        help="Entry of the metadata that is the class label; none for no labels.",
    )
    validation: float = _split_fraction("validation", SPLIT_FRACTIONS.validation)
    test: float = _split_fraction("test", SPLIT_FRACTIONS.test)
    seed: int = options.seed("the order of the crops on disk")
    limit: int | None = option(None, minimum=1, help="Number of archive members to read; by default all.")
    keep_metadata: bool = option(False, help="Keep all metadata, including names of people, paths and file names.")
    rows_per_shard: int = _rows_per_shard()
    cluster: str | None = options.cluster()
    overwrite: bool = options.overwrite()

    @property
    def split_fractions(self) -> SplitFractions:
        """Fractions of the validation and test splits."""
        return SplitFractions(self.validation, self.test)

    def check(self) -> None:
        """Check the split fractions.

        Raises:
            UserError: A fraction is negative, or their sum is 1 or more.
        """
        _ = self.split_fractions


@settings
class ImportSetSettings:
    """Import a published data set with its classes or masks, splits and scaling.

    Errors of the published code are corrected; docs/how-to/import-published-sets.md lists them. If interrupted, run
    the same command again to resume.
    """

    name: str = argument(help="Name of the published set; `stedfm data list` shows all names.")
    source: str | Path = argument(
        affects_result=False, help="Folder, zip, tar or HDF5 file of the authors, or its http(s) URL."
    )
    output: str | Path = _dataset_folder()
    protocol: str = options.protocol("keeps the published errors, to reproduce published numbers")
    keep_all: bool = option(False, help="Keep all training images of sets whose published classes are balanced.")
    rows_per_shard: int = _rows_per_shard()
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Check that the options do not contradict each other.

        Raises:
            UserError: `keep_all` is given with the reference protocol.
        """
        if self.protocol == options.REFERENCE and self.keep_all:
            raise UserError("keep_all cannot be used with the reference protocol, which balances the classes")


@settings
class SimulateSettings:
    """Simulate labelled STED-like images with masks.

    Structures: rings, fibres, microtubules, puncta, clusters, mitochondria, polymer_rings. If interrupted, run the
    same command again to resume.
    """

    output: str | Path = option(affects_result=False, metavar="DIR", help="Folder to write.")
    preset: str | None = option(
        None, help="benchmark-v1 or benchmark-v1-scenes: the frozen sets on which accuracy is measured."
    )
    structures: list[str] | None = option(None, metavar="NAME ...", help="Structures to simulate; by default all.")
    per_structure: int | None = option(
        None, minimum=1, help="Number of images of each structure, or of all mixed scenes; by default 100."
    )
    splits: dict[str, int] | list[tuple[str, int]] | None = option(
        None,
        multiple=True,
        parse=_named_count,
        metavar="NAME=N",
        help="Number of images of each structure in each split, such as train=300 test=100. Replaces --per-structure.",
    )
    seed: int | None = option(None, minimum=0, help="Random seed of the images; by default 0.")
    first_index: int = option(0, minimum=0, help="Number of the first image; different numbers give different images.")
    format: str = option("tiff", choices=("tiff", "dataset"), help="tiff (files) or dataset (a data set of crops).")
    mixed: bool = option(False, help="Simulate scenes of two to four structures, for segmentation.")
    masks: bool = option(True, help="Write masks: 0 is background, other numbers are structures.")
    confocal: bool = option(False, help="Also write the confocal image of each STED image.")
    engine: str = option(
        "builtin", choices=("builtin", "pysted"), help="Simulator: builtin, or pysted if that package is installed."
    )
    height: int | None = option(None, help="Height of an image, in pixels; by default 224.")
    width: int | None = option(None, help="Width of an image, in pixels; by default 224.")
    pixel_size_nm: float | None = option(None, help="Pixel size, in nm; by default 20.")
    fwhm_nm: tuple[float, float] | None = option(
        None,
        metavar="LOW HIGH",
        help="Range of the full width at half maximum of the point spread function, in nm; by default 45 80.",
    )
    photons: tuple[float, float] | None = option(
        None, metavar="LOW HIGH", help="Range of the photon counts of the brightest pixels; by default 12 60."
    )
    background: tuple[float, float] | None = option(
        None, metavar="LOW HIGH", help="Range of the photon counts of the background; by default 0.3 2.5."
    )
    coverage: tuple[float, float] | None = option(
        None, metavar="LOW HIGH", help="Range of the fraction of pixels that structures cover; by default 0.12 0.3."
    )
    match_with: list[str] | None = option(
        None, metavar="NAME ...", help="Structures whose intensity distribution an image may copy; by default all."
    )
    depletion: float | None = option(
        None, help="Fraction of the depletion power, from 0 (confocal) to 1 (STED); by default 1."
    )
    confocal_fwhm_nm: float | None = option(
        None, help="Full width at half maximum of the point spread function without depletion, in nm; by default 240."
    )
    occupied: float | None = option(
        None, help="Smallest fraction of bright pixels; emptier images are simulated again; by default 0.04."
    )
    workers: int | None = options.workers("processes")
    cluster: str | None = options.cluster()
    overwrite: bool = options.overwrite()

    @property
    def physics(self) -> dict[str, Any]:
        """Physical parameters that are set."""
        given = {name: value for name in PHYSICS if (value := getattr(self, name)) is not None}
        return given | ({"match_with": tuple(self.match_with)} if self.match_with is not None else {})

    def check(self) -> None:
        """Check that the number of images is given once.

        Raises:
            UserError: Both `splits` and `per_structure` are given.
        """
        if self.splits is not None and self.per_structure is not None:
            raise UserError("splits and per_structure both set the number of images; give only one of them")
