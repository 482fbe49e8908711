"""Output of a command: decides whether a run is new, resumes, is finished, or must be refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import remove_path
from stedfm_hf.runs.manifest import Manifest, manifest_path
from stedfm_hf.runs.progress import print_note
from stedfm_hf.runs.settings import execution_settings, result_settings
from stedfm_hf.runs.storage import as_path, check_writable, is_remote, real_path, storage_errors


@dataclass
class Output:
    """File or folder that a command writes, with its manifest.

    Attributes:
        path: Path of the file or folder.
        manifest: Record of the run.
        record: Path of the manifest.
        state: "new"; "resumed" after a run that was interrupted or had failed items; or "finished".
        writes: Whether this process writes; only the first process of a distributed run does.
        has_overwrite: Whether the command has the option `--overwrite`.
    """

    path: Path
    manifest: Manifest
    record: Path
    state: Literal["new", "resumed", "finished"] = "new"
    writes: bool = True
    has_overwrite: bool = False

    @property
    def finished(self) -> bool:
        """Whether the results exist."""
        return self.state == "finished"

    def report_finished(self) -> None:
        """Print a note that the output is finished, and how to run the command again."""
        if self.writes:
            advice = "replace it with --overwrite" if self.has_overwrite else "choose another --output to run it again"
            print_note(f"{self.path}: is finished; {advice}")

    def reopen(self) -> None:
        """Resume a finished output, because there are new items to process."""
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
    remove_items: Callable[[Collection[str]], None] | None = None,
    writes: bool = True,
    retries: bool = True,
) -> Iterator[Output]:
    """Open the output of a command: resume an earlier run, and record how this one ends.

    The run is recorded as finished when the block ends. After an error or an interrupt the manifest is saved, so that
    the same command resumes. A finished output to which the block adds no item is not changed.

    Args:
        path: File or folder to write.
        command: Name of the command, such as `data build`.
        settings: Settings of the command (`stedfm_hf.runs.settings`).
        results: Names of the results in the folder (for a file: next to it); an output without them is not finished.
        temporary: Names of temporary files in the folder. `overwrite` removes them and the results.
        resolved: Settings that affect the result and are known only now, such as the precision that `auto` selects;
            they replace settings of the same name.
        options: Other values to record.
        model: Name of the model.
        weights_sha256: SHA-256 of the weights.
        seed: Random seed.
        is_folder: Whether the output is a folder.
        overwrite: Whether to remove the results of an earlier run first.
        remove_items: Function that removes the files of items; `overwrite` calls it with the items of the earlier run.
        writes: Whether this process writes.
        retries: Whether a finished run with failed items is resumed to try them again.

    Yields:
        The output.

    Raises:
        UserError: If the path is of the wrong kind, cannot be written, holds other files, or was made with other
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
        settings={**({} if settings is None else result_settings(settings)), **(resolved or {})},
        options={**({} if settings is None else execution_settings(settings)), **(options or {})},
        model=model,
        weights_sha256=weights_sha256,
        seed=seed,
    )
    output = Output(as_path(path), manifest, manifest_path(path, folder=is_folder), writes=writes)
    output.has_overwrite = hasattr(settings, "overwrite")
    folder = output.path if is_folder else output.path.parent
    check_output(path, command, is_folder=is_folder, overwrite=overwrite)
    if overwrite and writes:
        _remove(output, [folder / name for name in (*temporary, *results)], remove_items)
    elif output.record.exists():
        _resume(output, [folder / name for name in results], [folder / name for name in temporary], retries)
    before = dict(manifest.items)
    if not output.finished and writes:
        _make_folder(folder)
        manifest.ended = None
        output.save()
    try:
        yield output
    except BaseException:
        with suppress(OSError):  # for example a full disk, which the error is about
            output.save()
        raise
    if not output.finished or manifest.items != before:
        manifest.finish()
        output.save()


def check_output(path: str | os.PathLike[str], command: str, *, is_folder: bool, overwrite: bool = False) -> None:
    """Refuse a path that cannot be the output of a command; called before slow imports.

    Args:
        path: File or folder to write.
        command: Name of the command.
        is_folder: Whether the output is a folder.
        overwrite: Whether an existing output is replaced.

    Raises:
        UserError: If the path is of the wrong kind, or holds files of something else.
    """
    found = as_path(path)
    check_writable(found)
    with storage_errors(found):
        _check_output(found, command, is_folder, overwrite)


def _check_output(path: Path, command: str, is_folder: bool, overwrite: bool) -> None:
    """Refuse a path of the wrong kind, or with files of something else; see `check_output`."""
    record = manifest_path(path, folder=is_folder)
    try:
        real_path(path).encode()
    except UnicodeEncodeError as error:  # pyarrow writes to no such path
        raise UserError(f"{path}: the path is not UTF-8 text; choose another output") from error
    if path.exists() and path.is_dir() != is_folder:
        raise UserError(f"{path}: is a {'file; name a folder' if is_folder else 'folder; name a file'}")
    if record.exists():
        old = Manifest.load(record)
        if old.command != command:
            raise UserError(f"{path}: was made by `stedfm {old.command}`; choose another output")
    elif is_folder and path.exists() and (foreign := [each.name for each in path.iterdir() if each.name[0] != "."]):
        raise UserError(f"{path}: holds other files, such as {min(foreign)}; choose a new folder")
    elif not is_folder and path.exists() and not overwrite:
        raise UserError(f"{path}: exists without {record.name}; choose another output, or replace it with --overwrite")


def _resume(output: Output, results: Sequence[Path], temporary: Sequence[Path], retries: bool) -> None:
    """Resume the manifest of an earlier run, and set the state of the output to `resumed` or `finished`.

    If no result and no temporary file is left of it, the output stays `new`, even if the settings differ.

    Raises:
        UserError: If the earlier run had other settings.
    """
    manifest, old = output.manifest, Manifest.load(output.record)
    if results and not any(path.exists() for path in (*results, *temporary)):
        return  # no result of the earlier settings exists
    try:
        manifest.resume_from(old, has_overwrite=output.has_overwrite)
    except UserError as error:
        raise UserError(f"{output.path}: {error}") from error
    complete = all(path.exists() for path in results)
    if not complete and not any(path.exists() for path in temporary):
        manifest.items.clear()  # somebody deleted the results
    output.state = "finished" if complete and old.ended is not None and not (retries and old.failures()) else "resumed"
    if output.finished:
        manifest.items |= old.items
        manifest.options = {**old.options, **manifest.options}
        manifest.ended, manifest.seconds = old.ended, old.seconds


def _remove(output: Output, paths: Sequence[Path], remove_items: Callable[[Collection[str]], None] | None) -> None:
    """Remove the results of an earlier run; the manifest last, so that no incomplete output looks finished."""
    if output.record.exists():
        old = Manifest.load(output.record)
        old.ended = None
        old.save(output.record)
        if remove_items is not None:
            remove_items(old.items)
        old.items = {}
        old.save(output.record)
    for path in (*paths, output.record):
        remove_path(path)


def _make_folder(folder: Path) -> None:
    if is_remote(folder):
        return  # object stores have no folders, only names with slashes
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another output") from error
