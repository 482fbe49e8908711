"""Read Nikon files (`.nd2`) with nd2: the planes of all positions, times and depths.

nd2 reads the metadata and the table of the chunks. The pixels are read here, so that a frame that is missing from the
file is an error, and a region of an uncompressed frame costs only its own rows. The rules are in
docs/reference/file-formats.md.
"""

from __future__ import annotations

import functools
import math
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..modeling.io_types_stedfm import (
    RGB,
    ImageReadError,
    LazySeries,
    file_size,
    make_info,
    one_line,
    read_exactly,
    unique_names,
)
from .stacks import Stack, import_reader, list_planes, number, refuse_entities, rows_of

_AXES = {"TimeLoop": "t", "NETimeLoop": "t", "XYPosLoop": "p", "ZStackLoop": "z"}
_CHUNK = struct.Struct("<IIQ")
_CHUNK_MAGIC = 0x0ABECEDA
_HEADERS = (b"ImageAttributes", b"ImageMetadata", b"ImageTextInfo")
_MAX_HEADER = 2**28
"""Largest unpacked header in bytes."""

_MICROMETRE = 1000.0
_PICTURE = "ImageMetadataSeq|0"
"""Name of the header of the first frame; that of version 3 ends in LV before the bar."""

_TIME = 2
"""Number of an axis of a picture that is a time, as in a line scan."""

_TIMESTAMP = 8
"""Bytes before the pixels of a frame."""


def read_nikon(path: Path, closing: ExitStack) -> list[LazySeries]:
    """List the planes of a Nikon file (a reader for `register_path_reader`)."""
    nd2 = import_reader("nd2", "Nikon files")
    handle = closing.enter_context(path.open("rb"))
    if struct.unpack("<I", handle.read(4).ljust(4, b"\0"))[0] != _CHUNK_MAGIC:
        raise ImageReadError("is an old (JPEG 2000) or damaged .nd2 file; save it again in NIS-Elements, or as TIFF")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # problems are reported here
        file = nd2.ND2File(handle)
        closing.callback(file.close)
        chunks: Mapping[bytes, tuple[int, int]] = file._rdr.chunkmap  # the table has no public name
        _check_headers(handle, chunks)
        return _list_frames(file, handle, chunks)


def _check_headers(handle: IO[bytes], chunks: Mapping[bytes, tuple[int, int]]) -> None:
    """Check the headers before nd2 decodes them: their unpacked sizes, and that XML declares no entities.

    Raises:
        ImageReadError: If a header is too large, or declares entities.
    """
    for name, (offset, _) in chunks.items():
        if not name.startswith(_HEADERS):
            continue
        content = _read_chunk(handle, offset).tobytes()
        while content[:1] == b"L":  # compressed: two bytes and ten of the sizes, then zlib
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(content[12:], _MAX_HEADER)
            if unpacker.unconsumed_tail:
                raise ImageReadError("damaged: its header is too large; copy it again")
        refuse_entities(content)


def _read_chunk(handle: IO[bytes], offset: int, skip: int = 0, count: int | None = None) -> np.ndarray:
    """Read bytes of a chunk.

    Args:
        handle: Open file.
        offset: Position of the chunk.
        skip: Number of bytes at its start to leave out.
        count: Number of bytes to read; None reads all.

    Raises:
        ImageReadError: If there is no chunk, or the file ends before it does.
    """
    handle.seek(offset)
    magic, name, length = _CHUNK.unpack(handle.read(_CHUNK.size).ljust(_CHUNK.size, b"\0"))
    start = offset + _CHUNK.size + name
    if magic != _CHUNK_MAGIC or start + length > file_size(handle):
        raise ImageReadError("truncated or damaged: a part is not where the table of the file has it; copy it again")
    count = length - skip if count is None else count
    if count < 0 or skip + count > length:
        raise ImageReadError("truncated or damaged: a frame has fewer pixels than declared; copy it again")
    handle.seek(start + skip)
    return read_exactly(handle, count)


def _list_frames(file: Any, handle: IO[bytes], chunks: Mapping[bytes, tuple[int, int]]) -> list[LazySeries]:
    """List the planes of all frames; a frame holds all channels of a plane.

    Raises:
        ImageReadError: If the header does not describe an image.
    """
    facts = file.attributes
    height, width, samples = int(facts.heightPx), int(facts.widthPx or 0), int(facts.componentCount)
    dtype = np.dtype(file.dtype)
    row = int(facts.widthBytes or width * samples * dtype.itemsize)
    if facts.compressionType == "lossy":
        raise ImageReadError("is compressed with loss, which is not supported; export it as TIFF")
    packed = facts.compressionType is not None
    if min(height, width, samples) < 1 or row < width * samples * dtype.itemsize:
        raise ImageReadError(f"damaged: its rows of {row} bytes do not hold {width} pixels; copy it again")
    size = file_size(handle)
    make_info("", (samples, height, width), dtype, None, (), stored=size, packed=packed)

    frames = {int(name[13:-1]): place for name, (place, _) in chunks.items() if name.startswith(b"ImageDataSeq|")}
    loops, notes = _loops(file, frames)
    lengths = tuple(loops.values())
    if math.prod(lengths) > 10**6:
        raise ImageReadError(f"damaged: declares {math.prod(lengths)} frames; copy it again")
    missing = frozenset(index for k, index in enumerate(np.ndindex(*lengths)) if k not in frames)

    @functools.lru_cache(maxsize=1)
    def unpacked(number: int) -> np.ndarray:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(_read_chunk(handle, frames[number], _TIMESTAMP).tobytes(), height * row)
        return np.frombuffer(content, np.uint8)

    def read(position: Mapping[str, int], down: range, across: range) -> np.ndarray:
        number = int(np.ravel_multi_index(tuple(position.values()), lengths)) if lengths else 0
        start, count = down.start * row, len(down) * row
        if packed:
            data = unpacked(number)[start : start + count]
            if len(data) < count:
                raise ImageReadError("truncated or damaged: a frame has fewer pixels than declared; copy it again")
        else:
            data = _read_chunk(handle, frames[number], _TIMESTAMP + start, count)
        shape, strides = (len(down), width, samples), (row, samples * dtype.itemsize, dtype.itemsize)
        pixels = np.ndarray(shape, dtype.newbyteorder("<"), data.data, strides=strides)
        return rows_of(np.moveaxis(pixels, -1, 0), range(len(down)), across)

    colours = samples == 3 and int(facts.channelCount or 1) == 1
    names, spacing = _names_and_spacing(file, notes)
    positions = _position_names(file)
    metadata: dict[str, Any] = {"format": "Nikon", "axes": [*loops, "y", "x", "c"]}
    stack = Stack(
        "image",
        (samples, height, width),
        dtype,
        read,
        axes=loops,
        stored=size,
        packed=packed,
        spacing=spacing,
        channel_names=RGB if colours else names,
        metadata=metadata | ({"notes": notes} if notes else {}),
        plane_metadata=lambda position: (
            {"position": positions[position["p"]]} if position.get("p", len(positions)) < len(positions) else {}
        ),
        missing=missing,
    )
    return list_planes(stack)


def _loops(file: Any, frames: Mapping[int, int]) -> tuple[dict[str, int], list[str]]:
    """Return the axes of the experiment and notes; frames that no experiment describes have the axis `frame`."""
    notes = list[str]()
    try:
        loops = [(str(loop.type), int(loop.count)) for loop in file.experiment]
    except Exception as error:
        notes.append(f"the description of the experiment cannot be read ({type(error).__name__}); frames are numbered")
        loops = []
    count = max(frames, default=-1) + 1
    if any(length < 1 for _, length in loops) or math.prod(length for _, length in loops) < count:
        if loops:
            notes.append(f"the experiment has fewer planes than the file has frames ({count}); frames are numbered")
        loops = [("frame", count)] if count > 1 else []
    names = unique_names(_AXES.get(kind, "frame" if kind == "frame" else "loop") for kind, _ in loops)
    return dict(zip(names, (length for _, length in loops), strict=True)), notes


def _names_and_spacing(file: Any, notes: list[str]) -> tuple[Sequence[str], tuple[float | None, float | None]]:
    """Return the names of the channels and the pixel size in nm; a note says if they cannot be read."""
    try:
        # The parsed metadata fail if only the optics of a channel are missing.
        headers = file.unstructured_metadata(strip_prefix=False, include={_PICTURE, f"{_PICTURE[:-2]}LV|0"})
        picture = next(iter(headers.values()))
        picture = picture.get("SLxPictureMetadata", picture)
        planes = picture.get("sPicturePlanes", {})
        channels = planes.get("sPlaneNew") or planes.get("sPlane") or {}
        names = [one_line(str(each.get("sDescription") or "")) or str(k) for k, each in enumerate(channels.values())]
        size = number(picture.get("dCalibration")) if picture.get("bCalibrated") else None
        times = _TIME in (picture.get("ePictureXAxis"), picture.get("ePictureYAxis"))
    except Exception as error:
        notes.append(f"the names of the channels and the pixel size cannot be read ({type(error).__name__})")
        return (), (None, None)
    spacing = size * _MICROMETRE if size and not times else None
    return names, (spacing, spacing)


def _position_names(file: Any) -> list[str]:
    """Return the names of the stage positions."""
    try:
        loop = next(loop for loop in file.experiment if loop.type == "XYPosLoop")
        return [one_line(str(point.name or k)) for k, point in enumerate(loop.parameters.points)]
    except Exception:
        return []
