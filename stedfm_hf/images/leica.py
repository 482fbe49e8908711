"""Read Leica files (`.lif`, `.lof`, `.xlif`) with liffile: every image is a stack.

liffile reads the container and its XML header. The pixels are read here, at the byte increments that the header states
for each axis, so that a region of a plane costs only its own bytes. The rules are in docs/reference/file-formats.md.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np

from ..modeling.io_stedfm import read_series
from ..modeling.io_types_stedfm import (
    RGB,
    ImageReadError,
    LazySeries,
    file_size,
    one_line,
    read_exactly,
    unique_names,
    unit_in_nm,
)
from .stacks import (
    Stack,
    exact_type,
    image_axes,
    import_reader,
    list_parts,
    list_planes,
    number,
    refuse_entities,
)

_BINARY = 0x70
_MAX_HEADER = 2**28
"""Longest XML header in bytes: those of real files have a few MB."""

_AXES = {
    1: "x",
    2: "y",
    3: "z",
    4: "t",
    5: "lambda",
    6: "rotation",
    7: "xt",
    8: "ts",
    9: "lambda_exc",
    10: "m",
    11: "loop",
}
"""Axes by the number of the format; m counts the tiles of a mosaic or stage positions."""

_WAVELENGTHS = {"lambda": "emission_nm", "lambda_exc": "excitation_nm"}
_COLOURS = (1, 2, 3)
"""Tags of red, green and blue samples."""

ReadBytes = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class _Axis:
    name: str
    length: int
    step: int
    origin: float | None
    extent: float | None
    unit: str

    @property
    def spacing(self) -> float | None:
        """Distance of two elements in nm; the extent is that from the first to the last element."""
        unit = unit_in_nm(self.unit)
        if unit is None or self.extent is None or self.length < 2:
            return None
        return abs(self.extent) / (self.length - 1) * unit


@dataclass(frozen=True)
class _Channel:
    name: str
    dtype: np.dtype[Any]
    offset: int
    colour: int


def read_leica(path: Path, closing: ExitStack) -> list[LazySeries]:
    """List the planes of a Leica file (a reader for `register_path_reader`)."""
    liffile = import_reader("liffile", "Leica files")
    handle = closing.enter_context(path.open("rb"))
    _check_header(handle)
    lif = liffile.LifFile(handle)
    # References to other files belong to projects (.xlef), whose images are read one by one.
    for element in lif.xml_element.iter():
        for reference in element.findall("Reference"):
            element.remove(reference)
    images = list(lif.images)
    if not images and lif.type.name in ("XLEF", "XLCF", "XLLF"):
        raise ImageReadError("is a project, which holds no pixels; read the .lif, .lof or .xlif files in its folder")
    names = unique_names(one_line(image.path) or "image" for image in images)
    return list_parts(
        (name, functools.partial(_list_image, image, name, path, handle, closing))
        for name, image in zip(names, images, strict=True)
    )


def _check_header(handle: IO[bytes]) -> None:
    """Check the length of the XML header, and that it declares no entities, before it is parsed.

    Raises:
        ImageReadError: If the file is not a Leica file, is truncated, or declares entities.
    """
    size = file_size(handle)
    head = handle.read(13)
    mark, _, _, length = struct.unpack("<IIBI", head.ljust(13, b"\0"))
    if mark == _BINARY and length * 2 > size:
        raise ImageReadError("truncated or damaged: its XML header is cut; copy the file again")
    if mark != _BINARY and size > _MAX_HEADER:
        raise ImageReadError("is not a Leica file, or damaged; export it again")
    handle.seek(0)
    if mark != _BINARY:
        refuse_entities(handle.read(size))
    elif length < 32:  # the name of the type; the header of a .lof file follows the pixels
        position = handle.seek(13 + length * 2)
        start = struct.unpack("<BIBIBQ", handle.read(19).ljust(19, b"\0"))[-1] + position + 19
        handle.seek(min(start, size))
        refuse_entities(handle.read(min(_MAX_HEADER, size)))
    else:
        handle.seek(13)
        refuse_entities(handle.read(length * 2))
    handle.seek(0)


def _list_image(image: Any, name: str, path: Path, handle: IO[bytes], closing: ExitStack) -> Iterable[LazySeries]:
    """List the planes of an image.

    Raises:
        ImageReadError: If it has no pixels, or the file is too short for them.
    """
    if image.is_flim:
        raise ImageReadError("is a lifetime (FLIM) measurement; export its intensity image from LAS X")
    axes, channels = list(_axes(image.xml_element)), list(_channels(image.xml_element))
    if not axes or not channels:
        raise ImageReadError("has no axes or no channels; export it again")
    read_bytes, stored = _pixels(image, path, handle, closing)
    lengths = {axis.name: axis.length for axis in axes}
    rows, columns = image_axes(lengths)
    by_name = {axis.name: axis for axis in axes}
    others = {axis.name: axis for axis in axes if axis.name not in (rows, columns)}
    colours = len(channels) == 3 and sorted(channel.colour for channel in channels) == list(_COLOURS)
    if colours:
        channels.sort(key=lambda channel: channel.colour)
    dtype = exact_type(channel.dtype for channel in channels)
    _check_extent(axes, channels, stored)

    def read(position: Mapping[str, int], down: range, across: range) -> np.ndarray:
        start = sum(others[axis].step * k for axis, k in position.items())
        region = np.empty((len(channels), len(down), len(across)), dtype)
        for plane, channel in zip(region, channels, strict=True):
            plane[...] = _region(
                read_bytes, start + channel.offset, channel.dtype, by_name[rows], by_name[columns], down, across
            )
        return region

    notes = []
    if len({channel.dtype for channel in channels}) > 1:
        notes.append(f"the channels have different types, and are read as {dtype.newbyteorder('=').name}")
    if others.get("m") and others["m"].length > 1:
        notes.append("the tiles of the mosaic are separate series; LAS X can merge them")
    metadata: dict[str, Any] = {"format": "Leica", "axes": list(lengths)}
    stack = Stack(
        name,
        (len(channels), lengths[rows], lengths[columns]),
        dtype,
        read,
        axes={axis: each.length for axis, each in others.items()},
        stored=stored,
        spacing=(by_name[rows].spacing, by_name[columns].spacing),
        channel_names=RGB if colours else [channel.name for channel in channels],
        metadata=metadata | ({"notes": notes} if notes else {}),
        plane_metadata=functools.partial(_wavelengths, others),
    )
    return list_planes(stack)


def _wavelengths(axes: Mapping[str, _Axis], position: Mapping[str, int]) -> dict[str, float]:
    """Return the wavelengths of a plane in nm."""
    found = dict[str, float]()
    for name, key in _WAVELENGTHS.items():
        axis = axes.get(name)
        if axis and axis.spacing is not None and axis.origin is not None and axis.extent is not None:
            step = axis.extent / (axis.length - 1)
            found[key] = round((axis.origin + step * position[name]) * (unit_in_nm(axis.unit) or 1.0), 3)
    return found


def _axes(element: ElementTree.Element) -> Iterator[_Axis]:
    """Yield the axes of an image, the slowest first."""
    found = list[_Axis]()
    for each in element.findall("./Data/Image/ImageDescription/Dimensions/DimensionDescription"):
        kind, length, step = (int(each.attrib[key]) for key in ("DimID", "NumberOfElements", "BytesInc"))
        if length < 1 or step < 0:
            raise ImageReadError(f"damaged: its header declares {length} elements at steps of {step} bytes")
        name = _AXES.get(kind, f"axis{kind}")
        origin, extent = number(each.get("Origin")), number(each.get("Length"))
        found.append(_Axis(name, length, step, origin, extent, each.get("Unit", "")))
    names = unique_names(axis.name for axis in found)
    named = [_Axis(name, *tuple(vars(axis).values())[1:]) for name, axis in zip(names, found, strict=True)]
    return iter(sorted(named, key=lambda axis: axis.step, reverse=True))


def _channels(element: ElementTree.Element) -> Iterator[_Channel]:
    """Yield the channels of an image, in the order of the header."""
    for k, each in enumerate(element.findall("./Data/Image/ImageDescription/Channels/ChannelDescription")):
        bits, kind = int(each.attrib["Resolution"]), int(each.attrib["DataType"])
        size = next((size for size in (1, 2, 4, 8) if 0 < bits <= size * 8), None)
        if size is None or kind not in (0, 1) or (kind == 1 and size == 1):
            raise ImageReadError(
                f"has pixels of {bits} bits (type {kind}), which are not supported; export it as TIFF"
            )
        facts = {(fact.findtext("Key") or ""): fact.findtext("Value") for fact in each.findall("ChannelProperty")}
        name = facts.get("DyeName") or each.get("LUTName") or str(k)
        dtype = np.dtype(f"<{'uf'[kind]}{size}")
        offset, colour = int(each.get("BytesInc", "0")), int(each.get("ChannelTag", "0"))
        if offset < 0:
            raise ImageReadError(f"damaged: its header declares a channel at byte {offset}; copy it again")
        yield _Channel(name, dtype, offset, colour)


def _check_extent(axes: list[_Axis], channels: list[_Channel], stored: int) -> None:
    """Check that the last pixel is in the file.

    Raises:
        ImageReadError: If it is not.
    """
    last = sum((axis.length - 1) * axis.step for axis in axes)
    end = max(last + channel.offset + channel.dtype.itemsize for channel in channels)
    if end > stored:
        raise ImageReadError(f"truncated or damaged: needs {end} bytes of pixels and has {stored}; copy it again")


def _region(
    read_bytes: ReadBytes, start: int, dtype: np.dtype[Any], rows: _Axis, columns: _Axis, down: range, across: range
) -> np.ndarray:
    """Read a region of a plane that begins at a byte of the pixels."""
    start += down.start * rows.step + across.start * columns.step
    width = (len(across) - 1) * columns.step + dtype.itemsize
    if rows.step > 4 * width:  # the rest of the rows is not worth reading
        found = np.empty((len(down), len(across)), dtype)
        for k in range(len(down)):
            data = read_bytes(start + k * rows.step, width)
            found[k] = np.ndarray((len(across),), dtype, data, strides=(columns.step,))
        return found
    data = read_bytes(start, (len(down) - 1) * rows.step + width)
    return np.ndarray((len(down), len(across)), dtype, data, strides=(rows.step, columns.step))


def _pixels(image: Any, path: Path, handle: IO[bytes], closing: ExitStack) -> tuple[ReadBytes, int]:
    """Return a function that reads bytes of the pixels of an image, and their number.

    Raises:
        ImageReadError: If the pixels are not in the file.
    """
    try:
        block = image.memory_block
    except (KeyError, IndexError) as error:
        raise ImageReadError("truncated: its pixels are not in the file; copy the file again") from error
    if not block.frames:
        if block.offset < 0:
            raise ImageReadError("its pixels are not in the file; export it again")
        return functools.partial(_read_at, handle, block.offset), min(block.size, file_size(handle) - block.offset)
    files = {frame.file: _beside(path, frame.file) for frame in block.frames}
    if len(block.frames) == 1 and block.frames[0].file.lower().endswith(".lof"):
        other = closing.enter_context(files[block.frames[0].file].open("rb"))
        _check_header(other)
        inner = import_reader("liffile", "Leica files").LifFile(other).images[0].memory_block
        if inner.frames or inner.offset < 0:
            raise ImageReadError(f"damaged: its pixels are not in {block.frames[0].file}; copy both files again")
        return functools.partial(_read_at, other, inner.offset), inner.size

    frames = sorted(block.frames, key=lambda frame: frame.offset)
    # Planes are read in order: the last file is cached.
    load = functools.lru_cache(maxsize=1)(lambda file: _file_bytes(files[file]))

    def read_bytes(start: int, count: int) -> np.ndarray:
        found, filled = np.empty(count, np.uint8), 0
        for frame in frames:
            first, last = max(start, frame.offset), min(start + count, frame.offset + frame.size)
            if first >= last:
                continue
            pixels = load(frame.file)
            if len(pixels) < last - frame.offset:
                raise ImageReadError(f"truncated: {frame.file} holds fewer pixels than declared; copy it again")
            found[first - start : last - start] = pixels[first - frame.offset : last - frame.offset]
            filled += last - first
        if filled < count:
            raise ImageReadError("damaged: some of its pixels are in no file; export it again")
        return found

    return read_bytes, max(frame.offset + frame.size for frame in frames)


def _read_at(handle: IO[bytes], offset: int, start: int, count: int) -> np.ndarray:
    """Read bytes of the pixels that begin at an offset of a file."""
    handle.seek(offset + start)
    return read_exactly(handle, count)


def _file_bytes(file: Path) -> np.ndarray:
    """Return the pixels of an image file as bytes, plane after plane."""
    planes = [image.array.transpose(1, 2, 0).reshape(-1) for image in read_series(file)]
    return np.concatenate(planes).view(np.uint8)


def _beside(path: Path, name: str) -> Path:
    """Return the file that a header names relative to its own folder.

    Raises:
        ImageReadError: If the name is not relative, or there is no such file.
    """
    windows = PureWindowsPath(name)
    if windows.is_absolute() or windows.drive or PurePosixPath(name).is_absolute():
        raise ImageReadError(f"its pixels are in {name}, which is not next to it; copy both into one folder")
    file = path.parent.joinpath(*windows.parts)
    if not file.is_file():
        raise ImageReadError(f"its pixels are in {os.fspath(windows.as_posix())}, which is missing; copy it too")
    return file
