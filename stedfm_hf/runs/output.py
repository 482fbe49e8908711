"""What a command writes: one decision, for all commands, whether it begins, resumes, is finished or must refuse."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import remove_path
from stedfm_hf.runs.manifest import Manifest, manifest_path
from stedfm_hf.runs.settings import decisive, incidental


@dataclass
class Output:
    """A file or folder that a command writes, with its manifest.

    Attributes:
        path: The file or folder.
        manifest: Record of the run.
        record: Path of the manifest.
        state: "new"; "resumed" after a run that was interrupted or left failed items; "finished" where all that was
            asked for then is there.
        writes: Whether this process writes; of several that share a run, only the first does.
    """

    path: Path
    manifest: Manifest
    record: Path
    state: Literal["new", "resumed", "finished"] = "new"
    writes: bool = True

    @property
    def finished(self) -> bool:
        """Whether the results are there already."""
        return self.state == "finished"

    def reopen(self) -> None:
        """Take up a finished output again, because there are new items to process."""
        self.state, self.manifest.ended = "resumed", None
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        if self.writes:
            self.manifest.save(self.record)


@contextmanager
def open_output(
    path: str | os.PathLike[str],
    command: str,
    settings: Any = None,
    *,
    results: Sequence[str],
    temporary: Sequence[str] = (),
    resolved: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    model: str | None = None,
    weights_sha256: str | None = None,
    seed: int | None = None,
    is_folder: bool = True,
    overwrite: bool = False,
    writes: bool = True,
    retries: bool = True,
) -> Iterator[Output]:
    """Open the output of a command: take up what an earlier run left, and record how this one ends.

    The run is recorded as finished when the block ends. After an error or an interrupt the manifest is saved as it is,
    so that the same command resumes. A finished output that the block adds no item to stays as it was.

    Args:
        path: File or folder to write.
        command: Name of the command, such as `data build`.
        settings: Settings of the command (`stedfm_hf.runs.settings`).
        results: Names of the results in the folder (of a file: next to it), without which an output is not finished.
        temporary: Names of what the command keeps there while it runs. `overwrite` removes both.
        resolved: What decides the result and is known only now, such as the precision that `auto` stands for;
            replaces settings of the same name.
        options: What else is recorded.
        model: Name of the model.
        weights_sha256: SHA-256 of its weights.
        seed: Seed of everything random.
        is_folder: Whether the output is a folder.
        overwrite: Whether what an earlier run made is removed first.
        writes: Whether this process writes.
        retries: Whether failed items are tried again once a run has ended; if not, such an output is finished.

    Yields:
        The output.

    Raises:
        UserError: The path is of the wrong kind, cannot be written, holds something else, or was made with other
            settings.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "out"
        >>> for _ in range(2):
        ...     with open_output(folder, "count", results=["words.txt"], resolved={"unit": "words"}) as output:
        ...         print(output.state)
        ...         if not output.finished:
        ...             _ = (folder / "words.txt").write_text("3")
        new
        finished
    """
    manifest = Manifest(
        command,
        settings={**({} if settings is None else decisive(settings)), **(resolved or {})},
        options={**({} if settings is None else incidental(settings)), **(options or {})},
        model=model,
        weights_sha256=weights_sha256,
        seed=seed,
    )
    output = Output(Path(path), manifest, manifest_path(path, folder=is_folder), writes=writes)
    place = output.path if is_folder else output.path.parent
    check_output(path, command, is_folder=is_folder, overwrite=overwrite)
    if overwrite and writes:
        _remove(output, [place / name for name in (*temporary, *results)])
    elif output.record.exists():
        _take_up(output, [place / name for name in results], [place / name for name in temporary], retries)
    before = dict(manifest.items)
    if not output.finished and writes:
        _make_folder(place)
        manifest.ended = None
        output.save()
    try:
        yield output
    except BaseException:
        with suppress(OSError):  # a full disk, say, which is what the error is about
            output.save()
        raise
    if not output.finished or manifest.items != before:
        manifest.finish()
        output.save()


def check_output(path: str | os.PathLike[str], command: str, *, is_folder: bool, overwrite: bool = False) -> None:
    """Refuse what cannot be the output of a command; for checks before anything slow is imported.

    Args:
        path: File or folder to write.
        command: Name of the command.
        is_folder: Whether the output is a folder.
        overwrite: Whether what an earlier run made is replaced.

    Raises:
        UserError: Says what is there instead.
    """
    place, record = Path(path), manifest_path(path, folder=is_folder)
    if place.exists() and place.is_dir() != is_folder:
        raise UserError(f"{path}: is a {'file; name a folder' if is_folder else 'folder; name a file'}")
    if record.exists():
        old = Manifest.load(record)
        if old.command != command:
            raise UserError(f"{path}: was made by `stedfm {old.command}`; choose another output")
    elif is_folder and place.exists() and (foreign := [each.name for each in place.iterdir() if each.name[0] != "."]):
        raise UserError(f"{path}: holds other files, such as {min(foreign)}; choose a new folder")
    elif not is_folder and place.exists() and not overwrite:
        raise UserError(f"{path}: exists without {record.name}; choose another output, or replace it with --overwrite")


def _take_up(output: Output, results: Sequence[Path], temporary: Sequence[Path], retries: bool) -> None:
    """Take up what an earlier run left."""
    manifest, old = output.manifest, Manifest.load(output.record)
    if results and not any(path.exists() for path in (*results, *temporary)):
        return  # nothing is there that the earlier settings decided
    manifest.resume_from(old)
    whole = all(path.exists() for path in results)
    if not whole and not any(path.exists() for path in temporary):
        manifest.items.clear()  # somebody deleted the results
    output.state = "finished" if whole and old.ended is not None and not (retries and old.failures()) else "resumed"
    if output.finished:
        manifest.items |= old.items
        manifest.options = {**old.options, **manifest.options}
        manifest.ended, manifest.seconds = old.ended, old.seconds


def _remove(output: Output, paths: Sequence[Path]) -> None:
    """Remove what an earlier run made; the manifest goes last: nothing that is left looks whole."""
    if output.record.exists():
        old = Manifest.load(output.record)
        old.ended, old.items = None, {}
        old.save(output.record)
    for path in (*paths, output.record):
        remove_path(path)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another output") from error
