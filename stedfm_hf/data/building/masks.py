"""Masks of images: which file is the mask of which, and its pixels."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from stedfm_hf.images import FoundImage, ImageReadError, find_images, read_image

LARGEST = 65535
IMAGES = "images"
MASKS = ("masks", "labels", "annotations")
"""What folders of images and of their masks are called, in any case."""


@dataclass(frozen=True)
class MaskedImages:
    """Images apart from masks.

    Args:
        images: the files that are no masks.
        masks: of an image's path, the files that could be its mask, best first; more than one is a fault.
    """

    images: tuple[FoundImage, ...]
    masks: Mapping[str, tuple[Path, ...]]


def pair_masks(images: Sequence[FoundImage], folder: str | os.PathLike[str]) -> MaskedImages:
    """Finds the mask of every image, and takes the masks out of the images.

    The mask of `a/b.tif` is `a/b.*` in the folder of masks, or `a/b_mask.*`; that of `a/b_image.tif` is also
    `a/b_mask.*`. The folder may be the input itself, where only the names with `_mask` count.

    Args:
        images: what the inputs hold.
        folder: with the masks, laid out like the input.

    Raises:
        UserError: the folder is not there or holds no image.
    """
    found = find_images(folder)
    real = {each.path: os.path.realpath(each.file) for each in found.images}
    below = set(real.values())
    shared = {each.path for each in images if os.path.realpath(each.file) in below}
    beside = len(shared) == len(images)
    by_stem: defaultdict[str, list[FoundImage]] = defaultdict(list)
    for each in found.images:
        by_stem[_stem(each.path)].append(each)
    # A folder of masks within the input holds no images. Where masks lie beside the images, their names tell them.
    no_images = {path for path in shared if not beside or _stem(path).endswith("_mask")}
    kept = tuple(each for each in images if each.path not in no_images)
    masks = {}
    for image in kept:
        own = os.path.realpath(image.file)
        names = mask_stems(image.path)[1 if beside else 0 :]
        files = next((files for name in names if (files := by_stem.get(name))), [])
        if candidates := tuple(each.file for each in files if real[each.path] != own):
            masks[image.path] = candidates
    return MaskedImages(kept, masks)


def _stem(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()


def mask_stems(path: str) -> list[str]:
    """What the mask of an image may be called, without suffix; best first.

    >>> mask_stems("a/b.tif"), mask_stems("c_image.png")
    (['a/b', 'a/b_mask'], ['c_image', 'c_image_mask', 'c_mask'])
    """
    stem = _stem(path)
    names = [stem, f"{stem}_mask"]
    if stem.endswith("_image"):
        names.append(f"{stem.removesuffix('_image')}_mask")
    return names


def masks_among(images: Sequence[FoundImage]) -> set[FoundImage]:
    """Finds the files that are masks of others: `b_mask.*` beside `b.tif`, `masks/b.*` beside `images/b.tif`.

    A mask whose image is not there is none.

    Args:
        images: what one folder holds, with paths relative to it.

    >>> names = ("images/a.tif", "masks/a.png", "masks/b.tif", "c.tif", "c_mask.tif", "d_mask.tif")
    >>> sorted(each.path for each in masks_among([FoundImage(Path(name), name) for name in names]))
    ['c_mask.tif', 'masks/a.png']
    """
    beside, apart = set[str](), set[tuple[str, str]]()
    for image in images:
        beside.update(mask_stems(image.path)[1:])
        for folder, name, path in _folders(image.path):
            if name == IMAGES:
                apart.update((folder, stem) for stem in mask_stems(path))
    return {
        each
        for each in images
        if _stem(each.path) in beside
        or any(name in MASKS and (folder, _stem(path)) in apart for folder, name, path in _folders(each.path))
    }


def _folders(path: str) -> Iterator[tuple[str, str, str]]:
    """Every folder in a path: what it lies in, its name in small letters, and the path within it."""
    parts = path.split("/")
    for place, name in enumerate(parts[:-1]):
        yield "/".join(parts[:place]), name.lower(), "/".join(parts[place + 1 :])


def read_mask(file: Path) -> np.ndarray:
    """Reads a mask.

    Returns:
        (H, W) uint8, or uint16 where it holds numbers above 255.

    Raises:
        ImageReadError: it cannot be read, has several series or channels, or holds anything but whole numbers from 0
            to 65535.
    """
    try:
        array = read_image(file).array
    except ImageReadError as error:
        raise ImageReadError(f"its mask {str(error).removeprefix(f'{file.parent}{os.sep}')}") from error
    problem = ""
    if len(array) != 1:
        problem = f"has {len(array)} channels; save it with one"
    elif not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= LARGEST and not (array % 1).any()):
        problem = f"does not hold whole numbers from 0 to {LARGEST} only; save the labels as they are"
    if problem:
        raise ImageReadError(f"its mask {file.name} {problem}")
    return array[0].astype(np.uint16 if array.max() > 255 else np.uint8)
