"""Atomic writes, JSON files and checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from stedfm_hf.runs.copies import local_copy
from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.storage import as_path, is_remote, remove, stamp_of, storage_errors, upload, uploaded

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp\..+")  # names of `atomic_path`


class FileStamp(NamedTuple):
    """Size and modification time of a file, which change when it is replaced.

    Attributes:
        size: Size, in bytes.
        modified: Time of the last modification, in whole seconds since 1970 (UTC).
    """

    size: int
    modified: int


def file_stamp(path: str | os.PathLike[str]) -> FileStamp | None:
    """Return the stamp of a file, or None if it cannot be accessed.

    The stamp of a folder that is one image (OME-Zarr) is the size of all files in it, and their last modification.

    Example:
        >>> file_stamp("/nowhere") is None
        True
    """
    if is_remote(path):
        try:
            stamp = stamp_of(as_path(path))
        except UserError:
            stamp = None  # reading the file raises the error
        return None if stamp is None else FileStamp(*stamp)
    try:
        found = [os.stat(path)]
        if stat.S_ISDIR(found[0].st_mode):
            found = [os.stat(os.path.join(here, name)) for here, _, files in os.walk(path) for name in files] or found
    except OSError:
        return None
    return FileStamp(sum(each.st_size for each in found), max(each.st_mtime_ns for each in found) // 10**9)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` when the block ends without an error.

    If the block raises or is interrupted, the temporary file is removed and an existing `path` is kept unchanged.
    Missing parent folders are made. The temporary name keeps the suffix, because many writers choose their format by
    it. The new file has the permissions of the file it replaces. A symbolic link is followed, not replaced. For a
    remote path, the temporary file is local, and is uploaded in one step.

    Args:
        path: File to write.

    Yields:
        Temporary path; the block must create a file there.

    Raises:
        UserError: If the parent folder cannot be made, `path` is a folder, or its name is too long.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("complete", encoding="utf-8")
        >>> target.read_text(encoding="utf-8")
        'complete'
    """
    if is_remote(path):
        with uploaded(as_path(path)) as temporary:
            yield temporary
        return
    target = Path(os.path.realpath(path))
    if os.path.isdir(target):
        raise UserError(f"{path}: is a folder; name a file to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: the folder cannot be made ({error.strerror}); choose another folder") from error
    end = f".{secrets.token_hex(4)}.tmp{target.suffix}"
    temporary = target.with_name(f".{_shorten(target, len(end) + 1)}{end}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of `atomic_path` in a folder and below it, which a killed process was writing.

    Args:
        folder: Folder to which no process writes now.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".map.0123abcd.tmp.tif").touch()
        >>> remove_leftovers(folder)
        >>> list(folder.iterdir())
        []
    """
    for leftover in folder.rglob(".*.tmp.*"):
        if _LEFTOVER.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


@contextmanager
def sibling_folder(output: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder on the disk of an output, which is removed when the block ends.

    Files that are written there can be moved to the output when all of them are complete.

    Args:
        output: File or folder that will be written; its parent folder is made.

    Raises:
        UserError: If the disk is full, or the parent folder cannot be written.
    """
    target = Path(os.path.realpath(output))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent) as work:
            folder = Path(work, "folder")
            folder.mkdir()
            yield folder
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror or error}); free some space or choose another output"
        ) from error


def _shorten(target: Path, more: int) -> str:
    """Return the stem of a file name, shortened to leave room for `more` characters.

    Raises:
        UserError: If the whole name is too long for the disk.
    """
    try:
        most = os.pathconf(target.parent, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows
        most = 255
    length = len(os.fsencode(target.name))
    if length > most:
        name = f"{target.name[:16]}...{target.name[-24:]}"
        raise UserError(
            f"{name}: the file name would have {length} bytes, above the limit of {most}; rename the input"
        )
    stem = target.stem
    while len(os.fsencode(stem)) > most - more:
        stem = stem[:-1]
    return stem


def _flush_to_disk(path: Path) -> None:
    """Write the bytes to disk before the rename, so that they survive a power cut."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def remove_path(path: str | os.PathLike[str]) -> None:
    """Remove a file or folder if it exists.

    Example:
        >>> remove_path("/nowhere")
    """
    if is_remote(path):
        remove(as_path(path))
    elif os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


@contextmanager
def scratch_folder(output: Path, name: str) -> Iterator[Path]:
    """Yield a folder for incomplete results: in an output folder, or a local one for a remote output.

    It is removed when the block ends without an error. After an error, one in the output is kept, to be resumed.

    Args:
        output: Folder of the output.
        name: Name of the folder in it.
    """
    if is_remote(output):
        with tempfile.TemporaryDirectory(prefix="stedfm-") as work:
            yield Path(work)
        return
    yield output / name
    remove_path(output / name)


def move_path(path: Path, target: Path) -> None:
    """Move a local file or folder to a path that does not exist: a new name on the disk, or an upload.

    Raises:
        UserError: If an upload fails.
    """
    if is_remote(target):
        upload(path, target)
    else:
        path.rename(target)


def write_json(
    path: str | os.PathLike[str], value: Any, lines: Mapping[str, Iterable[tuple[str, Any]]] | None = None
) -> None:
    """Write `value` as indented UTF-8 JSON, atomically.

    Args:
        path: File to write.
        value: Plain data: dict, list, str, int, finite float, bool or None.
        lines: Further entries of a dict, each an object with a line for every key: a million keys are written without
            a copy in memory.

    Raises:
        TypeError: If `value` holds an object that JSON cannot represent.
        ValueError: If `value` holds NaN or infinity, which JSON does not allow.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    to_line = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    with atomic_path(path) as temporary:
        # A name that is not UTF-8 stays valid JSON.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text if lines is None else text.removesuffix("\n}"))
            for name, entries in (lines or {}).items():
                file.write(f",\n  {to_line(name)}: {{")
                for number, (key, entry) in enumerate(entries):
                    file.write(f"{',' if number else ''}\n    {to_line(key)}: {to_line(entry)}")
                file.write("\n  }")
            file.write("\n" if lines is None else "\n}\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        UserError: If the file is missing or is not JSON; the message names it.
    """
    try:
        with storage_errors(path):
            return json.loads(as_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); delete it or restore it from a copy") from error


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with local_copy(as_path(path)) as file, file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
