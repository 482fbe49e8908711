"""Annotated images from folders: which files are images, which their masks and regions, and reading them."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from stedfm_hf.data.building.masks import IMAGES, MASKS, MaskedImages, mask_stems, pair_masks
from stedfm_hf.data.splits import file_id
from stedfm_hf.images import (
    ALL_SERIES,
    FoundImage,
    ImageReadError,
    StedImage,
    find_images,
    list_series,
    read_image,
    readable_suffixes,
)
from stedfm_hf.labels.annotated.annotation_files import OUTLINE_SUFFIXES, TEXT_SUFFIXES, read_mask
from stedfm_hf.labels.annotated.stored import (
    Checked,
    MaskedRows,
    StoredMask,
    check_shows_something,
    content_digest,
    count,
)
from stedfm_hf.labels.labelled.reading import SPLIT_FOLDERS, source_of
from stedfm_hf.labels.sourced import digest_of
from stedfm_hf.labels.splits import ONE_SPLIT
from stedfm_hf.runs import UserError, some_of

SAY_WHICH = "the folder of the images as the data set, that of the masks with --masks"
_REGION = "_region"
_ROI_ENDS = ("_RoiSet", "_rois")


@dataclass(frozen=True)
class Pair:
    """An image and what could be its mask.

    Args:
        image: the image; its path is relative to the folder that was asked for.
        masks: files that could be its mask; there should be one. None: it has no mask.
        region: file with its region of interest, or None.
        plane: number of the series of the image that is taken, and of the plane of its mask, and how many there are;
            None: the image is one.
    """

    image: FoundImage
    masks: tuple[Path, ...]
    region: Path | None
    plane: tuple[int, int] | None = None

    @property
    def place(self) -> str:
        """Name for errors and results."""
        return self.image.path if self.plane is None else f"{self.image.path}[{self.plane[0]}]"


def find_pairs(folder: Path, masks: Path | None) -> dict[str, list[Pair]]:
    """The images of a folder with their masks, by split.

    The folder holds `images/` and `masks/` (or `labels/`, `annotations/`), laid out alike, or masks lie beside their
    images (`a_image.tif` or `a.tif`, and `a_mask.tif`), or `masks` names a folder of them. The mask of `a.tif` may be
    called `a.*` where masks have a folder of their own, else `a_mask.*`; ROIs and polygons may be called `a.zip`,
    `a_RoiSet.zip`, `a.roi`, `a.polys.txt` or `a_NAME.polys.txt` beside the image, too. The region of interest of
    `a.tif` is `a_region.*` beside the image or its mask. Folders called train, validation (valid, val) and test are
    splits, where there are no others: around the images and their masks, or in both.
    """
    if masks is None and (own := _images_and_masks(folder)) is not None:
        return _by_split(_pairs(*own, ""))
    tops = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if (
        masks is None
        and tops
        and set(tops) <= set(SPLIT_FOLDERS)
        and any(_images_and_masks(folder / top) for top in tops)
    ):
        found: dict[str, list[Pair]] = {}
        for top in tops:
            inner = folder / top
            pairs = _pairs(*(_images_and_masks(inner) or (inner, inner)), f"{top}/")
            found.setdefault(SPLIT_FOLDERS[top], []).extend(pairs)
        return _in_order(found)
    return _by_split(_pairs(folder, masks or folder, ""))


def each_plane(pair: Pair) -> list[Pair]:
    """A pair for every series of the image; the one there is, where the file cannot be read."""
    try:
        count = len(list_series(pair.image.file))
    except (ImageReadError, OSError):
        return [pair]
    return [replace(pair, plane=(number, count)) for number in range(count)] if count > 1 else [pair]


def _images_and_masks(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks in a folder, where both are there."""
    folders = {each.name.lower(): each for each in folder.iterdir() if each.is_dir()}
    masks = [folders[name] for name in MASKS if name in folders]
    if IMAGES not in folders or not masks:
        return None
    if len(masks) > 1:
        names = " and ".join(each.name for each in masks)
        raise UserError(f"{folder}: {names} could both hold the masks; name one, and the images: {SAY_WHICH}")
    return folders[IMAGES], masks[0]


def _by_split(pairs: list[Pair]) -> dict[str, list[Pair]]:
    parts = [pair.image.path.split("/") for pair in pairs]
    if not all(len(part) > 1 and part[0] in SPLIT_FOLDERS for part in parts):
        return {ONE_SPLIT: pairs}
    found: dict[str, list[Pair]] = {}
    for part, pair in zip(parts, pairs, strict=True):
        found.setdefault(SPLIT_FOLDERS[part[0]], []).append(pair)
    return _in_order(found)


def _in_order(found: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    return {name: found[name] for name in dict.fromkeys(SPLIT_FOLDERS.values()) if name in found}


def _pairs(images: Path, masks: Path, prefix: str) -> list[Pair]:
    if not masks.is_dir():
        raise UserError(f"{masks}: there is no such folder of masks; check the path")
    found = [each for each in find_images(images).images if not _stem(each.path).endswith(_REGION)]
    if not found:
        raise UserError(f"{images}: holds regions of interest and no image; name the folder of the images")
    files = list(_walk(masks))
    pictures = any(Path(path).suffix.lower() in readable_suffixes() for path, _ in files)
    masked = pair_masks(found, masks) if pictures else MaskedImages(tuple(found), {})
    outlines = _outlines(files, beside=masks.resolve() == images.resolve())
    regions = {_stem(path): file for path, file in [*_walk(images), *files] if _is_region(path)}
    pairs = []
    for image in masked.images:
        drawn = [file for stem in mask_stems(image.path) for file in outlines.get(stem, ())]
        stems = [f"{stem}{_REGION}" for stem in (_stem(image.path), _stem(image.path).removesuffix("_image"))]
        region = next((regions[stem] for stem in stems if stem in regions), None)
        candidates = (*masked.masks.get(image.path, ()), *dict.fromkeys(drawn))
        pairs.append(Pair(FoundImage(image.file, f"{prefix}{image.path}"), candidates, region))
    return pairs


def _stem(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()


def _is_region(path: str) -> bool:
    return _stem(path).endswith(_REGION) and Path(path).suffix.lower() in readable_suffixes()


def _outlines(files: Sequence[tuple[str, Path]], *, beside: bool) -> dict[str, list[Path]]:
    """Files of outlines by the stem of what they may be the mask of."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path, file in files:
        if file.suffix.lower() not in OUTLINE_SUFFIXES:
            continue
        stem = _stem(path)
        if file.suffix.lower() in TEXT_SUFFIXES:
            if stem.endswith(".polys"):
                stem = stem.removesuffix(".polys")
                # The reference puts the name of who drew them behind that of the image.
                found[stem.rpartition("_")[0]].append(file)
            elif beside and not stem.endswith("_mask"):
                continue  # what a microscope wrote about the image, more likely
        found[stem].append(file)
        for end in _ROI_ENDS:
            if stem.endswith(end):
                found[stem.removesuffix(end)].append(file)
    return found


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files below a folder that are not hidden, with their paths relative to it, sorted."""
    for here, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place = Path(here).relative_to(folder)
        yield from (((place / name).as_posix(), Path(here, name)) for name in sorted(names) if name[0] != ".")


def read_folder(
    folder: Path,
    masks: Path | None,
    *,
    series: str | int | None,
    channel: str | int | None,
    source_pattern: str | None,
) -> dict[str, MaskedRows]:
    """The annotated images of a folder by split; see :func:`~stedfm_hf.labels.annotated.folders.find_pairs`.

    Every image and mask is decoded once here, so that one that is damaged is known before anything is trained. For
    `series`, `channel` and `source_pattern` see :func:`~stedfm_hf.labels.annotated.read_annotated`.
    """
    splits = find_pairs(folder, masks)
    if series == ALL_SERIES:
        splits = {name: [part for pair in pairs for part in each_plane(pair)] for name, pairs in splits.items()}
        series = None
    check = functools.partial(_check_pair, series=series, channel=channel)
    found = {}
    for split, pairs in splits.items():
        with_mask = [pair for pair in pairs if pair.masks]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            checked = list(pool.map(check, with_mask))
        good = [number for number, each in enumerate(checked) if isinstance(each, Checked)]
        kept = [each for each in checked if isinstance(each, Checked)]
        places = [pair.place for pair in with_mask]
        found[split] = MaskedRows(
            facts=[each.facts for each in kept],
            sources=[
                source_of(with_mask[number].image.path, source_pattern, each.content)
                for number, each in zip(good, kept, strict=True)
            ],
            image_ids=[places[number] for number in good],
            contents=[each.content for each in kept],
            rows=range(len(good)),
            digest=digest_of([series, channel], *(each.digest for each in kept)),
            reads=FileReads(
                tuple(with_mask[number] for number in good), tuple(each.shape for each in kept), series, channel
            ),
            failed={place: each for place, each in zip(places, checked, strict=True) if isinstance(each, str)},
            unmasked=[pair.place for pair in pairs if not pair.masks],
        )
    return found


@dataclass(frozen=True)
class FileReads:
    """Reads pairs of files."""

    pairs: tuple[Pair, ...]
    shapes: tuple[tuple[int, int], ...]
    series: str | int | None
    channel: str | int | None

    def image(self, number: int) -> StedImage:
        """The image of a row."""
        return _image_of(self.pairs[number], self.series, self.channel)

    def mask(self, number: int) -> StoredMask:
        """The mask of a row."""
        return _mask_of(self.pairs[number], self.shapes[number])


def _image_of(pair: Pair, series: str | int | None, channel: str | int | None) -> StedImage:
    return read_image(pair.image.file, series=series if pair.plane is None else pair.plane[0], channel=channel)


def _mask_of(pair: Pair, shape: tuple[int, int]) -> StoredMask:
    return read_mask(pair.masks[0], shape, pair.region, part=pair.plane)


def _check_pair(pair: Pair, *, series: str | int | None, channel: str | int | None) -> Checked | str:
    """What is known of a pair, or why it cannot be used."""
    file = pair.image.file
    try:
        if len(pair.masks) > 1:
            names = ", ".join(each.name for each in pair.masks)
            return f"has several masks ({names}); keep one"
        there = [each.name for each in list_series(file)] if series is None and pair.plane is None else []
        if len(there) > 1:
            return (
                f"holds {len(there)} series ({some_of(there)}): --series all takes each as an image, with the plane "
                "of the mask that has its number; if the planes of the mask are classes, --series 0 takes one"
            )
        image = _image_of(pair, series, channel)
        check_shows_something(image.array)
        height, width = image.array.shape[1:]
        mask = _mask_of(pair, (height, width))
        return Checked(count(mask), (height, width), content_digest(image, mask), file_id(file))
    except UserError:
        raise
    except (ImageReadError, OSError, MemoryError) as error:
        return (" ".join(str(error).split()) or type(error).__name__).rpartition(f"{file.name}: ")[2]
