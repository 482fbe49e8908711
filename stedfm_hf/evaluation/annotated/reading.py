"""Where annotated images come from: folders of images and masks, and data set repositories (ours)."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stedfm_hf.data.repository.files import ShardReader, SplitFiles, find_split, find_split_names
from stedfm_hf.data.repository.layout import crop_features
from stedfm_hf.data.repository.planes import read_planes, read_region
from stedfm_hf.data.simulation.fields import class_id
from stedfm_hf.data.simulation.structures import STRUCTURES
from stedfm_hf.evaluation.annotated.annotation_files import check_shape, drop_equal_planes, read_mask
from stedfm_hf.evaluation.annotated.pairing import Pair, each_plane, find_pairs
from stedfm_hf.evaluation.annotated.stored import BACKGROUND, MaskFacts, StoredMask, count, whole_numbers
from stedfm_hf.evaluation.labelled.reading import CropReader, read_repository, source_of
from stedfm_hf.images import ImageReadError, StedImage, list_series, read_image
from stedfm_hf.inference.sources import DatasetRow, dataset_rows
from stedfm_hf.runs import UserError, counted, read_json, sha256_file, some_of

ALL = "all"
"""As a series: every one of a file, each an image of its own."""
_MASK_COLUMNS = ("mask", "label", "annotation")
_CARD_ROW = re.compile(r"^\| `mask` \|.*?;((?: \d+: [^|;]+)+)\|", re.MULTILINE)
_CARD_NAME = re.compile(r"(\d+): (.+?)(?=, \d+: |\s*$)")


class Reads(Protocol):
    """Reads the image and the mask of a row."""

    def image(self, number: int) -> StedImage:
        """The image, not scaled."""

    def mask(self, number: int) -> StoredMask:
        """The mask, before anything is known of the classes."""


@dataclass(frozen=True, eq=False)
class MaskedRows:
    """Images that have a mask.

    Args:
        facts: of the mask of every row.
        sources: source image of every row.
        places: name of every row, for errors.
        rows: number of every row for `reads`.
        digest: sha256 of pixels, masks and how they are read.
        reads: reads the image and the mask of a row.
        failed: what cannot be read, with the reason; they are no rows.
        unmasked: images that have no mask; they are no rows either.
    """

    facts: Sequence[MaskFacts]
    sources: Sequence[str]
    places: Sequence[str]
    rows: Sequence[int]
    digest: str
    reads: Reads
    failed: Mapping[str, str] = field(default_factory=dict)
    unmasked: Sequence[str] = ()


# ------------------------------------------------------------------------------------- folders


def read_folder(
    folder: Path,
    masks: Path | None,
    *,
    series: str | int | None,
    channel: str | int | None,
    source_pattern: str | None,
) -> dict[str, MaskedRows]:
    """The annotated images of a folder by split; see :func:`~stedfm_hf.evaluation.annotated.pairing.find_pairs`.

    Every image and mask is decoded once here, so that one that is damaged is known before anything is trained.

    Args:
        folder: with the images.
        masks: folder of the masks, or None.
        series: to take from every image file; None where files have one. `all` takes each for itself, with the plane
            of the mask that has its number: the planes of a stack.
        channel: to take from every image; None takes all.
        source_pattern: regular expression searched in the path of every image; what its first group (or the whole)
            matches is the source image. None: every file is a source of its own.

    Raises:
        UserError: there is no image, mask or folder, or a package is needed to read masks.
    """
    splits = find_pairs(folder, masks)
    if series == ALL:
        splits = {name: [part for pair in pairs for part in each_plane(pair)] for name, pairs in splits.items()}
        series = None
    check = functools.partial(_check_pair, series=series, channel=channel)
    found = {}
    for split, pairs in splits.items():
        with_mask = [pair for pair in pairs if pair.masks]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            checked = list(pool.map(check, with_mask))
        good = [number for number, each in enumerate(checked) if isinstance(each, _Checked)]
        kept = [each for each in checked if isinstance(each, _Checked)]
        places = [pair.place for pair in with_mask]
        found[split] = MaskedRows(
            facts=[each.facts for each in kept],
            sources=[source_of(with_mask[number].image.path, source_pattern) for number in good],
            places=[places[number] for number in good],
            rows=range(len(good)),
            digest=_digest([series, channel], *(each.digest for each in kept)),
            reads=FileReads(
                tuple(with_mask[number] for number in good), tuple(each.shape for each in kept), series, channel
            ),
            failed={place: each for place, each in zip(places, checked, strict=True) if isinstance(each, str)},
            unmasked=[pair.place for pair in pairs if not pair.masks],
        )
    return found


@dataclass(frozen=True)
class FileReads:
    """Reads pairs of files.

    Args:
        pairs: image and mask of every row.
        shapes: (height, width) of every image.
        series: to take from every image.
        channel: to take from every image.
    """

    pairs: tuple[Pair, ...]
    shapes: tuple[tuple[int, int], ...]
    series: str | int | None
    channel: str | int | None

    def image(self, number: int) -> StedImage:
        """The image of a row."""
        return _image_of(self.pairs[number], self.series, self.channel)

    def mask(self, number: int) -> StoredMask:
        """The mask of a row."""
        return _mask_of_pair(self.pairs[number], self.shapes[number])


def _image_of(pair: Pair, series: str | int | None, channel: str | int | None) -> StedImage:
    return read_image(pair.image.file, series=series if pair.plane is None else pair.plane[0], channel=channel)


def _mask_of_pair(pair: Pair, shape: tuple[int, int]) -> StoredMask:
    mask = read_mask(pair.masks[0], shape, pair.region)
    if pair.plane is None:
        return mask
    number, count = pair.plane
    if mask.outlines or len(mask.planes) != count:
        found = "outlines" if mask.outlines else counted(len(mask.planes), "plane")
        raise ImageReadError(f"has {count} series, its mask {pair.masks[0].name} {found}; save a plane for each")
    return StoredMask(mask.planes[number : number + 1], region=mask.region)


@dataclass(frozen=True)
class _Checked:
    facts: MaskFacts
    shape: tuple[int, int]
    digest: str


def _check_pair(pair: Pair, *, series: str | int | None, channel: str | int | None) -> _Checked | str:
    """What is known of a pair, or why it cannot be used."""
    file = pair.image.file
    try:
        if len(pair.masks) > 1:
            names = ", ".join(each.name for each in pair.masks)
            return f"has several masks ({names}); keep one"
        there = [each.name for each in list_series(file)] if series is None and pair.plane is None else []
        if len(there) > 1:
            return (
                f"holds {len(there)} series ({some_of(there)}): take one of them (--series 0), or each for itself, "
                "with the plane of its mask (--series all)"
            )
        array = _image_of(pair, series, channel).array
        _check_shows_something(array)
        height, width = array.shape[1:]
        mask = _mask_of_pair(pair, (height, width))
        files = [file, pair.masks[0], *([pair.region] if pair.region else [])]
        return _Checked(count(mask), (height, width), _digest(pair.plane or (), *map(sha256_file, files)))
    except UserError:
        raise
    except (ImageReadError, OSError, MemoryError) as error:
        return (" ".join(str(error).split()) or type(error).__name__).rpartition(f"{file.name}: ")[2]


def _check_shows_something(array: np.ndarray) -> None:
    """Refuses an image (C, H, W) with a channel of NaN or infinities alone; where only some pixels are, they are 0."""
    if array.dtype.kind == "f" and not np.isfinite(array).any(axis=(1, 2)).all():
        raise ImageReadError("holds no finite number, in one channel at least; export it again")


# ------------------------------------------------------------------------------------- repositories


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
        return _read_pictures(os.fspath(repo))
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
            rows=kept,
            digest=known.digest,
            reads=CropReads(files),
            failed=failed,
            unmasked=[
                place for place, each in zip(known.places, facts, strict=True) if each is None and place not in failed
            ],
        )
    return found


_MASK_OF_CROP = ("mask", "height", "width")


class CropReads(CropReader):
    """Reads crops and their masks one by one; row groups that were read are kept, as far as there is room.

    Args:
        files: the split.
    """

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

    Args:
        row: as it is stored; a data set whose masks are all plain has no column of planes or regions.

    Raises:
        ImageReadError: the row is damaged.

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


def _read_pictures(repo: str) -> dict[str, MaskedRows]:
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
    good = [(number, each) for number, each in enumerate(checked) if isinstance(each, _Checked)]
    sources = rows[0].rows["source"] if "source" in features else [row.path for row in rows]
    return MaskedRows(
        facts=[each.facts for _, each in good],
        sources=[str(sources[number]) for number, _ in good],
        places=[rows[number].path for number, _ in good],
        rows=[number for number, _ in good],
        digest=_digest([], *(each.digest for _, each in good)),
        reads=reads,
        failed={row.path: each for row, each in zip(rows, checked, strict=True) if isinstance(each, str)},
        unmasked=[row.path for row, each in zip(rows, checked, strict=True) if each is None],
    )


@dataclass(frozen=True)
class PictureReads:
    """Reads the pictures of a data set and those of their masks.

    Args:
        rows: of the data set.
        column: with the masks.
    """

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


def _check_picture(reads: PictureReads, number: int) -> _Checked | str | None:
    row = reads.rows[number]
    try:
        if row.rows[row.index][reads.column] is None:
            return None
        image = np.ascontiguousarray(reads.image(number).array)
        _check_shows_something(image)
        mask, shape = reads.mask(number), (image.shape[1], image.shape[2])
        check_shape(mask.planes, shape)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    arrays = (image, mask.planes)
    content = b"".join(repr((each.shape, each.dtype.str)).encode() + each.tobytes() for each in arrays)
    return _Checked(count(mask), shape, hashlib.sha256(content).hexdigest())


# ------------------------------------------------------------------------------------- what the data set says


def names_of(data: str | os.PathLike[str]) -> dict[int, str]:
    """What the numbers in the masks mean, as the data set says: its card, or the manifest of the simulator.

    Returns:
        Names by number; {} where nothing is said.
    """
    from huggingface_hub import DatasetCard

    folder = Path(data)
    for manifest in (folder / "manifest.json", folder.parent / "manifest.json") if folder.is_dir() else ():
        if manifest.is_file() and (record := dict(read_json(manifest))).get("verb") == "data simulate":
            names = [name for name in record.get("settings", {}).get("structures", ()) if name in STRUCTURES]
            return {0: BACKGROUND, **dict(sorted((class_id(name), name) for name in names))}
    if folder.is_dir() and not (folder / "README.md").is_file():
        return {}
    try:
        card = DatasetCard.load(folder / "README.md" if folder.is_dir() else os.fspath(data).partition("@")[0])
    except (OSError, ValueError):
        return {}
    return names_in_card(str(card.content))


def names_in_card(text: str) -> dict[int, str]:
    """Names by number, of the line of the column `mask` in a card of ours.

    >>> names_in_card("| `mask` | a number for every pixel, one byte each; 0: background, 4: puncta |")
    {0: 'background', 4: 'puncta'}
    """
    row = _CARD_ROW.search(text.replace("\r", ""))
    return {int(number): name for number, name in _CARD_NAME.findall(row[1].strip())} if row else {}


def _digest(settings: Sequence[Any], *parts: str) -> str:
    return hashlib.sha256(json.dumps([*settings, *parts]).encode()).hexdigest()
