"""Readers of labelled images: data set repositories, and folders with one subfolder per class."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.data.dataset_rows import DatasetRow, dataset_rows, pixels_id
from stedfm_hf.data.repository.decoding import decode
from stedfm_hf.data.repository.files import SplitFiles, find_split, find_split_names
from stedfm_hf.data.repository.layout import crop_features
from stedfm_hf.data.repository.shard_reader import ShardReader
from stedfm_hf.data.sources import is_dataset_folder
from stedfm_hf.data.splits import file_id
from stedfm_hf.images import FoundImage, StedImage, find_images, read_image
from stedfm_hf.images.mask_name_table import IMAGES, MASKS
from stedfm_hf.images.mask_names import describe_masks, find_masks
from stedfm_hf.labels.sourced import digest_of
from stedfm_hf.labels.splits import ONE_SPLIT
from stedfm_hf.modeling.io_stedfm import ImageReadError
from stedfm_hf.runs import UserError, print_note, read_json, sha256_file
from stedfm_hf.runs.notes import ItemNotes

SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
"""Split by folder name, as in the `datasets` library; applies if all folders have one of these names."""
_IN_MEMORY = 256 * 2**20
_CARD_TAG = "synthetic"

ReadImage = Callable[[int], StedImage]


@dataclass(frozen=True, eq=False)
class Rows:
    """Images and their label column, before the classes are numbered.

    Attributes:
        entries: Entry of the label column of each row, or None.
        names: Names of the classes, if the column defines them.
        sources: Source image id of each row.
        image_ids: Name of each row, for messages.
        contents: Id of the file or of the pixels of each row; "" where unknown.
        digest: SHA-256 of the pixels and their scaling.
        reader: Function that reads the image of a row.
        failed: Reason by name of the unreadable images; these have no row.
    """

    entries: Sequence[Any]
    names: tuple[str, ...]
    sources: Sequence[str]
    image_ids: Sequence[str]
    contents: Sequence[str]
    digest: str
    reader: ReadImage
    failed: Mapping[str, str] = field(default_factory=dict)


def is_class_folder(data: str | os.PathLike[str]) -> bool:
    """Return whether a path is a local folder of image files and not a data set.

    Args:
        data: Path of a folder, or Hub id.
    """
    folder = Path(data)
    return folder.is_dir() and not is_dataset_folder(folder)


def read_class_folder(
    folder: Path, *, series: str | int | None, channel: str | int | None, source_pattern: str | None
) -> dict[str, Rows]:
    """Read the images of a folder with one subfolder per class, by split.

    Every file is decoded once, so that damaged files are found before a training starts. Notes on files are printed.

    Args:
        folder: Folder of the class folders, or of the split folders around them.
        series: See `read_labelled`.
        channel: See `read_labelled`.
        source_pattern: See `read_labelled`.

    Raises:
        UserError: There are no class folders, or no image can be read.
    """
    found = find_images(folder, leave_out=find_masks)
    parts = {image.path: image.path.split("/") for image in (*found.images, *found.left_out)}
    tops = {path[0] for path in parts.values() if len(path) > 1}
    of_images, of_masks = (sorted(top for top in tops if top.lower() in names) for names in (IMAGES, MASKS))
    if of_images and of_masks:
        nested = any(path[0] == of_images[0] and len(path) > 2 for path in parts.values())
        advice = (
            f"Use {folder / of_images[0]} instead." if nested else "Put the images of each class into its own folder."
        )
        raise UserError(f"{folder}: contains {of_images[0]} and {of_masks[0]}, not class folders. {advice}")
    if found.left_out:
        print_note(describe_masks(found.left_out))
    if results := found.describe_results():
        print_note(f"note: {results}")
    by_split = bool(tops) and {top.lower() for top in tops} <= set(SPLIT_FOLDERS)
    depth = 1 + by_split
    if not any(len(parts[image.path]) > depth for image in found.images):
        raise UserError(
            f"{folder}: has no class folders with images; put the images of each class into a folder with the name of "
            "the class"
        )
    # Files outside of the class folders have no class.
    images = [image for image in found.images if len(parts[image.path]) > depth]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        checked = list(pool.map(functools.partial(_check, series=series, channel=channel), images))
    groups: dict[str, list[tuple[FoundImage, str]]] = {}
    failed: dict[str, dict[str, str]] = {}
    notes = ItemNotes()
    for image, (content, error, file_notes) in zip(images, checked, strict=True):
        split = SPLIT_FOLDERS[parts[image.path][0].lower()] if by_split else ONE_SPLIT
        groups.setdefault(split, [])
        failed.setdefault(split, {})
        if error is None:
            groups[split].append((image, content))
            notes.add(image.path, file_notes)
        else:
            failed[split][image.path] = error
    if not any(groups.values()):
        path, reason = next((path, reason) for each in failed.values() for path, reason in each.items())
        raise UserError(f"{folder}: none of the {len(images)} images can be read ({path}: {reason})")
    notes.print()
    order = [name for name in ("train", "validation", "test", ONE_SPLIT) if name in groups]
    return {
        split: Rows(
            entries=[parts[image.path][depth - 1] for image, _ in groups[split]],
            names=(),
            sources=[source_of(image.path, source_pattern, content) for image, content in groups[split]],
            image_ids=[image.path for image, _ in groups[split]],
            contents=[content for _, content in groups[split]],
            digest=digest_of([series, channel], *(content for _, content in groups[split])),
            reader=_FileReader(tuple(image for image, _ in groups[split]), series, channel),
            failed=failed[split],
        )
        for split in order
    }


@dataclass(frozen=True)
class _FileReader:
    images: tuple[FoundImage, ...]
    series: str | int | None
    channel: str | int | None

    def __call__(self, number: int) -> StedImage:
        return read_image(self.images[number].file, series=self.series, channel=self.channel)


def _check(
    image: FoundImage, *, series: str | int | None, channel: str | int | None
) -> tuple[str, str | None, tuple[str, ...]]:
    """Return the id of a file, None and the notes on it; or "", the reason why it cannot be read, and ()."""
    try:
        notes = read_image(image.file, series=series, channel=channel).notes
        return file_id(image.file), None, notes
    except (ImageReadError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return "", reason.rpartition(f"{image.file.name}: ")[2], ()


def source_of(path: str, pattern: str | None, content: str) -> str:
    r"""Return the source image id of a file: the match of the pattern in its path, or else the id of its content.

    Args:
        path: Path of the file relative to the data set.
        pattern: Regular expression, or None.
        content: Id of the content of the file.

    Raises:
        UserError: The pattern is not a regular expression or does not match the path.

    Example:
        >>> source_of("rings/cell3_a.tif", r"(cell\d+)_", "5f0c"), source_of("rings/cell3_a.tif", None, "5f0c")
        ('cell3', '5f0c')
    """
    if pattern is None:
        return content
    try:
        match = re.search(pattern, path)
    except re.error as error:
        raise UserError(f"source pattern {pattern!r} is not a regular expression ({error})") from error
    if match is None:
        raise UserError(
            f"{path}: does not match the source pattern {pattern!r}; use a pattern that matches every path"
        )
    return match[1] if match.re.groups else match[0]


def read_repository(repo: str | os.PathLike[str], split: str | None, target: str) -> dict[str, Rows]:
    """Read the rows of a data set by split; pixels are read on access.

    Args:
        repo: Local folder or Hub id: crops written by `stedfm data build`, or any data set with an image column.
        split: Name of the only split to read; None: all.
        target: Column of the labels, or key of the column `metadata`.

    Raises:
        UserError: The data set, split or target does not exist.
    """
    try:
        names = find_split_names(repo)
        is_crops = set(crop_features()) <= set(_features(find_split(repo, names[0])))
    except UserError:
        is_crops = False
    if not is_crops:
        return _read_image_column(os.fspath(repo), split, target)
    _check_split(repo, split, names)
    return {name: _read_crops(find_split(repo, name), target) for name in ((split,) if split else names)}


def _check_split(repo: str | os.PathLike[str], split: str | None, names: Sequence[str]) -> None:
    if split is not None and split not in names:
        raise UserError(f"{repo}: has no split {split!r}; choose from {', '.join(names)}")


def _features(files: SplitFiles) -> dict[str, Any]:
    """Return the columns of a split as features of the `datasets` library."""
    import fsspec
    from datasets import Features

    with fsspec.open(files.shards[0].file, "rb") as file:
        return dict(Features.from_arrow_schema(pq.read_schema(file)))


def _read_crops(files: SplitFiles, target: str) -> Rows:
    """Read the labels and sources of a split that `stedfm data build` wrote; its pixels are read on access.

    Args:
        files: Files of the split.
        target: Column of the labels, or key of the JSON in the column `metadata`.

    Raises:
        UserError: If there is neither; the message lists the columns and keys.
    """
    features = _features(files)
    columns = list(dict.fromkeys(["source", "metadata", *[target] * (target in features)]))
    reader = ShardReader(files, columns)
    table = pa.concat_tables(
        reader.read(number, range(len(shard.row_groups))) for number, shard in enumerate(files.shards)
    )
    if target in features:
        entries = table.column(target).to_pylist()
    else:
        metadata = [json.loads(text or "{}") for text in table.column("metadata").to_pylist()]
        entries = [each.get(target) for each in metadata]
        if all(entry is None for entry in entries):
            available = sorted({*features, *(key for each in metadata for key in each)})
            raise UserError(f"{files.repo}: has no column or metadata {target!r}; choose from {', '.join(available)}")
    image_ids = [f"{files.split}/{row}" for row in range(files.rows)]
    sources = table.column("source").to_pylist()
    return Rows(
        entries=entries,
        names=_class_names(features.get(target)),
        sources=[
            image_id if source is None else str(source) for source, image_id in zip(sources, image_ids, strict=True)
        ],
        image_ids=image_ids,
        contents=[""] * files.rows,
        digest=digest_of([], *(_file_digest(shard.file) for shard in files.shards)),
        reader=CropReader(files),
    )


def _class_names(feature: Any) -> tuple[str, ...]:
    """Return the names of the classes of a `ClassLabel` column, or of a column of lists of them."""
    from datasets import ClassLabel

    feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else ()


class CropReader:
    """Reader of the crops of a split by row; caches row groups up to a limit of memory."""

    def __init__(self, files: SplitFiles) -> None:
        self.files = files
        self._groups = [(shard, n) for shard, each in enumerate(files.shards) for n in range(len(each.row_groups))]
        self._group_ends = np.cumsum([files.shards[shard].row_groups[n] for shard, n in self._groups])
        self._rows = ShardReader(files, list(crop_features()), shards_in_use=len(files.shards))
        cached_groups = max(4, _IN_MEMORY // max(1, self._read_group(0).nbytes))
        self._table = functools.lru_cache(maxsize=cached_groups)(self._read_group)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.files,)  # the cache stays in this process

    def __call__(self, number: int) -> StedImage:
        """Return the crop of a row, with the intensities that mean 0 and 1."""
        stored = self.stored(number)
        try:
            row = decode(stored)
        except UserError as error:
            raise UserError(f"{self.files.repo}: {self.files.split}/{number}: {error}") from error
        size = row["pixel_size_nm"]
        low, high = stored["intensity_low"], stored["intensity_high"]
        return StedImage(
            row["pixels"].numpy(),
            None if size is None else (size[0], size[1]),
            (row["channel"],),
            {"source": row["source"]},
            f"{self.files.split}/{number}",
            row["series"],
            intensity_range=(low, high) if low < high else None,
        )

    def stored(self, number: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Return a stored row, or some of its columns.

        Args:
            number: Number of the row in the split.
            columns: Names of the columns; None: all.
        """
        group = int(np.searchsorted(self._group_ends, number, side="right"))
        first_row = int(self._group_ends[group - 1]) if group else 0
        table = self._table(group)
        return dict((table if columns is None else table.select(columns)).slice(number - first_row, 1).to_pylist()[0])

    def _read_group(self, number: int) -> pa.Table:
        shard, group = self._groups[number]
        return self._rows.read(shard, [group])


def image_rows(repo: str) -> dict[str, list[DatasetRow]]:
    """Return the rows of a data set with an image column, as the `datasets` library loads it, by split.

    Args:
        repo: Local folder or Hub id.
    """
    groups: dict[str, list[DatasetRow]] = {}
    for row in dataset_rows(repo):
        if isinstance(row, DatasetRow):
            groups.setdefault(row.path.rpartition("/")[0], []).append(row)
    return groups


def _read_image_column(repo: str, split: str | None, target: str) -> dict[str, Rows]:
    """Read a data set with an image and a label column; every image is decoded once."""
    groups = image_rows(repo)
    _check_split(repo, split, tuple(groups))
    return {name: _read_image_rows(rows, target) for name, rows in groups.items() if split in (None, name)}


def _read_image_rows(rows: Sequence[DatasetRow], target: str) -> Rows:
    """Read the image and label columns of one split; every image is decoded once, and unreadable ones are listed."""
    table = rows[0].rows
    if target not in table.features:
        raise UserError(f"{rows[0].path}: has no column {target!r}; choose from {', '.join(table.features)}")
    checked = [_check_row(row) for row in rows]
    readable = [number for number, (_, error) in enumerate(checked) if error is None]
    entries = table[target]
    sources = table["source"] if "source" in table.features else [content for content, _ in checked]
    return Rows(
        entries=[entries[number] for number in readable],
        names=_class_names(table.features[target]),
        sources=[str(sources[number]) for number in readable],
        image_ids=[rows[number].path for number in readable],
        contents=[checked[number][0] for number in readable],
        digest=digest_of([], *(checked[number][0] for number in readable)),
        reader=ImageColumnReader([rows[number] for number in readable]),
        failed={row.path: error for row, (_, error) in zip(rows, checked, strict=True) if error is not None},
    )


@dataclass(frozen=True)
class ImageColumnReader:
    """Reader of the image column of a data set.

    Attributes:
        rows: Rows of the data set.
    """

    rows: Sequence[DatasetRow]

    def __call__(self, number: int) -> StedImage:
        """Return the image of a row."""
        return self.rows[number].read(None, None)[0]


def _check_row(row: DatasetRow) -> tuple[str, str | None]:
    """Return the id of the pixels of a row and None, or "" and the reason why it cannot be read."""
    try:
        return pixels_id(row.read(None, None)[0].array), None
    except (ValueError, OSError) as error:
        return "", " ".join(str(error).split()) or type(error).__name__


def _file_digest(path: str) -> str:
    """Return the SHA-256 of a shard; on the Hub from its metadata, to avoid a download."""
    if "://" not in path:
        return sha256_file(path)
    import fsspec

    system, name = fsspec.core.url_to_fs(path)
    info = system.info(name)
    lfs = info.get("lfs") or {}
    return str(lfs.get("sha256") or info.get("blob_id") or hashlib.sha256(system.cat_file(name)).hexdigest())


def is_simulated(data: str | os.PathLike[str]) -> bool:
    """Return whether a data set marks its images as simulated, by the tag `synthetic` of its card or by its manifest.

    Args:
        data: Local folder or Hub id.
    """
    from huggingface_hub import DatasetCard

    folder = Path(data)
    if folder.is_dir():
        for manifest in (folder / "manifest.json", folder.parent / "manifest.json"):
            # `stedfm data simulate` writes its images into a subfolder of its output.
            if manifest.is_file() and dict(read_json(manifest)).get("command") == "data simulate":
                return True
        if not (folder / "README.md").is_file():
            return False
    try:
        card = DatasetCard.load(folder / "README.md" if folder.is_dir() else os.fspath(data).partition("@")[0])
    except (OSError, ValueError):
        return False
    return _CARD_TAG in (card.data.get("tags") or [])
