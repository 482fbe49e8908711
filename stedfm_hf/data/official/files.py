"""The files of an official set, wherever they lie: in a folder, in a zip, or one file alone.

Nothing is unpacked under a name of the archive's choosing, and nothing that is read is executed.
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
"""A field of 2048 x 2048 pixels with 15 frames of 16 bit has 126 MB."""


class SourceFiles:
    """Files by their path relative to the source; a context manager, because a zip and temporary copies are closed.

    Args:
        source: a folder, a zip, or another file, which then is the only one.
        without: a folder that is none of the source, though it may lie in it: the output.

    Attributes:
        root: name of the folder, or of the zip without its suffix: the authors' name of it may say what it holds.
        names: relative paths with `/`, sorted; hidden files are left out.
        stack: what is closed in the end.

    Raises:
        UserError: there is no such file, or the zip cannot be read.

    Example:
        >>> folder = Path(tempfile.mkdtemp()) / "optim-data"
        >>> (folder / "actin").mkdir(parents=True)
        >>> _ = (folder / "actin" / "1-0.80.npz").write_bytes(b"...")
        >>> with SourceFiles(folder) as files:
        ...     print(files.root, files.names, files.read("actin/1-0.80.npz"))
        optim-data ['actin/1-0.80.npz'] b'...'
    """

    def __init__(self, source: Path, without: Path | None = None) -> None:
        self.stack = ExitStack()
        self._source = source
        self._zip: zipfile.ZipFile | None = None
        self._folder = source.parent
        self._copies: dict[str, Path] = {}
        self.root = ""
        if source.is_dir():
            self._folder, self.root = source, source.absolute().name
            own = None if without is None else without.absolute()
            paths = (path for path in source.absolute().rglob("*") if own is None or own not in path.parents)
            known = {path.relative_to(source.absolute()).as_posix(): _stamp(path) for path in paths if path.is_file()}
        elif not source.is_file():
            raise UserError(f"{source}: no such file or folder; check the path")
        elif _begins_as_zip(source):
            try:
                self._zip = self.stack.enter_context(zipfile.ZipFile(source))
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(f"{source}: cannot be read ({error}); get it again") from error
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
        """By what a later run sees whether the files are the same: names, sizes and checksums or dates."""
        return {"name": self._source.name, "files": len(self.names), "digest": self._digest[:32]}

    def parts(self, name: str) -> tuple[str, ...]:
        """The folders and the name of a file, the root before them.

        A set is told by the names of its folders, and the one that was named or zipped may be one of them.
        """
        return (*((self.root,) if self.root else ()), *name.split("/"))

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            ValueError: it is too large to be an image.
            Exception: whatever damaged archives raise.
        """
        size = self._zip.getinfo(name).file_size if self._zip else (self._folder / name).stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"refused, because it has {size / 2**20:.0f} MiB: no image is so large")
        return self._zip.read(name) if self._zip else (self._folder / name).read_bytes()

    def local(self, name: str) -> Path:
        """Where a file lies on the disk: a temporary copy if it is in a zip."""
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


def _begins_as_zip(path: Path) -> bool:
    """Told by the beginning: the end of a tar of `.npz` files looks like a zip, too."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _stamp(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


def _is_hidden(name: str) -> bool:
    """Also names that lead out of an archive, which no honest one has."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith((".", "/")) for part in parts)


class TarMembers:
    """The members of a tar by number; forward reading is cheap, a step back begins anew.

    Args:
        path: of the tar.

    Attributes:
        names: of the members that are files, by their number.
        damage: what hides the members that follow, or None.
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
            self.damage = f"the archive is cut or damaged ({error}); get it again"

    def read(self, number: int) -> bytes:
        """The content of a member.

        Raises:
            Exception: whatever damaged archives raise.
        """
        if number < self._next or not self._next:
            self._members, self._next = enumerate(iterate_members(self._path)), 0
        for place, member in self._members:
            self._next = place + 1
            if place == number:
                if member.size > MAX_FILE_BYTES:
                    raise ValueError(f"refused, because it has {member.size / 2**20:.0f} MiB: no image is so large")
                return member.read()
        raise EOFError("the archive ends before it")
