"""Large images: pixels that are read from the file when they are indexed, so that no image is held as a whole."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, cast

import numpy as np

from ..modeling.io_stedfm import ImageReadError, LazySeries, StedImage, decode_series, open_series
from ..modeling.io_types_stedfm import choose_name

LARGE_BYTES = 256 * 2**20
"""Size of the pixels of a file from which they are read by region."""
_BLOCK_BYTES = 32 * 2**20
"""Largest size of the rows that are read at once and kept for the next access."""


class RowArray:
    """Array (C, H, W) whose rows are computed when they are indexed.

    `array[:, top:bottom]` and `array[:, top:bottom, left:right]` read only these rows; NumPy functions read all.

    Args:
        read: Function of `top` and `bottom` that returns these rows (C, n, W).
        shape: Number of channels, height and width, in pixels.
        dtype: Pixel type.

    Example:
        >>> rows = RowArray(lambda top, bottom: np.full((1, bottom - top, 3), top), (1, 9, 3), np.dtype(np.int64))
        >>> rows[:, 4:6, :2].tolist(), rows.shape, len(rows)
        ([[[4, 4], [4, 4]]], (1, 9, 3), 1)
    """

    ndim = 3

    def __init__(
        self, read: Callable[[int, int], np.ndarray], shape: tuple[int, int, int], dtype: np.dtype[Any]
    ) -> None:
        self.read, self.shape, self.dtype = read, shape, dtype
        self.size = shape[0] * shape[1] * shape[2]

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[RowPlane]:
        return (RowPlane(self, channel) for channel in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)):
            return RowPlane(self, range(len(self))[index])
        if isinstance(index, slice):
            kept = range(len(self))[index]

            def read(top: int, bottom: int) -> np.ndarray:
                return self.read(top, bottom)[index]

            return RowArray(read, (len(kept), *self.shape[1:]), self.dtype)
        channels, rows, *columns = index
        lines = range(self.shape[1])[rows]
        return self.read(lines.start, lines.stop)[(channels, slice(None), *columns)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(0, self.shape[1]), dtype)


class RowPlane:
    """Plane (H, W) of a `RowArray`; iterating yields its rows."""

    ndim = 2

    def __init__(self, array: RowArray, channel: int) -> None:
        self.array, self.channel = array, channel
        self.shape, self.dtype = array.shape[1:], array.dtype
        self.size = self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return cast(np.ndarray, self.array[self.channel : self.channel + 1][:, rows][0])

    def __iter__(self) -> Iterator[np.ndarray]:
        step = max(1, _BLOCK_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        for top in range(0, len(self), step):
            yield from self[top : min(top + step, len(self))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[0 : len(self)], dtype)


def read_large(
    path: str | os.PathLike[str], *, series: str | int | None = None, channel: str | int | None = None
) -> Iterator[StedImage]:
    """Read the images of a file; if the file is large, their pixels are read when they are indexed.

    Args:
        path: Image file.
        series: Name or index of a series; None reads every series.
        channel: Name or index of a channel; None reads all channels.

    Yields:
        Images; `array` is a `RowArray` if the pixels of the requested series need `LARGE_BYTES` or more and the format
        can be read by region. Colour images are read as a whole.

    Raises:
        ImageReadError: If the file cannot be read, or has no such series or channel.
    """
    with open_series(path) as found:
        names = [each.info.name for each in found]
        numbers = range(len(found))
        if series is not None:
            first = choose_name("series", names, series, found[0].metadata)
            numbers = range(first, first + 1)
        infos = [found[k].info for k in numbers]
        size = sum(math.prod(info.shape) * np.dtype(info.dtype).itemsize for info in infos)
        by_region = all(found[k].load_region is not None and not found[k].is_colour for k in numbers)
        for number in numbers:
            if size >= LARGE_BYTES and by_region:
                yield _image_of_rows(path, number, found[number], channel)
            else:
                yield decode_series(found[number], str(path), channel)


def _image_of_rows(
    path: str | os.PathLike[str], number: int, stored: LazySeries, channel: str | int | None
) -> StedImage:
    """Return a series of a file as an image whose pixels are a `RowArray`."""
    info, dtype = stored.info, np.dtype(stored.info.dtype)
    kept = range(info.shape[0])
    if channel is not None:
        first = choose_name("channel", info.channel_names, channel)
        kept = range(first, first + 1)
    array = RowArray(_cached_rows(path, number, kept, info.shape[1:], dtype), (len(kept), *info.shape[1:]), dtype)
    return StedImage(
        cast(np.ndarray, array),
        info.pixel_size_nm,
        tuple(info.channel_names[k] for k in kept),
        stored.metadata,
        str(path),
        info.name,
    )


def _cached_rows(
    path: str | os.PathLike[str], series: int, channels: range, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Callable[[int, int], np.ndarray]:
    """Return a function that reads rows of a series, block by block; two blocks are kept.

    The file is opened for each block, so that no handle stays open and readers in other threads do not share one.
    """
    height, width = shape
    step = max(1, _BLOCK_BYTES // (len(channels) * width * dtype.itemsize))

    @lru_cache(maxsize=2)
    def block(number: int) -> np.ndarray:
        with open_series(path) as found:
            load_region = found[series].load_region
            if load_region is None:  # the file was replaced while it was read
                raise ImageReadError(f"{path}: has changed; run the command again")
            rows = range(number * step, min((number + 1) * step, height))
            pixels = load_region(rows, range(width))[channels.start : channels.stop]
            return np.require(pixels, dtype=dtype, requirements=["C"])

    def read(top: int, bottom: int) -> np.ndarray:
        numbers = range(top // step, -(-bottom // step))
        parts = [block(k)[:, max(top - k * step, 0) : min(bottom - k * step, step)] for k in numbers] or [
            np.empty((len(channels), 0, width), dtype)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    return read
