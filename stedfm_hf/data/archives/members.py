"""The members of an archive one after the other, without unpacking it and without an index in memory.

A tar (compressed or not), a zip, or tars inside a zip, all as one sequence of files. Nothing is written to disk, names
lead nowhere, and what a header says of its size is checked before memory is asked for. (Ours.)
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
"""A crop of 16 bit has 0.1 MB, a whole field of 5000 x 5000 pixels 50 MB."""
MAX_HEADER_BYTES = 2**20
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
    """The archive cannot be read from here on."""


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Args:
        name: last part of its path, printable; the folders may tell whose archive it was.
        size: bytes it says it has.
        read: gives them; only until the next member is asked for. Raises whatever the libraries raise.
        left_out: why it is none that is to be read, or None.
    """

    name: str
    size: int
    read: Callable[[], bytes]
    left_out: str | None = None


def walk(path: Path) -> Iterator[Member]:
    """The members of a tar or a zip in their order; a tar inside a zip is walked in its place.

    Args:
        path: the archive. What it is is told by its content, not by its name: the crops in it are zips, too.

    Raises:
        ArchiveDamaged: when the members before the damage were given.
        OSError: the disk or the network failed, not the archive.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "crops.zip"
        >>> with zipfile.ZipFile(path, "w") as archive:
        ...     archive.writestr("crops/a-0-224", b"...")
        >>> [(member.name, member.read()) for member in walk(path)]
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
    r"""Text from outside as it can stand in a message and in JSON.

    >>> printable("a\x1b[31m\udcff b\n")
    'a?[31m? b'
    """
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:limit]


def _member(name: str, size: int, is_file: bool, read: Callable[[], bytes]) -> Member:
    path = PurePosixPath(name.replace("\\", "/"))
    left_out = None
    if not is_file:
        left_out = "is a folder or a link"
    elif path.name.startswith(".") or "__MACOSX" in path.parts:
        left_out = "is a hidden file"
    return Member(printable(path.name) or "?", size, read, left_out)


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.lower().endswith(TAR_SUFFIXES):
                with archive.open(info) as stream:
                    yield from _tar_members(stream)
            else:
                yield _member(info.filename, info.file_size, not info.is_dir(), partial(archive.read, info))


def _tar_members(source: Path | IO[bytes]) -> Iterator[Member]:
    class Header(tarfile.TarInfo):
        """Remembers the last block: `TarFile` ends in silence at a damaged header, too."""

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
            # Else it keeps a million of them. The type stubs know only getmembers(), which would read them all.
            tar.members.clear()  # type: ignore[attr-defined]
            yield _member(info.name, info.size, info.isreg(), partial(_read_tar_member, tar, info))
    if len(Header.block) < tarfile.BLOCKSIZE:
        raise ArchiveDamaged("it ends too early: the mark of its end is missing")
    if any(Header.block):
        raise ArchiveDamaged("what follows is no header of a member")


def _open_tar(source: Path | IO[bytes], header: type[tarfile.TarInfo]) -> tarfile.TarFile:
    if not isinstance(source, Path):
        return tarfile.open(fileobj=source, mode="r|*", tarinfo=header)
    try:
        return tarfile.open(source, "r:", tarinfo=header)  # seeks past what is not read
    except tarfile.ReadError:
        return tarfile.open(source, "r|*", tarinfo=header)


def _read_tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    content = file.read() if file is not None else b""
    if len(content) != info.size:
        raise EOFError("the archive ends within it")
    return content
