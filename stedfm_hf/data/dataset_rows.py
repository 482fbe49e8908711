"""Rows of `datasets` data sets as image sources: rows with an image column, and rows of crop data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.data.repository.decoding import decode
from stedfm_hf.data.repository.files import check_folder_name, find_split, find_split_names
from stedfm_hf.data.repository.layout import crop_features
from stedfm_hf.images import StedImage
from stedfm_hf.runs import UserError
from stedfm_hf.runs.storage import is_remote, protocol_of


@dataclass(frozen=True)
class DatasetRow:
    """A row with an image in any data set.

    Attributes:
        rows: Split of a `datasets` data set.
        index: Number of the row.
        column: Name of the image column.
        path: Name of the row in results, such as `train/0`.
        size: Bytes on disk; 0, because they are unknown.
        stamp: None, because a row is not a file.
    """

    rows: Any
    index: int
    column: str
    path: str
    size: int = 0
    stamp: None = None

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        """Decode the image of the row; a colour image has three channels, a grey one a single channel.

        Raises:
            ValueError: There is no such channel.
        """
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

    def source_id(self) -> str:
        """Return the column `source`, else a hash of the pixels; "" if the image cannot be decoded."""
        if "source" in self.rows.features:
            return str(self.rows.select_columns(["source"])[self.index]["source"])
        try:
            return pixels_id(self.read(None, None)[0].array)
        except (ValueError, OSError):
            return ""


@dataclass(frozen=True)
class CropRow:
    """A row of a crop data set, such as `stedfm data build` writes.

    Attributes:
        rows: Split of a `datasets` data set.
        index: Number of the row.
        path: Name of the row in results, such as `train/0`.
        size: Bytes on disk; 0, because they are unknown.
        stamp: None, because a row is not a file.
    """

    rows: Any
    index: int
    path: str
    size: int = 0
    stamp: None = None

    def read(self, series: str | int | None, channel: str | int | None) -> list[StedImage]:
        """Decode the row, which is one channel of one series.

        Raises:
            ValueError: The row is another series or channel than the requested one.
        """
        stored = self.rows[self.index]
        row = decode(stored)
        for kind, requested in (("series", series), ("channel", channel)):
            if requested is not None and str(requested) not in (row[kind], "0"):
                raise ValueError(f"{self.path}: is {kind} {row[kind]!r}, not {requested!r}")
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

    def source_id(self) -> str:
        """Return the column `source`."""
        return str(self.rows.select_columns(["source"])[self.index]["source"])


def pixels_id(array: np.ndarray) -> str:
    """Return the source id of an image that is not a file: a hash of shape, dtype and pixels, 16 hex digits."""
    content = np.ascontiguousarray(array)
    return hashlib.sha256(repr((content.shape, content.dtype.str)).encode() + content.tobytes()).hexdigest()[:16]


def dataset_rows(name: str) -> Iterator[DatasetRow | CropRow]:
    """Iterate over the images of all splits of a data set.

    Args:
        name: Folder of a data set, or its id on the Hub.

    Yields:
        Rows, split by split.

    Raises:
        UserError: The data set cannot be loaded, or a split has no image column.
    """
    import datasets

    check_folder_name(name)
    try:
        if is_remote(name) and protocol_of(name) != "hf":
            splits = datasets.load_dataset("parquet", data_files=_urls(name))
        else:
            # For the folder `.`, the library finds no name.
            splits = datasets.load_dataset(str(Path(name).absolute()) if Path(name).is_dir() else name)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: not an image or folder, and cannot be loaded as a data set ({reason})") from error
    image_features = (datasets.Image, datasets.Array2D, datasets.Array3D)
    for split, rows in splits.items():
        if set(crop_features()) <= set(rows.features):
            yield from (CropRow(rows, index, f"{split}/{index}") for index in range(len(rows)))
            continue
        columns = [key for key, feature in rows.features.items() if isinstance(feature, image_features)]
        if not columns:
            raise UserError(
                f"{name}: split {split!r} has no image column (its columns are {', '.join(rows.features)})"
            )

        column = "image" if "image" in columns else columns[0]
        yield from (DatasetRow(rows, index, column, f"{split}/{index}") for index in range(len(rows)))


def _urls(name: str) -> dict[str, list[str]]:
    """Return the URLs of the shards of each split of a data set in an object store."""
    return {split: [shard.file for shard in find_split(name, split).shards] for split in find_split_names(name)}
