"""Local copies of remote files, for readers that need a file name, and of remote folders, for memory-mapped files."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.storage import (
    is_missing_bucket,
    is_remote,
    name_of,
    remove,
    stamp_of,
    storage_errors,
    system_of,
    upload,
    with_retries,
)

_KEPT_BYTES = 2**30
"""Size of the copies that a process keeps after their use."""


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a local file with the content of a path: the file itself, or a copy of a remote file.

    A process keeps copies up to 1 GiB for their next use. A copy in use is not removed, and a changed object is copied
    again.

    Args:
        path: File.

    Raises:
        UserError: If a remote file cannot be read.

    Example:
        >>> with local_copy(Path("images/a.tif")) as file:
        ...     file.name
        'a.tif'
    """
    if not is_remote(path):
        yield path
        return
    copy = _COPIES.borrow(path)
    try:
        yield copy.file
    finally:
        _COPIES.give_back(copy)


@dataclass
class _Copy:
    """Copy of one state of a remote file."""

    file: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    size: int = 0
    complete: bool = False


class _Copies:
    """Copies of this process, in the order of their last use; threads share them."""

    def __init__(self) -> None:
        self._copies: dict[tuple[str, object], _Copy] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._made = 0
        self._lock = threading.Lock()

    def borrow(self, path: Path) -> _Copy:
        """Return a complete copy, which is kept until it is given back."""
        key = (str(path), stamp_of(path))
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="stedfm-copies-")
            if (copy := self._copies.pop(key, None)) is None:
                self._made += 1
                copy = _Copy(Path(self._folder.name, str(self._made), name_of(path)))
            self._copies[key] = copy  # last: the most recent use
            copy.users += 1
        try:
            with copy.lock:
                if not copy.complete:
                    self._fetch(path, copy)
        except BaseException:
            self.give_back(copy)
            raise
        return copy

    def _fetch(self, path: Path, copy: _Copy) -> None:
        copy.file.parent.mkdir(exist_ok=True)
        system, name = system_of(path)
        with_retries(path, system.get_file, name, str(copy.file))
        copy.size, copy.complete = copy.file.stat().st_size, True

    def give_back(self, copy: _Copy) -> None:
        """End a use, and remove the copies that were not used for longest, up to the limit."""
        with self._lock:
            copy.users -= 1
            kept = sum(each.size for each in self._copies.values())
            for key, each in list(self._copies.items()):
                if each.users or (each.complete and kept <= _KEPT_BYTES):
                    continue
                del self._copies[key]
                kept -= each.size
                shutil.rmtree(each.file.parent, ignore_errors=True)


_COPIES = _Copies()


@contextmanager
def working_copy(folder: Path, *, last: Sequence[str] = (), writes: bool = True) -> Iterator[Path]:
    """Yield a local folder with the files of a folder: the folder itself, or a copy of a remote one.

    When the block ends, also by an error, the files that it changed are uploaded, and those that it removed are
    removed. A killed process leaves the remote folder unchanged.

    Args:
        folder: Folder.
        last: Names of files that refer to the others and are uploaded after them, in this order.
        writes: Whether changes are uploaded.

    Raises:
        UserError: If the store cannot be used. Messages of the block name the remote folder, not its copy.
    """
    if not is_remote(folder):
        yield folder
        return
    system, root = system_of(folder)
    with tempfile.TemporaryDirectory(prefix="stedfm-") as work:
        local = Path(work, name_of(folder) or "folder")
        local.mkdir()
        with storage_errors(folder):
            try:
                names = [name[len(root.rstrip("/")) + 1 :] for name in system.find(root)]
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                names = []
        for name in filter(None, names):
            file = local / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with_retries(folder, system.get_file, f"{root.rstrip('/')}/{name}", str(file))
        before = _stamps(local)
        try:
            yield local
        except UserError as error:
            raise UserError(str(error).replace(str(local), str(folder))) from error
        finally:
            if writes:
                _write_changes(local, folder, before, last)


def _write_changes(local: Path, folder: Path, before: dict[str, tuple[int, int]], last: Sequence[str]) -> None:
    now = _stamps(local)
    changed = [name for name in now if now[name] != before.get(name)]
    for name in sorted(changed, key=lambda name: (last.index(name) + 1 if name in last else 0, name)):
        upload(local / name, folder / name)
    for name in before.keys() - now.keys():
        remove(folder / name)


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of the files in a folder, by name; locks and temporary files are left out."""
    found = {}
    for here, _, files in os.walk(folder):
        for name in files:
            if not name.startswith("."):
                file = Path(here, name)
                found[file.relative_to(folder).as_posix()] = (file.stat().st_size, file.stat().st_mtime_ns)
    return found
