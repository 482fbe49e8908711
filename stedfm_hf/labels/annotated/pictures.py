"""Annotated images from repositories of pictures, as the `datasets` library loads them (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stedfm_hf.data.dataset_rows import DatasetRow, dataset_rows, pixels_id
from stedfm_hf.images import ImageReadError, StedImage
from stedfm_hf.labels.annotated.annotation_files import check_shape, drop_equal_planes
from stedfm_hf.labels.annotated.rows import Checked, MaskedRows, check_shows_something, content_digest, digest_of
from stedfm_hf.labels.annotated.stored import StoredMask, count, whole_numbers
from stedfm_hf.runs import UserError

_MASK_COLUMNS = ("mask", "label", "annotation")


def read_pictures(repo: str) -> dict[str, MaskedRows]:
    """A repository of pictures with masks, as the `datasets` library loads it."""
    groups: dict[str, list[DatasetRow]] = {}
    for row in dataset_rows(repo):
        if isinstance(row, DatasetRow):
            groups.setdefault(row.path.rpartition("/")[0], []).append(row)
    return {split: _pictures(rows) for split, rows in groups.items()}


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
        places=[rows[number].path for number, _ in good],
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
