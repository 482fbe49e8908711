"""Image sources of a command: files, folders and globs, and data sets in a folder or on the Hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stedfm_hf.data.splits import file_id
from stedfm_hf.runs import FileStamp, UserError, file_stamp, print_note
from stedfm_hf.runs.storage import as_list, as_path, is_remote, protocol_of, storage_errors

if TYPE_CHECKING:
    from stedfm_hf.images import StedImage


class Source(Protocol):
    """A file or data set row that images are read from; its status is recorded as one item."""

    @property
    def path(self) -> str:
        """Recorded path, relative to the input."""

    @property
    def size(self) -> int:
        """Bytes on disk, 0 if unknown."""

    @property
    def stamp(self) -> FileStamp | None:
        """Size and time of change of the file; None if the source is not a file or cannot be accessed."""

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        """Read the images, one for each series.

        Args:
            series: Name or index of a series; None reads all series.
            channel: Name or index of a channel; None reads all channels.
        """

    def source_id(self) -> str:
        """Return the id of the source image, which decides its split."""


@dataclass(frozen=True)
class ImageFile:
    """An image file.

    Attributes:
        file: Path of the file.
        path: Recorded path, relative to the input.
        stamp: Size and time of change before reading, by which the next run detects changed files; None if the file
            cannot be accessed.
    """

    file: Path
    path: str
    stamp: FileStamp | None

    @property
    def size(self) -> int:
        """Bytes on disk, 0 if the file cannot be accessed; reading it raises the error."""
        return 0 if self.stamp is None else self.stamp.size

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        """Read all series, or the requested one; the pixels of a large file are read when they are used.

        Args:
            series: Name or index of a series; None reads all series.
            channel: Name or index of a channel; None reads all channels.

        Raises:
            ImageReadError: The file cannot be read, or has no such series or channel.
        """
        from stedfm_hf.images.regions import read_large

        with self.named_errors():
            return list(read_large(self.file, series=series, channel=channel))

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Name the file in errors of reading by its recorded path, which tables and manifests can hold.

        Raises:
            ImageReadError: The file cannot be read.
        """
        from stedfm_hf.images import ImageReadError

        try:
            yield
        except ImageReadError as error:
            raise ImageReadError(f"{self.path}: {str(error).removeprefix(f'{self.file}: ')}") from error

    def source_id(self) -> str:
        """Return a hash of the bytes of the file; "" if it cannot be read."""
        try:
            return file_id(self.file)
        except OSError:
            return ""


def find_sources(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[list[Source], dict[str, int]]:
    """List the image sources of the inputs of a command.

    Masks in the same folder as their images (`a_mask.tif`, `masks/a.tif`) are skipped, and a note is printed.

    Args:
        inputs: Image files, folders and globs; folders with the Parquet files of a data set; Hub ids `owner/name` of
            data sets with an image column.

    Returns:
        The sources in the order of the inputs, and the number of skipped files by suffix, with skipped masks under
        the key `masks`.

    Raises:
        UserError: An input does not exist or holds no image.
    """
    inputs = as_list(inputs)
    sources: list[Source] = []
    skipped: dict[str, int] = {}
    files = [each for each in inputs if not is_dataset(each)]
    if files or not inputs:
        from stedfm_hf.images import find_images  # imports NumPy and the readers
        from stedfm_hf.images.mask_names import describe_masks, describe_same_names, find_masks

        found = find_images(files, leave_out=find_masks)
        sources += [ImageFile(image.file, image.path, file_stamp(image.file)) for image in found.images]
        skipped = found.skipped
        if found.left_out:
            skipped["masks"] = len(found.left_out)
            print_note(describe_masks(found.left_out))
        if results := found.describe_results():
            print_note(f"note: {results}")
        if same_names := describe_same_names(found.images):
            print_note(same_names)
    for each in inputs:
        if is_dataset(each):
            from stedfm_hf.data.dataset_rows import dataset_rows  # takes seconds to import

            sources += dataset_rows(str(each))
    return sources, skipped


def is_dataset(name: str | os.PathLike[str]) -> bool:
    """Return whether an input is a folder with a data set, or is not a path and looks like a Hub id."""
    path = as_path(name)
    if is_remote(path):
        with storage_errors(path):
            return protocol_of(path) not in ("http", "https") and is_dataset_folder(path)
    if path.is_dir():
        return is_dataset_folder(path)
    looks_like_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)) is not None
    return looks_like_id and not path.suffix and not path.exists() and not path.parent.exists()


def is_dataset_folder(folder: Path) -> bool:
    """Return whether a folder holds a data set: its index, a card with its files, or Parquet files with pixels.

    Other Parquet files, such as a table of `stedfm embed`, do not make a folder of images a data set.

    Args:
        folder: Folder.
    """
    if (folder / "index.json").is_file() and (folder / "data").is_dir():
        return True
    files = [each for each in (*folder.glob("*.parquet"), *folder.glob("data/*.parquet")) if each.name[0] != "."]
    if not files:
        return False
    return _has_card(folder) or any(map(_has_pixels, sorted(files))) or not _has_images(folder)


def _has_images(folder: Path) -> bool:
    from stedfm_hf.images import readable_suffixes  # imports NumPy and the readers
    from stedfm_hf.images.folders import suffix_of, walk_files

    return any(suffix_of(each.path) in readable_suffixes() for each in walk_files(folder))


def _has_card(folder: Path) -> bool:
    """Return whether the front matter of README.md describes a data set."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    front_matter = text.split("\n---", 1)[0]
    return text.startswith("---") and re.search(r"^(configs|dataset_info):", front_matter, re.MULTILINE) is not None


def _has_pixels(file: Path) -> bool:
    """Return whether a Parquet file has a column of crops or images; False for a damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stedfm_hf.data.repository.layout import staged_schema

    try:
        with file.open("rb") as handle:
            schema = pq.read_schema(handle)
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (OSError, pa.ArrowException, ValueError, AttributeError):
        return False
    types = {feature.get("_type") for feature in features.values() if isinstance(feature, dict)}
    return bool(types & {"Image", "Array2D", "Array3D"}) or set(staged_schema().names) <= set(schema.names)


def check_dataset(name: str | os.PathLike[str]) -> None:
    """Check that a name can be a data set, without opening it.

    Args:
        name: Folder of images or of a data set, Hub id or `hf://datasets/` path; the last is not checked.

    Raises:
        UserError: There is no such folder, or it holds no image.

    Example:
        >>> check_dataset("nowhere")
        Traceback (most recent call last):
        stedfm_hf.runs.errors.UserError: dataset nowhere: no such folder; check the path (a Hub id is OWNER/NAME)
    """
    if str(name).startswith("hf://datasets/"):
        return
    path = as_path(name)
    if path.is_file():
        raise UserError(f"dataset {name}: is a file; give the folder that contains it")
    text = str(name)
    is_id = "/" in text and not text.startswith((".", "/", "~")) and not path.parent.is_dir()
    if not path.is_dir() and not is_id:
        raise UserError(f"dataset {name}: no such folder; check the path (a Hub id is OWNER/NAME)")
    if path.is_dir() and not is_dataset(path):
        from stedfm_hf.images import find_images  # imports NumPy and the readers

        find_images(path)  # raises if there is none


def chunks(sources: Sequence[Source], count: int, size: int = 256 * 2**20) -> Iterator[list[Source]]:
    """Split a list into chunks that a process reads at once.

    Args:
        sources: Sources in their order.
        count: Largest number of sources in a chunk.
        size: Largest number of bytes in a chunk of several sources.

    Yields:
        Consecutive sources.
    """
    chunk: list[Source] = []
    used = 0
    for source in sources:
        if chunk and (len(chunk) == count or used + source.size > size):
            yield chunk
            chunk, used = [], 0
        chunk.append(source)
        used += source.size
    if chunk:
        yield chunk


def check_separate(option: str, folder: Path, sources: Iterable[Source]) -> None:
    """Check that an output folder holds no input images.

    The folder may be inside an input folder: `find_images` leaves out results.

    Args:
        option: Name of the option that gives the folder, for the message.
        folder: Output folder.
        sources: Sources that the inputs name.

    Raises:
        UserError: The folder is a file, or contains input files.
    """
    if is_remote(folder):
        below = f"{str(folder).rstrip('/')}/"
        if any(str(source.file).startswith(below) for source in sources if isinstance(source, ImageFile)):
            raise UserError(f"{option} {folder}: contains input images; choose a folder without them")
        return
    resolved = folder.resolve()
    if resolved.exists() and not resolved.is_dir():
        raise UserError(f"{option} {folder}: is a file; give a folder")
    files = [each.file.resolve() for each in sources if isinstance(each, ImageFile) and not is_remote(each.file)]
    if any(file.is_relative_to(resolved) for file in files):
        raise UserError(f"{option} {folder}: contains input images; choose a folder without them")
