"""Read Zeiss files (`.czi`) with pylibCZIrw, the vendor's library: every scene is a stack.

The tiles of a mosaic are composed by the library at their stored positions. The rules are in
docs/reference/file-formats.md.
"""

from __future__ import annotations

import functools
import math
import struct
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np

from ..modeling.io_types_stedfm import MAX_PLANES, RGB, ImageReadError, LazySeries, file_size, one_line, unique_names
from .stacks import Stack, exact_type, import_reader, list_parts, list_planes, number, parse_xml

_TYPES = {"Gray8": "u1", "Gray16": "u2", "Gray32Float": "f4", "Bgr24": "u1", "Bgr48": "u2", "Bgr96Float": "f4"}
_AXES = "VHIRTZB"
"""Axes other than the channels and scenes, the slowest first."""

_SEGMENT_HEAD = 32
_DIRECTORY_POSITION = 84
"""Byte of the file that holds the position of the directory."""

_DIRECTORY_HEAD = 128
_TILE_HEAD = 16
"""Bytes of sizes before the entry of a tile in its segment."""

_ENTRY, _AXIS = 32, 20
"""Bytes of an entry of a tile, and of each axis behind it."""

_FIXED_ENTRY = 128
"""Bytes of an entry of the older kind."""

_MAX_AXES = 20
"""Largest number of axes: the format has 12."""

_CACHE_BYTES = 2**28
_BAND_PIXELS = 2**24
"""Largest number of pixels that the library composes at once."""


@dataclass(frozen=True)
class _Tile:
    """Tile of a plane: the position of the plane, the scene, the channel, its type and its place in pixels."""

    position: Mapping[str, int]
    scene: int | None
    channel: int
    pixels: str
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class _Facts:
    """Facts in the header: pixel size in nm along the rows and columns, and names."""

    spacing: tuple[float | None, float | None] = (None, None)
    channels: Mapping[int, str] | None = None
    scenes: Mapping[int, str] | None = None
    notes: tuple[str, ...] = ()


def read_zeiss(path: Path, closing: ExitStack) -> list[LazySeries]:
    """List the planes of a Zeiss file (a reader for `register_path_reader`)."""
    czi = import_reader("pylibCZIrw.czi", "Zeiss files")
    with path.open("rb") as handle:
        _check_directory(handle)
    cache = czi.CacheOptions(type=czi.CacheType.Standard, max_memory_usage=_CACHE_BYTES, max_sub_block_count=1000)
    file = closing.enter_context(czi.open_czi(str(path), cache_options=cache))
    tiles = _tiles(file)
    if not tiles:
        raise ImageReadError("holds no image; export it again")
    facts = _facts(file)
    scenes = defaultdict[int | None, list[_Tile]](list)
    for tile in tiles:
        scenes[tile.scene].append(tile)
    names = _scene_names(scenes, facts)
    parts = []
    for scene in sorted(scenes, key=lambda each: -1 if each is None else each):
        for suffix, channels in _channel_groups(scenes[scene]):
            own = [tile for tile in scenes[scene] if tile.channel in channels]
            name = names[scene] + suffix
            stored = path.stat().st_size
            parts.append((name, functools.partial(_list_scene, file, name, scene, channels, own, facts, stored)))
    return list_parts(parts)


def _check_directory(handle: IO[bytes]) -> None:
    """Check the directory of the tiles and their heads: the library would end the process if they are damaged.

    Raises:
        ImageReadError: If an entry, or its copy at the tile, is damaged.
    """
    size = file_size(handle)
    handle.seek(_DIRECTORY_POSITION)
    place = int.from_bytes(handle.read(8), "little")
    directory = _read_segment(handle, place, size, b"ZISRAWDIRECTORY")
    count, start = int.from_bytes(directory[:4], "little"), _DIRECTORY_HEAD
    if count * _ENTRY > len(directory):
        raise ImageReadError(f"truncated or damaged: its directory has no {count} tiles; copy it again")
    for _ in range(count):
        length = _entry_length(directory[start : start + _ENTRY])
        position, part = struct.unpack("<qi", directory[start + 6 : start + 18])
        if start + length > len(directory) or position < 0:
            raise ImageReadError("truncated or damaged: its directory of tiles ends too early; copy it again")
        start += length
        if part == 0:
            handle.seek(min(position + _SEGMENT_HEAD, size))
            head = handle.read(_TILE_HEAD + _ENTRY)
            lengths = struct.unpack("<iiq", head[:_TILE_HEAD].ljust(_TILE_HEAD, b"\0"))
            if min(lengths) < 0 or sum(lengths) > size - position:
                raise ImageReadError("truncated or damaged: a tile is longer than the file; copy it again")
            _entry_length(head[_TILE_HEAD:])


def _read_segment(handle: IO[bytes], place: int, size: int, name: bytes) -> bytes:
    """Return the content of a segment of the file."""
    handle.seek(min(place, size))
    head = handle.read(_SEGMENT_HEAD).ljust(_SEGMENT_HEAD, b"\0")
    used = int.from_bytes(head[24:32], "little") or int.from_bytes(head[16:24], "little")
    if not head.startswith(name) or used > size - place:
        raise ImageReadError("truncated or damaged: it has no directory of tiles; copy it again")
    return handle.read(used)


def _entry_length(entry: bytes) -> int:
    """Return the length of an entry of a directory in bytes, from its start."""
    axes = int.from_bytes(entry[28:32], "little")
    if len(entry) < _ENTRY or entry[:2] not in (b"DV", b"DE") or (entry[:2] == b"DV" and not 0 < axes <= _MAX_AXES):
        raise ImageReadError("truncated or damaged: a tile in its directory is not valid; copy it again")
    return _ENTRY + axes * _AXIS if entry[:2] == b"DV" else _FIXED_ENTRY


def _tiles(file: Any) -> list[_Tile]:
    """Return the tiles of a file at full resolution.

    Raises:
        ImageReadError: If there are too many.
    """
    found = list[_Tile]()

    def add(_: int, block: Any) -> bool:
        position = dict(block.coordinate.to_dict())
        scene, channel = position.pop("S", None), position.pop("C", 0)
        place = block.logicalRect
        pixels = str(block.pixelType).rpartition(".")[2]
        found.append(_Tile(position, scene, channel, pixels, place.x, place.y, place.w, place.h))
        return len(found) < MAX_PLANES

    file.enumerate_subblocks_subset(add, only_layer0=True)
    if len(found) >= MAX_PLANES:
        raise ImageReadError(f"damaged: declares {len(found)} tiles or more; copy it again")
    return found


def _scene_names(scenes: Mapping[int | None, object], facts: _Facts) -> dict[int | None, str]:
    """Return the names of the scenes: those in the header, else numbers; one scene is the image."""
    if len(scenes) == 1:
        return dict.fromkeys(scenes, "image")
    given = facts.scenes or {}
    numbered = [(scene, given.get(scene or 0) or f"scene {scene or 0}") for scene in sorted(scenes, key=str)]
    return dict(zip((scene for scene, _ in numbered), unique_names(name for _, name in numbered), strict=True))


def _channel_groups(tiles: Sequence[_Tile]) -> list[tuple[str, list[int]]]:
    """Return the channels that are read together: those of grey values, and each colour image alone.

    Returns:
        End of the name of the series, and channels.
    """
    kinds = {tile.channel: tile.pixels for tile in tiles}
    grey = sorted(channel for channel, pixels in kinds.items() if not pixels.startswith("Bgr"))
    colour = sorted(channel for channel in kinds if channel not in grey)
    groups = ([grey] if grey else []) + [[channel] for channel in colour]
    return [(f" channel {channels[0]}" if len(groups) > 1 else "", channels) for channels in groups]


def _list_scene(
    file: Any,
    name: str,
    scene: int | None,
    channels: Sequence[int],
    tiles: Sequence[_Tile],
    facts: _Facts,
    stored: int,
) -> list[LazySeries]:
    """List the planes of a scene.

    Raises:
        ImageReadError: If the type of its pixels is not supported, or its size is not that of an image.
    """
    kinds = {tile.channel: tile.pixels for tile in tiles}
    unknown = sorted({pixels for pixels in kinds.values() if pixels not in _TYPES})
    if unknown:
        raise ImageReadError(f"has pixels of type {', '.join(unknown)}, which are not supported; export it as TIFF")
    left, top = min(tile.left for tile in tiles), min(tile.top for tile in tiles)
    right, bottom = max(tile.left + tile.width for tile in tiles), max(tile.top + tile.height for tile in tiles)
    colours = kinds[channels[0]].startswith("Bgr")
    dtype = exact_type(np.dtype(_TYPES[kinds[channel]]) for channel in channels)
    axes = {axis: max(tile.position.get(axis, 0) for tile in tiles) + 1 for axis in _AXES}
    axes = {axis: length for axis, length in axes.items() if length > 1}
    if math.prod(axes.values()) > MAX_PLANES:
        raise ImageReadError(f"damaged: declares {math.prod(axes.values())} planes; copy it again")
    present = Counter((tuple(tile.position.get(axis, 0) for axis in axes), tile.channel) for tile in tiles)
    missing = frozenset(
        index for index in np.ndindex(*axes.values()) if any((index, channel) not in present for channel in channels)
    )

    def read(position: Mapping[str, int], down: range, across: range) -> np.ndarray:
        found = np.empty((3 if colours else len(channels), len(down), len(across)), dtype)
        step = max(1, _BAND_PIXELS // len(across))
        for start in range(0, len(down), step):
            rows = range(start, min(start + step, len(down)))
            place = (left + across.start, top + down.start + start, len(across), len(rows))
            for k, channel in enumerate(channels):
                plane = {axis.upper(): index for axis, index in position.items()} | {"C": channel}
                pixels = file.read(roi=place, plane=plane, scene=scene)
                if colours:  # stored as blue, green, red
                    found[:, rows.start : rows.stop] = np.moveaxis(pixels[..., ::-1], -1, 0)
                else:
                    found[k, rows.start : rows.stop] = pixels[..., 0]
        return found

    notes = list(facts.notes)
    most = max(present.values())
    if most > 1:
        notes.append(f"up to {most} tiles of a plane are composed at their stored positions, without blending")
    covered = sum(tile.width * tile.height for tile in tiles) / len(present)
    if covered < (right - left) * (bottom - top):
        notes.append("pixels that no tile covers are 0")
    if len(set(kinds.values())) > 1:
        notes.append(f"the channels have different types, and are read as {dtype.name}")
    names = facts.channels or {}
    metadata: dict[str, Any] = {"format": "Zeiss", "axes": [*(axis.lower() for axis in axes), "c", "y", "x"]}
    stack = Stack(
        name,
        (3 if colours else len(channels), bottom - top, right - left),
        dtype,
        read,
        axes={axis.lower(): length for axis, length in axes.items()},
        stored=stored,
        packed=True,
        spacing=facts.spacing,
        channel_names=RGB if colours else [names.get(channel) or str(channel) for channel in channels],
        metadata=metadata | ({"notes": notes} if notes else {}),
        missing=missing,
    )
    return list_planes(stack)


def _facts(file: Any) -> _Facts:
    """Return the facts in the XML header; a header that cannot be read costs only them."""
    try:
        root = parse_xml(file.raw_metadata)
    except (ElementTree.ParseError, UnicodeDecodeError, RuntimeError, ImageReadError) as error:
        reason = one_line(str(error))[:100]
        return _Facts(
            notes=(f"the header cannot be read, so that pixel size and channel names are unknown ({reason})",)
        )
    sizes = {each.get("Id"): number(each.findtext("Value")) for each in root.iterfind(".//Scaling/Items/Distance")}
    spacing = tuple(size * 1e9 if (size := sizes.get(axis)) and size > 0 else None for axis in "YX")  # metres
    channels = dict[int, str]()
    for place in (".//DisplaySetting/Channels/Channel", ".//Information/Image/Dimensions/Channels/Channel"):
        for k, each in enumerate(root.iterfind(place)):
            if name := one_line(each.get("Name") or ""):
                channels[k] = name
    scenes = {}
    for k, each in enumerate(root.iterfind(".//Information/Image/Dimensions/S/Scenes/Scene")):
        index = each.get("Index", "")
        if name := one_line(each.get("Name") or ""):
            scenes[int(index) if index.isdecimal() else k] = name
    return _Facts((spacing[0], spacing[1]), channels, scenes)
