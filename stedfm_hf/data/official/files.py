"""Access to the files of an official set in a folder, in a zip, or as a single file.

Names in an archive are never used as paths on the disk, and no content is executed.
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
"""Largest file that is read; an image of 2048 x 2048 pixels with 15 frames of 16 bit has 126 MB."""


class SourceFiles:
    """Files of a source by relative path; a context manager that closes the zip and deletes temporary copies.

    Args:
        source: Folder, zip, or single file.
        exclude: Folder to ignore, such as an output within the source.

    Attributes:
        root: Name of the folder, or of the zip without its suffix; empty for a single file.
        names: Sorted relative paths with `/`, without hidden files.
        stack: Exit stack that is closed with the source.

    Raises:
        UserError: The file is missing, or the zip cannot be read.

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
            ignored = None if exclude is None else exclude.absolute()
            paths = (path for path in source.absolute().rglob("*") if ignored is None or ignored not in path.parents)
            stamps = {path.relative_to(source.absolute()).as_posix(): _stamp(path) for path in paths if path.is_file()}
        elif not source.is_file():
            raise UserError(f"{source}: no such file or folder. Check the path.")
        elif _starts_like_zip(source):
            try:
                self._zip = self.stack.enter_context(zipfile.ZipFile(source))
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(f"{source}: not a readable zip ({error}). Download it again.") from error
            self.root = source.stem
            stamps = {
                each.filename: f"{each.file_size} {each.CRC}" for each in self._zip.infolist() if not each.is_dir()
            }
        else:
            stamps = {source.name: _stamp(source)}
        self.names = sorted(name for name in stamps if not _is_hidden(name))
        self._digest = sha256("\n".join(f"{name} {stamps[name]}" for name in self.names).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """Name, number of files, and digest of names, sizes and checksums or dates, to detect changes."""
        return {"name": self._source.name, "files": len(self.names), "digest": self._digest[:32]}

    def parts(self, name: str) -> tuple[str, ...]:
        """Return the parts of the path of a file, starting with the root.

        The root is included because its name may be one of the folder names that identify a set.

        Args:
            name: Relative path of the file.
        """
        return (*((self.root,) if self.root else ()), *name.split("/"))

    def read(self, name: str) -> bytes:
        """Read a file.

        Args:
            name: Relative path of the file.

        Raises:
            ValueError: The file is too large to be an image.
            Exception: The archive is damaged; zipfile raises various exceptions.
        """
        size = self._zip.getinfo(name).file_size if self._zip else (self._folder / name).stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"refused: {size / 2**20:.0f} MiB is too large for an image")
        return self._zip.read(name) if self._zip else (self._folder / name).read_bytes()

    def local(self, name: str) -> Path:
        """Return the path of a file on the disk, or of a temporary copy if it is in a zip.

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


def _starts_like_zip(path: Path) -> bool:
    """Test the first bytes, because the end of a tar of `.npz` files looks like a zip."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _stamp(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


def _is_hidden(name: str) -> bool:
    """Test for hidden names and for names that lead out of an archive."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith((".", "/")) for part in parts)


class TarMembers:
    """Members of a tar by index; reading backwards starts from the beginning of the file.

    Args:
        path: Path of the tar.

    Attributes:
        names: Names of the members that are files, by index.
        damage: Message about damage after the last listed member, or None.
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
            self.damage = f"the archive is truncated or damaged ({error}); download it again"

    def read(self, number: int) -> bytes:
        """Read a member.

        Args:
            number: Index of the member.

        Raises:
            ValueError: The member is too large to be an image.
            EOFError: The archive has fewer members.
            Exception: The archive is damaged; tarfile raises various exceptions.
        """
        # A tar can only be read forwards; the open iterator continues with the member number `_next`.
        if number < self._next or not self._next:
            self._members, self._next = enumerate(iterate_members(self._path)), 0
        for index, member in self._members:
            self._next = index + 1
            if index == number:
                if member.size > MAX_FILE_BYTES:
                    raise ValueError(f"refused: {member.size / 2**20:.0f} MiB is too large for an image")
                return member.read()
        raise EOFError("the archive ends before this member")
