"""Lock of a running server: a file of answers has one server at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stedfm_hf.runs.errors import UserError


@contextmanager
def only_server(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other servers from a file of answers; the lock ends with the process, even if it is killed.

    Args:
        path: File of answers, which need not exist.

    Raises:
        UserError: If another server uses the file, or its folder cannot be written.
    """
    try:
        held = _lock(path).acquire()
    except Timeout as error:
        raise UserError(
            f"{path}: another server is using this file; stop that server, or choose another file with --answers"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another file with --answers") from error
    with held:
        yield


def is_served(path: str | os.PathLike[str]) -> bool:
    """Return whether a server on this computer uses a file of answers."""
    try:
        with _lock(path):
            return False
    except Timeout:
        return True


def _lock(path: str | os.PathLike[str]) -> FileLock:
    """Return the lock of a file, which is the same for all paths that lead to it."""
    file = Path(path).resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file.with_name(f"{file.name}.lock"), timeout=0)
