"""Where labelled images come from: data set repositories and folders with one folder for each class."""

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
from stedfm_hf.data.repository.files import ShardReader, SplitFiles, find_split, find_split_names
from stedfm_hf.data.repository.layout import crop_features
from stedfm_hf.data.splits import file_id
from stedfm_hf.images import FoundImage, StedImage, find_images, read_image
from stedfm_hf.labels.sourced import digest_of
from stedfm_hf.labels.splits import ONE_SPLIT
from stedfm_hf.modeling.io_stedfm import ImageReadError
from stedfm_hf.runs import UserError, read_json, sha256_file

SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
"""Names of folders that are splits, where all folders are: what the `datasets` library takes for splits, too."""
_IN_MEMORY = 256 * 2**20
_CARD_TAG = "synthetic"

Read = Callable[[int], StedImage]


@dataclass(frozen=True, eq=False)
class Rows:
    """Images and what is written beside them, before anything is known of the classes.

    Args:
        entries: entry of the label column of every row, or None.
        names: of the classes, where the column has them.
        sources: source image of every row.
        image_ids: name of every row, for errors.
        contents: id of the file or of the pixels of every row; "" where unknown.
        digest: sha256 of the pixels and how they are scaled.
        read: reads the image of a row.
        failed: images that cannot be read, with the reason; they are no rows.
    """

    entries: Sequence[Any]
    names: tuple[str, ...]
    sources: Sequence[str]
    image_ids: Sequence[str]
    contents: Sequence[str]
    digest: str
    read: Read
    failed: Mapping[str, str] = field(default_factory=dict)


def is_class_folder(data: str | os.PathLike[str]) -> bool:
    """Whether this is a folder of folders of image files, not one of a data set."""
    folder = Path(data)
    if not folder.is_dir():
        return False
    return not any(folder.glob("*.parquet")) and not any(folder.glob("data/*.parquet"))


def read_class_folder(
    folder: Path, *, series: str | int | None, channel: str | int | None, source_pattern: str | None
) -> dict[str, Rows]:
    """The images of a folder with one folder for each class, by split.

    Every file is decoded once here, so that one that is damaged is known before anything is trained. For `series`,
    `channel` and `source_pattern` see :func:`~stedfm_hf.labels.labelled.read_labelled`.
    """
    found = find_images(folder)
    parts = {image.path: image.path.split("/") for image in found.images}
    tops = {path[0] for path in parts.values() if len(path) > 1}
    if {"images", "masks"} <= tops:
        raise UserError(f"{folder}: holds images and masks, not folders of classes; name {folder / 'images'}")
    by_split = bool(tops) and tops <= set(SPLIT_FOLDERS)
    depth = 1 + by_split
    if not any(len(path) > depth for path in parts.values()):
        raise UserError(
            f"{folder}: has no folders of classes with images in them; put the images of each class into a folder "
            "that has its name"
        )
    # Beside the folders of the classes: of no class.
    images = [image for image in found.images if len(parts[image.path]) > depth]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        checked = list(pool.map(functools.partial(_check, series=series, channel=channel), images))
    groups: dict[str, list[tuple[FoundImage, str]]] = {}
    failed: dict[str, dict[str, str]] = {}
    for image, (content, error) in zip(images, checked, strict=True):
        split = SPLIT_FOLDERS[parts[image.path][0]] if by_split else ONE_SPLIT
        groups.setdefault(split, [])
        failed.setdefault(split, {})
        if error is None:
            groups[split].append((image, content))
        else:
            failed[split][image.path] = error
    if not any(groups.values()):
        path, reason = next((path, reason) for each in failed.values() for path, reason in each.items())
        raise UserError(f"{folder}: none of {len(images)} images can be read ({path}: {reason})")
    order = [name for name in ("train", "validation", "test", ONE_SPLIT) if name in groups]
    return {
        split: Rows(
            entries=[parts[image.path][depth - 1] for image, _ in groups[split]],
            names=(),
            sources=[source_of(image.path, source_pattern, content) for image, content in groups[split]],
            image_ids=[image.path for image, _ in groups[split]],
            contents=[content for _, content in groups[split]],
            digest=digest_of([series, channel], *(content for _, content in groups[split])),
            read=_FileReader(tuple(image for image, _ in groups[split]), series, channel),
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


def _check(image: FoundImage, *, series: str | int | None, channel: str | int | None) -> tuple[str, str | None]:
    """Id of a file, or why it cannot be read."""
    try:
        read_image(image.file, series=series, channel=channel)
        return file_id(image.file), None
    except (ImageReadError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return "", reason.rpartition(f"{image.file.name}: ")[2]


def source_of(path: str, pattern: str | None, content: str) -> str:
    """Return the id of the source image of a file: what the pattern finds in its path, else the id of its content."""
    if pattern is None:
        return content
    try:
        match = re.search(pattern, path)
    except re.error as error:
        raise UserError(f"source pattern {pattern!r} is no regular expression ({error})") from error
    if match is None:
        raise UserError(f"{path}: the source pattern {pattern!r} does not fit it; give one that fits every path")
    return match[1] if match.re.groups else match[0]


def read_repository(repo: str | os.PathLike[str], split: str | None, target: str) -> dict[str, Rows]:
    """The rows of a data set repository by split, their pixels read when they are asked for.

    Args:
        repo: a local folder, or the id of one on the Hub: crops as `stedfm data build` writes them, or any data set
            with a column of pictures.
        split: the only one wanted, or None.
        target: column that holds the labels, or an entry of the column `metadata`.

    Raises:
        UserError: there is no such repository, split or target.
    """
    try:
        names = find_split_names(repo)
        is_crops = set(crop_features()) <= set(_features(find_split(repo, names[0])))
    except UserError:
        is_crops = False
    if not is_crops:
        return _read_pictures(os.fspath(repo), split, target)
    _check_split(repo, split, names)
    return {name: _read_crops(find_split(repo, name), target) for name in ((split,) if split else names)}


def _check_split(repo: str | os.PathLike[str], split: str | None, names: Sequence[str]) -> None:
    if split is not None and split not in names:
        raise UserError(f"{repo}: has no split {split!r}; there are {', '.join(names)}")


def _features(files: SplitFiles) -> dict[str, Any]:
    """The columns of a split, as the `datasets` library knows them."""
    import fsspec
    from datasets import Features

    with fsspec.open(files.shards[0].file, "rb") as file:
        return dict(Features.from_arrow_schema(pq.read_schema(file)))


def _read_crops(files: SplitFiles, target: str) -> Rows:
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
            there = sorted({*features, *(key for each in metadata for key in each)})
            raise UserError(f"{files.repo}: there is no target {target!r}; there are {', '.join(there)}")
    places = [f"{files.split}/{row}" for row in range(files.rows)]
    sources = table.column("source").to_pylist()
    return Rows(
        entries=entries,
        names=_class_names(features.get(target)),
        sources=[place if source is None else str(source) for source, place in zip(sources, places, strict=True)],
        image_ids=places,
        contents=[""] * files.rows,
        digest=digest_of([], *(_file_digest(shard.file) for shard in files.shards)),
        read=CropReader(files),
    )


def _class_names(feature: Any) -> tuple[str, ...]:
    """Names of the classes of a column of them, or of lists of them."""
    from datasets import ClassLabel

    feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else ()


class CropReader:
    """Reads crops of a split one by one; row groups that were read are kept, as far as there is room."""

    def __init__(self, files: SplitFiles) -> None:
        self.files = files
        self._groups = [(shard, n) for shard, each in enumerate(files.shards) for n in range(len(each.row_groups))]
        self._ends = np.cumsum([files.shards[shard].row_groups[n] for shard, n in self._groups])
        self._rows = ShardReader(files, list(crop_features()), shards_in_use=len(files.shards))
        kept = max(4, _IN_MEMORY // max(1, self._read_group(0).nbytes))
        self._table = functools.lru_cache(maxsize=kept)(self._read_group)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.files,)  # what was read stays in the process that read it

    def __call__(self, number: int) -> StedImage:
        """The crop of a row, with the intensities that mean 0 and 1."""
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
        """A row as it is stored, or some of its columns."""
        group = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[group - 1]) if group else 0
        table = self._table(group)
        return dict((table if columns is None else table.select(columns)).slice(number - before, 1).to_pylist()[0])

    def _read_group(self, number: int) -> pa.Table:
        shard, group = self._groups[number]
        return self._rows.read(shard, [group])


def picture_rows(repo: str) -> dict[str, list[DatasetRow]]:
    """The rows of a repository of pictures, as the `datasets` library loads it, by split."""
    groups: dict[str, list[DatasetRow]] = {}
    for row in dataset_rows(repo):
        if isinstance(row, DatasetRow):
            groups.setdefault(row.path.rpartition("/")[0], []).append(row)
    return groups


def _read_pictures(repo: str, split: str | None, target: str) -> dict[str, Rows]:
    """A repository of pictures with labels, as the `datasets` library loads it; every picture is decoded once."""
    groups = picture_rows(repo)
    _check_split(repo, split, tuple(groups))
    return {name: _pictures(rows, target) for name, rows in groups.items() if split in (None, name)}


def _pictures(rows: Sequence[DatasetRow], target: str) -> Rows:
    table = rows[0].rows
    if target not in table.features:
        raise UserError(f"{rows[0].path}: there is no column {target!r}; there are {', '.join(table.features)}")
    checked = [_check_picture(row) for row in rows]
    good = [number for number, (_, error) in enumerate(checked) if error is None]
    entries = table[target]
    sources = table["source"] if "source" in table.features else [content for content, _ in checked]
    return Rows(
        entries=[entries[number] for number in good],
        names=_class_names(table.features[target]),
        sources=[str(sources[number]) for number in good],
        image_ids=[rows[number].path for number in good],
        contents=[checked[number][0] for number in good],
        digest=digest_of([], *(checked[number][0] for number in good)),
        read=PictureReader([rows[number] for number in good]),
        failed={row.path: error for row, (_, error) in zip(rows, checked, strict=True) if error is not None},
    )


@dataclass(frozen=True)
class PictureReader:
    """Reads the pictures of a data set of them."""

    rows: Sequence[DatasetRow]

    def __call__(self, number: int) -> StedImage:
        """The picture of a row."""
        return self.rows[number].read(None, None)[0]


def _check_picture(row: DatasetRow) -> tuple[str, str | None]:
    try:
        return pixels_id(row.read(None, None)[0].array), None
    except (ValueError, OSError) as error:
        return "", " ".join(str(error).split()) or type(error).__name__


def _file_digest(path: str) -> str:
    """SHA-256 of a shard; of one on the Hub as the Hub knows it, so that nothing is fetched for it."""
    if "://" not in path:
        return sha256_file(path)
    import fsspec

    system, place = fsspec.core.url_to_fs(path)
    facts = system.info(place)
    known = facts.get("lfs") or {}
    return str(known.get("sha256") or facts.get("blob_id") or hashlib.sha256(system.cat_file(place)).hexdigest())


def is_simulated(data: str | os.PathLike[str]) -> bool:
    """Whether a data set says that its images were simulated: the tag `synthetic` of its card, or its manifest."""
    from huggingface_hub import DatasetCard

    folder = Path(data)
    if folder.is_dir():
        for manifest in (folder / "manifest.json", folder.parent / "manifest.json"):
            # The images of `stedfm data simulate` lie in a folder of its output.
            if manifest.is_file() and dict(read_json(manifest)).get("command") == "data simulate":
                return True
        if not (folder / "README.md").is_file():
            return False
    try:
        card = DatasetCard.load(folder / "README.md" if folder.is_dir() else os.fspath(data).partition("@")[0])
    except (OSError, ValueError):
        return False
    return _CARD_TAG in (card.data.get("tags") or [])
