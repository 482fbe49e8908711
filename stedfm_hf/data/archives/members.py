"""Iteration over the members of tar and zip archives, without unpacking and without an index in memory.

A tar (compressed or not), a zip, and tars inside a zip are read as one sequence of files. Nothing is written to disk,
paths of members are ignored, and declared sizes are checked before memory is allocated.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Self

MAX_MEMBER_BYTES = 64 * 2**20
"""Largest member to read. A 16-bit crop has 0.1 MB, a 16-bit field of 5000 x 5000 pixels 50 MB."""
MAX_HEADER_BYTES = 2**20
"""Largest extended header of a tar member."""
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_EXTENSIONS = frozenset(
    [
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    ]
)


class ArchiveDamaged(ValueError):
    """The rest of the archive cannot be read."""


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        name: File name, printable; without folders, which may identify people.
        size: Declared size, in bytes.
        read: Function that returns the content. It works until the next member is requested, and may raise any error
            of the libraries.
        skip_reason: Reason to skip the member, such as a folder or a link, or None.
    """

    name: str
    size: int
    read: Callable[[], bytes]
    skip_reason: str | None = None


def iterate_members(path: Path) -> Iterator[Member]:
    """Iterate over the members of a tar or zip in their order, including those of tars inside a zip.

    Args:
        path: Path of the archive. The content decides its format, because the crops inside are zips, too.

    Yields:
        Members.

    Raises:
        ArchiveDamaged: The archive is damaged; members before the damage were yielded.
        OSError: The disk or network failed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "crops.zip"
        >>> with zipfile.ZipFile(path, "w") as archive:
        ...     archive.writestr("crops/a-0-224", b"...")
        >>> [(member.name, member.read()) for member in iterate_members(path)]
        [('a-0-224', b'...')]
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        yield from _zip_members(path) if is_zip else _tar_members(path)
    except ArchiveDamaged:
        raise
    except Exception as error:  # damaged bytes can raise anything in tarfile, zipfile and the decompressors
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArchiveDamaged(printable(str(error)) or type(error).__name__) from error


def printable(text: str, limit: int = 200) -> str:
    r"""Replace characters that cannot be printed in a message or stored in JSON.

    Args:
        text: Text from a file.
        limit: Largest number of characters of the result.

    Returns:
        One line of printable characters.

    Example:
        >>> printable("a\x1b[31m\udcff b\n")
        'a?[31m? b'
    """
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:limit]


def _member(name: str, size: int, is_file: bool, read: Callable[[], bytes]) -> Member:
    """Make a member of its path in the archive; folders, links and hidden files get a reason to skip them."""
    path = PurePosixPath(name.replace("\\", "/"))
    skip_reason = None
    if not is_file:
        skip_reason = "is a folder or a link"
    elif path.name.startswith(".") or "__MACOSX" in path.parts:
        skip_reason = "is a hidden file"
    return Member(printable(path.name) or "?", size, read, skip_reason)


def _zip_members(path: Path) -> Iterator[Member]:
    """Yield the members of a zip; a tar inside it is replaced by its members, which are read as a stream."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.lower().endswith(TAR_SUFFIXES):
                with archive.open(info) as stream:
                    yield from _tar_members(stream)
            else:
                yield _member(info.filename, info.file_size, not info.is_dir(), partial(archive.read, info))


def _tar_members(source: Path | IO[bytes]) -> Iterator[Member]:
    """Yield the members of a tar, with one header in memory at a time.

    Raises:
        ArchiveDamaged: The tar ends without the end-of-archive marker, or a header is invalid.
        tarfile.ReadError: A header is too large, or the file is not a tar.
    """

    class Header(tarfile.TarInfo):
        """Header that keeps the last block, because `TarFile` stops without an error at a damaged header."""

        block: bytes | bytearray = b""

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            Header.block = buf
            header = super().frombuf(buf, encoding, errors)
            if header.type in _EXTENSIONS and header.size > MAX_HEADER_BYTES:  # read at once by `TarFile`
                raise tarfile.ReadError(f"a header of {header.size} bytes")
            return header

    with closing(_open_tar(source, Header)) as tar:
        while (info := tar.next()) is not None:
            # Otherwise it keeps a million headers. The type stubs have only getmembers(), which would read all.
            tar.members.clear()  # type: ignore[attr-defined]
            yield _member(info.name, info.size, info.isreg(), partial(_read_tar_member, tar, info))
    # A complete archive ends with a block of zeros.
    if len(Header.block) < tarfile.BLOCKSIZE:
        raise ArchiveDamaged("it is truncated: the end-of-archive marker is missing")
    if any(Header.block):
        raise ArchiveDamaged("a member header is invalid")


def _open_tar(source: Path | IO[bytes], header: type[tarfile.TarInfo]) -> tarfile.TarFile:
    if not isinstance(source, Path):
        return tarfile.open(fileobj=source, mode="r|*", tarinfo=header)
    try:
        return tarfile.open(source, "r:", tarinfo=header)  # seeks past members that are not read
    except tarfile.ReadError:
        return tarfile.open(source, "r|*", tarinfo=header)


def _read_tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    content = file.read() if file is not None else b""
    if len(content) != info.size:
        raise EOFError("the archive ends inside this member")
    return content
