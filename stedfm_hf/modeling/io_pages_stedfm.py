"""Decode pages of a TIFF file, whole or by region, and refuse pages whose pixels are not in the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from .io_types_stedfm import ImageReadError, file_size, read_exactly

_UNCOMPRESSED = 1


class TiffPages:
    """Pages of a series.

    Args:
        series: Series of tifffile.
        handle: Open file.
        byteorder: `"<"` or `">"`.
    """

    def __init__(self, series: Any, handle: IO[bytes], byteorder: str) -> None:
        self.series, self.handle, self.page = series, handle, series.keyframe
        self.raw = np.dtype(series.dtype).newbyteorder(byteorder)
        self.file_size = file_size(handle)

    @property
    def is_plain(self) -> bool:
        """Whether all pages are stored in sequence without compression."""
        return self.series.dataoffset is not None

    def read(self, number: int) -> np.ndarray:
        """Decode a page.

        Raises:
            ImageReadError: If the page is missing or truncated.
        """
        if self.is_plain:
            length = self.page.size * self.raw.itemsize
            self.handle.seek(self.series.dataoffset + number * length)
            return self._native(read_exactly(self.handle, length))
        page: np.ndarray = self._checked_page(number).asarray(maxworkers=1)
        return page

    def read_region(self, number: int, rows: range, columns: range) -> np.ndarray:
        """Decode only the strips or tiles of a page that a region touches.

        Args:
            number: Number of the page.
            rows: Rows of the region.
            columns: Columns of the region.

        Returns:
            (planes, h, w, samples), where planes or samples are 1.

        Raises:
            ImageReadError: If the page is missing or truncated.
        """
        page = self.page
        planes, samples = (page.samplesperpixel, 1) if int(page.planarconfig) == 2 else (1, page.samplesperpixel)
        found = np.empty((planes, len(rows), len(columns), samples), np.dtype(self.series.dtype))
        if self.is_plain:
            row = page.imagewidth * samples * self.raw.itemsize
            start = self.series.dataoffset + number * page.size * self.raw.itemsize
            for plane in range(planes):
                self.handle.seek(start + (plane * page.imagelength + rows.start) * row)
                whole_rows = self._native(read_exactly(self.handle, len(rows) * row))
                whole_rows = whole_rows.reshape(len(rows), page.imagewidth, samples)
                found[plane] = whole_rows[:, columns.start : columns.stop]
            return found
        one = self._checked_page(number)
        for index in self._segments(rows, columns):
            self.handle.seek(one.dataoffsets[index])
            data = self.handle.read(one.databytecounts[index])
            segment, (plane, _, top, left, _), _ = one.decode(
                data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader
            )
            if segment is None:
                raise ImageReadError(f"truncated: pixels of page {number} are missing; copy or export it again")
            _, height, width, _ = segment.shape
            from_rows = range(max(top, rows.start), min(top + height, rows.stop))
            from_columns = range(max(left, columns.start), min(left + width, columns.stop))
            found[plane, _inside(from_rows, rows.start), _inside(from_columns, columns.start)] = segment[
                0, _inside(from_rows, top), _inside(from_columns, left)
            ]
        return found

    def _segments(self, rows: range, columns: range) -> Iterator[int]:
        """Yield the numbers of the strips or tiles that a region touches."""
        page = self.page
        height = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
        width = page.tilewidth if page.is_tiled else page.imagewidth
        down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
        planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
        for plane in range(planes):
            for row in range(rows.start // height, -(-rows.stop // height)):
                for column in range(columns.start // width, -(-columns.stop // width)):
                    yield (plane * down + row) * across + column

    def _checked_page(self, number: int) -> Any:
        """Return a page of tifffile whose strips or tiles are all in the file."""
        one = self.series[number] if number < len(self.series) else None
        if one is None:
            raise ImageReadError(f"page {number} is missing from the file; export it again")
        counts = list(one.databytecounts)
        if int(one.compression) == _UNCOMPRESSED:
            # Some writers declare more bytes than a strip has; without compression the number is known.
            counts = [min(count, self._segment_bytes(index)) for index, count in enumerate(counts)]
            one.databytecounts = tuple(counts)
        segments = list(zip(one.dataoffsets, counts, strict=True))
        # tifffile fills strips that are missing or empty with zeros: here they are damage.
        if len(segments) < math.prod(one.chunked) or any(
            not start or not count or start + count > self.file_size for start, count in segments
        ):
            raise ImageReadError(f"truncated: pixels of page {number} are missing; copy or export it again")
        return one

    def _segment_bytes(self, index: int) -> int:
        """Return the number of bytes of a strip or tile without compression."""
        page = self.page
        samples = 1 if int(page.planarconfig) == 2 else page.samplesperpixel
        width = page.tilewidth if page.is_tiled else page.imagewidth
        bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
        height = page.tilelength
        if not page.is_tiled:
            height = min(page.rowsperstrip, page.imagelength)
            strips = -(-page.imagelength // height)
            height = min(height, page.imagelength - index % strips * height)  # the last strip may be shorter
        return int(height * -(-width * samples * bits // 8))

    def _native(self, data: np.ndarray) -> np.ndarray:
        """Return bytes as pixels in native byte order; turned in their place, so that a large field is not copied."""
        pixels = data.view(self.raw)
        return pixels if self.raw.isnative else pixels.byteswap(inplace=True).view(self.raw.newbyteorder("="))


def _inside(part: range, start: int) -> slice:
    """Return a part of an axis as a slice of an array that begins at `start`."""
    return slice(part.start - start, part.stop - start)
