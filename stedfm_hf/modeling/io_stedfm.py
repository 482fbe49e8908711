"""Read microscope images in the pixel type of the file.

`read_image` reads one plane with its channels, `list_series` lists the planes of a file. The formats are TIFF,
OME-TIFF, ImageJ TIFF, PNG, JPEG, BMP, `.npy` and `.npz`; `register_reader` adds others. A format is recognised by the
content of the file, and by its suffix only if the content has no signature. Nothing is unpickled or executed, and
declared sizes are checked before memory is allocated. The rules are in docs/reference/file-formats.md.
"""

from __future__ import annotations

import errno
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from .axes_stedfm import channel_axis
from .io_registry_stedfm import (
    PathReader,
    Reader,
    format_of,
    is_image_folder,
    names_image_folder,
    opened_path,
    readable_suffixes,
    register_opener,
    register_path_reader,
    register_reader,
)
from .io_tiff_stedfm import read_tiff
from .io_types_stedfm import (
    RGB,
    ImageReadError,
    LazySeries,
    OpenImage,
    SeriesInfo,
    StedImage,
    check_dtype,
    choose_name,
    file_size,
    make_info,
    one_line,
    read_exactly,
    unique_names,
)
from .npy_stedfm import read_npy_header

try:
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
except ImportError:  # Pillow is optional here; a checker does not know classes that may be None
    BmpImageFile = JpegImageFile = PngImageFile = None  # type: ignore[assignment, misc]

__all__ = [
    "ImageReadError",
    "LazySeries",
    "OpenImage",
    "PathReader",
    "Reader",
    "SeriesInfo",
    "StedImage",
    "decode_series",
    "describe_series",
    "is_image_folder",
    "list_series",
    "names_image_folder",
    "open_image",
    "open_series",
    "read_image",
    "read_series",
    "readable_suffixes",
    "register_opener",
    "register_path_reader",
    "register_reader",
]

LOOKUP_TABLE = "the colours of a lookup table are left out, and the values are kept"

_COMPARED_AT_ONCE = 2**22
"""Largest number of pixels whose colours are compared at once."""


def list_series(path: str | os.PathLike[str]) -> list[SeriesInfo]:
    """List the series (planes) of an image file without decoding their pixels.

    Only colour images are decoded, because equal planes count as one channel.

    Raises:
        ImageReadError: If the file cannot be read; the message says how to fix it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rings.npy"
        >>> np.save(path, np.zeros((2, 5, 7), dtype=np.uint16))
        >>> list_series(path)
        [SeriesInfo(name='image', shape=(2, 5, 7), dtype='uint16', pixel_size_nm=None, channel_names=('0', '1'))]
    """
    with open_series(path) as all_series:
        return [describe_series(each) for each in all_series]


def describe_series(stored: LazySeries) -> SeriesInfo:
    """Return the description of a series as `read_image` returns it: equal colour planes are one channel."""
    return _distinct_colours(stored)[0] if stored.is_colour else stored.info


def read_image(
    path: str | os.PathLike[str], *, series: str | int | None = None, channel: str | int | None = None
) -> StedImage:
    """Read one plane of an image file in the pixel type of the file.

    Args:
        path: Image file.
        series: Name or index of the series (see `list_series`); None reads the only series.
        channel: Name or index of one channel; None reads all channels.

    Returns:
        Image with `array` (C, H, W).

    Raises:
        ImageReadError: If the file cannot be read; the message says how to fix it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rings.npy"
        >>> np.save(path, np.full((5, 7), 40_000, dtype=np.uint16))
        >>> image = read_image(path)
        >>> image.array.shape, image.array.dtype.name, int(image.array.max())
        ((1, 5, 7), 'uint16', 40000)
    """
    with open_series(path) as all_series:
        names = [each.info.name for each in all_series]
        chosen = all_series[choose_name("series", names, series, all_series[0].metadata)]
        return decode_series(chosen, str(path), channel)


@contextmanager
def open_image(
    path: str | os.PathLike[str], *, series: str | int | None = None, channel: str | int | None = None
) -> Iterator[OpenImage]:
    """Open one plane of an image file, to read it by region.

    Formats that can be are decoded by region (docs/reference/file-formats.md), and others once, as a whole.

    Args:
        path: Image file.
        series: Name or index of the series (see `list_series`); None opens the only series.
        channel: Name or index of one channel; None opens all channels.

    Yields:
        The image; its pixels can be read until the block ends.

    Raises:
        ImageReadError: If the file cannot be read; the message says how to fix it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rings.npy"
        >>> np.save(path, np.arange(35, dtype=np.uint16).reshape(5, 7))
        >>> with open_image(path) as image:
        ...     image.shape, image.read(slice(1, 3), slice(0, 2)).tolist()
        ((1, 5, 7), [[[7, 8], [14, 15]]])
    """
    with open_series(path) as found:
        names = [each.info.name for each in found]
        stored = found[choose_name("series", names, series, found[0].metadata)]
        info, kept = stored.info, list(range(stored.info.shape[0]))
        if stored.is_colour:
            if stored.load_region is None:
                pixels = stored.load()
                stored = replace(stored, load=lambda: pixels)
            info, kept = _distinct_colours(stored)
        if channel is not None:
            k = choose_name("channel", info.channel_names, channel)
            info, kept = replace(info, channel_names=info.channel_names[k : k + 1]), kept[k : k + 1]
        yield OpenImage(stored, info, kept, str(path))


def _distinct_colours(stored: LazySeries) -> tuple[SeriesInfo, list[int]]:
    """Return the colour planes of an image that differ: the description with only them, and their numbers.

    A grey image has three equal planes, and an image in the colours of a lookup table has equal planes and empty ones.
    Both are one channel.
    """
    height, width = stored.info.shape[1:]
    step = height if stored.load_region is None else max(1, _COMPARED_AT_ONCE // width)
    filled, equal = np.zeros(3, bool), True
    for top in range(0, height, step):
        rows = range(top, min(top + step, height))
        band = stored.load() if stored.load_region is None else stored.load_region(rows, range(width))
        now = np.array([plane.any() for plane in band])
        shown = [plane for plane, known in zip(band, filled | now, strict=True) if known]
        # A plane that was empty up to here equals the others only if they were empty, too.
        equal &= (not filled.any() or not (now & ~filled).any()) and all(
            np.array_equal(shown[0], plane) for plane in shown[1:]
        )
        filled |= now
        if not equal:
            return stored.info, [0, 1, 2]
    kept = int(np.argmax(filled))
    name = "0" if filled.all() or not filled.any() else "+".join(np.array(RGB)[filled])
    return replace(stored.info, shape=(1, height, width), channel_names=(name,)), [kept]


def read_series(
    path: str | os.PathLike[str],
    *,
    channel: str | int | None = None,
    wanted: Callable[[SeriesInfo], bool] | None = None,
) -> Iterator[StedImage]:
    """Read every series (plane) of a file in turn; the file is opened only once.

    Args:
        path: Image file.
        channel: Name or index of one channel; None reads all channels.
        wanted: Function that returns whether to decode a series, called for every series in order. A greyscale image
            stored as RGB still has three channels here.

    Yields:
        One image per series, in the order of `list_series`.

    Raises:
        ImageReadError: If a plane cannot be read, when it is reached.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "two.npz"
        >>> np.savez(path, confocal=np.zeros((5, 7)), sted=np.ones((5, 7)))
        >>> [(image.series, float(image.array.max())) for image in read_series(path)]
        [('confocal', 0.0), ('sted', 1.0)]
    """
    with open_series(path) as all_series:
        for each in all_series:
            if wanted is None or wanted(each.info):
                yield decode_series(each, str(path), channel)


def decode_series(chosen: LazySeries, source: str, channel: str | int | None) -> StedImage:
    """Decode a series of an open file.

    Args:
        chosen: Series of `open_series`.
        source: Path of the file.
        channel: Name or index of one channel; None keeps all channels.

    Raises:
        ImageReadError: If there is no such channel, or the pixels do not have the declared size and type.
    """
    info, array = _decode(chosen)
    names = info.channel_names
    if channel is not None:
        k = choose_name("channel", names, channel)
        array, names = np.ascontiguousarray(array[k : k + 1]), names[k : k + 1]
    return StedImage(array, info.pixel_size_nm, names, chosen.metadata, source, info.name)


@contextmanager
def open_series(path: str | os.PathLike[str]) -> Iterator[list[LazySeries]]:
    """Open a file and yield its series with unique names; their pixels can be read while the file is open.

    Every error inside the block, of a library too, becomes an ImageReadError on one line with the path and a fix.
    """
    try:
        with ExitStack() as closing:
            file: Path = opened_path(path, closing)
            found = format_of(file).reader(file, closing)
            if not found:
                raise ImageReadError("holds no image; export it again")
            names = unique_names(each.info.name for each in found)
            yield [
                replace(each, info=replace(each.info, name=name, channel_names=unique_names(each.info.channel_names)))
                for each, name in zip(found, names, strict=True)
            ]
    except Exception as error:
        raise ImageReadError(one_line(f"{path}: {_explain(error)}")) from error


def _explain(error: Exception) -> str:
    """Return the problem of a file and its fix as text; errors of unknown types are taken for damage."""
    if isinstance(error, ImageReadError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    if isinstance(error, PermissionError):
        return "no permission to read it; change its access rights"
    if isinstance(error, MemoryError):
        return "does not fit into memory; crop it into smaller files"
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: damaged offsets
        return f"cannot be opened ({error.strerror}); check the path and the drive"
    if isinstance(error, ImportError) or "imagecodecs" in str(error):
        return f"is compressed and needs another package ({error}); pip install imagecodecs"
    detail = f"{type(error).__name__}: {error}"[:200]
    return f"damaged or truncated, or its suffix is wrong ({detail}); copy or export it again"


def _decode(chosen: LazySeries) -> tuple[SeriesInfo, np.ndarray]:
    """Decode a series; equal colour planes become one channel."""
    array, info = chosen.load(), chosen.info
    if array.shape != info.shape or not np.can_cast(array.dtype, info.dtype):
        raise ImageReadError(f"decodes to {array.dtype} {array.shape}, not {info.dtype} {info.shape}; export it again")
    if chosen.is_colour:
        info, kept = _distinct_colours(replace(chosen, load=lambda: array, load_region=None))
        array = array[kept]
    return info, np.require(array, dtype=np.dtype(info.dtype), requirements=["C", "W"])


# ------------------------------------------------------------------------------------- NumPy files


def _array_series(
    open_stream: Callable[[], IO[bytes]], name: str, stored: int, packed: bool, *, seekable: bool = False
) -> LazySeries:
    """List the array of an `.npy` stream: (H, W), (C, H, W), or (H, W, C) as of `channel_axis`."""

    def at_array() -> IO[bytes]:
        stream = open_stream()
        read_npy_header(stream)
        return stream

    shape, fortran, dtype = read_npy_header(open_stream())
    check_dtype(dtype)
    if len(shape) not in (2, 3):
        raise ImageReadError(f"is an array of shape {shape}; save it as (height, width) or (channels, height, width)")
    last = len(shape) == 3 and channel_axis(shape) == 2
    channels_first = (shape[2], *shape[:2]) if last else (1,) * (3 - len(shape)) + shape
    colours = RGB if last and shape[2] == 3 else ()
    info = make_info(name, channels_first, dtype, None, colours, stored=stored, packed=packed)

    def load() -> np.ndarray:
        stream = at_array()
        pixels = read_exactly(stream, math.prod(shape) * dtype.itemsize).view(dtype)
        stream.read(1)  # the end of a member of an archive: here its checksum is compared
        array = pixels.reshape(shape[::-1]).T if fortran else pixels.reshape(shape)
        return array.transpose(2, 0, 1) if last else array.reshape(channels_first)

    def load_region(rows: range, columns: range) -> np.ndarray:
        """Read rows of the array, which lie together in the file."""
        stream = at_array()
        start = stream.tell()
        channels, height, width = channels_first
        inner = channels if last else 1
        parts = []
        for plane in range(1 if last else channels):
            stream.seek(start + (plane * height + rows.start) * width * inner * dtype.itemsize)
            part = read_exactly(stream, len(rows) * width * inner * dtype.itemsize).view(dtype)
            parts.append(part.reshape(len(rows), width, inner)[:, columns.start : columns.stop])
        return np.concatenate([part.transpose(2, 0, 1) for part in parts])

    region = None if fortran or packed or not seekable else load_region
    return LazySeries(info, load, {"format": "NumPy", "numpy_shape": list(shape)}, region)


def _read_npy(handle: IO[bytes]) -> list[LazySeries]:
    def rewound() -> IO[bytes]:
        handle.seek(0)
        return handle

    return [_array_series(rewound, "image", file_size(handle), packed=False, seekable=True)]


def _read_npz(handle: IO[bytes]) -> list[LazySeries]:
    """List every array that can be an image; the others are listed in the metadata (`left_out`) and in errors."""
    archive, size = zipfile.ZipFile(handle), file_size(handle)
    found, left_out = list[LazySeries](), dict[str, str]()
    for member in archive.infolist():
        if not member.filename.endswith(".npy"):
            continue
        name = member.filename.removesuffix(".npy")
        stored, packed = min(member.compress_size, size), member.compress_type != zipfile.ZIP_STORED
        try:
            found.append(_array_series(partial(archive.open, member), name, stored, packed))
        except ImageReadError as error:
            left_out[name] = str(error)
    if not found:
        reasons = "".join(f" ({name} {why})" for name, why in left_out.items())
        raise ImageReadError(f"holds no image array{reasons}; save one with numpy.savez")
    return [replace(each, metadata=each.metadata | {"left_out": left_out}) for each in found] if left_out else found


# ------------------------------------------------------------------------------------- PNG, JPEG, BMP


def _read_pillow(handle: IO[bytes]) -> list[LazySeries]:
    """List the image of a file that Pillow reads; only the decoders named here are called."""
    if PngImageFile is None:
        raise ImageReadError("needs Pillow, which is not installed; pip install pillow")
    head = handle.read(26)
    handle.seek(0)
    if head.startswith(b"\x89PNG") and head[24:25] == b"\x10" and head[25:26] != b"\x00":
        raise ImageReadError(
            "a 16-bit colour PNG would be reduced to 8 bit by Pillow; save it as TIFF, or as 16-bit greyscale"
        )
    if not head.startswith((b"\x89PNG", b"BM", b"\xff\xd8")):
        raise ImageReadError("is not a PNG, JPEG or BMP file; copy or export it again")
    plugin = PngImageFile if head.startswith(b"\x89PNG") else BmpImageFile if head.startswith(b"BM") else JpegImageFile
    if head.startswith(b"\x89PNG") and not _ends_with(handle, b"IEND"):
        raise ImageReadError("truncated: the end of the file is missing; copy or export it again")
    picture = plugin(handle)
    mode = "L" if picture.mode == "LA" else "RGB" if picture.mode in ("P", "PA", "RGBA", "RGBX") else picture.mode
    if mode == "RGB" and picture.mode == "P" and _is_lookup_table(picture):
        mode = "P"  # the indices are the measured values, and the palette is how they are shown
    deep = mode == "I" or mode.startswith("I;16")  # the one deep PNG is 16-bit grey, in whatever mode Pillow puts it
    if not (deep or mode in ("1", "L", "P", "RGB")):
        raise ImageReadError(f"colour mode {picture.mode} is not supported; save it as greyscale or RGB, or as TIFF")
    channels, dtype = 3 if mode == "RGB" else 1, np.dtype(np.uint16 if deep else np.uint8)
    shape = (channels, picture.height, picture.width)
    colours = RGB if channels == 3 else ()
    info = make_info("image", shape, dtype, None, colours, stored=file_size(handle), packed=True)
    # Pillow stretches grey values of 2 and 4 bits to 8 bits.
    bits = head[24] if head.startswith(b"\x89PNG") and head[25:26] == b"\x00" else 8
    stretch = {2: 85, 4: 17}.get(bits, 1)

    def load() -> np.ndarray:
        array = np.asarray(picture if picture.mode == mode else picture.convert(mode)).astype(dtype) // stretch
        return array.transpose(2, 0, 1) if channels == 3 else array[None]

    metadata: dict[str, Any] = {"format": str(picture.format)}
    if mode == "P":
        metadata["notes"] = [LOOKUP_TABLE]
    return [LazySeries(info, load, metadata)]


def _ends_with(handle: IO[bytes], mark: bytes) -> bool:
    """Return whether the last 64 KiB of a file hold a mark."""
    handle.seek(max(0, file_size(handle) - 2**16))
    found = mark in handle.read()
    handle.seek(0)
    return found


def _is_lookup_table(picture: Any) -> bool:
    """Return whether a palette only colours the values 0 to 255: each of its colours rises, or stays the same."""
    palette = np.asarray(picture.getpalette("RGB") or [], np.int16).reshape(-1, 3)
    return len(palette) == 256 and bool((np.diff(palette, axis=0) >= 0).all() and (palette[-1] > palette[0]).any())


register_reader((".tif", ".tiff", ".btf", ".tf8"), read_tiff, magic=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
register_reader((".png", ".jpg", ".jpeg", ".bmp"), _read_pillow, magic=(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"))
register_reader((".npy",), _read_npy, magic=(b"\x93NUMPY",))
register_reader((".npz",), _read_npz, magic=(b"PK\x03\x04", b"PK\x05\x06"))
