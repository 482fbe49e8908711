"""Output folders that are either whole or as they were before."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import read_json

__all__ = ["RECORD_NAME", "new_folder", "refuse_occupied"]

RECORD_NAME = "conversion.json"
"""The file that marks a folder as written by `convert`; its `files` lists what it wrote there."""


def refuse_occupied(dest: Path, overwrite: bool) -> None:
    """Raises a UserError if `dest` holds something that a conversion must not replace."""
    if dest.exists() and not dest.is_dir():
        raise UserError(f"{dest}: is a file; name a folder that is to be written")
    if not dest.is_dir() or not any(dest.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{dest}: is not empty; name another folder, or allow to replace it with --overwrite")
    if not (dest / RECORD_NAME).is_file():
        raise UserError(f"{dest}: is not replaced, because it was not written by stedfm convert; name another folder")


@contextmanager
def new_folder(dest: Path) -> Iterator[Path]:
    """Gives an empty folder beside `dest` that becomes `dest` when the block ends without an error.

    If `dest` is an earlier conversion it is replaced; files in it that the conversion had not written are kept. On any
    error `dest` stays as it was.

    Yields:
        `work/folder` inside a temporary sibling of `dest`; its parent may be used for other temporary files.

    Raises:
        UserError: The parent folder cannot be written.
    """
    # Whole path, so that the rename stays on one disk even if `dest` is a link or lies in the working directory.
    dest = Path(os.path.realpath(dest))
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", suffix=".tmp", dir=dest.parent))
    except OSError as error:
        raise UserError(f"{dest.parent}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        folder = work / "folder"
        folder.mkdir()
        yield folder
        _keep_foreign_files(dest, folder)
        _swap(folder, dest)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep_foreign_files(dest: Path, folder: Path) -> None:
    if not (dest / RECORD_NAME).is_file():
        return
    record = read_json(dest / RECORD_NAME)
    written = set(record.get("files", [])) if isinstance(record, dict) else set()
    for path in dest.iterdir():
        copy = folder / path.name
        if path.name in written or copy.exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, copy, symlinks=True)
        else:
            shutil.copy2(path, copy, follow_symlinks=False)


def _swap(folder: Path, dest: Path) -> None:
    """Puts `folder` in the place of `dest`; a folder cannot be replaced in one step on every system."""
    if not dest.exists():
        folder.rename(dest)
        return
    aside = dest.with_name(f".{dest.name}.{secrets.token_hex(4)}.old")
    dest.rename(aside)
    try:
        folder.rename(dest)
    except BaseException:
        aside.rename(dest)
        raise
    shutil.rmtree(aside, ignore_errors=True)
