"""Annotated images from data set repositories of crops (ours)."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from stedfm_hf.data.repository.files import ShardReader, SplitFiles, find_split, find_split_names
from stedfm_hf.data.repository.layout import crop_features
from stedfm_hf.data.repository.planes import read_planes, read_region
from stedfm_hf.images import ImageReadError, StedImage
from stedfm_hf.labels.annotated.pictures import read_pictures
from stedfm_hf.labels.annotated.rows import MaskedRows
from stedfm_hf.labels.annotated.stored import MaskFacts, StoredMask, count
from stedfm_hf.labels.labelled.reading import CropReader, read_repository
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
            places=[known.places[number] for number in kept],
            contents=[known.contents[number] for number in kept],
            rows=kept,
            digest=known.digest,
            reads=CropReads(files),
            failed=failed,
            unmasked=[
                place for place, each in zip(known.places, facts, strict=True) if each is None and place not in failed
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
        for group in range(len(each.groups)):
            for row in reader.read(shard, [group]).to_pylist():
                facts.append(None)
                if row["mask"] is None:
                    continue
                try:
                    facts[-1] = count(stored_mask(row))
                except ImageReadError as error:
                    failed[f"{files.split}/{len(facts) - 1}"] = str(error)
    return facts, failed
