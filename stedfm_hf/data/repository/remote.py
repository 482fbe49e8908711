"""Files of data sets in other file systems: each read is one request.

`fsspec` opens the file systems. A request of an object store takes tens of milliseconds regardless of its length, so
that a shard is read by one long range instead of one range for each column.
"""

from __future__ import annotations

import io
from typing import IO, Any, cast

import pyarrow as pa

_FOOTER_BYTES = 2**16
_FOOTER_BYTES_PER_GROUP = 2**12
"""Lengths that hold the footer of a shard and of each of its row groups, with statistics of all columns."""
_TRAILER = 8  # bytes at the end of a Parquet file: length of the footer, and "PAR1"


class RemoteFiles:
    """File system of a data set, shared by all threads that read.

    Args:
        url: URL of a file or folder, such as `hf://datasets/owner/name`.
        token: Token of the Hub; None uses the saved one.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        import fsspec

        options = {"token": token} if url.startswith("hf://") else {}
        self.system, _ = fsspec.core.url_to_fs(url, **options)

    def names(self, url: str) -> set[str]:
        """Return the names of the files in a folder."""
        return {path.rpartition("/")[2] for path in self.system.ls(self._path(url), detail=False)}

    def read(self, url: str, start: int | None = None, end: int | None = None) -> bytes:
        """Read a file, or a range of it, by one request.

        Args:
            url: URL of the file.
            start: First byte of the range; a negative number counts from the end of the file.
            end: End of the range; None reads to the end of the file.
        """
        # The other file systems open the file, by default with a cache that reads blocks of megabytes.
        options = {} if self.system.async_impl else {"cache_type": "none"}
        return bytes(self.system.cat_file(self._path(url), start=start, end=end, **options))

    def open(self, url: str) -> IO[bytes]:
        """Open a file; each read is one request."""
        return cast(IO[bytes], self.system.open(self._path(url), "rb", cache_type="none"))

    def read_footer(self, url: str, groups: int) -> pa.NativeFile:
        """Read the end of a Parquet file by one request, or by two if its footer is unusually long.

        Args:
            url: URL of the file.
            groups: Number of row groups of the file.

        Returns:
            File whose last bytes are the footer.
        """
        length = _FOOTER_BYTES + groups * _FOOTER_BYTES_PER_GROUP
        data = self.read(url, -length)
        needed = int.from_bytes(data[-_TRAILER:-4], "little") + _TRAILER
        if len(data) == length and needed > length:
            data = self.read(url, -needed)
        return pa.BufferReader(data)

    def _path(self, url: str) -> str:
        return str(self.system._strip_protocol(url))


class FileRange(io.RawIOBase):
    """Range of a file in memory, read like the whole file.

    Args:
        data: Bytes of the range.
        start: Position of the range in the file.

    Example:
        >>> part = FileRange(b"cdef", 2)
        >>> part.seek(3), part.read(2)
        (3, b'de')
    """

    def __init__(self, data: bytes, start: int) -> None:
        super().__init__()
        self._data, self._start, self._position = memoryview(data), start, start

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the file."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the file, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._start + len(self._data)}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes of the range into a buffer, and return their number; 0 outside of the range."""
        first = self._position - self._start
        part = self._data[first : first + len(buffer)] if first >= 0 else self._data[:0]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)
