"""Annotated images of data sets: crops of `stedfm data build`, and data sets with an image and a mask column."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.data.dataset_rows import DatasetRow, pixels_id
from stedfm_hf.data.repository.files import SplitFiles, find_split, find_split_names
from stedfm_hf.data.repository.layout import crop_features
from stedfm_hf.data.repository.planes import read_planes, read_region
from stedfm_hf.data.repository.shard_reader import ShardReader
from stedfm_hf.images import ImageReadError, StedImage
from stedfm_hf.labels.annotated.annotation_files import check_shape, drop_equal_planes
from stedfm_hf.labels.annotated.stored import (
    Checked,
    MaskedRows,
    MaskFacts,
    StoredMask,
    check_finite,
    content_digest,
    count_pixels,
    to_smallest_dtype,
)
from stedfm_hf.labels.labelled.reading import CropReader, image_rows, read_repository
from stedfm_hf.labels.sourced import digest_of
from stedfm_hf.runs import UserError

_MASK_OF_CROP = ("mask", "height", "width")


def read_masked_repository(repo: str | os.PathLike[str]) -> dict[str, MaskedRows]:
    """Read the rows of a data set that have a mask, by split.

    Args:
        repo: Local folder or Hub id: crops written by `stedfm data build`, or any data set with an image column and a
            mask column called `mask`, `label` or `annotation`.

    Raises:
        UserError: The data set does not exist or has no masks.
    """
    try:
        splits = {name: find_split(repo, name) for name in find_split_names(repo)}
        is_crops = all(set(crop_features()) <= set(files.columns) for files in splits.values())
    except UserError:
        is_crops = False
    if not is_crops:
        return read_image_columns(os.fspath(repo))
    rows = read_repository(repo, None, "source")
    masked_rows = {}
    for split, files in splits.items():
        counts, failed = _count_mask_pixels(files)
        row_numbers = [number for number, each in enumerate(counts) if each is not None]
        all_rows = rows[split]
        masked_rows[split] = MaskedRows(
            facts=[each for each in counts if each is not None],
            sources=[all_rows.sources[number] for number in row_numbers],
            image_ids=[all_rows.image_ids[number] for number in row_numbers],
            contents=[all_rows.contents[number] for number in row_numbers],
            rows=row_numbers,
            digest=all_rows.digest,
            reader=MaskedCropReader(files),
            failed=failed,
            without_mask=[
                image_id
                for image_id, each in zip(all_rows.image_ids, counts, strict=True)
                if each is None and image_id not in failed
            ],
        )
    return masked_rows


class MaskedCropReader(CropReader):
    """Reader of the crops and masks of a split by row; caches row groups up to a limit of memory."""

    def __init__(self, files: SplitFiles) -> None:
        super().__init__(files)
        self._mask_columns = (*_MASK_OF_CROP, *files.plane_columns)
        if files.plane_columns:
            # Planes may be larger than the pixels, so the cache holds fewer row groups.
            before = self._read_group(0).nbytes
            self._rows = ShardReader(files, [*crop_features(), *files.plane_columns], shards_in_use=len(files.shards))
            kept = max(4, int(self._table.cache_parameters()["maxsize"] * before / self._read_group(0).nbytes))
            self._table = functools.lru_cache(maxsize=kept)(self._read_group)

    def image(self, number: int) -> StedImage:
        """Return the crop of a row, with the intensities that mean 0 and 1."""
        return self(number)

    def mask(self, number: int) -> StoredMask:
        """Return the mask of a row."""
        return stored_mask(self.stored(number, self._mask_columns))


def stored_mask(row: Mapping[str, Any]) -> StoredMask:
    """Return the mask of a row that has one, with all its planes and its region.

    Args:
        row: Row of a data set of crops, with the columns of the mask.

    Raises:
        ImageReadError: The stored mask is damaged.

    Example:
        >>> row = {"mask": bytes([0, 3]), "height": 1, "width": 2}
        >>> stored_mask(row).planes.tolist()
        [[[0, 3]]]
    """
    shape = row["height"], row["width"]
    names = tuple(row.get("mask_planes") or ())
    try:
        planes = read_planes(row["mask"], names, row["mask_dtype"], shape) if names else _mask_of(row)[None]
        region = None if row.get("region") is None else read_region(row["region"], shape)
    except ImageReadError:
        raise
    except ValueError as error:
        raise ImageReadError(f"has {error}; build the data set again") from error
    return StoredMask(planes, names, region=region)


def _mask_of(row: Mapping[str, Any]) -> np.ndarray:
    """Return a mask without planes, (H, W), of one or two bytes per pixel."""
    stored, height, width = row["mask"], row["height"], row["width"]
    if len(stored) not in (height * width, 2 * height * width):
        raise ImageReadError(
            f"its mask has {len(stored)} bytes, the image {height} x {width} pixels; build the data set again"
        )
    return np.frombuffer(stored, "u1" if len(stored) == height * width else "<u2").reshape(height, width)


def _count_mask_pixels(files: SplitFiles) -> tuple[list[MaskFacts | None], dict[str, str]]:
    """Return the pixel counts of each row, None without a readable mask, and the reasons of the unreadable ones."""
    columns = [*_MASK_OF_CROP, *files.plane_columns]
    reader = ShardReader(files, columns, shards_in_use=len(files.shards))
    counts: list[MaskFacts | None] = []
    failed = {}
    for shard, each in enumerate(files.shards):
        for group in range(len(each.row_groups)):
            for row in reader.read(shard, [group]).to_pylist():
                counts.append(None)
                if row["mask"] is None:
                    continue
                try:
                    counts[-1] = count_pixels(stored_mask(row))
                except ImageReadError as error:
                    failed[f"{files.split}/{len(counts) - 1}"] = str(error)
    return counts, failed


_MASK_COLUMNS = ("mask", "label", "annotation")


def read_image_columns(repo: str) -> dict[str, MaskedRows]:
    """Read a data set with an image and a mask column, as the `datasets` library loads it, by split.

    Args:
        repo: Local folder or Hub id.

    Raises:
        UserError: There is no mask column.
    """
    return {split: _read_masked_rows(rows) for split, rows in image_rows(repo).items()}


def _read_masked_rows(rows: Sequence[DatasetRow]) -> MaskedRows:
    """Read the image and mask columns of one split; every image and mask is decoded once.

    The source image id is the column `source`, else the id of the pixels. Unreadable rows are listed in `failed`.
    """
    from datasets import Array2D, Array3D, Image

    features = rows[0].rows.features
    image_columns = [name for name, each in features.items() if isinstance(each, Image | Array2D | Array3D)]
    column = next((name for name in _MASK_COLUMNS if name in image_columns and name != rows[0].column), None)
    if column is None:
        raise UserError(
            f"{rows[0].path}: has no mask column ({', '.join(_MASK_COLUMNS)}) among {', '.join(features)}; rename the "
            "column of the masks"
        )
    reader = ImageColumnsReader(tuple(rows), column)
    checked = [_check_row(reader, number) for number in range(len(rows))]
    readable = [(number, each) for number, each in enumerate(checked) if isinstance(each, Checked)]
    source_column = rows[0].rows["source"] if "source" in features else None
    return MaskedRows(
        facts=[each.facts for _, each in readable],
        sources=[each.content if source_column is None else str(source_column[number]) for number, each in readable],
        image_ids=[rows[number].path for number, _ in readable],
        contents=[each.content for _, each in readable],
        rows=[number for number, _ in readable],
        digest=digest_of([], *(each.digest for _, each in readable)),
        reader=reader,
        failed={row.path: each for row, each in zip(rows, checked, strict=True) if isinstance(each, str)},
        without_mask=[row.path for row, each in zip(rows, checked, strict=True) if each is None],
    )


@dataclass(frozen=True)
class ImageColumnsReader:
    """Reader of the image column and the mask column of a data set.

    Attributes:
        rows: Rows of the data set.
        column: Name of the mask column.
    """

    rows: tuple[DatasetRow, ...]
    column: str

    def image(self, number: int) -> StedImage:
        """Return the image of a row."""
        return self.rows[number].read(None, None)[0]

    def mask(self, number: int) -> StoredMask:
        """Return the mask of a row: an image of numbers, or an array (P, H, W) with a plane per class."""
        row = self.rows[number]
        stored = row.rows[row.index][self.column]
        array = np.asarray(stored)
        is_stack = isinstance(stored, list | np.ndarray) and array.ndim == 3
        try:
            return StoredMask(to_smallest_dtype(array if is_stack else drop_equal_planes(array)))
        except ImageReadError as error:
            raise ImageReadError(f"its mask {error}") from error


def _check_row(reader: ImageColumnsReader, number: int) -> Checked | str | None:
    """Read the image and the mask of a row once; None: it has no mask; a text: the reason why it cannot be used."""
    row = reader.rows[number]
    try:
        if row.rows[row.index][reader.column] is None:
            return None
        image = reader.image(number)
        check_finite(image.array)
        mask, shape = reader.mask(number), (image.array.shape[1], image.array.shape[2])
        check_shape(mask.planes, shape)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return Checked(count_pixels(mask), shape, content_digest(image, mask), pixels_id(image.array))
