"""Checkpoints with a marker file, so that incomplete ones are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from stedfm_hf.runs import UserError, read_json, write_json

MARKER = "complete.json"
"""Marker file, written last, after every process has written its files."""


def checkpoint_folder(output: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step."""
    return output / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def mark_complete(folder: Path, step: int) -> None:
    """Mark a checkpoint as complete.

    Args:
        folder: Folder of the checkpoint.
        step: Optimiser step of the checkpoint.
    """
    write_json(folder / MARKER, {"step": step, "files": sorted(path.name for path in folder.iterdir())})


def checkpoint_steps(output: Path) -> list[int]:
    """Return the steps of all checkpoints in a folder, complete or not, in order."""
    names = (path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-") for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def is_complete(folder: Path) -> bool:
    """Return whether a checkpoint is marked, and still has every file that it had then."""
    mark = folder / MARKER
    return mark.exists() and all((folder / name).exists() for name in read_json(mark)["files"])


def newest_complete(output: Path, report: Callable[[str], None] = print) -> Path | None:
    """Return the newest complete checkpoint, or None; incomplete ones are reported.

    Args:
        output: Folder of the run.
        report: Function that prints a line.
    """
    for step in reversed(checkpoint_steps(output)):
        folder = checkpoint_folder(output, step)
        if is_complete(folder):
            return folder
        report(f"{folder}: incomplete checkpoint; skipped")
    return None


def rotate_checkpoints(output: Path, keep: int | None) -> None:
    """Remove old checkpoints, and incomplete ones except the newest.

    Args:
        output: Folder of the run.
        keep: Number of complete checkpoints to keep, at least 1; None keeps all.
    """
    folders = [checkpoint_folder(output, step) for step in checkpoint_steps(output)]
    complete = [folder for folder in folders if is_complete(folder)]
    kept = complete if keep is None else complete[-keep:]
    for folder in folders:
        if folder not in kept and folder != folders[-1]:
            shutil.rmtree(folder)


def remove_checkpoints(output: Path) -> None:
    """Remove all checkpoints of a finished run."""
    for step in checkpoint_steps(output):
        shutil.rmtree(checkpoint_folder(output, step))


@contextmanager
def removed_on_failure(folder: Path, is_writer: bool) -> Iterator[None]:
    """Remove a checkpoint that cannot be written, and raise an error that says how to resume.

    Args:
        folder: Folder of the checkpoint.
        is_writer: Whether this process writes the checkpoint.

    Raises:
        UserError: The checkpoint cannot be written, for example because the disk is full.
    """
    try:
        yield
    except Exception as error:
        # safetensors and torch raise other types of errors for a full disk.
        if is_writer and (isinstance(error, OSError) or "o space left" in str(error) or "write" in str(error).lower()):
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(
                f"{folder}: the checkpoint cannot be written ({' '.join(str(error).split())[:200]}); free some disk "
                "space, and run the same command again to resume from the previous checkpoint"
            ) from error
        raise
