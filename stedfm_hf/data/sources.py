"""Image sources of a command: files, folders and globs, and data sets in a folder or on the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stedfm_hf.data.splits import file_id
from stedfm_hf.runs import FileStamp, UserError, counted, file_stamp, print_note
from stedfm_hf.runs.manifest import is_result

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
        """Read all series, or the requested one.

        Args:
            series: Name or index of a series; None reads all series.
            channel: Name or index of a channel; None reads all channels.

        Raises:
            ImageReadError: The file cannot be read, or has no such series or channel.
        """
        from stedfm_hf.images import read_image, read_series

        if series is not None:
            return [read_image(self.file, series=series, channel=channel)]
        return list(read_series(self.file, channel=channel))

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
    inputs = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    sources: list[Source] = []
    skipped: dict[str, int] = {}
    files = [each for each in inputs if not is_dataset(each)]
    if files or not inputs:
        from stedfm_hf.data.building.masks import find_masks  # imports NumPy and the readers
        from stedfm_hf.images import find_images

        found = find_images(files, leave_out=find_masks)
        sources += [ImageFile(image.file, image.path, file_stamp(image.file)) for image in found.images]
        skipped = found.skipped
        if count := len(found.left_out):
            skipped["masks"] = count
            example = found.left_out[0].file
            print_note(
                f"note: skipped {counted(count, 'mask')} of the input images, such as {example}; to read a mask as an "
                "image, give the path of its file"
            )
    for each in inputs:
        if is_dataset(each):
            from stedfm_hf.data.dataset_rows import dataset_rows  # takes seconds to import

            sources += dataset_rows(str(each))
    return sources, skipped


def is_dataset(name: str | os.PathLike[str]) -> bool:
    """Return whether an input is a folder of Parquet files, or is not a path and looks like a Hub id.

    Folders with results of a command are not data sets, although some hold tables.
    """
    path = Path(name)
    if path.is_dir():
        return not is_result(path) and (any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")))
    looks_like_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)) is not None
    return looks_like_id and not path.suffix and not path.exists() and not path.parent.exists()


def check_dataset(name: str | os.PathLike[str]) -> None:
    """Check that a name can be a data set, without opening it.

    Args:
        name: Folder of images or of a data set, or a Hub id.

    Raises:
        UserError: There is no such folder, or it holds no image.

    Example:
        >>> check_dataset("nowhere")
        Traceback (most recent call last):
        stedfm_hf.runs.errors.UserError: dataset nowhere: no such folder; check the path (a Hub id is OWNER/NAME)
    """
    path = Path(name)
    if path.is_file():
        raise UserError(f"dataset {name}: is a file; give the folder that contains it")
    text = os.fspath(name).removeprefix("hf://datasets/")
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


def check_separate(
    option: str, folder: Path, inputs: Iterable[str | os.PathLike[str]], sources: Iterable[Source]
) -> None:
    """Check that an output folder is not inside the inputs, where the next run would read its files as images.

    Args:
        option: Name of the option that gives the folder, for the message.
        folder: Output folder.
        inputs: Inputs of the command.
        sources: Sources that the inputs name.

    Raises:
        UserError: The folder is a file, is inside an input folder, or contains input files.
    """
    resolved = folder.resolve()
    if resolved.exists() and not resolved.is_dir():
        raise UserError(f"{option} {folder}: is a file; give a folder")
    searched = [Path(each).resolve() for each in inputs if Path(each).is_dir()]
    files = [source.file.resolve() for source in sources if isinstance(source, ImageFile)]
    if any(resolved.is_relative_to(each) for each in searched):
        raise UserError(
            f"{option} {folder}: is inside the input, so the next run would read its files as images; choose another "
            "folder"
        )
    if any(file.is_relative_to(resolved) for file in files):
        raise UserError(f"{option} {folder}: contains input images; choose a folder without them")
