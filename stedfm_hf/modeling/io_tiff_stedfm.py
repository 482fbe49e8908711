"""Read TIFF, OME-TIFF and ImageJ TIFF as series of planes with tifffile.

Every axis except for Y, X and the channels (C and samples S) is split into planes, which are separate series. A linear
ImageJ calibration is applied; other calibrations are recorded in the metadata. The rules are in
docs/reference/file-formats.md.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np

from .io_types_stedfm import (
    RGB,
    ImageReadError,
    LazySeries,
    file_size,
    make_info,
    one_line,
    pixel_size,
    plane_name,
    read_exactly,
    unit_in_nm,
)

try:
    import tifffile
except ImportError:  # an environment of the Hub may have only torch, transformers and Pillow
    tifffile = None  # type: ignore[assignment]

PLAUSIBLE_PIXEL_NM = 10_000.0  # printing resolutions (72 ... 2400 dpi) mean larger pixels: no microscope wrote them
MAX_PLANES = 10**6  # a file that declares more planes is damaged: refused before tifffile makes lists of that length
_HEADER_TAGS = (270, 282, 283)  # description (the headers of OME and ImageJ), resolution in x and y
_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # by TIFF's number of it
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated alpha
_PHOTOMETRIC_RGB = (2, 6)  # RGB, and YCbCr, which decodes to RGB


def read_tiff(handle: IO[bytes]) -> list[LazySeries]:
    """List the planes of a TIFF file (a reader for `register_reader`)."""
    if tifffile is None:
        raise ImageReadError("TIFF needs tifffile, which is not installed; pip install tifffile")
    # The private switch keeps to this file: an OME header may name others, and each of those would list all again.
    tif = tifffile.TiffFile(handle, _multifile=False)
    _check_pages(tif, handle)
    images = _ome_images(tif)
    found = list[LazySeries]()
    series_list = tif.series
    for k, series in enumerate(series_list):
        fits = [image for image in images if image.name == series.name]
        ome = images[k] if len(images) == len(series_list) else fits[0] if fits else None
        found.extend(_planes(tif, handle, series, ome))
    return found


def _check_pages(tif: tifffile.TiffFile, handle: IO[bytes]) -> None:
    """Follow the chain of pages to its end, because tifffile silently reads a truncated file."""
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


@dataclass(frozen=True)
class _OmeImage:
    name: str
    pixel_size_nm: tuple[float, float] | None
    channel_names: tuple[str, ...]


def _ome_images(tif: tifffile.TiffFile) -> list[_OmeImage]:
    """Return the names and pixel sizes in the OME header, if there is one; refuse impossible plane counts."""
    if not tif.is_ome or not tif.ome_metadata:
        return []
    root, images = ElementTree.fromstring(tif.ome_metadata), list[_OmeImage]()
    for image in root.iterfind("{*}Image"):
        for pixels in image.iterfind("{*}Pixels"):
            data = list(pixels.iterfind("{*}TiffData"))
            counts = [math.prod(int(pixels.get(f"Size{axis}", 1)) for axis in "TZC")]
            counts += [int(each.get(key, 0)) for each in data for key in ("PlaneCount", "NumPlanes", "IFD")]
            if max(counts) > MAX_PLANES:
                raise ImageReadError(f"its OME header declares {max(counts)} planes; export it again")
            y, x = (
                float(pixels.get(f"PhysicalSize{axis}", 0))
                * (unit_in_nm(pixels.get(f"PhysicalSize{axis}Unit", "µm")) or 0)
                for axis in "YX"
            )
            channels = list(pixels.iterfind("{*}Channel"))
            names = tuple(one_line(each.get("Name", "")) for each in channels)
            images.append(_OmeImage(image.get("Name", ""), pixel_size(y, x), names if all(names) else ()))
    return images


def _planes(
    tif: tifffile.TiffFile, handle: IO[bytes], series: tifffile.TiffPageSeries, ome: _OmeImage | None
) -> Iterator[LazySeries]:
    """Yield the planes of a series of tifffile, for every index of the axes except for Y, X and the channels.

    No pixel is decoded before a plane is loaded. Sizes in the header are compared with the size of the file first, so
    that a damaged header cannot fill the memory.

    Raises:
        ImageReadError: If there is no image plane, or the file is too short for its header.
    """
    axes, shape, page = series.get_axes(squeeze=False), series.get_shape(squeeze=False), series.keyframe
    imagej = dict(tif.imagej_metadata or {}) if tif.is_imagej else {}
    if axes.count("Y") != 1 or axes.count("X") != 1 or not page.size:
        raise ImageReadError(f"has no image plane (axes {axes} {shape}); export it as a plain TIFF")
    if series.kind in ("uniform", "generic") and _declared_planes(imagej) > math.prod(shape) // page.size:
        raise ImageReadError("truncated: holds fewer planes than its ImageJ header declares; export it again")

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
    calibration, dtype = _calibration(imagej, raw) if not rgb else ({}, raw)
    size = (ome.pixel_size_nm if ome else None) or _tag_pixel_size(page, imagej)
    packed = not plain and int(page.compression) != 1
    # A tile may be declared far larger than the image it is cut to; a plane is checked as it lies in the file.
    make_info("", (1, 1, math.prod(page.chunks)), raw, None, (), stored=stored, packed=True)
    make_info("", (channels, height, width), raw, None, (), stored=stored, packed=packed or raw.kind == "b")

    get_page = _page_getter(tif, handle, series)
    labels = _axis_labels([axes[k] for k in fixed])
    metadata: dict[str, Any] = {
        "format": _format_name(tif),
        "axes": series.axes,
        "photometric": str(getattr(page.photometric, "name", "")),
    }
    if imagej:
        short = {key: value for key, value in imagej.items() if not isinstance(value, str) or len(value) < 500}
        metadata["imagej"] = {key: value for key, value in short.items() if _is_plain(value)}
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
            plane = _assemble(get_page, axes, shape, page.size, dict(zip(fixed, index, strict=True)), keep)
            return _calibrate(plane, calibration, dtype)

        extra = {"plane": varying_index} if varying_index else {}
        extra |= {"calibration": calibration} if calibration else {}
        yield LazySeries(info, load, metadata | extra)


def _axis_labels(axes: Sequence[str]) -> list[str]:
    """Return readable axis names: `z`, `t`; unnamed axes (I, Q) are `page`, `page2`."""
    counts, labels = Counter[str](), list[str]()
    for axis in axes:
        label = "page" if axis in "IQ" else axis.lower()
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


def _page_getter(
    tif: tifffile.TiffFile, handle: IO[bytes], series: tifffile.TiffPageSeries
) -> Callable[[int], np.ndarray]:
    """Return a function that decodes the n-th page of a series; uncompressed pages are read directly.

    The function raises an ImageReadError for a page that is missing or truncated.
    """
    page, size = series.keyframe, file_size(handle)
    raw = np.dtype(series.dtype).newbyteorder(tif.byteorder)
    start, length = series.dataoffset, page.size * raw.itemsize

    def get(number: int) -> np.ndarray:
        """Read one page: from its offset if all pages are stored in sequence, else by tifffile."""
        if start is not None:
            handle.seek(start + number * length)
            pixels = read_exactly(handle, length).view(raw)
            # ImageJ writes bytes in the other order; turned in their place, a large field is not copied.
            return pixels if raw.isnative else pixels.byteswap(inplace=True).view(raw.newbyteorder("="))
        one = series[number] if number < len(series) else None
        if one is None:
            raise ImageReadError(f"page {number} is missing from the file; export it again")
        strips = list(zip(one.dataoffsets, one.databytecounts, strict=True))
        # tifffile fills strips that are missing or empty with zeros: here they are damage.
        if len(strips) < math.prod(one.chunked) or any(not o or not n or o + n > size for o, n in strips):
            raise ImageReadError(f"truncated: pixels of page {number} are missing; copy or export it again")
        return one.asarray(maxworkers=1)

    return get


# ------------------------------------------------------------------------------------- calibration and pixel size


def _declared_planes(imagej: dict[str, Any]) -> int:
    counts = [imagej.get(key, 1) for key in ("frames", "slices", "channels")]
    return math.prod(count for count in counts if isinstance(count, int) and count > 0)


def _calibration(imagej: dict[str, Any], raw: np.dtype[Any]) -> tuple[dict[str, Any], np.dtype[Any]]:
    """Return the calibration of grey values in an ImageJ header, and their type after it.

    ImageJ stores c0 + c1 * value (`cf=0`) for 8- and 16-bit data only, and holds signed 16-bit data shifted by 32768.
    """
    if "cf" not in imagej:
        return {}, raw
    c0, c1 = imagej.get("c0"), imagej.get("c1")
    record = {"function": imagej["cf"], "c0": c0, "c1": c1, "unit": imagej.get("vunit", "")}
    record = {key: value if _is_plain(value) else str(value) for key, value in record.items()} | {"applied": False}
    has_coefficients = all(isinstance(c, (int, float)) and math.isfinite(c) and abs(c) < 1e30 for c in (c0, c1))
    if imagej["cf"] != 0 or raw not in (np.uint8, np.uint16, np.int16) or not has_coefficients or c1 == 0:
        return record, raw
    slope = float(c1 or 0)
    offset = float(c0 or 0) + slope * (32768 if raw == np.int16 else 0)
    record |= {"applied": True, "c0": offset, "c1": slope}
    if (offset, slope) == (0.0, 1.0):
        return record, raw
    extremes = [float(end) * slope + offset for end in (np.iinfo(raw).min, np.iinfo(raw).max)]
    for whole in (np.int16, np.int32):
        limits = np.iinfo(whole)
        if offset.is_integer() and slope.is_integer() and limits.min <= min(extremes) <= max(extremes) <= limits.max:
            return record, np.dtype(whole)
    return record, np.dtype(np.float32)


def _is_plain(value: object) -> bool:
    """Return whether a value can be stored in JSON."""
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _calibrate(plane: np.ndarray, calibration: dict[str, Any], dtype: np.dtype[Any]) -> np.ndarray:
    if not calibration.get("applied") or (calibration["c0"], calibration["c1"]) == (0.0, 1.0):
        return plane
    if dtype.kind == "f":
        return (plane.astype(np.float64) * calibration["c1"] + calibration["c0"]).astype(dtype)
    return (plane.astype(np.int64) * int(calibration["c1"]) + int(calibration["c0"])).astype(dtype)


def _tag_pixel_size(page: tifffile.TiffPage, imagej: dict[str, Any]) -> tuple[float, float] | None:
    """Return the pixel size (y, x) in nm from the resolution tags; cm and inch only if plausible for a microscope."""
    per_unit = []
    for tag in ("YResolution", "XResolution"):
        value = page.tags.valueof(tag, (0, 1))
        top, bottom = value if isinstance(value, tuple) and len(value) == 2 else (0, 1)
        per_unit.append(top / bottom if bottom else 0.0)
    if not all(per_unit):
        return None
    y, x = (1.0 / each for each in per_unit)
    if imagej.get("unit"):
        unit = unit_in_nm(imagej["unit"]) or 0.0
        return pixel_size(y * unit, x * unit)
    unit = {2: 25.4e6, 3: 1e7}.get(int(page.tags.valueof("ResolutionUnit", 2)), 0.0)
    found = pixel_size(y * unit, x * unit)
    return found if found and max(found) < PLAUSIBLE_PIXEL_NM else None


def _format_name(tif: tifffile.TiffFile) -> str:
    return "OME-TIFF" if tif.is_ome else "ImageJ TIFF" if tif.is_imagej else "TIFF"
