"""Types and checks that the image readers share: images, series, errors and declared sizes.

`io_stedfm` exports the public names.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

RGB = ("red", "green", "blue")
# 90,000 x 90,000 pixels of 16 bit: a header that declares a larger plane is damaged or malicious.
MAX_PLANE_BYTES = 16 * 2**30
# A file that declares more planes is damaged: refused before lists of that length are made.
MAX_PLANES = 10**6
# Highest compression ratio of deflate: above 1 GiB, a file that declares a higher one is refused.
MAX_UNPACKING = 1032

_UNIT_NM = {"pm": 1e-3, "å": 0.1, "angstrom": 0.1, "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0, "µm": 1e3, "um": 1e3}
_UNIT_NM |= {"micron": 1e3, "micrometer": 1e3, "micrometre": 1e3, "mm": 1e6, "millimeter": 1e6, "millimetre": 1e6}
_UNIT_NM |= {"cm": 1e7, "centimeter": 1e7, "centimetre": 1e7, "m": 1e9, "meter": 1e9, "metre": 1e9}
_UNIT_NM |= {"in": 25.4e6, "inch": 25.4e6, "inche": 25.4e6}


class ImageReadError(ValueError):
    """File that cannot be read as an image; the message names the file, the problem and the fix."""


@dataclass(frozen=True)
class SeriesInfo:
    """Description of one series (one plane with its channels) of a file.

    Attributes:
        name: Name, unique in the file, such as `"image"`, `"image[z=3]"` or `"Ch1 {0}"`.
        shape: Number of channels, height and width, in pixels.
        dtype: NumPy name of the pixel type after a linear calibration, such as `"uint16"`.
        pixel_size_nm: Pixel size (y, x) in nm, or None if it is not in the file.
        channel_names: Names of the channels; numbers from "0" if they are not in the file.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: str
    pixel_size_nm: tuple[float, float] | None
    channel_names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StedImage:
    """Image: one plane of a file with its channels.

    Attributes:
        array: Pixels (C, H, W) in the type of the file, native byte order, writable.
        pixel_size_nm: Pixel size (y, x) in nm, or None if it is not in the file.
        channel_names: Names of the C channels.
        metadata: Other facts in the file as plain data (`format`, `plane`, `calibration`, ...).
        source: Path of the file.
        series: Name of the series.
        intensity_range: Intensities that become 0 and 1, if the image is a crop of an image that was scaled as a
            whole; the image processor then does not fit them again.
    """

    array: np.ndarray
    pixel_size_nm: tuple[float, float] | None
    channel_names: tuple[str, ...]
    metadata: dict[str, Any]
    source: str
    series: str
    intensity_range: tuple[float, float] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was assumed or left out while the file was read."""
        return tuple(self.metadata.get("notes", ()))


@dataclass(frozen=True)
class LazySeries:
    """Series of an open file that is decoded on demand.

    Attributes:
        info: Description; names need not be unique.
        load: Function that decodes the pixels (C, H, W).
        metadata: Facts as plain data.
        load_region: Function that decodes a region without the rest: takes the first and last (exclusive) row and
            column, and returns (C, h, w). None if the file can only be decoded as a whole.
    """

    info: SeriesInfo
    load: Callable[[], np.ndarray]
    metadata: dict[str, Any] = field(default_factory=dict)
    load_region: Callable[[range, range], np.ndarray] | None = None

    @property
    def is_colour(self) -> bool:
        """Whether the channels are red, green and blue, which may be equal."""
        return self.info.channel_names == RGB


def choose_name(
    kind: str, names: Sequence[str], wanted: str | int | None, notes: Mapping[str, Any] | None = None
) -> int:
    """Return the index of a name, or of an index as number or text; None selects the only one.

    Args:
        kind: `series` or `channel`, for the message.
        names: Names to choose from; a name has priority over an index.
        wanted: Name or index.
        notes: Metadata of the file; the arrays in `left_out` are listed in the message.

    Raises:
        ImageReadError: If there is no such name or index, or None is not unique.
    """
    if wanted is None and len(names) == 1:
        return 0
    if isinstance(wanted, str) and wanted in names:
        return list(names).index(wanted)
    number = int(wanted) if isinstance(wanted, str) and wanted.isdecimal() else wanted
    if isinstance(number, int) and 0 <= number < len(names):
        return number
    shown = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    left_out = "".join(f"; {name} {why}" for name, why in (notes or {}).get("left_out", {}).items())
    problem = f"holds {len(names)} series" if wanted is None else f"has no {kind} {wanted!r}"
    raise ImageReadError(f"{problem}; choose the {kind} by name or index among: {shown}{left_out}")


class OpenImage:
    """Image of an open file, whose pixels are read on demand, whole or by region.

    Attributes:
        shape: Number of channels, height and width, in pixels.
        dtype: Pixel type.
        pixel_size_nm: Pixel size (y, x) in nm, or None.
        channel_names: Names of the channels.
        metadata: Facts as plain data.
        source: Path of the file.
        series: Name of the series.
        by_region: Whether a region is decoded without the rest of the image; if not, the first read decodes all pixels
            and keeps them.
    """

    def __init__(self, stored: LazySeries, info: SeriesInfo, channels: Sequence[int], source: str) -> None:
        self._stored, self._channels = stored, list(channels)
        self.shape = (len(self._channels), *info.shape[1:])
        self.dtype = np.dtype(info.dtype)
        self.pixel_size_nm, self.metadata = info.pixel_size_nm, stored.metadata
        self.channel_names = info.channel_names
        self.source, self.series = source, info.name
        self.by_region = stored.load_region is not None
        self._whole: np.ndarray | None = None

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Read a region.

        Args:
            rows: Rows, with the step 1.
            columns: Columns, with the step 1.

        Returns:
            (C, h, w) in the type of the file.
        """
        down, across = range(self.shape[1])[rows], range(self.shape[2])[columns]
        if self._stored.load_region is None or (len(down), len(across)) == self.shape[1:]:
            if self._whole is None:
                self._whole = self._stored.load()
            region = self._whole[self._channels, rows, columns]
            if self.by_region:
                self._whole = None
        elif not down or not across:
            region = np.empty((len(self._channels), len(down), len(across)), self.dtype)
        else:
            region = self._stored.load_region(down, across)[self._channels]
        return np.require(region, dtype=self.dtype, requirements=["C", "W"])


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Refuse pixel types other than integers, floats and booleans of up to 64 bit, in particular pickled objects."""
    if dtype.hasobject:
        raise ImageReadError("holds pickled Python objects, which are never loaded; save a plain array of numbers")
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise ImageReadError(f"pixels of type {dtype} are not supported; save integers or floats of 64 bit or less")


def make_info(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    pixel_size_nm: tuple[float, float] | None,
    channel_names: Sequence[str],
    *,
    stored: int,
    packed: bool,
) -> SeriesInfo:
    """Describe a series, after checking its type and its size.

    Args:
        name: Name of the series.
        shape: Declared shape (C, H, W).
        dtype: Type of the pixels.
        pixel_size_nm: Pixel size (y, x) in nm, or None.
        channel_names: Names of the C channels; numbers from "0" if the count differs.
        stored: Size of the stored pixels, in bytes.
        packed: Whether they are compressed.

    Raises:
        ImageReadError: If the type is not a number, the image is empty, or the file is too small for its size.
    """
    check_dtype(dtype)
    channels, height, width = shape
    if min(shape) < 1:
        raise ImageReadError(f"the image is empty (channels, height, width = {shape}); export it again")
    size = math.prod(shape) * dtype.itemsize
    limit = max(2**30, MAX_UNPACKING * stored) if packed else stored
    if size > min(limit, MAX_PLANE_BYTES):
        problem = f"declares {size} bytes of pixels {shape} but holds {stored} bytes"
        raise ImageReadError(f"truncated, damaged or far too large: {problem}; copy or export it again")
    names = tuple(channel_names) if len(channel_names) == channels else tuple(str(k) for k in range(channels))
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
    return SeriesInfo(one_line(name) or "image", (channels, height, width), dtype.name, pixel_size_nm, names)


def plane_name(name: str, position: dict[str, int]) -> str:
    """Return the name of a plane of a stack.

    Example:
        >>> plane_name("image", {"t": 0, "z": 3})
        'image[t=0,z=3]'
    """
    return f"{name}[{','.join(f'{axis}={k}' for axis, k in position.items())}]" if position else name


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return unique names: repeated names get the suffix `#2`, `#3`, ...

    Example:
        >>> unique_names(["Ch1", "Ch2", "Ch1"])
        ('Ch1', 'Ch2', 'Ch1#2')
    """
    names = list(names)
    given, taken, counts = set(names), dict[str, None](), Counter[str]()
    for name in names:
        unique = name
        while unique in taken or (unique != name and unique in given):
            counts[name] += 1
            unique = f"{name}#{counts[name] + 1}"
        taken[unique] = None
    return tuple(taken)


def unit_in_nm(unit: object) -> float | None:
    r"""Return the length of a unit in nm, or None for "pixel" and unknown units.

    Example:
        >>> unit_in_nm("micron"), unit_in_nm("\\u00B5m"), unit_in_nm("pixel")
        (1000.0, 1000.0, None)
    """
    text = str(unit).lower().replace("\\u00b5", "µ").strip(' "')
    for micro in ("\u03bc", "âµ", "î¼"):  # the Greek letter, and UTF-8 read as Latin-1 (in lower case)
        text = text.replace(micro, "µ")
    return _UNIT_NM.get(text, _UNIT_NM.get(text.removesuffix("s")))


def pixel_size(y: float | None, x: float | None) -> tuple[float, float] | None:
    """Return the pixel size (y, x) in nm if both values are known, finite and positive.

    Example:
        >>> pixel_size(20.0, 20.0), pixel_size(20.0, float("inf"))
        ((20.0, 20.0), None)
    """
    return (float(y), float(x)) if y and x and 0 < y < math.inf and 0 < x < math.inf else None


def one_line(text: str) -> str:
    """Replace every run of white space in a text by one space."""
    return " ".join(text.split())


def file_size(handle: IO[bytes]) -> int:
    """Return the size of an open file or stream in bytes; its position does not change."""
    here = handle.tell()
    size = handle.seek(0, os.SEEK_END)
    handle.seek(here)
    return size


def read_exactly(stream: IO[bytes], count: int) -> np.ndarray:
    """Read `count` bytes as a writable uint8 array; raise an error if there are fewer."""
    data = np.empty(count, dtype=np.uint8)
    view, done = data.data, 0
    while done < count:
        # Every binary file has it, though the type IO[bytes] does not.
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise ImageReadError(f"truncated: {done} of {count} bytes of pixels are there; copy or export it again")
        done += got
    return data
