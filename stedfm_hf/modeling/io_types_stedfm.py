"""What the image readers share: the images they give, the error they raise, and the checks of what files declare.

Users meet these names through `io_stedfm`; the readers (there, in `io_tiff_stedfm`, registered later) build on them.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

RGB = ("red", "green", "blue")
# 90 000 x 90 000 pixels of 16 bit: a larger single plane is a damaged header or an attack.
MAX_PLANE_BYTES = 16 * 2**30
# The most that deflate can pack: above 1 GiB, a file that says it holds more is refused.
MAX_UNPACKING = 1032

_UNIT_NM = {"pm": 1e-3, "å": 0.1, "angstrom": 0.1, "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0, "µm": 1e3, "um": 1e3}
_UNIT_NM |= {"micron": 1e3, "micrometer": 1e3, "micrometre": 1e3, "mm": 1e6, "millimeter": 1e6, "millimetre": 1e6}
_UNIT_NM |= {"cm": 1e7, "centimeter": 1e7, "centimetre": 1e7, "m": 1e9, "meter": 1e9, "metre": 1e9}
_UNIT_NM |= {"in": 25.4e6, "inch": 25.4e6, "inche": 25.4e6}


class ImageReadError(ValueError):
    """A file cannot be read as an image: one line with the file, what is wrong, and how to mend it."""


@dataclass(frozen=True)
class SeriesInfo:
    """What one series (one plane with its channels) of a file holds.

    Attributes:
        name: unique in the file, e.g. `"image"`, `"image[z=3]"`, `"Ch1 {0}"`.
        shape: (channels, height, width) in pixels.
        dtype: NumPy name of the pixels' type after a linear calibration, e.g. `"uint16"`.
        pixel_size_nm: (y, x) in nanometres, or None where the file does not say.
        channel_names: one name a channel; numbers from "0" where the file gives none.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: str
    pixel_size_nm: tuple[float, float] | None
    channel_names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StedImage:
    """One plane of one file.

    Attributes:
        array: (C, H, W) pixels in the file's own type, native byte order, writable.
        pixel_size_nm: (y, x) in nanometres, or None where the file does not say.
        channel_names: C names.
        metadata: what else the file says, ready for JSON (`format`, `plane`, `calibration`, ...).
        source: the path as it was given.
        series: name of the series.
        intensity_range: the intensities that mean 0 and 1, where they are known from the image this one was cut from;
            the image processor then fits none to this piece alone.
    """

    array: np.ndarray
    pixel_size_nm: tuple[float, float] | None
    channel_names: tuple[str, ...]
    metadata: dict[str, Any]
    source: str
    series: str
    intensity_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class LazySeries:
    """A series that a reader found, and how to decode it while the file is open.

    Attributes:
        info: what it holds; readers need not make names unique.
        load: decodes the pixels, (C, H, W).
        metadata: ready for JSON.
    """

    info: SeriesInfo
    load: Callable[[], np.ndarray]
    metadata: dict[str, Any] = field(default_factory=dict)


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Refuse pixels that are no integers, floats or truth values of up to 64 bit, and pickled objects above all."""
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
    """Describe a series after checking that its type is a number and its size believable.

    Args:
        name: of the series.
        shape: (C, H, W) as the file declares it.
        dtype: of the pixels.
        pixel_size_nm: (y, x) or None.
        channel_names: C names, else numbers from "0" are taken.
        stored: bytes that the file has for it.
        packed: whether these are compressed.

    Raises:
        ImageReadError: for types that are no plain numbers, empty images and sizes the file cannot hold.
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


def plane_name(name: str, place: dict[str, int]) -> str:
    """Name of a plane of a stack.

    >>> plane_name("image", {"t": 0, "z": 3})
    'image[t=0,z=3]'
    """
    return f"{name}[{','.join(f'{axis}={k}' for axis, k in place.items())}]" if place else name


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names as they are; where one comes again it gets `#2`, `#3`, ...

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
    r"""Nanometres in a unit of length, None for "pixel" and anything unknown.

    >>> unit_in_nm("micron"), unit_in_nm("\\u00B5m"), unit_in_nm("pixel")
    (1000.0, 1000.0, None)
    """
    text = str(unit).lower().replace("\\u00b5", "µ").replace("\u03bc", "µ").replace("âµ", "µ").strip(' "')
    return _UNIT_NM.get(text, _UNIT_NM.get(text.removesuffix("s")))


def pixel_size(y: float | None, x: float | None) -> tuple[float, float] | None:
    """(y, x) in nm if both are known, finite and positive.

    >>> pixel_size(20.0, 20.0), pixel_size(20.0, float("inf"))
    ((20.0, 20.0), None)
    """
    return (float(y), float(x)) if y and x and 0 < y < math.inf and 0 < x < math.inf else None


def one_line(text: str) -> str:
    """The text with every run of white space as one blank."""
    return " ".join(text.split())


def file_size(handle: IO[bytes]) -> int:
    """Size in bytes of an open file or stream; it stays where it is."""
    here = handle.tell()
    size = handle.seek(0, os.SEEK_END)
    handle.seek(here)
    return size


def read_exactly(stream: IO[bytes], count: int) -> np.ndarray:
    """`count` bytes as uint8, writable; fewer in the stream are an error."""
    data = np.empty(count, dtype=np.uint8)
    view, done = data.data, 0
    while done < count:
        # Every binary file has it, though the type IO[bytes] does not.
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise ImageReadError(f"truncated: {done} of {count} bytes of pixels are there; copy or export it again")
        done += got
    return data
