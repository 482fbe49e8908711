"""Where images to embed come from: files, folders and globs, or a `datasets` repository."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stedfm_hf.data.building.masks import masks_among
from stedfm_hf.data.repository.decoding import decode
from stedfm_hf.data.repository.layout import crop_features
from stedfm_hf.images import StedImage, find_images, read_image, read_series
from stedfm_hf.runs import FileStamp, UserError, counted, file_stamp


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
        if series is not None:
            return [read_image(self.file, series=series, channel=channel)]
        return list(read_series(self.file, channel=channel))


@dataclass(frozen=True)
class DatasetRow:
    """A row of a dataset with a picture in `column`."""

    rows: Any
    index: int
    column: str
    path: str
    size: int = 0
    stamp: None = None

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        """Decode the picture of the row; colour makes three channels, unless they are equal."""
        array = np.asarray(self.rows[self.index][self.column])
        if array.ndim == 2:
            array = array[None]
        elif array.shape[-1] <= 4 < array.shape[0]:
            array = np.moveaxis(array, -1, 0)
            array = array[:1] if all(np.array_equal(array[0], plane) for plane in array[1:3]) else array
        names = tuple(str(index) for index in range(len(array)))
        if channel is not None:
            if str(channel) not in names:
                raise ValueError(f"{self.path}: there is no channel {channel!r}; there are {', '.join(names)}")
            array, names = array[int(channel)][None], (str(channel),)
        return [StedImage(array, None, names, {}, self.path, self.column)]


@dataclass(frozen=True)
class CropRow:
    """A row of a data set of crops, as `stedfm data build` makes them: scaled once, with its source."""

    rows: Any
    index: int
    path: str
    size: int = 0
    stamp: None = None

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        """Decode the row; it is an image of its own, so `series` and `channel` can only say whether it is wanted."""
        stored = self.rows[self.index]
        row = decode(stored)
        for kind, wanted in (("series", series), ("channel", channel)):
            if wanted is not None and str(wanted) not in (row[kind], "0"):
                raise ValueError(f"{self.path}: is {kind} {row[kind]!r}, not {wanted!r}")
        size = row["pixel_size_nm"]
        low, high = stored["intensity_low"], stored["intensity_high"]  # decoded, they would be rounded to 32 bit
        return [
            StedImage(
                row["pixels"].numpy(),
                None if size is None else (size[0], size[1]),
                (row["channel"],),
                {"source": row["source"]},
                self.path,
                row["series"],
                intensity_range=(low, high) if low < high else None,
            )
        ]


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
        found = find_images(files, leave_out=masks_among)
        sources += [ImageFile(image.file, image.path, file_stamp(image.file)) for image in found.images]
        skipped = found.skipped
        if count := len(found.left_out):
            skipped["masks"] = count
            are, them = ("is", "it") if count == 1 else ("are", "them")
            what = f"{counted(count, 'mask')} of these images {are} passed over"
            print(f"stedfm: {what}; name {them} to take {them}", file=sys.stderr)
    for each in inputs:
        if is_dataset(each):
            sources += dataset_rows(str(each))
    return sources, skipped


def is_dataset(name: str | os.PathLike[str]) -> bool:
    """Whether an input is a folder of Parquet files, or is no path and looks like a Hub id."""
    path = Path(name)
    if path.is_dir():
        return any(path.glob("*.parquet")) or any(path.glob("data/*.parquet"))
    looks_like_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)) is not None
    return looks_like_id and not path.suffix and not path.exists() and not path.parent.exists()


def dataset_rows(name: str) -> Iterator[DatasetRow | CropRow]:
    """Go through the pictures of all splits of a dataset.

    Raises:
        UserError: If it cannot be loaded or has no image column.
    """
    import datasets

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: is no image or folder, and cannot be loaded as a dataset ({reason})") from error
    pictures = (datasets.Image, datasets.Array2D, datasets.Array3D)
    for split, rows in splits.items():
        if set(crop_features()) <= set(rows.features):
            yield from (CropRow(rows, index, f"{split}/{index}") for index in range(len(rows)))
            continue
        columns = [key for key, feature in rows.features.items() if isinstance(feature, pictures)]
        if not columns:
            raise UserError(f"dataset {name}, split {split}: no image column among {', '.join(rows.features)}")
        column = "image" if "image" in columns else columns[0]
        yield from (DatasetRow(rows, index, column, f"{split}/{index}") for index in range(len(rows)))


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
