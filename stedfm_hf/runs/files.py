"""Files that are either whole or not there: atomic writes, JSON, checksums."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from stedfm_hf.runs.errors import UserError


class FileStamp(NamedTuple):
    """What tells a file from another that has taken its place.

    Attributes:
        size: In bytes.
        modified: When it was written last, in whole seconds since 1970, UTC.
    """

    size: int
    modified: int


def file_stamp(path: str | os.PathLike[str]) -> FileStamp | None:
    """Look at a file; None if that cannot be done: reading it will say why.

    Example:
        >>> file_stamp("/nowhere") is None
        True
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return FileStamp(found.st_size, found.st_mtime_ns // 10**9)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to, and rename it to `path` when the block ends without an error.

    Until then, and for good if the block raises or is interrupted, the old file stays as it was and the temporary
    one is removed. A missing parent folder is made. The temporary name keeps the suffix, because many writers
    choose their format by it. The new file has the permissions of the file it replaces, else those of the umask;
    a symbolic link is written through, not replaced.

    Args:
        path: The file that shall exist afterwards.

    Yields:
        The path to write; the block must create a file there.

    Raises:
        UserError: The parent folder cannot be made, or `path` is a folder.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("whole or not there", encoding="utf-8")
        >>> target.read_text(encoding="utf-8")
        'whole or not there'
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UserError(f"{path}: is a folder; name a file to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: its folder cannot be made ({error.strerror}); choose another place") from error
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _flush_to_disk(path: Path) -> None:
    """Make the bytes survive a power cut: a rename may otherwise reach the disk before them."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def remove_path(path: str | os.PathLike[str]) -> None:
    """Remove a file or folder, if it is there.

    Example:
        >>> remove_path("/nowhere")
    """
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically.

    Args:
        path: The file to write.
        value: Plain data (dict, list, str, int, finite float, bool, None).

    Raises:
        TypeError: `value` holds something JSON has no word for.
        ValueError: `value` holds NaN or an infinity, which are no JSON and break other readers.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is not there or no JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: is no valid JSON ({error}); delete it or restore it from a copy") from error


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
