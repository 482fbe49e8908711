"""Where images to embed come from: files, folders and globs, or a `datasets` repository."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stedfm_hf.data.splits import file_id
from stedfm_hf.runs import FileStamp, UserError, counted, file_stamp, print_note

if TYPE_CHECKING:
    from stedfm_hf.images import StedImage


class Source(Protocol):
    """What images are read from: the unit that is done, fails and is resumed."""

    @property
    def path(self) -> str:
        """What is recorded, relative to the input it was found under."""

    @property
    def size(self) -> int:
        """Bytes on disk, 0 if unknown."""

    @property
    def stamp(self) -> FileStamp | None:
        """What tells its file from another in its place; None for what is no file, or cannot be looked at."""

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        """Read the images, one a series."""

    def source_id(self) -> str:
        """Return the id of its source image, as data sets and models know it."""


@dataclass(frozen=True)
class ImageFile:
    """An image file; its stamp is taken before it is read, so that a change in between is found by the next run."""

    file: Path
    path: str
    stamp: FileStamp | None

    @property
    def size(self) -> int:
        """Bytes on disk, 0 for a file that cannot be looked at: reading it will say why."""
        return 0 if self.stamp is None else self.stamp.size

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        """Read every series, or the one asked for."""
        from stedfm_hf.images import read_image, read_series

        if series is not None:
            return [read_image(self.file, series=series, channel=channel)]
        return list(read_series(self.file, channel=channel))

    def source_id(self) -> str:
        """Return a hash of the bytes of the file; "" for one that cannot be read: reading it will say why."""
        try:
            return file_id(self.file)
        except OSError:
            return ""


def find_sources(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[list[Source], dict[str, int]]:
    """List what `inputs` name, without the masks that lie with their images; of those, one line says so.

    Args:
        inputs: Image files, folders and globs; folders with the Parquet files of a dataset; Hub ids `owner/name` of
            datasets that have an image column.

    Returns:
        The sources in order, and how many other files lay beside them, by suffix; masks of the images as `masks`.

    Raises:
        UserError: If an input holds no image.
    """
    inputs = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    sources: list[Source] = []
    skipped: dict[str, int] = {}
    files = [each for each in inputs if not is_dataset(each)]
    if files or not inputs:
        from stedfm_hf.data.building.masks import masks_among  # imports NumPy and the readers
        from stedfm_hf.images import find_images

        found = find_images(files, leave_out=masks_among)
        sources += [ImageFile(image.file, image.path, file_stamp(image.file)) for image in found.images]
        skipped = found.skipped
        if count := len(found.left_out):
            skipped["masks"] = count
            them = "it" if count == 1 else "them"
            print_note(f"skipped {counted(count, 'mask')} of these images; name {them} to take {them}")
    for each in inputs:
        if is_dataset(each):
            from stedfm_hf.data.dataset_rows import dataset_rows  # takes seconds to import

            sources += dataset_rows(str(each))
    return sources, skipped


def is_dataset(name: str | os.PathLike[str]) -> bool:
    """Whether an input is a folder of Parquet files, or is no path and looks like a Hub id."""
    path = Path(name)
    if path.is_dir():
        return any(path.glob("*.parquet")) or any(path.glob("data/*.parquet"))
    looks_like_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)) is not None
    return looks_like_id and not path.suffix and not path.exists() and not path.parent.exists()


def check_dataset(name: str | os.PathLike[str]) -> None:
    """Refuse a data set that cannot be one, without opening it.

    Raises:
        UserError: There is no such folder, or nothing to read in it.

    Example:
        >>> try:
        ...     check_dataset("nowhere")
        ... except UserError as error:
        ...     print(error)
        dataset nowhere: no such folder; check the path (an id of the Hub is OWNER/NAME)
    """
    path = Path(name)
    if path.is_file():
        raise UserError(f"dataset {name}: is a file; name its folder")
    text = os.fspath(name).removeprefix("hf://datasets/")
    is_id = "/" in text and not text.startswith((".", "/", "~")) and not path.parent.is_dir()
    if not path.is_dir() and not is_id:
        raise UserError(f"dataset {name}: no such folder; check the path (an id of the Hub is OWNER/NAME)")
    if path.is_dir() and not is_dataset(path):
        from stedfm_hf.images import find_images  # imports NumPy and the readers

        find_images(path)  # says if there is none


def chunks(sources: Sequence[Source], count: int, size: int = 256 * 2**20) -> Iterator[list[Source]]:
    """Cut a list into runs of at most `count` sources and, if they are more than one, `size` bytes."""
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


def check_apart(what: str, folder: Path, inputs: Iterable[str | os.PathLike[str]], sources: Iterable[Source]) -> None:
    """Refuse a folder of results among the images: they would be taken for images when the command is run again."""
    here = folder.resolve()
    if here.exists() and not here.is_dir():
        raise UserError(f"{what} {folder}: is a file; name a folder")
    searched = [Path(one).resolve() for one in inputs if Path(one).is_dir()]
    files = [source.file.resolve() for source in sources if isinstance(source, ImageFile)]
    if any(here.is_relative_to(one) for one in searched) or any(file.is_relative_to(here) for file in files):
        raise UserError(f"{what} {folder}: lies among the images, and would be read as images; choose another folder")
