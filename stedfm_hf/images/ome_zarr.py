"""Read OME-Zarr images (versions 0.1 to 0.5) with zarr, at their full resolution and by region.

The folder is an image, a plate, or a collection of images as bioformats2raw writes it. The metadata is read here, so
that only codecs that decode numbers are used. The rules are in docs/reference/file-formats.md.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..modeling.io_types_stedfm import ImageReadError, LazySeries, check_dtype, make_info, one_line, unit_in_nm
from ..runs.storage import is_remote, system_of
from .remote import image_errors
from .stacks import Stack, image_axes, import_reader, list_parts, list_planes, number

MEMBERS = ("zarr.json", ".zgroup", ".zarray")
"""Files that every Zarr folder has one of."""

_CODECS = frozenset(
    "adler32 blosc bytes bz2 crc32 crc32c delta endian fletcher32 gzip jenkins_lookup3 lz4 packbits sharding_indexed"
    " shuffle transpose zlib zstd".split()
)
"""Codecs that decode numbers; others, such as pickle, could run code."""

_DEFAULT_AXES = "tczyx"
_MAX_METADATA = 2**26
_MAX_CHUNK = 2**30
"""Largest decoded chunk in bytes."""

_CHUNK_OVERHEAD = 2**16
"""Bytes that a compressed chunk may have more than twice its pixels: more would unpack far beyond them."""

_MAX_IMAGES = 100_000


@dataclass(frozen=True)
class _Image:
    """One multiscale image: its name, the folder of its group, its metadata, and the error if that cannot be read."""

    name: str
    folder: Path
    multiscale: Mapping[str, Any]
    omero: Mapping[str, Any]
    version: str
    error: Exception | None = None


def read_ome_zarr(path: Path, closing: ExitStack) -> list[LazySeries]:
    """List the planes of an OME-Zarr folder, also in an object store (a reader for `register_path_reader`)."""
    with image_errors(path):
        return _list_planes(path)


def _list_planes(path: Path) -> list[LazySeries]:
    if not path.is_dir():
        raise ImageReadError("is a file, not the folder of an OME-Zarr image; unpack it, or export it again")
    if not any((path / name).is_file() for name in MEMBERS):
        raise ImageReadError("holds no Zarr metadata (zarr.json or .zgroup); copy the whole folder again")
    zarr = import_reader("zarr", "OME-Zarr images")
    images = list(_images(path, ""))
    if not images:
        raise ImageReadError("is a Zarr folder without OME metadata (multiscales); export it as OME-Zarr or TIFF")
    return list_parts((image.name, functools.partial(_list_image, image, path, zarr)) for image in images)


def _images(folder: Path, name: str) -> Iterator[_Image]:
    """Yield the images of a group: its own, those of the wells of a plate, or those of the groups in it."""
    attributes = _attributes(folder)
    multiscales = attributes.get("multiscales")
    if isinstance(multiscales, list) and multiscales:
        omero = attributes.get("omero")
        for k, each in enumerate(multiscales):
            if not isinstance(each, dict):
                raise ImageReadError("damaged: its multiscales are not a list of objects; export it again")
            own = one_line(str(each.get("name") or "")).strip("/")
            label = name or own or "image"
            version = str(attributes.get("version") or each.get("version") or "")
            yield _Image(
                label if k == 0 else f"{label}#{k + 1}",
                folder,
                each,
                omero if isinstance(omero, dict) and k == 0 else {},
                version,
            )
    elif isinstance(plate := attributes.get("plate"), dict):
        for well in _paths(plate.get("wells")):
            yield from _part(functools.partial(_fields, folder, well), folder, well)
    else:
        groups = [each for each in _children(folder) if any((each / member).is_file() for member in MEMBERS)]
        for group in groups:
            yield from _part(functools.partial(_images_of_group, group), group, group.name)


def _part(find: Callable[[], Iterator[_Image]], folder: Path, name: str) -> Iterator[_Image]:
    """Yield the images of a part of the folder; if its metadata cannot be read, one image with the error."""
    try:
        yield from list(find())
    except (ValueError, OSError, TypeError, AttributeError) as error:
        yield _Image(name, folder, {}, {}, "", error)


def _fields(plate: Path, well: str) -> Iterator[_Image]:
    """Yield the images of a well."""
    group = _inside(plate, well)
    fields = _attributes(group).get("well")
    for image in _paths(fields.get("images") if isinstance(fields, dict) else None):
        name = f"{well}/{image}"
        yield from _part(functools.partial(_images, _inside(group, image), name), group, name)


def _images_of_group(group: Path) -> Iterator[_Image]:
    """Yield the images of a group in a collection; other groups have none."""
    if "multiscales" in _attributes(group):
        yield from _images(group, group.name)


def _paths(entries: object) -> Iterator[str]:
    """Yield the paths of a list of wells or images."""
    for each in entries if isinstance(entries, list) else ():
        if isinstance(each, dict) and isinstance(each.get("path"), str):
            yield each["path"]


def _children(folder: Path) -> list[Path]:
    """Return the folders in a folder, in the order of numbers, then of names."""
    found = [each for each in folder.iterdir() if each.is_dir() and each.name not in ("OME", "labels")]
    return sorted(found, key=lambda each: (not each.name.isdecimal(), each.name.zfill(20)))[:_MAX_IMAGES]


def _inside(folder: Path, path: str) -> Path:
    """Return a path in a folder.

    Raises:
        ImageReadError: If it leads out of the folder.
    """
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or PurePosixPath(path).is_absolute() or "\\" in path or ":" in path:
        raise ImageReadError(f"damaged: its metadata names {path!r}, which is not in the folder; export it again")
    return folder.joinpath(*parts)


def _load(file: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one.

    Raises:
        ImageReadError: If it is too large, or not an object.
    """
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return {}
    if size > _MAX_METADATA:
        raise ImageReadError(f"{file.name} has {size} bytes, which is not metadata; export it again")
    found = json.loads(file.read_bytes())
    if not isinstance(found, dict):
        raise ImageReadError(f"damaged: {file.name} is not an object; copy the folder again")
    return found


def _attributes(folder: Path) -> dict[str, Any]:
    """Return the OME metadata of a group, of Zarr version 3 or 2."""
    if (folder / "zarr.json").is_file():
        attributes = _load(folder / "zarr.json").get("attributes", {})
        ome = attributes.get("ome", attributes) if isinstance(attributes, dict) else {}
    else:
        ome = _load(folder / ".zattrs")
    return ome if isinstance(ome, dict) else {}


def _list_image(image: _Image, path: Path, zarr: Any) -> list[LazySeries]:
    """List the planes of an image.

    Raises:
        ImageReadError: If its array cannot be read, or its metadata does not fit the array.
    """
    if image.error:
        raise image.error
    levels = [each for each in image.multiscale.get("datasets") or () if isinstance(each, dict)]
    if not levels or not isinstance(levels[0].get("path"), str):
        raise ImageReadError("names no array (datasets); export it again")
    folder = _inside(image.folder, levels[0]["path"])
    _check_codecs(folder)
    array = zarr.open_array(_store(folder, zarr), mode="r")
    shape, dtype = tuple(int(length) for length in array.shape), np.dtype(array.dtype)
    check_dtype(dtype)
    names, units, kinds = _axes(image.multiscale.get("axes"), shape)
    stored, files, largest = _stored(folder)
    chunk = tuple(int(length) for length in (getattr(array, "shards", None) or array.chunks))
    if math.prod(chunk) * dtype.itemsize > _MAX_CHUNK:
        raise ImageReadError(f"has chunks of {chunk} pixels, which are too large; export it with smaller chunks")
    if largest > 2 * math.prod(chunk) * dtype.itemsize + _CHUNK_OVERHEAD:
        raise ImageReadError(f"damaged: a file of {largest} bytes is larger than its {chunk} pixels; copy it again")

    channel = next((k for k, kind in enumerate(kinds) if kind == "channel"), None)
    lengths = {name: length for k, (name, length) in enumerate(zip(names, shape, strict=True)) if k != channel}
    rows, columns = image_axes(lengths)
    channels = shape[channel] if channel is not None else 1
    size = (channels, lengths[rows], lengths[columns])
    make_info(image.name, size, dtype, None, (), stored=stored, packed=True)
    scale = _scale(image.multiscale, levels[0], len(shape))

    def spacing(name: str) -> float | None:
        unit, step = unit_in_nm(units[name]), scale[names.index(name)] if scale else None
        return step * unit if unit and step else None

    def read(position: Mapping[str, int], down: range, across: range) -> np.ndarray:
        ranges = {rows: slice(down.start, down.stop), columns: slice(across.start, across.stop)}
        index = tuple(ranges.get(name, position.get(name, slice(None))) for name in names)
        with image_errors(folder):
            found = np.asarray(array[index])
        if channel is None:
            found = found[None]
        else:  # behind or between the axes of the image
            kept = [name for k, name in enumerate(names) if k == channel or name in ranges]
            found = np.moveaxis(found, kept.index(names[channel]), 0)
        return found if names.index(rows) < names.index(columns) else found.swapaxes(1, 2)

    expected = math.prod(-(-length // step) for length, step in zip(shape, chunk, strict=True))
    notes = []
    if files < expected:
        notes.append(
            f"{expected - files} of {expected} chunks are not in the folder and are read as {array.fill_value},"
            " as the format demands; if the folder was not copied completely, copy it again"
        )
    if scale and any(scale[names.index(name)] != 1 and not unit_in_nm(units[name]) for name in (rows, columns)):
        notes.append("the scale has no unit of length, so that the pixel size is unknown")
    metadata: dict[str, Any] = {"format": f"OME-Zarr {image.version}".strip(), "axes": list(names)}
    stack = Stack(
        image.name,
        size,
        dtype,
        read,
        axes={name: length for name, length in lengths.items() if name not in (rows, columns)},
        stored=stored,
        packed=True,
        spacing=(spacing(rows), spacing(columns)),
        channel_names=_channel_names(image.omero, channels),
        metadata=metadata | ({"notes": notes} if notes else {}),
    )
    return list_planes(stack)


def _axes(axes: object, shape: tuple[int, ...]) -> tuple[list[str], dict[str, object], list[str]]:
    """Return the names, units by name, and types of the axes of an array.

    Raises:
        ImageReadError: If they do not fit the array.
    """
    if not isinstance(axes, list):  # version 0.1 and 0.2
        axes = list(_DEFAULT_AXES[-len(shape) :])
    given = [each if isinstance(each, dict) else {"name": each} for each in axes]
    names = [str(each.get("name", "")).lower() for each in given]
    if len(names) != len(shape) or len(set(names)) < len(names):
        raise ImageReadError(f"damaged: its axes {names} do not fit its array {shape}; export it again")
    kinds = [
        str(each.get("type") or ("channel" if name == "c" else "")) for each, name in zip(given, names, strict=True)
    ]
    return names, {name: each.get("unit") for name, each in zip(names, given, strict=True)}, kinds


def _scale(multiscale: Mapping[str, Any], level: Mapping[str, Any], rank: int) -> list[float] | None:
    """Return the size of a pixel along each axis: that of the level times that of all levels, or None."""
    found: list[float] | None = None
    for transformations in (level.get("coordinateTransformations"), multiscale.get("coordinateTransformations")):
        for each in transformations if isinstance(transformations, list) else ():
            if not isinstance(each, dict) or each.get("type") != "scale" or not isinstance(each.get("scale"), list):
                continue
            factors = [number(factor) for factor in each["scale"]]
            known = [factor for factor in factors if factor is not None]
            if len(known) == len(factors) == rank:
                found = [a * b for a, b in zip(found or [1.0] * rank, known, strict=True)]
    return found


def _channel_names(omero: Mapping[str, Any], count: int) -> list[str]:
    """Return the names of the channels, or none."""
    channels = omero.get("channels")
    if not isinstance(channels, list) or len(channels) != count:
        return []
    labels = [each.get("label") if isinstance(each, dict) else None for each in channels]
    return [str(label) if label else str(k) for k, label in enumerate(labels)]


def _stored(folder: Path) -> tuple[int, int, int]:
    """Return the size of the chunks of an array in bytes, their number, and the size of the largest."""
    size = count = largest = 0
    for name, one in _files(folder):
        if name not in ("zarr.json", ".zarray", ".zattrs"):
            size, count, largest = size + one, count + 1, max(largest, one)
    return size, count, largest


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and size in bytes of every file in a folder."""
    if is_remote(folder):
        system, root = system_of(folder)
        yield from ((name.rpartition("/")[2], each["size"]) for name, each in system.find(root, detail=True).items())
        return
    for here, folders, files in os.walk(folder):
        folders.sort()
        yield from ((name, os.stat(os.path.join(here, name)).st_size) for name in files)


def _store(folder: Path, zarr: Any) -> Any:
    """Return what zarr opens: a local folder, or a store whose chunks are read when they are needed."""
    return zarr.storage.FsspecStore.from_url(str(folder), read_only=True) if is_remote(folder) else os.fspath(folder)


def _check_codecs(folder: Path) -> None:
    """Refuse arrays whose codecs do more than to decode numbers.

    Raises:
        ImageReadError: If there is no array, or it has such a codec.
    """
    found = _load(folder / "zarr.json") or _load(folder / ".zarray")
    if not found:
        raise ImageReadError(f"its array {folder.name} is missing; copy the whole folder again")
    for name in _codecs(found):
        if name.removeprefix("numcodecs.") not in _CODECS:
            raise ImageReadError(f"is compressed with {name!r}, which is not supported; export it with blosc or zstd")


def _codecs(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the codecs of an array, of those inside shards too."""
    entries: list[Any] = [metadata.get("compressor"), *_list(metadata.get("filters")), *_list(metadata.get("codecs"))]
    while entries:
        each = entries.pop()
        if each is None:
            continue
        if not isinstance(each, dict):
            yield str(each)
            continue
        yield str(each.get("id") or each.get("name"))
        configuration = each.get("configuration")
        if isinstance(configuration, dict):
            entries += [*_list(configuration.get("codecs")), *_list(configuration.get("index_codecs"))]


def _list(entries: object) -> Sequence[Any]:
    """Return a list, or an empty one."""
    return entries if isinstance(entries, list) else ()
