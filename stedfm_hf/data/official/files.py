"""Files of a published data set, in a folder, in a zip, or as a single file.

Names in an archive never decide where a file is written, and nothing in the files is executed.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from stedfm_hf.data.archives.members import ArchiveDamaged, Member, iterate_members
from stedfm_hf.runs import UserError

MAX_FILE_BYTES = 2**29
"""Largest file to read into memory; 15 frames of 2048 x 2048 pixels with 16 bits have 126 MB."""


class SourceFiles:
    """Files of a source, by relative path; a context manager that closes the zip and deletes temporary copies.

    Args:
        source: Folder, zip, or any other single file.
        exclude: Folder to exclude, such as an output folder inside the source; None for no folder.

    Attributes:
        root: Name of the folder, or of the zip without its suffix; it may name a class or split.
        names: Sorted relative paths, separated by `/`, without hidden files.
        stack: Resources that are closed at the end.

    Raises:
        UserError: The source does not exist, or the zip cannot be read.

    Example:
        >>> folder = Path(tempfile.mkdtemp()) / "optim-data"
        >>> (folder / "actin").mkdir(parents=True)
        >>> _ = (folder / "actin" / "1-0.80.npz").write_bytes(b"...")
        >>> with SourceFiles(folder) as files:
        ...     print(files.root, files.names, files.read("actin/1-0.80.npz"))
        optim-data ['actin/1-0.80.npz'] b'...'
    """

    def __init__(self, source: Path, exclude: Path | None = None) -> None:
        self.stack = ExitStack()
        self._source = source
        self._zip: zipfile.ZipFile | None = None
        self._folder = source.parent
        self._copies: dict[str, Path] = {}
        self.root = ""
        if source.is_dir():
            self._folder, self.root = source, source.absolute().name
            excluded = None if exclude is None else exclude.absolute()
            paths = (path for path in source.absolute().rglob("*") if excluded is None or excluded not in path.parents)
            known = {path.relative_to(source.absolute()).as_posix(): _stamp(path) for path in paths if path.is_file()}
        elif not source.is_file():
            raise UserError(f"{source}: no such file or folder; check the path")
        elif _starts_as_zip(source):
            try:
                self._zip = self.stack.enter_context(zipfile.ZipFile(source))
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(f"{source}: cannot be read ({error}). Download it again") from error
            self.root = source.stem
            known = {
                each.filename: f"{each.file_size} {each.CRC}" for each in self._zip.infolist() if not each.is_dir()
            }
        else:
            known = {source.name: _stamp(source)}
        self.names = sorted(name for name in known if not _is_hidden(name))
        self._digest = sha256("\n".join(f"{name} {known[name]}" for name in self.names).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """Name of the source, number of files, and a digest of their names, sizes and checksums or dates."""
        return {"name": self._source.name, "files": len(self.names), "digest": self._digest[:32]}

    def parts(self, name: str) -> tuple[str, ...]:
        """Return the folders and the name of a file, with the root as first part.

        Folders name classes and splits, and the root may be such a folder.

        Args:
            name: Relative path of the file.
        """
        return (*((self.root,) if self.root else ()), *name.split("/"))

    def read(self, name: str) -> bytes:
        """Read a file.

        Args:
            name: Relative path of the file.

        Raises:
            ValueError: The file is larger than `MAX_FILE_BYTES`.
            Exception: The archive is damaged; the type depends on the damage.
        """
        size = self._zip.getinfo(name).file_size if self._zip else (self._folder / name).stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(_too_large(size))
        return self._zip.read(name) if self._zip else (self._folder / name).read_bytes()

    def local_path(self, name: str) -> Path:
        """Return the path of a file on disk; a file in a zip is copied to a temporary folder.

        Args:
            name: Relative path of the file.
        """
        if self._zip is None:
            return self._folder / name
        if name not in self._copies:
            folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="stedfm-")))
            self._copies[name] = folder / "copy"
            with self._zip.open(name) as source, self._copies[name].open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
        return self._copies[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stack.close()


def _too_large(size: int) -> str:
    """Return the message for a file that is larger than the limit."""
    return f"refused: {size / 2**20:.0f} MiB is too large for an image; the limit is {MAX_FILE_BYTES / 2**20:.0f} MiB"


def _starts_as_zip(path: Path) -> bool:
    """Check the signature at the start; the end of a tar of `.npz` files looks like that of a zip."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _stamp(path: Path) -> str:
    """Return size and modification time of a file."""
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


def _is_hidden(name: str) -> bool:
    """Check whether a name is hidden, or absolute or above the root of an archive."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith((".", "/")) for part in parts)


class TarMembers:
    """Members of a tar, by number; fast to read in ascending order, slow in other orders.

    Args:
        path: Path of the tar.

    Attributes:
        names: Name of each member that is a file, by number.
        damage: Message if the archive is damaged and later members cannot be read, or None.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: Iterator[tuple[int, Member]] = iter(())
        self._next = 0
        self.names: dict[int, str] = {}
        self.damage: str | None = None
        try:
            for number, member in enumerate(iterate_members(path)):
                if member.skip_reason is None:
                    self.names[number] = member.name
        except ArchiveDamaged as error:
            self.damage = f"the archive is truncated or damaged ({error}). Download it again"

    def read(self, number: int) -> bytes:
        """Read a member.

        Args:
            number: Number of the member.

        Raises:
            EOFError: The archive ends before this member.
            ValueError: The member is larger than `MAX_FILE_BYTES`.
            Exception: The archive is damaged; the type depends on the damage.
        """
        if number < self._next or not self._next:
            self._members, self._next = enumerate(iterate_members(self._path)), 0
        for index, member in self._members:
            self._next = index + 1
            if index == number:
                if member.size > MAX_FILE_BYTES:
                    raise ValueError(_too_large(member.size))
                return member.read()
        raise EOFError("the archive ends before this file")
