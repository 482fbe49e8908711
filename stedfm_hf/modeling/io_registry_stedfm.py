"""Register image formats, and recognise the format of a file or folder.

`io_stedfm` exports the public names.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .io_types_stedfm import ImageReadError, LazySeries

Opener = Callable[[Any, ExitStack], Path | None]
Reader = Callable[[IO[bytes]], list[LazySeries]]
PathReader = Callable[[Path, ExitStack], list[LazySeries]]


@dataclass(frozen=True)
class Format:
    """Image format.

    Attributes:
        suffixes: Suffixes in lower case, with the dot.
        reader: Function that lists the series of a file or folder.
        magic: First bytes that identify a file.
        members: Names of files that identify a folder; empty for formats of files.
    """

    suffixes: frozenset[str]
    reader: PathReader
    magic: tuple[bytes, ...]
    members: tuple[str, ...]

    def is_folder(self, folder: Path) -> bool:
        """Return whether a folder has this format, by its suffix or the files in it."""
        if not self.members:
            return False
        return folder.suffix.lower() in self.suffixes or any((folder / name).is_file() for name in self.members)


_OPENERS: list[Opener] = []
_FORMATS: list[Format] = []
"""Formats; the last one that was added comes first."""
_MODULES: list[str] = []
"""Modules that register formats when they are imported."""


def register_reader(suffixes: Iterable[str], reader: Reader, *, magic: Iterable[bytes] = ()) -> None:
    """Add a file format to `read_image` and `list_series`.

    Args:
        suffixes: Suffixes with the dot, such as `(".msr", ".obf")`.
        reader: Function that lists the series of an open binary file without decoding them. It may raise any error;
            the message of an `ImageReadError("what is wrong; how to fix it")` is kept, after the name of the file.
        magic: First bytes that identify the format regardless of the suffix. If two formats have the same first bytes,
            the suffix decides.
    """
    register_path_reader(suffixes, lambda path, closing: reader(closing.enter_context(path.open("rb"))), magic=magic)


def register_path_reader(
    suffixes: Iterable[str], reader: PathReader, *, magic: Iterable[bytes] = (), members: Iterable[str] = ()
) -> None:
    """Add a format whose library opens the file itself, or whose images are folders.

    Args:
        suffixes: Suffixes with the dot.
        reader: Function like that of `register_reader`, which gets the path and an `ExitStack`. The stack closes the
            files that the function enters into it, once the pixels have been read.
        magic: First bytes that identify the format.
        members: Names of files, one of which is in every folder of this format. Without names, only files are read.
    """
    _FORMATS.insert(0, Format(frozenset(each.lower() for each in suffixes), reader, tuple(magic), tuple(members)))


def register_formats(module: str) -> None:
    """Add the formats that a module registers when it is imported; it is imported when a format is first looked for.

    Args:
        module: Full name of the module.
    """
    _MODULES.append(module)


def _formats() -> list[Format]:
    for module in _MODULES:
        importlib.import_module(module)  # waits for another thread that imports it
    return _FORMATS


def is_image_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder is an image, such as an OME-Zarr, by its suffix or the files in it.

    Example:
        >>> is_image_folder(".")
        False
    """
    folder = _path(path)
    return folder.is_dir() and any(each.is_folder(folder) for each in _formats())


def names_image_folder(name: str, files: Collection[str]) -> bool:
    """Return whether a folder with this name and these files is an image, without access to it.

    Example:
        >>> names_image_folder("cells", ["notes.txt"])
        False
    """
    suffix = os.path.splitext(name)[1].lower()
    return any(
        each.members and (suffix in each.suffixes or not set(each.members).isdisjoint(files)) for each in _formats()
    )


def register_opener(opener: Opener) -> None:
    """Add a function that makes images of another storage than the disk readable.

    Args:
        opener: Function that gets a path and an `ExitStack`, and returns a local path, or another object with the
            methods of `pathlib.Path` that the reader takes; None for paths that it does not know.
    """
    _OPENERS.insert(0, opener)


def opened_path(path: Any, closing: ExitStack) -> Path:
    """Return the path from which a reader reads an image; see `register_opener`."""
    _formats()  # their module may add openers, too
    for opener in _OPENERS:
        if (found := opener(path, closing)) is not None:
            return found
    return Path(path)


def _path(path: Any) -> Path:
    """Return a path; objects that have the methods of `pathlib.Path`, such as `upath.UPath`, are kept."""
    return Path(path) if isinstance(path, str | os.PathLike) else path


def readable_suffixes() -> tuple[str, ...]:
    """Return the suffixes (lower case, with the dot) of the formats that can be read.

    Example:
        >>> ".tif" in readable_suffixes()
        True
    """
    return tuple(sorted({suffix for each in _formats() for suffix in each.suffixes}))


def format_of(file: Path) -> Format:
    """Return the format of a file by its first bytes, else by its suffix; of a folder by its suffix and its files.

    Raises:
        ImageReadError: If there is no such format, or the file is empty or not a regular file.
    """
    suffix = file.suffix.lower()
    if file.is_dir():
        for each in _formats():
            if each.is_folder(file):
                return each
        raise ImageReadError("is a folder; name the files in it, or use a command that takes folders")
    if file.exists() and not file.is_file():
        raise ImageReadError("is not a regular file; name an image file")
    with file.open("rb") as handle:
        head = handle.read(16)
    if not head:
        raise ImageReadError("the file is empty (0 bytes); copy or export it again")
    by_content = [each for each in _formats() if head.startswith(each.magic)]
    by_suffix = [each for each in by_content or _formats() if suffix in each.suffixes]
    # Formats that share their first bytes, such as TIFF and LSM: the most general one was added first.
    for each in (*by_suffix, *reversed(by_content)):
        return each
    known = " ".join(readable_suffixes())
    raise ImageReadError(f"not a supported format ({suffix or 'no suffix'}); export it as TIFF (supported: {known})")
