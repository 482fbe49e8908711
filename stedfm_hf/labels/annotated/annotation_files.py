"""Masks from files: label images, planes of classes, soft masks, ROIs and polygons (ours)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stedfm_hf.images import ImageReadError, StedImage, list_series, read_image, read_series
from stedfm_hf.labels.annotated.outlines import OUTLINE_SUFFIXES, fill, read_outlines
from stedfm_hf.labels.annotated.stored import StoredMask, as_region, take_region, whole_numbers
from stedfm_hf.modeling.io_types_stedfm import RGB
from stedfm_hf.runs import counted

_LOSSY = (".jpg", ".jpeg")
_PNG = b"\x89PNG"
_NO_NAME = re.compile(r"\d*|image|.*[\[/].*", re.IGNORECASE)


def read_mask(
    file: Path, shape: tuple[int, int], region: Path | None = None, *, part: tuple[int, int] | None = None
) -> StoredMask:
    """Reads the mask of an image, whatever kind of file it is.

    One plane is a label image, or holds 0 and 255 only; several are a class each. Planes are the channels and the
    series of a TIFF, or the arrays of an `.npz`; where they have names, these are the names of the classes, and one
    called region says where the annotation counts. Of a PNG with a palette the numbers count, not the colours.

    Args:
        file: with the mask.
        shape: (height, width) of the image.
        region: file with the region of interest: above 0 where the annotation counts.
        part: of an image of several series, the number of one and how many there are: the mask has a plane for each,
            and the one of that number is taken.

    Raises:
        ImageReadError: says what is wrong with which file.
        UserError: a package is needed to read it.
    """
    try:
        if part is not None:
            mask = _read_part(file, *part)
        elif file.suffix.lower() in OUTLINE_SUFFIXES:
            mask = fill(read_outlines(file), shape)
        else:
            mask = _read_raster(file)
        check_shape(mask.planes, shape)
    except (ImageReadError, OSError) as error:
        raise _named("mask", file, error) from error
    if region is None:
        return mask
    try:
        planes, _ = _read_planes(region)
        check_shape(planes, shape)
        if len(planes) > 1:
            raise ImageReadError(f"has {len(planes)} planes; save it with one")
        return StoredMask(mask.planes, mask.keys, mask.outlines, as_region(planes[0]))
    except (ImageReadError, OSError) as error:
        raise _named("region", region, error) from error


def check_shape(planes: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuses planes of another size."""
    if planes.shape[1:] != shape:
        height, width = planes.shape[1:]
        raise ImageReadError(
            f"has {height} x {width} pixels, the image {shape[0]} x {shape[1]}; save both with one size"
        )


def drop_equal_planes(array: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, colours) of a picture as (1, H, W); colours have to be equal."""
    if array.ndim == 2:
        return array[None]
    if array.shape[-1] in (2, 4):
        array = array[..., :-1]  # the last one is opacity
    if any(not np.array_equal(array[..., 0], array[..., number]) for number in range(1, array.shape[-1])):
        raise ImageReadError(
            "is a coloured picture; save the numbers of the classes as a grey one, or a TIFF with a plane for each "
            "class"
        )
    return array[None, ..., 0]


def _named(what: str, file: Path, error: Exception) -> ImageReadError:
    text = str(error)
    reason = text.rpartition(f"{file.name}: ")[2] if isinstance(error, ImageReadError) else f"cannot be read ({text})"
    return ImageReadError(f"its {what} {file.name} {reason}")


def _read_raster(file: Path) -> StoredMask:
    planes, names = _read_planes(file)
    planes, names, region = take_region(planes, names)
    return StoredMask(whole_numbers(planes), tuple(names), region=region)


def _read_part(file: Path, number: int, count: int) -> StoredMask:
    """One plane of a mask with so many of them; the others are not read where they are series, too."""
    if file.suffix.lower() in OUTLINE_SUFFIXES:
        raise ImageReadError(f"holds outlines; save a plane for each of the {count} series of the image")
    series = list_series(file)
    if len(series) == count and len(series[number].channel_names) == 1:
        return StoredMask(whole_numbers(read_image(file, series=number).array))
    mask = _read_raster(file)
    if len(mask.planes) != count:
        planes = counted(len(mask.planes), "plane")
        raise ImageReadError(f"has {planes}; save one for each of the {count} series of the image")
    return StoredMask(mask.planes[number : number + 1], region=mask.region)


def _read_planes(file: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """All planes of a file, and their names: () where not all have one."""
    if file.suffix.lower() in _LOSSY:
        raise ImageReadError("is a JPEG, which changes numbers; save it as PNG or TIFF")
    if (numbers := _palette_numbers(file)) is not None:
        return numbers, ()
    found = list(read_series(file))
    sizes = {image.array.shape[1:] for image in found}
    if len(sizes) > 1:
        raise ImageReadError("holds planes of different sizes; save those of the mask alone")
    planar = _is_planar(file)
    for image in found:
        if image.channel_names == RGB and not planar:
            drop_equal_planes(np.moveaxis(image.array, 0, -1))  # refuses it: equal ones are one already
    planes = np.concatenate([image.array for image in found])
    if len(planes) == 1 and planar:
        # The reader takes three equal planes for a grey picture; here they are three classes.
        planes = np.repeat(planes, 3, axis=0)
    return planes, _plane_names(found, len(planes))


def _palette_numbers(file: Path) -> np.ndarray | None:
    """(1, H, W) numbers of a PNG with a palette; None for any other file."""
    from PIL import Image

    with file.open("rb") as stream:
        if stream.read(len(_PNG)) != _PNG:
            return None
    try:
        with Image.open(file, formats=("PNG",)) as picture:
            return np.asarray(picture)[None] if picture.mode == "P" else None
    except (ValueError, SyntaxError, OSError) as error:
        raise ImageReadError(f"truncated or damaged ({error}); copy or export it again") from error


def _is_planar(file: Path) -> bool:
    """Whether a TIFF says it has colours, and holds them as planes: so `tifffile` writes an array (3, H, W) uint8."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as tif:
            page = tif.pages.first
            return int(page.planarconfig) == 2 and page.samplesperpixel == 3
    except tifffile.TiffFileError:
        return False


def _plane_names(found: Sequence[StedImage], count: int) -> tuple[str, ...]:
    """Names of channels, or of series of one channel; none where a program made them up, or there is one plane."""
    by_channel = [name for image in found for name in image.channel_names]
    by_series = [image.series for image in found]
    for names in (by_channel, by_series):
        if len(names) == count > 1 and len(set(names)) == count and not any(map(_NO_NAME.fullmatch, names)):
            return tuple(names) if tuple(names) != RGB else ()
    return ()
