"""Find the image files of inputs: files, folders and globs."""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..runs.errors import UserError
from ..runs.manifest import is_result
from ..runs.storage import as_list, as_path, is_remote, name_of, real_path
from ..runs.wording import counted, escaped
from .formats import is_image_folder, readable_suffixes
from .remote import is_remote_folder, remote_files, split_remote_glob

_RESULT = re.compile(
    r"(.+)\.(?:labels|objects|probabilities|overlay|map)\d+\.(?:(?:ome\.)?tif|ome\.zarr|png)", re.DOTALL
)
"""Names of the files that `segment` and `classify` write for the image with the name in the group."""

_PARTS_OF_IMAGES = (".oif.files",)
"""Ends of the names of folders whose files are parts of an image next to the folder."""


@dataclass(frozen=True)
class FoundImage:
    """Image file, or a folder that is an image (OME-Zarr).

    Attributes:
        file: Path of the file.
        path: Path in tables and manifests, relative to the input, with forward slashes. Bytes that are not UTF-8 and
            control characters are backslash escapes (`escaped`).
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
        results: Folders and image files that commands of this package wrote, which are left out.
    """

    images: tuple[FoundImage, ...]
    skipped: dict[str, int]
    left_out: tuple[FoundImage, ...] = ()
    results: tuple[Path, ...] = ()

    def describe_results(self) -> str:
        """Return how many results of commands were left out, for a note; empty without any."""
        if not self.results:
            return ""
        number = sum(each.is_dir() for each in self.results)
        files = len(self.results) - number
        counts = [counted(number, "folder")] * (number > 0) + [counted(files, "file")] * (files > 0)
        return f"skipped {' and '.join(counts)} with results of stedfm, such as {self.results[0]}"


def find_images(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    leave_out: Callable[[Sequence[FoundImage]], Collection[FoundImage]] | None = None,
) -> FoundImages:
    """Find the image files of files, folders and globs.

    Folders are searched recursively, including links. Files with a readable suffix are found, others are counted.
    Hidden files and folders (`.name`), and results of commands (folders of `segment`, `evaluate`, a training or a data
    set, and files such as `a.tif.labels1.tif`) are skipped, unless they are inputs. A glob (`*`, `?`, `[...]`, and
    `**` for any depth) matches files; a file or folder whose name contains these characters has priority. A file that
    is an input is always included. A file that is found twice is included once, under the first input. If different
    files would have the same path, their paths are made relative to their common folder.

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
    images, skipped, readable = dict[str, FoundImage](), Counter[str](), readable_suffixes()
    left_out, results = dict[str, FoundImage](), dict[str, Path]()
    any_input = False
    for one in as_list(inputs):
        any_input = True
        candidates, folders, is_file = _candidates(as_path(one))
        found = [each for each in candidates if is_file or _is_readable(each.file, readable)]
        suffixes = Counter(suffix_of(each.file) for each in set(candidates).difference(found))
        unreadable = {} if is_file else {suffix: n for suffix, n in suffixes.items() if suffix not in readable}
        if not candidates and not folders and not as_path(one).exists():
            raise UserError(f"{one}: no file matches the pattern; check it, or give a folder")
        if not found:
            others = ", ".join(
                f"{n} {escaped(suffix) or 'without suffix'}" for suffix, n in sorted(unreadable.items())
            )
            problem = f"no image files, only {others}" if others else "no files"
            if folders:
                problem += f" and results of stedfm ({', '.join(map(str, folders[:3]))})"
            raise UserError(f"{one}: {problem}; give image files or a folder of them ({' '.join(readable)})")
        skipped.update(unreadable)
        results.update({real_path(each): each for each in folders})
        if not is_file and (images_only := [each for each in found if not is_result_file(each.file.name)]):
            results.update({real_path(each.file): each.file for each in found if is_result_file(each.file.name)})
            found = images_only
        excluded = leave_out(found) if leave_out and not is_file else ()
        for each in found:
            (left_out if each in excluded else images).setdefault(real_path(each.file), each)
    if not any_input:
        raise UserError("no input; give image files, folders or globs")
    return FoundImages(
        tuple(_with_unique_paths(list(images.values()))),
        dict(sorted(skipped.items())),
        tuple(each for real, each in left_out.items() if real not in images),
        tuple(each for real, each in results.items() if real not in images),
    )


def suffix_of(file: str | os.PathLike[str]) -> str:
    """Return the suffix of a file name in lower case, without spaces after it.

    Example:
        >>> suffix_of("a.TIF "), suffix_of("a.ome.tif")
        ('.tif', '.tif')
    """
    return os.path.splitext(str(file).rstrip())[1].lower()


def _is_readable(file: Path, readable: Collection[str]) -> bool:
    """Return whether a file has one of the suffixes that can be read, or is a folder that is an image."""
    return suffix_of(file) in readable or (not is_remote(file) and file.is_dir())


def is_result_file(name: str) -> bool:
    """Return whether a file has the name of a result of `segment` or `classify`.

    Example:
        >>> is_result_file("a.tif.labels1.tif"), is_result_file("a.labels1.tif")
        (True, False)
    """
    match = _RESULT.fullmatch(name)
    return match is not None and suffix_of(match[1]) in readable_suffixes()


def composed(name: str) -> str:
    r"""Return a name in the Unicode form NFC, in which names are compared; macOS often writes the form NFD.

    Example:
        >>> composed("u\u0308") == "\u00fc"
        True
    """
    return unicodedata.normalize("NFC", name)


def _candidates(one: Path) -> tuple[list[FoundImage], list[Path], bool]:
    """Return the files of an input with any suffix, sorted by path, its folders of results, and whether it is a file.

    Raises:
        UserError: The input does not exist, or a folder cannot be listed.
    """
    base, pattern = split_remote_glob(one) if is_remote(one) else _split_glob(one)
    is_folder = is_remote_folder(base) if is_remote(base) else base.is_dir()
    if not pattern and (not is_folder or is_image_folder(base)):
        return [FoundImage(base, escaped(name_of(base)))], [], True
    folders: list[Path] = []
    found = walk_files(base, None if not pattern or "**" in pattern else len(pattern), folders)
    if pattern:
        inside = len(base.parts)
        found = (each for each in found if _matches(each.file.parts[inside:], pattern))
    return sorted(found, key=lambda each: each.path), folders, False


def _split_glob(one: Path) -> tuple[Path, tuple[str, ...]]:
    """Split an input into the longest path that exists and the parts of a glob; () for a file or folder.

    Raises:
        UserError: There is no such file or folder.
    """
    base = Path()
    for number, part in enumerate(one.parts):
        if os.path.lexists(base / part):
            base /= part
        elif (name := _name_on_disk(base, part)) is not None:
            base /= name
        elif any(sign in part for sign in "*?["):
            return base, one.parts[number:]
        elif any(sign in later for later in one.parts[number:] for sign in "*?["):
            raise UserError(f"{one}: there is no folder {base / part}; check the path")
        else:
            raise UserError(f"{one}: no such file or folder; check the path")
    return base, ()


def _name_on_disk(folder: Path, name: str) -> str | None:
    """Return the only name in a folder that differs from a name in its Unicode form alone."""
    if name.isascii() or not folder.is_dir():
        return None
    names = [each for each in os.listdir(folder) if composed(each) == composed(name)]
    return names[0] if len(names) == 1 else None


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether the parts of a path match those of a glob; `**` matches any number of folders."""
    if not pattern:
        return not parts
    if pattern == ("**",):
        return bool(parts)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and _matches_name(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _matches_name(name: str, pattern: str) -> bool:
    name, pattern = composed(name), composed(pattern)
    return name == pattern or fnmatch.fnmatch(name, pattern)


def walk_files(folder: Path, depth: int | None = None, results: list[Path] | None = None) -> Iterator[FoundImage]:
    """Yield the files in a folder, including links but not cycles of them.

    Hidden files and folders, folders of results, and parts of images are left out. A folder that is an image counts as
    one file.

    Args:
        folder: Folder to search.
        depth: Number of levels to search; None searches all.
        results: List to which the folders of results are added.

    Raises:
        UserError: A folder cannot be listed.
    """
    if is_remote(folder):
        yield from (FoundImage(file, escaped(name)) for file, name in remote_files(folder, depth, results))
        return

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: the folder cannot be listed ({error.strerror}); change its access rights")

    entered = set[str]()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        relative = Path(here).relative_to(folder)
        entered.add(os.path.realpath(here))
        kept, images = list[str](), list[str]()
        for name in sorted(folders):
            inner = os.path.join(here, name)
            if name.startswith(".") or os.path.realpath(inner) in entered or name.lower().endswith(_PARTS_OF_IMAGES):
                continue
            if is_image_folder(inner):
                images.append(name)
            elif depth is not None and len(relative.parts) + 1 >= depth:
                continue
            elif not _is_result_folder(inner):
                kept.append(name)
            elif results is not None:
                results.append(Path(inner))
        folders[:] = kept  # `os.walk` enters the folders that this list keeps
        for name in sorted((*files, *images)):
            if not name.startswith("."):
                yield FoundImage(Path(here, name), escaped((relative / name).as_posix()))


def _is_result_folder(folder: str) -> bool:
    """Return whether a folder holds results of a command, or a data set with its index, shards and figures."""
    is_dataset = os.path.isfile(os.path.join(folder, "index.json")) and os.path.isdir(os.path.join(folder, "data"))
    return is_dataset or is_result(folder)


def _with_unique_paths(images: list[FoundImage]) -> list[FoundImage]:
    """Return the images, with longer paths for those that have the same path, such as `a.tif` of two inputs.

    Their paths become relative to their common folder, or absolute if such a path is used by another image.
    """
    groups = defaultdict[str, list[Path]](list)
    for each in images:
        groups[each.path].append(_absolute(each.file))
    # Drives of Windows have no folder in common: their files keep the whole path.
    common = {
        path: os.path.commonpath(files) if len({file.anchor for file in files}) == 1 else None
        for path, files in groups.items()
        if len(files) > 1
    }
    result, taken = list[FoundImage](), set(groups)
    for each in images:
        path = each.path
        if path in common:
            whole, folder = _absolute(each.file), common[path]
            path = escaped(whole.relative_to(folder).as_posix() if folder else whole.as_posix())
            path = escaped(whole.as_posix()) if path in taken else path
            taken.add(path)
        result.append(FoundImage(each.file, path))
    return result


def _absolute(file: Path) -> Path:
    """Return the absolute path; of a remote file, the bucket and key as a local path, which only names the file."""
    return Path("/", *urlsplit(str(file))[1:3]) if is_remote(file) else Path(os.path.abspath(file))
