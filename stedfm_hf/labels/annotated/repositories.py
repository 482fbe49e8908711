"""Annotated images from data set repositories: of crops, and of pictures as the `datasets` library loads them."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.data.dataset_rows import DatasetRow, pixels_id
from stedfm_hf.data.repository.files import ShardReader, SplitFiles, find_split, find_split_names
from stedfm_hf.data.repository.layout import crop_features
from stedfm_hf.data.repository.planes import read_planes, read_region
from stedfm_hf.images import ImageReadError, StedImage
from stedfm_hf.labels.annotated.annotation_files import check_shape, drop_equal_planes
from stedfm_hf.labels.annotated.stored import (
    Checked,
    MaskedRows,
    MaskFacts,
    StoredMask,
    check_shows_something,
    content_digest,
    count,
    whole_numbers,
)
from stedfm_hf.labels.labelled.reading import CropReader, picture_rows, read_repository
from stedfm_hf.labels.sourced import digest_of
from stedfm_hf.runs import UserError

_MASK_OF_CROP = ("mask", "height", "width")


def read_masked_repository(repo: str | os.PathLike[str]) -> dict[str, MaskedRows]:
    """The rows of a data set repository that have a mask, by split.

    Args:
        repo: a local folder, or the id of one on the Hub: crops as `stedfm data build` writes them, or any data set
            with a column of pictures and one of masks called `mask`, `label` or `annotation`.

    Raises:
        UserError: there is no such repository, or no masks in it.
    """
    try:
        splits = {name: find_split(repo, name) for name in find_split_names(repo)}
        is_crops = all(set(crop_features()) <= set(files.columns) for files in splits.values())
    except UserError:
        is_crops = False
    if not is_crops:
        return read_pictures(os.fspath(repo))
    rows = read_repository(repo, None, "source")
    found = {}
    for split, files in splits.items():
        facts, failed = _facts_of_crops(files)
        kept = [number for number, each in enumerate(facts) if each is not None]
        known = rows[split]
        found[split] = MaskedRows(
            facts=[each for each in facts if each is not None],
            sources=[known.sources[number] for number in kept],
            image_ids=[known.image_ids[number] for number in kept],
            contents=[known.contents[number] for number in kept],
            rows=kept,
            digest=known.digest,
            reads=CropReads(files),
            failed=failed,
            unmasked=[
                place
                for place, each in zip(known.image_ids, facts, strict=True)
                if each is None and place not in failed
            ],
        )
    return found


class CropReads(CropReader):
    """Reads crops and their masks one by one; row groups that were read are kept, as far as there is room."""

    def __init__(self, files: SplitFiles) -> None:
        super().__init__(files)
        self._mask_columns = (*_MASK_OF_CROP, *files.plane_columns)
        if files.plane_columns:
            # Planes may be larger than the pixels, so that fewer row groups are kept.
            before = self._read_group(0).nbytes
            self._rows = ShardReader(files, [*crop_features(), *files.plane_columns], shards_in_use=len(files.shards))
            kept = max(4, int(self._table.cache_parameters()["maxsize"] * before / self._read_group(0).nbytes))
            self._table = functools.lru_cache(maxsize=kept)(self._read_group)

    def image(self, number: int) -> StedImage:
        """The crop of a row, with the intensities that mean 0 and 1."""
        return self(number)

    def mask(self, number: int) -> StoredMask:
        """The mask of a row."""
        return stored_mask(self.stored(number, self._mask_columns))


def stored_mask(row: Mapping[str, Any]) -> StoredMask:
    """The mask of a row of crops that has one, with its planes and its region where there are any.

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
    """(H, W) of a row that has a plain mask: a byte a pixel, or two."""
    stored, height, width = row["mask"], row["height"], row["width"]
    if len(stored) not in (height * width, 2 * height * width):
        raise ImageReadError(
            f"its mask has {len(stored)} bytes, the image {height} x {width} pixels; build the data set again"
        )
    return np.frombuffer(stored, "u1" if len(stored) == height * width else "<u2").reshape(height, width)


def _facts_of_crops(files: SplitFiles) -> tuple[list[MaskFacts | None], dict[str, str]]:
    """What is known of the mask of every row, a row group at a time: None for rows without one and damaged ones."""
    columns = [*_MASK_OF_CROP, *files.plane_columns]
    reader = ShardReader(files, columns, shards_in_use=len(files.shards))
    facts: list[MaskFacts | None] = []
    failed = {}
    for shard, each in enumerate(files.shards):
        for group in range(len(each.row_groups)):
            for row in reader.read(shard, [group]).to_pylist():
                facts.append(None)
                if row["mask"] is None:
                    continue
                try:
                    facts[-1] = count(stored_mask(row))
                except ImageReadError as error:
                    failed[f"{files.split}/{len(facts) - 1}"] = str(error)
    return facts, failed


_MASK_COLUMNS = ("mask", "label", "annotation")


def read_pictures(repo: str) -> dict[str, MaskedRows]:
    """A repository of pictures with masks, as the `datasets` library loads it."""
    return {split: _pictures(rows) for split, rows in picture_rows(repo).items()}


def _pictures(rows: Sequence[DatasetRow]) -> MaskedRows:
    from datasets import Array2D, Array3D, Image

    features = rows[0].rows.features
    pictures = [name for name, each in features.items() if isinstance(each, Image | Array2D | Array3D)]
    column = next((name for name in _MASK_COLUMNS if name in pictures and name != rows[0].column), None)
    if column is None:
        raise UserError(
            f"{rows[0].path}: there is no column of masks ({', '.join(_MASK_COLUMNS)}) among {', '.join(features)}"
        )
    reads = PictureReads(tuple(rows), column)
    checked = [_check_picture(reads, number) for number in range(len(rows))]
    good = [(number, each) for number, each in enumerate(checked) if isinstance(each, Checked)]
    named = rows[0].rows["source"] if "source" in features else None
    return MaskedRows(
        facts=[each.facts for _, each in good],
        sources=[each.content if named is None else str(named[number]) for number, each in good],
        image_ids=[rows[number].path for number, _ in good],
        contents=[each.content for _, each in good],
        rows=[number for number, _ in good],
        digest=digest_of([], *(each.digest for _, each in good)),
        reads=reads,
        failed={row.path: each for row, each in zip(rows, checked, strict=True) if isinstance(each, str)},
        unmasked=[row.path for row, each in zip(rows, checked, strict=True) if each is None],
    )


@dataclass(frozen=True)
class PictureReads:
    """Reads the pictures of a data set and those of their masks."""

    rows: tuple[DatasetRow, ...]
    column: str

    def image(self, number: int) -> StedImage:
        """The picture of a row."""
        return self.rows[number].read(None, None)[0]

    def mask(self, number: int) -> StoredMask:
        """The mask of a row: a picture of numbers; an array (P, H, W) has a plane for each class."""
        row = self.rows[number]
        stored = row.rows[row.index][self.column]
        array = np.asarray(stored)
        is_stack = isinstance(stored, list | np.ndarray) and array.ndim == 3
        try:
            return StoredMask(whole_numbers(array if is_stack else drop_equal_planes(array)))
        except ImageReadError as error:
            raise ImageReadError(f"its mask {error}") from error


def _check_picture(reads: PictureReads, number: int) -> Checked | str | None:
    row = reads.rows[number]
    try:
        if row.rows[row.index][reads.column] is None:
            return None
        image = reads.image(number)
        check_shows_something(image.array)
        mask, shape = reads.mask(number), (image.array.shape[1], image.array.shape[2])
        check_shape(mask.planes, shape)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return Checked(count(mask), shape, content_digest(image, mask), pixels_id(image.array))
