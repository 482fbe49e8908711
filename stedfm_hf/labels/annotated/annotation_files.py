"""Readers of mask files: label images, planes of classes, soft masks, ROIs and polygons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stedfm_hf.images import ImageReadError, StedImage, list_series, read_image, read_series
from stedfm_hf.images.folders import suffix_of
from stedfm_hf.images.mask_name_table import OUTLINE_SUFFIXES
from stedfm_hf.images.mask_names import numbers_objects
from stedfm_hf.labels.annotated.outlines import fill, read_outlines
from stedfm_hf.labels.annotated.stored import StoredMask, split_region, to_region, to_smallest_dtype
from stedfm_hf.modeling.io_types_stedfm import RGB
from stedfm_hf.runs import counted

_LOSSY = (".jpg", ".jpeg")
_PNG = b"\x89PNG"
_NO_NAME = re.compile(r"\d*|image|.*[\[/].*", re.IGNORECASE)


def read_mask(
    file: Path, shape: tuple[int, int], region: Path | None = None, *, part: tuple[int, int] | None = None
) -> StoredMask:
    """Read the mask of an image from a file of any supported type.

    A single plane is a label image, or a binary mask of 0 and 255; several planes are one class each. Planes are the
    channels and the series of a TIFF, or the arrays of an `.npz`. If they have names, these are the names of the
    classes, and the plane called region marks the annotated pixels. A PNG with a palette is read as its indices, not
    its colours.

    Args:
        file: File of the mask.
        shape: (height, width) of the image in pixels.
        region: File of the region of interest, above 0 for annotated pixels; None: all pixels.
        part: Number of a series of the image and number of its series, to read the plane of that number; None: the
            file is the mask of one image.

    Raises:
        ImageReadError: The file or region cannot be read; the message names it.
        UserError: A package that reads it is missing.
    """
    try:
        if part is not None:
            mask = _read_part(file, *part)
        elif suffix_of(file) in OUTLINE_SUFFIXES:
            mask = fill(read_outlines(file), shape)
        else:
            mask = _read_raster(file)
        check_shape(mask.planes, shape)
    except (ImageReadError, OSError) as error:
        raise _with_name("mask", file, error) from error
    if region is None:
        return mask
    try:
        planes, _ = _read_planes(region)
        check_shape(planes, shape)
        if len(planes) > 1:
            raise ImageReadError(f"has {len(planes)} planes; save it with one plane")
        return replace(mask, region=to_region(planes[0]))
    except (ImageReadError, OSError) as error:
        raise _with_name("region", region, error) from error


def check_shape(planes: np.ndarray, shape: tuple[int, int]) -> None:
    """Raise an error if planes and image differ in size.

    Args:
        planes: Planes of a mask, (P, H, W).
        shape: (height, width) of the image in pixels.

    Raises:
        ImageReadError: The sizes differ.
    """
    if planes.shape[1:] != shape:
        height, width = planes.shape[1:]
        raise ImageReadError(
            f"has {height} x {width} pixels, the image {shape[0]} x {shape[1]}; save both in the same size"
        )


def drop_equal_planes(array: np.ndarray) -> np.ndarray:
    """Convert a grey image (H, W), or (H, W, colours) with equal colours, to one plane (1, H, W).

    Args:
        array: Pixels of the image.

    Raises:
        ImageReadError: The colours differ.

    Example:
        >>> drop_equal_planes(np.ones((4, 5, 3), np.uint8)).shape
        (1, 4, 5)
    """
    if array.ndim == 2:
        return array[None]
    if array.shape[-1] in (2, 4):
        array = array[..., :-1]  # the last channel is the opacity
    if any(not np.array_equal(array[..., 0], array[..., number]) for number in range(1, array.shape[-1])):
        raise ImageReadError(
            "is a colour image; save the numbers of the classes as a greyscale image, or a TIFF with a plane per class"
        )
    return array[None, ..., 0]


def _with_name(kind: str, file: Path, error: Exception) -> ImageReadError:
    text = str(error)
    reason = text.rpartition(f"{file.name}: ")[2] if isinstance(error, ImageReadError) else f"cannot be read ({text})"
    return ImageReadError(f"its {kind} {file.name} {reason}")


def _read_raster(file: Path) -> StoredMask:
    planes, names = _read_planes(file)
    planes, names, region = split_region(planes, names)
    numbered = len(planes) == 1 and numbers_objects(file)
    return StoredMask(to_smallest_dtype(planes), tuple(names), region=region, numbered=numbered)


def _read_part(file: Path, number: int, count: int) -> StoredMask:
    """Return one plane of a mask with `count` planes; other series are not decoded."""
    if suffix_of(file) in OUTLINE_SUFFIXES:
        raise ImageReadError(f"contains outlines; save a plane for each of the {count} series of the image")
    series = list_series(file)
    if len(series) == count and len(series[number].channel_names) == 1:
        return StoredMask(to_smallest_dtype(read_image(file, series=number).array))
    mask = _read_raster(file)
    if len(mask.planes) != count:
        planes = counted(len(mask.planes), "plane")
        raise ImageReadError(f"has {planes}; save one plane for each of the {count} series of the image")
    return StoredMask(mask.planes[number : number + 1], region=mask.region)


def _read_planes(file: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return all planes of a file and their names, or () if one has no name."""
    if suffix_of(file) in _LOSSY:
        raise ImageReadError("is a JPEG, which changes pixel values; save it as PNG or TIFF")
    if (numbers := _palette_numbers(file)) is not None:
        return numbers, ()
    all_series = list(read_series(file))
    sizes = {image.array.shape[1:] for image in all_series}
    if len(sizes) > 1:
        raise ImageReadError("contains planes of different sizes; save only the planes of the mask")
    planar = _is_planar(file)
    for image in all_series:
        if image.channel_names == RGB and not planar:
            drop_equal_planes(np.moveaxis(image.array, 0, -1))  # raises the error; the reader merges equal planes
    planes = np.concatenate([image.array for image in all_series])
    if len(planes) == 1 and planar:
        # The reader merges three equal planes to a grey image; here they are three classes.
        planes = np.repeat(planes, 3, axis=0)
    return planes, _plane_names(all_series, len(planes))


def _palette_numbers(file: Path) -> np.ndarray | None:
    """Return the indices (1, H, W) of a PNG with a palette; None for any other file."""
    from PIL import Image

    with file.open("rb") as stream:
        if stream.read(len(_PNG)) != _PNG:
            return None
    try:
        with Image.open(file, formats=("PNG",)) as image:
            return np.asarray(image)[None] if image.mode == "P" else None
    except (ValueError, SyntaxError, OSError) as error:
        raise ImageReadError(f"is truncated or damaged ({error}); copy or export it again") from error


def _is_planar(file: Path) -> bool:
    """Return whether a TIFF stores colours as planes, as `tifffile` writes a (3, H, W) uint8 array."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as tif:
            page = tif.pages.first
            return int(page.planarconfig) == 2 and page.samplesperpixel == 3
    except tifffile.TiffFileError:
        return False


def _plane_names(found: Sequence[StedImage], count: int) -> tuple[str, ...]:
    """Return the names of channels or of series with one channel; () for generated names or a single plane."""
    by_channel = [name for image in found for name in image.channel_names]
    by_series = [image.series for image in found]
    for names in (by_channel, by_series):
        if len(names) == count > 1 and len(set(names)) == count and not any(map(_NO_NAME.fullmatch, names)):
            return tuple(names) if tuple(names) != RGB else ()
    return ()
