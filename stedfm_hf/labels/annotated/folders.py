"""Annotated images of folders: finds the mask and region of each image file, and reads them."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from stedfm_hf.data.splits import file_id
from stedfm_hf.images import (
    ALL_SERIES,
    FoundImage,
    ImageReadError,
    StedImage,
    find_images,
    list_series,
    read_image,
)
from stedfm_hf.images.folders import suffix_of, walk_files
from stedfm_hf.images.formats import readable_suffixes
from stedfm_hf.images.mask_name_table import IMAGES, MASKS, REGION_END
from stedfm_hf.images.mask_names import MaskNotes, base_name, is_of_ilastik, pair_masks
from stedfm_hf.labels.annotated.annotation_files import read_mask
from stedfm_hf.labels.annotated.stored import (
    Checked,
    MaskedRows,
    StoredMask,
    check_finite,
    content_digest,
    count_pixels,
)
from stedfm_hf.labels.labelled.reading import SPLIT_FOLDERS, source_of
from stedfm_hf.labels.sourced import digest_of
from stedfm_hf.labels.splits import ONE_SPLIT
from stedfm_hf.runs import UserError, counted, print_note, some_of
from stedfm_hf.runs.notes import ItemNotes

NAME_BOTH_FOLDERS = "name the folder of the images as the data set, and the folder of the masks with --masks"


@dataclass(frozen=True)
class Pair:
    """An image and the files that could be its mask.

    Attributes:
        image: Image file; its path is relative to the searched folder.
        masks: Files that could be its mask; more than one is an error, () means no mask.
        region: File of its region of interest, or None.
        same_name: Path of another image with the same name, whose mask could be meant, or None; an error.
        plane: Number of one series of the image, which is also the number of the plane of its mask, and the number of
            series; None: the file is one image.
    """

    image: FoundImage
    masks: tuple[Path, ...]
    region: Path | None
    same_name: str | None = None
    plane: tuple[int, int] | None = None

    @property
    def image_id(self) -> str:
        """Name for messages and results."""
        return self.image.path if self.plane is None else f"{self.image.path}[{self.plane[0]}]"


def find_pairs(folder: Path, masks: Path | None) -> dict[str, list[Pair]]:
    """Find the images of a folder and their masks, by split.

    There are three layouts: `images/` and `masks/` (or `labels/`, `annotations/`) with the same file names, where the
    images may also be next to `masks/`; masks next to their images (`a.tif` and `a_mask.tif`); or a separate folder
    `masks`. `stedfm_hf.images.mask_names` has the names of masks. The region of interest of `a.tif` is `a_region.*`
    next to the image or its mask. If all folders are called train, validation (valid, val) or test, they are the
    splits: around `images/` and `masks/`, or inside of both. Notes on guesses are printed.

    Args:
        folder: Folder of the images.
        masks: Folder of the masks; None: in `folder`.

    Raises:
        UserError: Several folders could hold the masks, the folder of the masks does not exist, there is no image, or
            there is a mask for each object.
    """
    notes = MaskNotes()
    pairs_by_split = _find_pairs(folder, masks, notes)
    for line in notes.lines():
        print_note(line)
    return pairs_by_split


def _find_pairs(folder: Path, masks: Path | None, notes: MaskNotes) -> dict[str, list[Pair]]:
    """Find the images of a folder and their masks, by split; see `find_pairs`. Guesses are added to `notes`."""
    if masks is None and (folders := _images_and_masks(folder)) is not None:
        return _by_split(_pairs(*folders, "", notes))
    tops = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if (
        masks is None
        and tops
        and {top.lower() for top in tops} <= set(SPLIT_FOLDERS)
        and any(_images_and_masks(folder / top) for top in tops)
    ):
        found: dict[str, list[Pair]] = {}
        for top in tops:
            inner = folder / top
            pairs = _pairs(*(_images_and_masks(inner) or (inner, inner)), f"{top}/", notes)
            found.setdefault(SPLIT_FOLDERS[top.lower()], []).extend(pairs)
        return _sorted_by_split(found)
    return _by_split(_pairs(folder, masks or folder, "", notes))


def expand_series(pair: Pair) -> list[Pair]:
    """Return a pair for each series of the image file; the pair unchanged if the file cannot be read.

    Args:
        pair: Image file and its masks.
    """
    try:
        count = len(list_series(pair.image.file))
    except (ImageReadError, OSError):
        return [pair]
    return [replace(pair, plane=(number, count)) for number in range(count)] if count > 1 else [pair]


def _images_and_masks(folder: Path) -> tuple[Path, Path] | None:
    """Return the folders of images and of masks in a folder, or None if one of them is missing."""
    folders = {each.name.lower(): each for each in sorted(folder.iterdir()) if each.is_dir()}
    masks = [folders[name] for name in MASKS if name in folders]
    images = [folders[name] for name in IMAGES if name in folders]
    if len(images) != 1 or not masks:
        # `masks` may also be next to the image files.
        has_files = any(each.is_file() and suffix_of(each) in readable_suffixes() for each in folder.iterdir())
        images = [folder] if not images and has_files else []
    if not images or not masks:
        return None
    if len(masks) > 1:
        names = " and ".join(each.name for each in masks)
        raise UserError(f"{folder}: {names} could both be the masks; {NAME_BOTH_FOLDERS}")
    return images[0], masks[0]


def _by_split(pairs: list[Pair]) -> dict[str, list[Pair]]:
    """Group pairs by the split folder at the start of their paths; `{"all": pairs}` if one is not in such a folder."""
    path_parts = [pair.image.path.split("/") for pair in pairs]
    if not all(len(path_part) > 1 and path_part[0].lower() in SPLIT_FOLDERS for path_part in path_parts):
        return {ONE_SPLIT: pairs}
    by_split: dict[str, list[Pair]] = {}
    for path_part, pair in zip(path_parts, pairs, strict=True):
        by_split.setdefault(SPLIT_FOLDERS[path_part[0].lower()], []).append(pair)
    return _sorted_by_split(by_split)


def _sorted_by_split(pairs_by_split: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    return {name: pairs_by_split[name] for name in dict.fromkeys(SPLIT_FOLDERS.values()) if name in pairs_by_split}


def _pairs(images: Path, masks: Path, prefix: str, notes: MaskNotes) -> list[Pair]:
    """Return the images of a folder, each with all files in `masks` that could be its mask, and with its region.

    Args:
        images: Folder of the images.
        masks: Folder of the masks; may be the same one.
        prefix: Text in front of each path in the results, such as `train/`.
        notes: Notes to which guesses are added.

    Raises:
        UserError: If the folder of masks does not exist, there is no image, or there is a mask for each object.
    """
    if not masks.is_dir():
        raise UserError(f"{masks}: folder of masks not found; check the path")
    found = find_images(images)
    if results := found.describe_results():
        print_note(f"note: {results}")
    in_images = found.images
    found_images = [each for each in in_images if not base_name(each.path).lower().endswith(REGION_END)]
    if not found_images:
        raise UserError(f"{images}: contains regions of interest but no image; use the folder of the images")
    masked = pair_masks(found_images, masks, outlines=True)
    notes.add(masked.notes)
    files = walk_files(images) if os.path.samefile(images, masks) else (*walk_files(images), *walk_files(masks))
    regions = {
        name: each.file
        for each in files
        if (name := base_name(each.path)).lower().endswith(REGION_END) and suffix_of(each.path) in readable_suffixes()
    }
    pairs = []
    for image in masked.images:
        name = base_name(image.path)
        region = next(
            (
                regions[stem + REGION_END]
                for stem in (name, name.removesuffix("_image"))
                if stem + REGION_END in regions
            ),
            None,
        )
        pairs.append(
            Pair(
                FoundImage(image.file, f"{prefix}{image.path}"),
                masked.masks.get(image.path, ()),
                region,
                masked.shared.get(image.path),
            )
        )
    return pairs


def read_folder(
    folder: Path,
    masks: Path | None,
    *,
    series: str | int | None,
    channel: str | int | None,
    source_pattern: str | None,
) -> dict[str, MaskedRows]:
    """Read the annotated images of a folder by split; see `find_pairs`.

    Every image and mask is decoded once, so that damaged files are found before a training starts. Notes on files are
    printed.

    Args:
        folder: Folder of the images.
        masks: Folder of the masks; None: in `folder`.
        series: See `read_annotated`.
        channel: See `read_annotated`.
        source_pattern: See `read_annotated`.

    Raises:
        UserError: See `find_pairs`; or only the masks of ilastik have no background 0.
    """
    splits = find_pairs(folder, masks)
    if series == ALL_SERIES:
        splits = {name: [part for pair in pairs for part in expand_series(pair)] for name, pairs in splits.items()}
        series = None
    check = functools.partial(_check_pair, series=series, channel=channel)
    rows_by_split, fractions, notes = {}, 0, ItemNotes()
    with_zeros, without_zeros = 0, list[str]()
    for split, pairs in splits.items():
        with_mask = [pair for pair in pairs if pair.masks]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            checked = list(pool.map(check, with_mask))
        usable = [number for number, each in enumerate(checked) if isinstance(each, Checked)]
        usable_pairs = [each for each in checked if isinstance(each, Checked)]
        image_ids = [pair.image_id for pair in with_mask]
        for pair, each in zip(with_mask, checked, strict=True):
            if isinstance(each, Checked):
                notes.add(pair.image.path, each.notes)
                if each.facts.values and 0 in each.facts.values:
                    with_zeros += 1
                elif each.facts.values and is_of_ilastik(pair.masks[0]):
                    without_zeros.append(pair.masks[0].name)
        fractions += sum(each.facts.fractions for each in usable_pairs)
        rows_by_split[split] = MaskedRows(
            facts=[each.facts for each in usable_pairs],
            sources=[
                source_of(with_mask[number].image.path, source_pattern, each.content)
                for number, each in zip(usable, usable_pairs, strict=True)
            ],
            image_ids=[image_ids[number] for number in usable],
            contents=[each.content for each in usable_pairs],
            rows=range(len(usable)),
            digest=digest_of([series, channel], *(each.digest for each in usable_pairs)),
            reader=FilePairReader(
                tuple(with_mask[number] for number in usable),
                tuple(each.shape for each in usable_pairs),
                series,
                channel,
            ),
            failed={
                image_id: each for image_id, each in zip(image_ids, checked, strict=True) if isinstance(each, str)
            },
            without_mask=[pair.image_id for pair in pairs if not pair.masks],
        )
    notes.print()
    if with_zeros and without_zeros:
        have = "has" if with_zeros == 1 else "have"
        raise UserError(
            f"{folder}: no pixel of {counted(len(without_zeros), 'mask')} of ilastik is 0, because ilastik numbers "
            f"its classes from 1 ({some_of(without_zeros)}), but {counted(with_zeros, 'mask')} of other programs "
            f"{have} pixels of 0; subtract 1 from the masks of ilastik if their class 1 is the background, or move "
            "these images to another folder"
        )
    numbered = [each for rows in rows_by_split.values() for each in rows.facts if each.numbered]
    if any(len(set(each.values or ()) - {0}) > 1 for each in numbered):
        print_note(
            f"note: {counted(len(numbered), 'mask')} of Cellpose or a similar program with numbered objects; all "
            "numbers are one class unless --classes names several"
        )
    if fractions:
        print_note(
            f"note: the coordinates in {counted(fractions, 'text mask')} are between 0 and 1; they were read as "
            "fractions of the image (YOLO), with classes numbered from 0"
        )
    return rows_by_split


@dataclass(frozen=True)
class FilePairReader:
    """Reader of pairs of files.

    Attributes:
        pairs: Files of each row.
        shapes: Height and width of each image in pixels.
        series: Series to read.
        channel: Channel to read.
    """

    pairs: tuple[Pair, ...]
    shapes: tuple[tuple[int, int], ...]
    series: str | int | None
    channel: str | int | None

    def image(self, number: int) -> StedImage:
        """Return the image of a row."""
        return _image_of(self.pairs[number], self.series, self.channel)

    def mask(self, number: int) -> StoredMask:
        """Return the mask of a row."""
        return _mask_of(self.pairs[number], self.shapes[number])


def _image_of(pair: Pair, series: str | int | None, channel: str | int | None) -> StedImage:
    return read_image(pair.image.file, series=series if pair.plane is None else pair.plane[0], channel=channel)


def _mask_of(pair: Pair, shape: tuple[int, int]) -> StoredMask:
    return read_mask(pair.masks[0], shape, pair.region, part=pair.plane)


def _check_pair(pair: Pair, *, series: str | int | None, channel: str | int | None) -> Checked | str:
    """Read an image and its mask once; return their pixel counts and digests, or the reason why they cannot be used.

    Raises:
        UserError: If a package that reads the mask is missing, which holds for all other masks, too.
    """
    file = pair.image.file
    try:
        if pair.same_name is not None:
            return (
                f"has the same name as {pair.same_name}, so {pair.masks[0].name} could be the mask of either; rename "
                "or remove one of them"
            )
        if len(pair.masks) > 1:
            mask_names = ", ".join(each.name for each in pair.masks)
            return f"has several masks ({mask_names}); keep one"
        names = [each.name for each in list_series(file)] if series is None and pair.plane is None else []
        if len(names) > 1:
            return (
                f"holds {len(names)} series ({some_of(names)}); use --series all to read each as an image, with the "
                "mask plane of the same number, or --series 0 to read one, if the mask planes are classes"
            )
        image = _image_of(pair, series, channel)
        check_finite(image.array)
        height, width = image.array.shape[1:]
        mask = _mask_of(pair, (height, width))
        digest = content_digest(image, mask)
        return Checked(count_pixels(mask), (height, width), digest, file_id(file), image.notes)
    except UserError:  # a missing package, which concerns the whole folder and not this pair
        raise
    except (ImageReadError, OSError, MemoryError) as error:
        return (" ".join(str(error).split()) or type(error).__name__).rpartition(f"{file.name}: ")[2]
