"""Which files of a folder are images, which are their masks, and which say where the annotation counts (ours)."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from stedfm_hf.data.building.masks import IMAGES, MASKS, MaskedImages, mask_stems, pair_masks
from stedfm_hf.images import FoundImage, ImageReadError, find_images, list_series, readable_suffixes
from stedfm_hf.labels.annotated.outlines import OUTLINE_SUFFIXES, TEXT_SUFFIXES
from stedfm_hf.labels.labelled.reading import SPLIT_FOLDERS
from stedfm_hf.labels.splits import ONE_SPLIT
from stedfm_hf.runs.errors import UserError

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
