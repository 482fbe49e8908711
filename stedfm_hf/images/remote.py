"""Images in object stores and on web servers: one listing per folder, copies of files, and OME-Zarr read in place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..modeling.io_stedfm import ImageReadError, names_image_folder
from ..runs.copies import local_copy
from ..runs.errors import UserError
from ..runs.manifest import is_result
from ..runs.storage import as_path, is_remote, name_of, protocol_of, storage_errors, system_of

DATASET_INDEX, DATASET_FOLDER = "index.json", "data"
"""File and folder that every data set has."""
_WEB = ("http", "https")


def open_remote(path: Any, closing: ExitStack) -> Path | None:
    """Return the local copy of a remote file, or the path of a remote OME-Zarr (for `register_opener`).

    Raises:
        ImageReadError: If it cannot be read.
    """
    if not is_remote(path):
        return None
    remote = as_path(path)
    with image_errors(remote):
        if name_of(remote).lower().endswith(".zarr") or is_remote_folder(remote):
            return remote
        return closing.enter_context(local_copy(remote))


def is_remote_folder(path: Path) -> bool:
    """Return whether a remote path is a folder; a web server has none that can be listed."""
    return protocol_of(path) not in _WEB and path.is_dir()


@contextmanager
def image_errors(path: object) -> Iterator[None]:
    """Convert the errors of a store to an error of reading, without the name of the path.

    Raises:
        ImageReadError: If the store cannot be used.
    """
    try:
        with storage_errors(path):
            yield
    except UserError as error:
        raise ImageReadError(str(error).partition(f"{name_of(as_path(str(path)))}: ")[2] or str(error)) from error


def split_remote_glob(one: Path) -> tuple[Path, tuple[str, ...]]:
    """Split a remote path into the folder before a glob and the parts of the glob; () for a file or folder.

    Raises:
        UserError: If there is no such file or folder, or the store cannot be used.
    """
    if protocol_of(one) in _WEB:
        return one, ()
    parts = [(one, one.name)]
    while parts[-1][0].parent != parts[-1][0]:
        parts.append((parts[-1][0].parent, parts[-1][0].parent.name))
    parts.reverse()
    first = next((k for k, (_, name) in enumerate(parts) if k and any(sign in name for sign in "*?[")), None)
    with storage_errors(one):
        if first is not None and not one.exists():
            return parts[first - 1][0], tuple(name for _, name in parts[first:])
        if not one.exists():
            system, name = system_of(one)
            system.ls(name)  # raises the error with its cause: no such bucket, or no such folder
            raise FileNotFoundError(str(one))
    return one, ()


def remote_files(
    folder: Path, depth: int | None = None, results: list[Path] | None = None
) -> Iterator[tuple[Path, str]]:
    """Yield the files of a remote folder and their names relative to it, like `walk_files`, from one listing.

    Args:
        folder: Folder to search.
        depth: Number of levels to search; None searches all.
        results: List to which the folders of results are added.

    Raises:
        UserError: If the store cannot be used.
    """
    system, root = system_of(folder)
    start = len(root.rstrip("/")) + 1
    with storage_errors(folder):
        names = sorted(name[start:] for name in system.find(root))
    files: dict[str, list[str]] = defaultdict(list)
    folders: dict[str, set[str]] = defaultdict(set)
    for name in filter(None, names):
        *parents, file = name.split("/")
        files["/".join(parents)].append(file)
        for k, parent in enumerate(parents):
            folders["/".join(parents[:k])].add(parent)

    def walk(inside: str, level: int) -> Iterator[tuple[Path, str]]:
        images, entered = [], []
        for name in sorted(folders[inside]):
            inner = f"{inside}/{name}".lstrip("/")
            if name.startswith(".") or name.lower().endswith(".oif.files"):
                continue
            if names_image_folder(name, files[inner]):
                images.append(name)
            elif depth is not None and level + 1 >= depth:
                continue
            elif _is_result(folder / inner, files[inner], folders[inner]):
                if results is not None:
                    results.append(folder / inner)
            else:
                entered.append(inner)
        for name in sorted((*files[inside], *images)):
            if not name.startswith("."):
                relative = f"{inside}/{name}".lstrip("/")
                yield folder / relative, relative
        for inner in entered:
            yield from walk(inner, level + 1)

    yield from walk("", 0)


def _is_result(folder: Path, files: list[str], folders: set[str]) -> bool:
    """Return whether a folder with these files and folders holds results of a command, or a data set."""
    if DATASET_INDEX in files and DATASET_FOLDER in folders:
        return True
    return "manifest.json" in files and is_result(folder)
