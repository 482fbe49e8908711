"""Extract the checkpoint from a zip archive, without unpacking other files."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from stedfm_hf.runs.errors import UserError

__all__ = ["CHECKPOINT_SUFFIXES", "extract_checkpoint", "is_checkpoint_archive"]

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt")
# The largest regular member is a Lightning file of stedfm-vit-large with its optimiser: 3.7 GB. Float weights hardly
# compress; only a file of zeros would by more than a hundred times.
MAX_BYTES = 16 * 2**30
MAX_RATIO = 100
_CHUNK_BYTES = 2**20


def is_checkpoint_archive(path: Path) -> bool:
    """Return whether a file is a zip archive of files, not a checkpoint (which `torch.save` also writes as a zip)."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # the last: an unknown zip format
        return True


def extract_checkpoint(path: Path, target: Path) -> str:
    """Copy the checkpoint in a zip archive to `target`, ignoring the folders in the archive.

    If the archive holds more than one checkpoint, the last one is used (reference protocol).

    Args:
        path: Zip archive.
        target: File to write.

    Returns:
        Name of the extracted member.

    Raises:
        UserError: If the archive is damaged or encrypted, holds no checkpoint, names a file outside of it, or unpacks
            to far more than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _refuse_outside_name(path, member.filename)
            member = _choose(path, archive.infolist())
            _refuse_bomb(path, member)
            if shutil.disk_usage(target.parent).free < member.file_size:
                raise UserError(
                    f"{target.parent}: has no space for the {member.file_size / 1e6:.0f} MB of {path.name}"
                )
            # zipfile stops at the declared size and compares the checksum at the end.
            with archive.open(member) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, _CHUNK_BYTES)
            return member.filename
    except UserError:
        raise
    # zipfile raises NotImplementedError for a compression that it does not know, RuntimeError for a password.
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); download the archive again") from error


def _refuse_outside_name(path: Path, name: str) -> None:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise UserError(
            f"{path}: refused, because its member {name!r} points outside of the archive; do not unpack this file"
        )


def _choose(path: Path, members: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    """Return the last checkpoint among the members of an archive; a UserError says if there is none."""
    checkpoints = [
        member
        for member in members
        if member.filename.lower().endswith(CHECKPOINT_SUFFIXES)
        # Files that macOS adds to archives.
        and not PurePosixPath(member.filename).name.startswith("._")
    ]
    if not checkpoints:
        raise UserError(
            f"{path}: holds no checkpoint ({', '.join(CHECKPOINT_SUFFIXES)}); check that it is the right archive"
        )
    return checkpoints[-1]


def _refuse_bomb(path: Path, member: zipfile.ZipInfo) -> None:
    ratio = member.file_size / max(member.compress_size, 1)
    if member.file_size > MAX_BYTES or ratio > MAX_RATIO:
        raise UserError(
            f"{path}: refused, because {member.filename} unpacks to {member.file_size / 1e6:.0f} MB, {ratio:.0f} "
            "times its packed size; weights hardly compress"
        )
