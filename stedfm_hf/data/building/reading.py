"""One file of the inputs as crops, and some of them as a part of the data set: what a worker process does."""

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
from stedfm_hf.data.building.cropping import CropRule, IntensityScale, fit_scale, grid, places
from stedfm_hf.data.building.masks import read_mask
from stedfm_hf.data.building.selection import Selection
from stedfm_hf.data.repository.layout import STORED_DTYPES, Crop, Scaling
from stedfm_hf.data.splits import file_id
from stedfm_hf.images import ImageReadError, SeriesInfo, StedImage, read_series
from stedfm_hf.runs import ItemStatus, Manifest

BATCH = 64
"""Crops that are in memory at a time."""
TECHNICAL = ("format", "axes", "photometric", "numpy_shape", "plane", "calibration")
"""What files say about themselves that cannot hold names of people or places."""


@dataclass(frozen=True)
class ReadingRules:
    """How files become crops.

    Args:
        crop: how a field is cut.
        selection: which images are taken.
        raw: whether pixels stay as they are in the file; else they are scaled to 8 bit.
        pixel_size_nm: to which every field is resampled; None leaves them as they are.
        assume_pixel_size_nm: of files that do not say theirs; None leaves it open.
        keep_names: whether the relative path of a file is its id, and names of series are kept that may be one.
        keep_metadata: whether all that the file says is kept, free text as well.
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
    """A file of the inputs.

    Args:
        file: where it is.
        path: how it is recorded, relative to its input.
        label: name of its class, or None.
        masks: files that could be its mask: one, or a fault.
    """

    file: Path
    path: str
    label: str | None = None
    masks: tuple[Path, ...] = ()

    def stamp(self) -> list[int]:
        """Sizes and dates of the file and its masks, by which a change is seen; zeros for one that is not there."""
        numbers = []
        for file in (self.file, *self.masks):
            try:
                state = file.stat()
            except OSError:  # reading it will say why
                numbers += [0, 0]
            else:
                numbers += [state.st_size, state.st_mtime_ns]
        return numbers


class FileFailed(Exception):
    """A file cannot be used; the text says why."""


@dataclass
class Account:
    """What came of a file so far.

    Attributes:
        source: its id.
        content: hash of its bytes, which decides its split.
        images: those that gave crops.
        seen: images in the file.
        cells: crops of the used images, before the foreground was looked at.
        refused: why images were left out, and how many.
        missing: what would be good to have: "mask", "pixel size".
    """

    source: str = ""
    content: str = ""
    images: list[StagedImage] = field(default_factory=list)
    seen: int = 0
    cells: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    missing: set[str] = field(default_factory=set)

    def refuse(self, reason: str, count: int = 1) -> None:
        """Notes images that are left out."""
        self.refused[reason] += count

    def record(self, manifest: Manifest, path: str) -> None:
        """Tells the manifest."""
        several = len(self.refused) > 1
        left_out = "; ".join(f"{count} x {reason}" if several else reason for reason, count in self.refused.items())
        if not self.images:
            manifest.skipped(path, left_out)
            return
        crops = sum(image.rows for image in self.images)
        note = f"{len(self.images)} of {self.seen} images, {crops} of {self.cells} crops; source {self.source}"
        note += f"; left out: {left_out}" if left_out else ""
        manifest.done(path, "; ".join([note, *(f"no {each}" for each in sorted(self.missing))]))


def write_part(
    staging: Staging, name: str, files: Sequence[InputFile], rules: ReadingRules, *, masked: bool = False
) -> dict[str, ItemStatus]:
    """Read some files and write their crops as a part.

    Args:
        staging: Store of the parts.
        name: Name of the part.
        files: Files that it covers.
        rules: How files become crops.
        masked: Whether masks are expected, so that a file without one is reported.

    Returns:
        Status of every file.
    """
    failed: dict[str, str] = {}
    while True:
        # Crops of a file that fails midway may be on the disk already: the part is then written again without it.
        try:
            return _write_part(staging, name, files, rules, masked, failed)
        except _Spoilt as spoilt:
            failed[spoilt.path] = spoilt.reason


class _Spoilt(Exception):
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
    manifest = Manifest("build")
    stamps: list[list[Any]] = []
    missing: Counter[str] = Counter()
    with staging.open_crops(name) as writer:
        for one in files:
            stamps.append([one.path, *one.stamp()])
            if one.path in failed:
                manifest.failed(one.path, failed[one.path])
                continue
            rows = writer.rows
            account = Account()
            try:
                _write_file(writer, one, rules, account)
            except FileFailed as error:
                if writer.rows > rows:
                    raise _Spoilt(one.path, str(error)) from error
                manifest.failed(one.path, str(error))
                continue
            if masked and not one.masks:
                account.missing.add("mask")
            account.record(manifest, one.path)
            writer.images += account.images
            missing.update(account.missing if account.images else ())
        writer.part.items = manifest.items
        writer.part.notes = {"files": stamps, "missing": dict(missing)}
    return manifest.items


def _write_file(writer: CropWriter, one: InputFile, rules: ReadingRules, account: Account) -> None:
    for batch in read_crops(one, rules, account):
        writer.add(batch)


def read_crops(one: InputFile, rules: ReadingRules, account: Account) -> Iterator[list[Crop]]:
    """The crops of a file, some at a time.

    Args:
        one: the file.
        rules: which, and how.
        account: is kept as they come; of an image when its last crop has come.

    Raises:
        FileFailed: the file or its mask cannot be read, do not fit, or change meanwhile.
    """
    before = one.stamp()
    try:
        yield from _read_crops(one, rules, account)
        problem = None
    except ImageReadError as error:
        problem = str(error).removeprefix(f"{one.file}: ")
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); check its access rights and the drive"
    except MemoryError:
        problem = "needs more memory than there is; crop it into smaller files"
    if one.stamp() != before:
        problem = "changed while it was read; build again when it is complete"
    if problem is not None:
        raise FileFailed(problem)


def _read_crops(one: InputFile, rules: ReadingRules, account: Account) -> Iterator[list[Crop]]:
    if len(one.masks) > 1:
        raise ImageReadError(f"has several masks ({', '.join(mask.name for mask in one.masks)}); keep one")
    account.content = file_id(one.file)
    account.source = one.path if rules.keep_names else account.content
    mask = read_mask(one.masks[0]) if one.masks else None
    series = 0

    def wanted(info: SeriesInfo) -> bool:
        nonlocal series
        reason = rules.selection.refuse_series(series, info.name, info.shape[1:])
        reason = reason or _refuse_resampled(info.shape[1:], _pixel_size(info.pixel_size_nm, rules), rules)
        series += 1
        if reason is not None:
            account.seen += info.shape[0]
            account.refuse(reason, info.shape[0])
        return reason is None

    for image in read_series(one.file, wanted=wanted):
        account.seen += len(image.array)
        if reason := rules.selection.refuse_plane(len(image.array), image.metadata):
            account.refuse(reason, len(image.array))
            continue
        if mask is not None and mask.shape != image.array.shape[1:]:
            raise ImageReadError(
                f"its mask {one.masks[0].name} has {_times(mask.shape)} pixels, and series {image.series!r} has "
                f"{_times(image.array.shape[1:])}; they must be the same"
            )
        chosen = rules.selection.channels(image.channel_names)
        if left := len(image.array) - len(chosen):
            account.refuse(f"other channels than {rules.selection.channel!r}", left)
        for channel in chosen:
            yield from _read_plane(one, image, series - 1, channel, mask, rules, account)


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _pixel_size(known: tuple[float, float] | None, rules: ReadingRules) -> tuple[float, float] | None:
    assumed = rules.assume_pixel_size_nm
    return known if known is not None or assumed is None else (assumed, assumed)


def _resampled_size(
    size: tuple[int, int], pixel_size: tuple[float, float] | None, rules: ReadingRules
) -> tuple[int, int]:
    """Height and width after resampling."""
    target = rules.pixel_size_nm
    if target is None or pixel_size is None:
        return size
    height, width = (max(1, round(side * own / target)) for side, own in zip(size, pixel_size, strict=True))
    return height, width


def _refuse_resampled(
    size: tuple[int, int], pixel_size: tuple[float, float] | None, rules: ReadingRules
) -> str | None:
    if rules.pixel_size_nm is not None and pixel_size is None:
        return "no pixel size in the file; --assume-pixel-size-nm gives one"
    size = _resampled_size(size, pixel_size, rules)
    if min(size) < rules.crop.size:
        return f"a side is below {rules.crop.size} pixels"
    return rules.selection.refuse_size(size)


def _read_plane(
    one: InputFile,
    image: StedImage,
    series: int,
    channel: int,
    mask: np.ndarray | None,
    rules: ReadingRules,
    account: Account,
) -> Iterator[list[Crop]]:
    """The crops of one channel of one series."""
    plane = image.array[channel]
    content = _content(plane)
    pixel_size = _pixel_size(image.pixel_size_nm, rules)
    size = _resampled_size((plane.shape[0], plane.shape[1]), pixel_size, rules)
    if size != plane.shape:
        plane, mask = _resample(plane, mask, size)
    if rules.pixel_size_nm is not None:
        pixel_size = (rules.pixel_size_nm, rules.pixel_size_nm)
    if rules.raw:
        plane = _storable(plane)
    scale = fit_scale(plane, rules.crop.quantiles)
    reason = "no contrast" if scale is None else rules.selection.refuse_snr(scale.snr)
    if scale is None or reason is not None:
        account.refuse(reason or "")
        return
    metadata = _metadata(image, scale, rules)
    scaling = Scaling(scale.low, scale.high, applied=not rules.raw, quantiles=rules.crop.quantiles)
    cells = len(grid(plane.shape[0], rules.crop)) * len(grid(plane.shape[1], rules.crop))
    rows, batch = 0, list[Crop]()
    for place in places(plane, scale, rules.crop):
        cut = (slice(place.y, place.y + rules.crop.size), slice(place.x, place.x + rules.crop.size))
        batch.append(
            Crop(
                pixels=plane[cut] if rules.raw else scale.to_8bit(plane[cut]),
                scaling=scaling,
                source=account.source,
                label=one.label,
                mask=None if mask is None else mask[cut],
                pixel_size_nm=pixel_size,
                series=image.series if rules.keep_names else _nameless(image.series, series, one),
                channel=image.channel_names[channel],
                y=place.y,
                x=place.x,
                foreground_fraction=place.foreground_fraction,
                metadata=metadata,
            )
        )
        rows += 1
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
    if not rows:
        account.refuse(f"no crop with more than {100 * rules.crop.min_foreground:g} % foreground")
        return
    account.cells += cells
    if pixel_size is None:
        account.missing.add("pixel size")
    account.images.append(StagedImage(one.path, account.source, content, rows, one.label, split_id=account.content))


def _content(plane: np.ndarray) -> str:
    """SHA-256 of type, size and pixels: the same for exact copies only."""
    digest = hashlib.sha256(f"{plane.dtype.name} {plane.shape}".encode())
    digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def _resample(
    plane: np.ndarray, mask: np.ndarray | None, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """A field as float32 in another size, and its mask in its own dtype."""
    import torch

    from stedfm_hf.modeling.image_processing_stedfm import resample

    factors = (size[0] / plane.shape[0], size[1] / plane.shape[1])
    resized = resample(plane[None].astype(np.float32), factors)[0]
    if mask is not None:
        numbers = torch.from_numpy(mask.astype(np.float32))[None, None]
        nearest = torch.nn.functional.interpolate(numbers, size=size, mode="nearest-exact")
        mask = nearest[0, 0].numpy().astype(mask.dtype)
    return resized, mask


def _storable(plane: np.ndarray) -> np.ndarray:
    """The same numbers in a dtype that a data set can hold; only rare ones change theirs."""
    if plane.dtype.name in STORED_DTYPES:
        return plane
    for name in _WIDER[plane.dtype.name]:
        with np.errstate(invalid="ignore", over="ignore"):
            converted = plane.astype(name)
            if np.array_equal(converted.astype(plane.dtype), plane, equal_nan=plane.dtype.kind == "f"):
                return converted
    raise ImageReadError(f"numbers of type {plane.dtype} as large as here cannot be stored; build with --pixels 8bit")


_WIDER = {
    "int8": ("int16",),
    "float16": ("float32",),
    "int64": ("int32", "uint32", "float64"),
    "uint64": ("uint32", "float64"),
}
_FILE_NAME = re.compile(r"[/\\]|\.[A-Za-z][A-Za-z0-9]{1,4}\b")


def _nameless(name: str, number: int, one: InputFile) -> str:
    """The name of a series, unless it looks like that of a file: such names tell who made it, and when."""
    plane = name[name.rindex("[") :] if name.endswith("]") and "[" in name else ""
    stem = one.file.stem.lower()
    if _FILE_NAME.search(name) or (len(stem) >= 8 and stem in name.lower()):
        return f"series {number}{plane}"
    return name


def _metadata(image: StedImage, scale: IntensityScale, rules: ReadingRules) -> dict[str, Any]:
    """What is known of the image; free text, which may name people and places, only where it is asked for."""
    known = dict(image.metadata)
    if not rules.keep_metadata:
        known = {key: known[key] for key in TECHNICAL if key in known}
        if "calibration" in known:
            known["calibration"] = {key: value for key, value in known["calibration"].items() if key != "unit"}
    known["source_dtype"] = image.array.dtype.name
    known["source_size"] = list(image.array.shape[1:])
    known["source_pixel_size_nm"] = None if image.pixel_size_nm is None else list(image.pixel_size_nm)
    if scale.snr is not None:
        known["snr"] = round(scale.snr, 4)
    return known
