"""Reading of input files as crops, and writing of a part of the data set in a worker process."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.data.assembly.staging import CropWriter, StagedImage, Staging
from stedfm_hf.data.building.cropping import CropRule, IntensityScale, crop_positions, fit_scale, grid
from stedfm_hf.data.building.masks import read_mask
from stedfm_hf.data.building.selection import Selection
from stedfm_hf.data.repository.layout import STORED_DTYPES, Crop, Scaling
from stedfm_hf.data.splits import file_id
from stedfm_hf.images import ImageReadError, SeriesInfo, StedImage, read_series
from stedfm_hf.runs import ItemStatus, Manifest
from stedfm_hf.runs.attempts import DEADLY, attempt
from stedfm_hf.runs.files import file_stamp
from stedfm_hf.runs.storage import is_remote

CROPS_PER_BATCH = 64
"""Largest number of crops in memory."""
TECHNICAL_METADATA = ("format", "axes", "photometric", "numpy_shape", "plane", "calibration")
"""Entries of the metadata that cannot hold names of people or places."""


@dataclass(frozen=True)
class ReadingRules:
    """Rules for reading files as crops.

    Attributes:
        crop: Size, stride, foreground and scaling of the crops.
        selection: Selection of the images.
        raw: Whether pixels are stored as in the file, instead of scaled to 8 bit.
        pixel_size_nm: Pixel size to which all fields are resampled, in nm; None does not resample.
        assume_pixel_size_nm: Pixel size of files without one, in nm; None leaves it unknown.
        keep_names: Whether the relative path of a file is its source id, and series names that look like file names
            are kept.
        keep_metadata: Whether all metadata of the file are kept, including free text.
    """

    crop: CropRule = field(default_factory=CropRule)
    selection: Selection = field(default_factory=Selection)
    raw: bool = False
    pixel_size_nm: float | None = None
    assume_pixel_size_nm: float | None = None
    keep_names: bool = False
    keep_metadata: bool = False


@dataclass(frozen=True)
class InputFile:
    """An input file.

    Attributes:
        file: Path of the file.
        path: Recorded path, relative to the input.
        label: Name of the class, or None.
        masks: Candidates for the mask; more than one is an error.
        same_name: Path of another image with the same name, whose mask could be meant, or None; an error.
    """

    file: Path
    path: str
    label: str | None = None
    masks: tuple[Path, ...] = ()
    same_name: str | None = None

    def stamp(self) -> list[int]:
        """Return size and modification time of the file and its masks, to detect changes; zeros if one is missing."""
        numbers: list[int] = []
        for file in (self.file, *self.masks):
            # Nanoseconds tell changes of a local file apart that seconds do not; a store has seconds.
            is_file = not is_remote(file) and file.is_file()
            stamp = (file.stat().st_size, file.stat().st_mtime_ns) if is_file else file_stamp(file)
            numbers += stamp or [0, 0]  # reading raises the error
        return numbers


class FileFailed(Exception):
    """An input file cannot be used; the message is the reason."""


@dataclass
class FileReport:
    """Result of reading an input file.

    Attributes:
        source: Source id of the file.
        content: Hash of the bytes of the file, which decides its split.
        images: Images with crops.
        images_in_file: Number of images in the file.
        crops_on_grid: Number of crops of the used images before selection by foreground.
        skipped: Number of skipped images by reason.
        missing: Missing information: "mask", "pixel size".
        notes: Sentences on what was assumed or left out while the file was read.
    """

    source: str = ""
    content: str = ""
    images: list[StagedImage] = field(default_factory=list)
    images_in_file: int = 0
    crops_on_grid: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    missing: set[str] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count skipped images."""
        self.skipped[reason] += count

    def write_status(self, manifest: Manifest, path: str) -> None:
        """Write the status of the file to a manifest.

        Args:
            manifest: Manifest of the part.
            path: Recorded path of the file.
        """
        several = len(self.skipped) > 1
        reasons = "; ".join(f"{count} x {reason}" if several else reason for reason, count in self.skipped.items())
        if not self.images:
            manifest.skipped(path, reasons)
            return
        crops = sum(image.rows for image in self.images)
        note = f"{len(self.images)} of {self.images_in_file} images, {crops} of {self.crops_on_grid} crops"
        note += f"; source {self.source}" + (f"; skipped: {reasons}" if reasons else "")
        manifest.done(path, "; ".join([note, *(f"no {each}" for each in sorted(self.missing))]))


def write_part(
    staging: Staging,
    name: str,
    files: Sequence[InputFile],
    rules: ReadingRules,
    *,
    masked: bool = False,
    survives: bool = False,
) -> dict[str, ItemStatus]:
    """Read files and write their crops as a part.

    Args:
        staging: Store of the parts.
        name: Name of the part.
        files: Files of the part.
        rules: Rules for reading them.
        masked: Whether masks are expected, so that files without one are counted.
        survives: Whether the attempts are recorded, so that files that kill their worker are found.

    Returns:
        Status of each file by path.
    """

    def try_alone(file: InputFile) -> None:
        trial = f".{name}"  # a hidden file is not a part
        _write_readable(staging, trial, [file], rules, masked, {})
        staging.remove([trial])

    by_path = {each.path: each for each in files}
    with attempt(by_path, staging.folder if survives else None, try_alone) as given_up:
        return _write_readable(staging, name, files, rules, masked, dict.fromkeys(given_up, DEADLY))


def _write_readable(
    staging: Staging,
    name: str,
    files: Sequence[InputFile],
    rules: ReadingRules,
    masked: bool,
    failed: dict[str, str],
) -> dict[str, ItemStatus]:
    """Write a part without the files in `failed`, and without those that fail."""
    while True:
        # If a file fails after some of its crops were written, the part is written again without the file.
        try:
            return _write_part(staging, name, files, rules, masked, failed)
        except _FailedAfterWriting as error:
            failed[error.path] = error.reason


class _FailedAfterWriting(Exception):
    """A file failed, but some of its crops are in the open part already."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason


def _write_part(
    staging: Staging,
    name: str,
    files: Sequence[InputFile],
    rules: ReadingRules,
    masked: bool,
    failed: dict[str, str],
) -> dict[str, ItemStatus]:
    """Write a part without the files in `failed`, which holds the reasons of an earlier attempt by path.

    The part also records the stamps of all files, to detect changes, and the number of used files that lack a mask or
    a pixel size.

    Raises:
        _FailedAfterWriting: A file failed after some of its crops were written; nothing of the part is kept.
    """
    manifest = Manifest("build")
    stamps: list[list[Any]] = []
    missing: Counter[str] = Counter()
    notes: dict[str, list[str]] = {}
    with staging.open_crops(name) as writer:
        for each in files:
            stamps.append([each.path, *each.stamp()])
            if each.path in failed:
                manifest.failed(each.path, failed[each.path])
                continue
            rows_before = writer.rows
            report = FileReport()
            try:
                _write_file(writer, each, rules, report)
            except FileFailed as error:
                if writer.rows > rows_before:
                    raise _FailedAfterWriting(each.path, str(error)) from error
                manifest.failed(each.path, str(error))
                continue
            if masked and not each.masks:
                report.missing.add("mask")
            report.write_status(manifest, each.path)
            writer.images += report.images
            missing.update(report.missing if report.images else ())
            notes |= {each.path: list(report.notes)} if report.notes else {}
        writer.part.items = manifest.items
        writer.part.notes = {"files": stamps, "missing": dict(missing), "reading": notes}
    return manifest.items


def _write_file(writer: CropWriter, item: InputFile, rules: ReadingRules, report: FileReport) -> None:
    for batch in read_crops(item, rules, report):
        writer.add(batch)


def read_crops(item: InputFile, rules: ReadingRules, report: FileReport) -> Iterator[list[Crop]]:
    """Read the crops of a file.

    Args:
        item: Input file.
        rules: Rules for reading it.
        report: Report of the file, which is updated after the last crop of each image.

    Yields:
        Up to `CROPS_PER_BATCH` crops.

    Raises:
        FileFailed: The file or its mask cannot be read, they have different sizes, or one changed during reading.
    """
    before = item.stamp()
    try:
        yield from _read_crops(item, rules, report)
        problem = None
    except ImageReadError as error:
        problem = str(error).removeprefix(f"{item.file}: ")
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); check its access rights and the drive"
    except MemoryError:
        problem = "needs more memory than is available; split it into smaller files"
    if item.stamp() != before:
        problem = "changed while it was read; run the command again when the file is complete"
    if problem is not None:
        raise FileFailed(problem)


def _read_crops(item: InputFile, rules: ReadingRules, report: FileReport) -> Iterator[list[Crop]]:
    """Read the crops of a file like `read_crops`, but raise the errors of the reader.

    The report gets the ids of the file, and counts all its images and the skipped ones by reason.

    Raises:
        ImageReadError: The file or its mask cannot be read, has several masks, shares one with another image, or has
            one of another size.
        OSError: The disk or network failed.
    """
    if len(item.masks) > 1:
        raise ImageReadError(f"has several masks ({', '.join(mask.name for mask in item.masks)}); keep one of them")
    if item.same_name is not None:
        raise ImageReadError(
            f"has the same name as {item.same_name}, so {item.masks[0].name} could be the mask of either; rename or "
            "remove one of them"
        )
    report.content = file_id(item.file)
    report.source = item.path if rules.keep_names else report.content
    mask = read_mask(item.masks[0]) if item.masks else None
    series = -1  # index of the current series: `read_series` calls `is_selected` right before it yields a series

    def is_selected(info: SeriesInfo) -> bool:
        """Return whether to read the next series; a skipped one is counted in the report."""
        nonlocal series
        series += 1
        reason = rules.selection.reason_to_skip_series(series, info.name, info.shape[1:])
        reason = reason or _reason_to_skip_size(info.shape[1:], _pixel_size(info.pixel_size_nm, rules), rules)
        if reason is not None:
            report.images_in_file += info.shape[0]
            report.skip(reason, info.shape[0])
        return reason is None

    for image in read_series(item.file, wanted=is_selected):
        report.images_in_file += len(image.array)
        report.notes |= dict.fromkeys(image.notes)
        if reason := rules.selection.reason_to_skip_stack(len(image.array), image.metadata):
            report.skip(reason, len(image.array))
            continue
        if mask is not None and mask.shape != image.array.shape[1:]:
            raise ImageReadError(
                f"its mask {item.masks[0].name} has {_size_text(mask.shape)} pixels, but series {image.series!r} has "
                f"{_size_text(image.array.shape[1:])}; give a mask of the same size"
            )
        channels = rules.selection.channels(image.channel_names)
        if others := len(image.array) - len(channels):
            report.skip(f"channel is not {rules.selection.channel!r}", others)
        for channel in channels:
            yield from _read_plane(item, image, series, channel, mask, rules, report)


def _size_text(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _pixel_size(in_file: tuple[float, float] | None, rules: ReadingRules) -> tuple[float, float] | None:
    """Return the pixel size (y, x) in the file in nm, else the assumed one; None if both are unknown."""
    assumed = rules.assume_pixel_size_nm
    return in_file if in_file is not None or assumed is None else (assumed, assumed)


def _resampled_size(
    size: tuple[int, int], pixel_size: tuple[float, float] | None, rules: ReadingRules
) -> tuple[int, int]:
    """Return height and width after resampling to the requested pixel size, unchanged if a pixel size is unknown."""
    target = rules.pixel_size_nm
    if target is None or pixel_size is None:
        return size
    height, width = (max(1, round(length * nm / target)) for length, nm in zip(size, pixel_size, strict=True))
    return height, width


def _reason_to_skip_size(
    size: tuple[int, int], pixel_size: tuple[float, float] | None, rules: ReadingRules
) -> str | None:
    """Return the reason to skip a series by its size after resampling, or None."""
    if rules.pixel_size_nm is not None and pixel_size is None:
        return "no pixel size in the file (give --assume-pixel-size-nm)"
    size = _resampled_size(size, pixel_size, rules)
    if min(size) < rules.crop.size:
        return f"height or width is below the crop size of {rules.crop.size} pixels (--crop-size)"
    return rules.selection.reason_to_skip_size(size)


def _read_plane(
    item: InputFile,
    image: StedImage,
    series: int,
    channel: int,
    mask: np.ndarray | None,
    rules: ReadingRules,
    report: FileReport,
) -> Iterator[list[Crop]]:
    """Yield the crops of one channel of one series with enough foreground, up to `CROPS_PER_BATCH` at once.

    Args:
        item: Input file.
        image: Series of the file.
        series: Index of the series in the file.
        channel: Index of the channel in the series.
        mask: Mask (H, W) of the series before resampling, or None.
        rules: Rules for reading the file.
        report: Report of the file: counts the image as used after its last crop, or as skipped.
    """
    plane = image.array[channel]
    content = _content_hash(plane)
    pixel_size = _pixel_size(image.pixel_size_nm, rules)
    size = _resampled_size((plane.shape[0], plane.shape[1]), pixel_size, rules)
    if size != plane.shape:
        plane, mask = _resample(plane, mask, size)
    if rules.pixel_size_nm is not None:
        pixel_size = (rules.pixel_size_nm, rules.pixel_size_nm)
    if rules.raw:
        plane = _to_stored_dtype(plane)
    scale = fit_scale(plane, rules.crop.quantiles)
    reason = "no contrast" if scale is None else rules.selection.reason_to_skip_snr(scale.snr)
    if scale is None or reason is not None:
        report.skip(reason or "")
        return
    metadata = _metadata(image, scale, rules)
    scaling = Scaling(scale.low, scale.high, applied=not rules.raw, quantiles=rules.crop.quantiles)
    crops_on_grid = len(grid(plane.shape[0], rules.crop)) * len(grid(plane.shape[1], rules.crop))
    rows, batch = 0, list[Crop]()
    for position in crop_positions(plane, scale, rules.crop):
        cut = (slice(position.y, position.y + rules.crop.size), slice(position.x, position.x + rules.crop.size))
        batch.append(
            Crop(
                pixels=plane[cut] if rules.raw else scale.to_8bit(plane[cut]),
                scaling=scaling,
                source=report.source,
                label=item.label,
                mask=None if mask is None else mask[cut],
                pixel_size_nm=pixel_size,
                series=image.series if rules.keep_names else _anonymize_series(image.series, series, item),
                channel=image.channel_names[channel],
                y=position.y,
                x=position.x,
                foreground_fraction=position.foreground_fraction,
                metadata=metadata,
            )
        )
        rows += 1
        if len(batch) == CROPS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
    if not rows:
        report.skip(f"no crop has more than {100 * rules.crop.min_foreground:g} % foreground (--min-foreground)")
        return
    report.crops_on_grid += crops_on_grid
    if pixel_size is None:
        report.missing.add("pixel size")
    report.images.append(StagedImage(item.path, report.source, content, rows, item.label, split_id=report.content))


def _content_hash(plane: np.ndarray) -> str:
    """Return the SHA-256 of dtype, size and pixels, by which exact copies are found."""
    digest = hashlib.sha256(f"{plane.dtype.name} {plane.shape}".encode())
    digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def _resample(
    plane: np.ndarray, mask: np.ndarray | None, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resize a field, as float32, and its mask, in the same dtype."""
    import torch

    from stedfm_hf.modeling.image_processing_stedfm import resample

    factors = (size[0] / plane.shape[0], size[1] / plane.shape[1])
    resized = resample(plane[None].astype(np.float32), factors)[0]
    if mask is not None:
        numbers = torch.from_numpy(mask.astype(np.float32))[None, None]
        nearest = torch.nn.functional.interpolate(numbers, size=size, mode="nearest-exact")
        mask = nearest[0, 0].numpy().astype(mask.dtype)
    return resized, mask


def _to_stored_dtype(plane: np.ndarray) -> np.ndarray:
    """Convert a plane without loss to a dtype that a data set can hold; raise `ImageReadError` if there is none."""
    if plane.dtype.name in STORED_DTYPES:
        return plane
    for name in _WIDER[plane.dtype.name]:
        with np.errstate(invalid="ignore", over="ignore"):
            converted = plane.astype(name)
            if np.array_equal(converted.astype(plane.dtype), plane, equal_nan=plane.dtype.kind == "f"):
                return converted
    raise ImageReadError(f"holds {plane.dtype} values that cannot be stored without loss; use --pixels 8bit")


_WIDER = {
    "int8": ("int16",),
    "float16": ("float32",),
    "int64": ("int32", "uint32", "float64"),
    "uint64": ("uint32", "float64"),
}
_FILE_NAME = re.compile(r"[/\\]|\.[A-Za-z][A-Za-z0-9]{1,4}\b")


def _anonymize_series(name: str, index: int, item: InputFile) -> str:
    """Return the name of a series, or its index if the name looks like a file name, which can identify people."""
    # Planes of a stack have their position in brackets at the end of the name.
    plane = name[name.rindex("[") :] if name.endswith("]") and "[" in name else ""
    stem = item.file.stem.lower()
    if _FILE_NAME.search(name) or (len(stem) >= 8 and stem in name.lower()):
        return f"series {index}{plane}"
    return name


def _metadata(image: StedImage, scale: IntensityScale, rules: ReadingRules) -> dict[str, Any]:
    """Return the metadata of an image; without `keep_metadata`, without free text, which may name people."""
    metadata = dict(image.metadata)
    if not rules.keep_metadata:
        metadata = {key: metadata[key] for key in TECHNICAL_METADATA if key in metadata}
        if "calibration" in metadata:
            calibration = metadata["calibration"]
            metadata["calibration"] = {key: value for key, value in calibration.items() if key != "unit"}
    metadata["source_dtype"] = image.array.dtype.name
    metadata["source_size"] = list(image.array.shape[1:])
    metadata["source_pixel_size_nm"] = None if image.pixel_size_nm is None else list(image.pixel_size_nm)
    if scale.snr is not None:
        metadata["snr"] = round(scale.snr, 4)
    return metadata
