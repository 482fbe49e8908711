"""Checkpoints that can be trusted: whole ones are marked, half-written ones are passed over."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from stedfm_hf.runs import UserError, read_json, write_json

MARK = "complete.json"
"""Written last, when every process has written its part."""


def checkpoint_folder(output: Path, step: int) -> Path:
    """Where the checkpoint of a step belongs."""
    return output / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def mark_complete(folder: Path, step: int) -> None:
    """Says that a checkpoint is complete."""
    write_json(folder / MARK, {"step": step, "files": sorted(path.name for path in folder.iterdir())})


def checkpoint_steps(output: Path) -> list[int]:
    """Steps of all checkpoints that are there, whole or not, in order."""
    names = (path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-") for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint is marked, and every file is there that was when it was."""
    mark = folder / MARK
    return mark.exists() and all((folder / name).exists() for name in read_json(mark)["files"])


def newest_complete(output: Path, report: Callable[[str], None] = print) -> Path | None:
    """The newest checkpoint that is whole, or None; those that are not are named."""
    for step in reversed(checkpoint_steps(output)):
        folder = checkpoint_folder(output, step)
        if is_complete(folder):
            return folder
        report(f"{folder.name} was not written to its end: it is skipped")
    return None


def rotate(output: Path, keep: int | None) -> None:
    """Removes what is older than the newest `keep` whole checkpoints, and all that are not whole but the newest.

    Args:
        output: folder of the run.
        keep: whole checkpoints to keep, 1 or more; None keeps them all.
    """
    folders = [checkpoint_folder(output, step) for step in checkpoint_steps(output)]
    whole = [folder for folder in folders if is_complete(folder)]
    kept = whole if keep is None else whole[-keep:]
    for folder in folders:
        if folder not in kept and folder != folders[-1]:
            shutil.rmtree(folder)


def remove_checkpoints(output: Path) -> None:
    """Removes all checkpoints of a run that is finished."""
    for step in checkpoint_steps(output):
        shutil.rmtree(checkpoint_folder(output, step))


@contextmanager
def removed_on_failure(folder: Path, is_writer: bool) -> Iterator[None]:
    """A checkpoint that cannot be written leaves nothing, and a line that says how to go on."""
    try:
        yield
    except Exception as error:
        # safetensors and torch have errors of their own for a full disk.
        if is_writer and (isinstance(error, OSError) or "o space left" in str(error) or "write" in str(error).lower()):
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(
                f"{folder}: the checkpoint cannot be written ({' '.join(str(error).split())[:200]}); make room, and "
                "the same command goes on from the one before"
            ) from error
        raise
