"""Read TIFF, OME-TIFF and ImageJ TIFF as series of planes with tifffile.

Every axis except for Y, X and the channels (C and samples S) is split into planes, which are separate series. A header
that contradicts the pages of the file costs its metadata, never the pixels. The rules are in
docs/reference/file-formats.md.
"""

from __future__ import annotations

import logging
import math
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from .axes_stedfm import channel_axis
from .io_calibration_stedfm import calibrate, declared_planes, find_calibration, is_plain, tag_pixel_size
from .io_ome_stedfm import OmeImage, read_ome
from .io_pages_stedfm import TiffPages
from .io_types_stedfm import (
    MAX_PLANES,
    RGB,
    ImageReadError,
    LazySeries,
    file_size,
    make_info,
    plane_name,
)

try:
    import tifffile
except ImportError:  # optional on the Hub, as Pillow is; a checker does not know a module that may be None
    tifffile = None  # type: ignore[assignment]
else:
    # Problems are reported with the name of the file; without a handler, tifffile would print its own lines.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())

_HEADER_TAGS = (270, 282, 283)  # description (the headers of OME and ImageJ), resolution in x and y
_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # by TIFF's number of it
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated alpha
_PHOTOMETRIC_RGB = (2, 6)  # RGB, and YCbCr, which decodes to RGB
_UNNAMED_AXES = "IQ"
PREVIEWS = "preview pages are left out"
CHANNELS_LAST = "the axes have no names, and the short last one is taken for the channels"


@dataclass(frozen=True)
class _Header:
    """Header of a file: the text of OME or ImageJ, and notes on what cannot be read."""

    imagej: dict[str, Any]
    ome: list[OmeImage]
    notes: list[str]
    format: str


def read_tiff(handle: IO[bytes]) -> list[LazySeries]:
    """List the planes of a TIFF file (a reader for `register_reader`)."""
    if tifffile is None:
        raise ImageReadError("TIFF needs tifffile, which is not installed; pip install tifffile")
    # The private switch keeps to this file: an OME header may name others, and each of those would list all again.
    tif = tifffile.TiffFile(handle, _multifile=False)
    pages = _count_pages(tif, handle)
    header = _read_header(tif, os.path.basename(str(getattr(handle, "name", ""))))
    series_list = _find_series(tif, handle, pages, header)
    full = [series for series in series_list if not series.keyframe.is_reduced]
    if full and len(full) < len(series_list):
        header.notes.append(PREVIEWS)
    found = list[LazySeries]()
    for k, series in enumerate(full or series_list):
        fits = [image for image in header.ome if image.name == series.name]
        ome = header.ome[k] if len(header.ome) == len(full or series_list) else fits[0] if fits else None
        found.extend(_planes(series, handle, tif.byteorder, header, ome))
    return found


def _count_pages(tif: tifffile.TiffFile, handle: IO[bytes]) -> int:
    """Follow the chain of pages to its end, because tifffile silently reads a truncated file.

    Returns:
        Number of pages.

    Raises:
        ImageReadError: If the file ends before the chain does.
    """
    form, size = tif.tiff, file_size(handle)
    offset, seen = tif.pages.first.offset, set[int]()
    entry = f"{form.byteorder}HH{form.offsetformat[-1] * 2}"
    while offset:
        if offset in seen or offset >= size or len(seen) >= MAX_PLANES:
            raise ImageReadError(f"truncated or damaged after {len(seen)} page(s); copy or export it again")
        seen.add(offset)
        handle.seek(offset)
        (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
        for code, kind, count, place in struct.iter_unpack(entry, handle.read(tags * form.tagsize)):
            length = count * _TYPE_BYTES.get(kind, 1)
            if code in _HEADER_TAGS and length > form.offsetsize and place + length > size:
                raise ImageReadError(f"truncated: the header of page {len(seen) - 1} is cut; copy or export it again")
        (offset,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))
    return len(seen)


def _read_header(tif: tifffile.TiffFile, file_name: str) -> _Header:
    """Read the header of ImageJ or OME."""
    imagej = dict(tif.imagej_metadata or {}) if tif.is_imagej else {}
    name = "OME-TIFF" if tif.is_ome else "ImageJ TIFF" if tif.is_imagej else "TIFF"
    text = tif.ome_metadata if tif.is_ome else None
    images, notes = read_ome(text, file_name) if text else ([], [])
    return _Header(imagej, images, notes, name)


def _find_series(
    tif: tifffile.TiffFile, handle: IO[bytes], pages: int, header: _Header
) -> list[tifffile.TiffPageSeries]:
    """Return the series of tifffile; those of the pages alone, with a note, if the header contradicts them.

    Raises:
        ImageReadError: If the file ends before the planes that its ImageJ header declares.
    """
    try:
        found = list(tif.series)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        header.notes.append("the OME header cannot be interpreted; all pages are read")
        return list(_without_header(handle).series)
    covered = sum(math.prod(each.get_shape(squeeze=False)) // max(1, each.keyframe.size) for each in found)
    declared = declared_planes(header.imagej)
    if declared > covered and found[0].kind in ("uniform", "generic"):
        if pages == 1 and _is_cut(found[0], handle):
            raise ImageReadError("truncated: holds fewer planes than its ImageJ header declares; export it again")
        header.notes.append(f"the ImageJ header declares {declared} planes, the file holds {covered}")
    if pages <= covered:
        return found
    plain = _without_header(handle)
    first = found[0].keyframe
    alike = [page for page in plain.pages if page.shape == first.shape and not getattr(page, "is_reduced", False)]
    if len(alike) <= covered:  # the others are previews, or the label of a slide
        return found
    header.notes.append(f"the header declares {covered} of the {pages} planes in the file; all pages are read")
    return list(plain.series)


def _without_header(handle: IO[bytes]) -> tifffile.TiffFile:
    """Open a file again as plain pages."""
    handle.seek(0)
    return tifffile.TiffFile(handle, _multifile=False, is_ome=False, is_imagej=False, is_shaped=False)


def _is_cut(series: tifffile.TiffPageSeries, handle: IO[bytes]) -> bool:
    """Return whether the file ends within the plane after the first one; ImageJ stores planes behind one page."""
    page = series.keyframe
    if int(page.compression) != 1:
        return False
    end = max(start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True))
    return page.offset < end and file_size(handle) - end > 8  # a few bytes may fill up the file


def _planes(
    series: tifffile.TiffPageSeries, handle: IO[bytes], byteorder: str, header: _Header, ome: OmeImage | None
) -> Iterator[LazySeries]:
    """Yield the planes of a series of tifffile, for every index of the axes except for Y, X and the channels.

    No pixel is decoded before a plane is loaded. Sizes in the header are compared with the size of the file first, so
    that a damaged header cannot fill the memory.

    Raises:
        ImageReadError: If there is no image plane, or the file is too short for its header.
    """
    axes, shape, page = series.get_axes(squeeze=False), series.get_shape(squeeze=False), series.keyframe
    if axes.count("Y") != 1 or axes.count("X") != 1 or not page.size:
        raise ImageReadError(f"has no image plane (axes {axes} {shape}); export it as a plain TIFF")
    if _has_channels_last(series, header):
        yield _channels_last(series, handle, header)
        return

    height, width = shape[axes.index("Y")], shape[axes.index("X")]
    fixed = [k for k, axis in enumerate(axes) if axis not in "YXCS"]
    keep = _samples_kept(page, shape[axes.index("S")] if "S" in axes else 1)
    channels = math.prod(shape[k] for k, axis in enumerate(axes) if axis == "C") * len(keep)
    rgb = int(page.photometric) in _PHOTOMETRIC_RGB and channels == 3
    names: Sequence[str] = RGB if rgb else ome.channel_names if ome else ()

    stored, raw = file_size(handle), np.dtype(series.dtype)
    planes, plain = math.prod(shape[k] for k in fixed), series.dataoffset is not None
    if planes > MAX_PLANES or (series.dataoffset or 0) + math.prod(shape) * raw.itemsize * plain > stored:
        raise ImageReadError(
            f"truncated or damaged: too short for {planes} plane(s) of {shape}; copy or export it again"
        )
    calibration, dtype = find_calibration(header.imagej, raw) if not rgb else ({}, raw)
    size = (ome.pixel_size_nm if ome else None) or tag_pixel_size(page, header.imagej)
    packed = not plain and (int(page.compression) != 1 or page.bitspersample != 8 * raw.itemsize)
    # A tile may be declared far larger than the image it is cut to; a plane is checked as it lies in the file.
    make_info("", (1, 1, math.prod(page.chunks)), raw, None, (), stored=stored, packed=True)
    make_info("", (channels, height, width), raw, None, (), stored=stored, packed=packed or raw.kind == "b")

    source = TiffPages(series, handle, byteorder)
    labels = _axis_labels([axes[k] for k in fixed])
    metadata = _metadata(series, header)
    for index in np.ndindex(*(shape[k] for k in fixed)):
        varying_index = {label: i for label, k, i in zip(labels, fixed, index, strict=True) if shape[k] > 1}
        info = make_info(
            plane_name(series.name or (ome.name if ome else "") or "image", varying_index),
            (channels, height, width),
            dtype,
            size,
            names,
            stored=stored,
            packed=True,
        )

        def load(index: tuple[int, ...] = index) -> np.ndarray:
            plane = _assemble(source.read, axes, shape, page.size, dict(zip(fixed, index, strict=True)), keep)
            return calibrate(plane, calibration, dtype)

        def load_region(rows: range, columns: range, index: tuple[int, ...] = index) -> np.ndarray:
            def read(number: int) -> np.ndarray:
                return source.read_region(number, rows, columns)

            lengths = {"Y": len(rows), "X": len(columns)}
            cut = tuple(lengths.get(axis, length) for axis, length in zip(axes, shape, strict=True))
            size = page.size // (height * width) * len(rows) * len(columns)
            plane = _assemble(read, axes, cut, size, dict(zip(fixed, index, strict=True)), keep)
            return calibrate(plane, calibration, dtype)

        extra = {"plane": varying_index} if varying_index else {}
        extra |= {"calibration": calibration} if calibration else {}
        yield LazySeries(info, load, metadata | extra, load_region)


def _metadata(series: tifffile.TiffPageSeries, header: _Header) -> dict[str, Any]:
    """Return the facts of a series as plain data."""
    metadata: dict[str, Any] = {
        "format": header.format,
        "axes": series.axes,
        "photometric": str(getattr(series.keyframe.photometric, "name", "")),
    }
    if header.imagej:
        short = {key: value for key, value in header.imagej.items() if not isinstance(value, str) or len(value) < 500}
        metadata["imagej"] = {key: value for key, value in short.items() if is_plain(value)}
    if header.notes:
        metadata["notes"] = list(header.notes)
    return metadata


def _has_channels_last(series: tifffile.TiffPageSeries, header: _Header) -> bool:
    """Return whether a series without names of axes is an array (height, width, channels)."""
    axes, shape = series.get_axes(squeeze=True), series.get_shape(squeeze=True)
    unnamed = len(axes) == 3 and axes[0] in _UNNAMED_AXES and axes[1:] == "YX"
    return unnamed and not header.imagej and not header.ome and channel_axis(shape) == 2


def _channels_last(series: tifffile.TiffPageSeries, handle: IO[bytes], header: _Header) -> LazySeries:
    """Return a series whose pages are the rows of an image with channels."""
    height, width, channels = series.get_shape(squeeze=True)
    stored, packed = file_size(handle), series.dataoffset is None and int(series.keyframe.compression) != 1
    size = tag_pixel_size(series.keyframe, header.imagej)
    info = make_info(
        series.name or "image",
        (channels, height, width),
        np.dtype(series.dtype),
        size,
        (),
        stored=stored,
        packed=packed,
    )
    metadata = _metadata(series, header)
    metadata["notes"] = [*header.notes, CHANNELS_LAST]
    return LazySeries(
        info,
        lambda: np.moveaxis(series.asarray(maxworkers=1).reshape(height, width, channels), -1, 0),
        metadata,
    )


def _axis_labels(axes: Sequence[str]) -> list[str]:
    """Return readable axis names: `z`, `t`; unnamed axes (I, Q) are `page`, `page2`."""
    counts, labels = Counter[str](), list[str]()
    for axis in axes:
        label = "page" if axis in _UNNAMED_AXES else axis.lower()
        counts[label] += 1
        labels.append(label if counts[label] == 1 else f"{label}{counts[label]}")
    return labels


def _samples_kept(page: tifffile.TiffPage, samples: int) -> list[int]:
    """Return the indices of the samples without alpha channels."""
    if int(page.photometric) in _PHOTOMETRIC_RGB and samples == 4:
        return [0, 1, 2]  # many writers add alpha without saying so
    extra = [0] * samples + [int(each) for each in page.extrasamples]
    kept = [k for k, kind in enumerate(extra[-samples:]) if kind not in _ALPHA]
    return kept or list(range(samples))


def _assemble(
    get_page: Callable[[int], np.ndarray],
    axes: str,
    shape: tuple[int, ...],
    page_size: int,
    fixed: dict[int, int],
    keep: list[int],
) -> np.ndarray:
    """Assemble the plane (C, H, W) at the fixed axes; a page holds the last axes, the first axes count pages."""
    pages = math.prod(shape) // page_size
    lead = next((k for k in range(len(shape)) if math.prod(shape[:k]) == pages), None)
    if lead is None:
        raise ImageReadError(f"its pages do not fit its axes {axes} {shape}; export it again")
    channel_places = [range(n) if k not in fixed else (fixed[k],) for k, n in enumerate(shape[:lead])]
    inner = [k for k in range(lead, len(shape)) if k not in fixed]
    order = [inner.index(k) for k in inner if axes[k] in "CS"]
    order += [inner.index(axes.index("Y")), inner.index(axes.index("X"))]
    # An axis C that counts pages may stand before or after fixed axes: every combination of it is one page.
    grids = np.meshgrid(*channel_places, indexing="ij")
    numbers = np.ravel_multi_index([grid.ravel() for grid in grids], shape[:lead]) if lead else np.zeros(1, int)
    parts = []
    for number in numbers:
        page = get_page(int(number)).reshape(shape[lead:])
        page = page[tuple(fixed.get(k, slice(None)) for k in range(lead, len(shape)))].transpose(order)
        if "S" in axes:
            samples = shape[axes.index("S")]
            page = page.reshape(-1, samples, *page.shape[-2:])
            page = page if len(keep) == samples else page[:, keep]
        parts.append(page.reshape(-1, *page.shape[-2:]))
    # A large field of one page is not copied.
    return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)
