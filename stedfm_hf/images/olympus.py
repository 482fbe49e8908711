"""Read Olympus files (`.oib`, or `.oif` with its folder) with oiffile: settings, and one TIFF per plane and channel.

The rules are in docs/reference/file-formats.md.
"""

from __future__ import annotations

import functools
import io
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PureWindowsPath
from typing import IO, Any

import numpy as np

from ..modeling.io_tiff_stedfm import read_tiff
from ..modeling.io_types_stedfm import ImageReadError, LazySeries, unit_in_nm
from .stacks import Stack, counted, import_reader, list_planes, number

OIB = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""First bytes of a compound file, which holds the settings and the TIFF files."""

_PLANE = re.compile(r"s_((?:[A-Z]\d+)+)\.tif")
_INDEX = re.compile(r"([A-Z])(\d+)")
_NAMES = {"L": "lambda", "A": "angle", "P": "point"}
_MAX_INDEX = 10**6
_MAX_SETTINGS = 2**26

Open = Callable[[], IO[bytes]]
Settings = Mapping[str, Mapping[str, Any]]


def read_olympus(path: Path, closing: ExitStack) -> list[LazySeries]:
    """List the planes of an Olympus file (a reader for `register_path_reader`)."""
    oiffile = import_reader("oiffile", "Olympus files")
    with path.open("rb") as handle:
        packed = handle.read(len(OIB)) == OIB
    settings, files = _open_oib(oiffile, path, closing) if packed else _open_oif(oiffile, path)
    planes = {name: dict(_indices(match[1])) for name in sorted(files) if (match := _PLANE.fullmatch(name))}
    if not planes:
        raise ImageReadError("holds no image planes; export it again")
    order = str(_section(settings, "Axis Parameter Common").get("AxisOrder", "")) or "XY"
    found = {axis for position in planes.values() for axis in position} - {"C"}
    others = sorted(found, key=lambda axis: (-order.find(axis), axis))  # the fastest axis comes first in the order
    by_index = {
        (tuple(position.get(axis, 0) for axis in others), position.get("C", 0)): files[name]
        for name, position in planes.items()
    }
    channels = max(channel for _, channel in by_index) + 1
    lengths = [max(index[k] for index, _ in by_index) + 1 for k in range(len(others))]
    first = _first_plane(by_index.values())
    height, width = first.info.shape[1:]

    def read(position: Mapping[str, int], down: range, across: range) -> np.ndarray:
        region = np.empty((channels, height, width), first.info.dtype)
        for channel in range(channels):
            plane = _read_plane(by_index[tuple(position.values()), channel])
            if plane.info.shape != first.info.shape or plane.info.dtype != first.info.dtype:
                raise ImageReadError(
                    f"damaged: its planes have different sizes or types {plane.info.shape}; copy it again"
                )
            region[channel] = plane.load()[0]
        return region

    indices = list(np.ndindex(*lengths)) if np.prod(lengths, dtype=float) <= _MAX_INDEX else []
    stored = path.stat().st_size if packed else height * width * len(planes) * np.dtype(first.info.dtype).itemsize
    stack = Stack(
        "image",
        (channels, height, width),
        np.dtype(first.info.dtype),
        read,
        axes={_NAMES.get(axis, axis.lower()): length for axis, length in zip(others, lengths, strict=True)},
        stored=stored,
        packed=True,
        by_region=False,
        spacing=(_spacing(settings, "Height", order[1:2], height), _spacing(settings, "Width", order[:1], width)),
        channel_names=[_channel_name(settings, channel) for channel in range(channels)],
        metadata={"format": "Olympus", "axes": list(order[::-1].lower())},
        missing=frozenset(
            index for index in indices if any((index, channel) not in by_index for channel in range(channels))
        ),
    )
    return list_planes(stack)


def _indices(text: str) -> Iterator[tuple[str, int]]:
    """Yield the axes and indices, from 0, of the name of a plane such as `C001Z002`."""
    for axis, digits in _INDEX.findall(text):
        index = int(digits[:9]) - 1
        if not 0 <= index < _MAX_INDEX:
            raise ImageReadError(f"damaged: its plane {text} does not exist; copy it again")
        yield axis, index


def _read_plane(open_file: Open) -> LazySeries:
    """List the only image of a TIFF file with one channel.

    Raises:
        ImageReadError: If it has more.
    """
    found = read_tiff(open_file())
    if len(found) != 1 or found[0].info.shape[0] != 1:
        raise ImageReadError("damaged: one of its planes is not an image of one channel; copy it again")
    return found[0]


def _first_plane(planes: Iterable[Open]) -> LazySeries:
    """Return the first plane that can be read, which has the size and type of all.

    Raises:
        Exception: That of the first plane, if none can be read.
    """
    errors = list[Exception]()
    for open_file in planes:
        try:
            return _read_plane(open_file)
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _section(settings: Settings, name: str) -> Mapping[str, Any]:
    """Return a section of the settings, or an empty one."""
    found = settings.get(name, {})
    return found if isinstance(found, dict) else {}


def _spacing(settings: Settings, side: str, axis: str, length: int) -> float | None:
    """Return the pixel size along the height or width in nm: that of the image, else that of the axis, or None."""
    image = _section(settings, "Reference Image Parameter")
    size, unit = number(image.get(f"{side}ConvertValue")), unit_in_nm(image.get(f"{side}Unit"))
    if size and unit:
        return abs(size) * unit
    for k in range(10):
        each = _section(settings, f"Axis {k} Parameters Common")
        if each.get("AxisCode") == axis:
            start, end = number(each.get("StartPosition")), number(each.get("EndPosition"))
            unit = unit_in_nm(each.get("UnitName"))
            if start is not None and end is not None and unit and length > 1:
                return abs(end - start) / (length - 1) * unit
    return None


def _channel_name(settings: Settings, channel: int) -> str:
    """Return the name of a channel: its dye, else its detector, else its number."""
    facts = _section(settings, f"Channel {channel + 1} Parameters")
    names = (str(facts.get(key, "")).strip() for key in ("DyeName", "CH Name"))
    return next((name for name in names if name not in ("", "None")), str(channel))


def _open_oif(oiffile: Any, path: Path) -> tuple[Settings, dict[str, Open]]:
    """Return the settings of an `.oif` file, and the files in its folder by name.

    Raises:
        ImageReadError: If the folder is missing.
    """
    if path.stat().st_size > _MAX_SETTINGS:
        raise ImageReadError("is not an Olympus settings file; name the .oif file")
    settings = oiffile.SettingsFile(path)
    # The folder keeps its name if the file is renamed.
    named = str(_section(settings, "ProfileSaveInfo").get("PtyFileNameS", ""))
    names = [f"{path.name}.files", *PureWindowsPath(named).parts[:1]]
    folder = next((path.parent / name for name in names if (path.parent / name).is_dir()), None)
    if folder is None:
        raise ImageReadError(f"its pixels are in the folder {names[0]}, which is missing; copy it too")
    return settings, {
        each.name: functools.partial(_open_bytes, each) for each in sorted(folder.iterdir()) if each.is_file()
    }


def _open_bytes(file: Path) -> IO[bytes]:
    """Return the content of a file as a stream, which need not be closed."""
    return io.BytesIO(file.read_bytes())


def _open_oib(oiffile: Any, path: Path, closing: ExitStack) -> tuple[Settings, dict[str, Open]]:
    """Return the settings of an `.oib` file, and the files in it by name.

    Raises:
        ImageReadError: If the tables of the file are damaged.
    """
    with path.open("rb") as handle:
        head = handle.read(76).ljust(76, b"\0")
    tables = struct.unpack("<I", head[72:76])[0]
    if tables * 512 > path.stat().st_size:
        raise ImageReadError(f"damaged: declares {tables} tables; copy the file again")

    class Compound(oiffile.CompoundFile):
        """Compound file whose chains of sectors end, even if the file is damaged."""

        def _sec_chain(self, secid: int, /) -> Iterator[bytes]:
            return counted(super()._sec_chain(secid), len(self._fat))

        def _mini_sec_chain(self, secid: int, /) -> Iterator[bytes]:
            return counted(super()._mini_sec_chain(secid), len(self._minifat))

    compound = Compound(path)
    closing.callback(compound.close)

    def open_settings(name: str) -> dict[str, Any]:
        return dict(oiffile.SettingsFile(compound.open_file(name), name))

    streams = {name.rpartition("/")[2]: name for name in compound.files()}
    if "OibInfo.txt" not in streams:
        raise ImageReadError("is not an Olympus file, but a compound file of another program; export it as TIFF")
    info = _section(open_settings("OibInfo.txt"), "OibSaveInfo")
    settings = open_settings(streams[str(info.get("MainFileName"))])
    return settings, {
        str(name).rpartition("/")[2]: functools.partial(compound.open_file, streams[stream])
        for stream, name in info.items()
        if stream in streams
    }
