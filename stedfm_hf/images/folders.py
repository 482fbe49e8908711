"""Find the image files of inputs: files, folders and globs."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runs.errors import UserError
from ..runs.manifest import is_result
from .formats import readable_suffixes


@dataclass(frozen=True)
class FoundImage:
    """Image file.

    Attributes:
        file: Path of the file.
        path: Path in tables and manifests, relative to the input, with forward slashes.
    """

    file: Path
    path: str


@dataclass(frozen=True)
class FoundImages:
    """Image files of some inputs.

    Attributes:
        images: Image files, in the order of the inputs and sorted by path within an input; each file once.
        skipped: Number of other files, by suffix ("" for none), without hidden files.
        left_out: Image files that the caller excluded.
    """

    images: tuple[FoundImage, ...]
    skipped: dict[str, int]
    left_out: tuple[FoundImage, ...] = ()


def find_images(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    leave_out: Callable[[Sequence[FoundImage]], Collection[FoundImage]] | None = None,
) -> FoundImages:
    """Find the image files of files, folders and globs.

    Folders are searched recursively, including links. Files with a readable suffix are found, others are counted.
    Hidden files and folders (`.name`) and folders with results of `segment`, `evaluate` or a training are skipped,
    unless they are inputs. A glob (`*`, `?`, `[...]`, and `**` for any depth) matches files. A file that is an input
    is always included. A file that is found twice is included once, under the first input. If different files would
    have the same path, their paths are made relative to their common folder.

    Args:
        inputs: File, folder or glob, or more than one.
        leave_out: Function that returns the images of a folder or glob to exclude, but never all of them. An excluded
            file is kept if another input includes it.

    Raises:
        UserError: If an input does not exist, cannot be listed, or holds no image.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("b.tif", "a.tif", "notes.txt"):
        ...     _ = (folder / name).write_bytes(b"")
        >>> found = find_images(folder)
        >>> [image.path for image in found.images], found.skipped
        (['a.tif', 'b.tif'], {'.txt': 1})
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    images, skipped, readable = dict[str, FoundImage](), Counter[str](), readable_suffixes()
    left_out = dict[str, FoundImage]()
    any_input = False
    for one in inputs:
        any_input = True
        candidates, is_file = _candidates(Path(one))
        found = [each for each in candidates if is_file or each.file.suffix.lower() in readable]
        suffixes = Counter(each.file.suffix.lower() for each in candidates)
        unreadable = {} if is_file else {suffix: n for suffix, n in suffixes.items() if suffix not in readable}
        if not found:
            others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in sorted(unreadable.items()))
            problem = f"no image files, only {others}" if others else "no files"
            raise UserError(f"{one}: {problem}; give image files or a folder of them ({' '.join(readable)})")
        skipped.update(unreadable)
        excluded = leave_out(found) if leave_out and not is_file else ()
        for each in found:
            (left_out if each in excluded else images).setdefault(os.path.realpath(each.file), each)
    if not any_input:
        raise UserError("no input; give image files, folders or globs")
    return FoundImages(
        tuple(_with_unique_paths(list(images.values()))),
        dict(sorted(skipped.items())),
        tuple(each for real, each in left_out.items() if real not in images),
    )


def _candidates(one: Path) -> tuple[list[FoundImage], bool]:
    """Return the files of an input with any suffix, sorted by path, and whether the input is a file.

    Raises:
        UserError: The input does not exist, or a folder cannot be listed.
    """
    if one.is_dir():
        return sorted(_walk(one, None), key=lambda each: each.path), False
    if one.exists() or one.is_symlink():
        return [FoundImage(one, one.name)], True
    first_pattern = next((k for k, part in enumerate(one.parts) if any(sign in part for sign in "*?[")), None)
    if first_pattern is None:
        raise UserError(f"{one}: no such file or folder; check the path")
    base, pattern = Path(*one.parts[:first_pattern]), one.parts[first_pattern:]
    if not base.is_dir():
        raise UserError(f"{one}: there is no folder {base}; check the path")
    walk = _walk(base, None if "**" in pattern else len(pattern))
    return sorted(
        (each for each in walk if _matches(tuple(each.path.split("/")), pattern)), key=lambda e: e.path
    ), False


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether the parts of a path match those of a glob; `**` matches any number of folders."""
    if not pattern:
        return not parts
    if pattern == ("**",):
        return bool(parts)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatch.fnmatch(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _walk(folder: Path, depth: int | None) -> Iterator[FoundImage]:
    """Yield the files in a folder, at most `depth` levels deep (None: any depth), without cycles of links.

    Hidden files and folders, and folders of results, are left out.

    Raises:
        UserError: A folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: the folder cannot be listed ({error.strerror}); change its access rights")

    entered = set[str]()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        relative = Path(here).relative_to(folder)
        entered.add(os.path.realpath(here))
        # `os.walk` enters the folders that this list keeps.
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".")
            and (depth is None or len(relative.parts) + 1 < depth)
            and os.path.realpath(os.path.join(here, name)) not in entered
            and not is_result(os.path.join(here, name))
        ]
        yield from (FoundImage(Path(here, name), (relative / name).as_posix()) for name in files if name[0] != ".")


def _with_unique_paths(images: list[FoundImage]) -> list[FoundImage]:
    """Return the images, with longer paths for those that have the same path, such as `a.tif` of two inputs.

    Their paths become relative to their common folder, or absolute if such a path is used by another image.
    """
    groups = defaultdict[str, list[Path]](list)
    for each in images:
        groups[each.path].append(Path(os.path.abspath(each.file)))
    # Drives of Windows have no folder in common: their files keep the whole path.
    common = {
        path: os.path.commonpath(files) if len({file.drive for file in files}) == 1 else None
        for path, files in groups.items()
        if len(files) > 1
    }
    result, taken = list[FoundImage](), set(groups)
    for each in images:
        path = each.path
        if path in common:
            whole, folder = Path(os.path.abspath(each.file)), common[path]
            path = whole.relative_to(folder).as_posix() if folder else whole.as_posix()
            path = whole.as_posix() if path in taken else path
            taken.add(path)
        result.append(FoundImage(each.file, path))
    return result
