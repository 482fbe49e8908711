"""Masks of images: pairing of mask files with image files, and reading of masks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from stedfm_hf.images import FoundImage, ImageReadError, find_images, read_image

MAX_VALUE = 65535
"""Largest value of a mask."""
IMAGES = "images"
MASKS = ("masks", "labels", "annotations")
"""Names of folders of images and of their masks, in lower case."""


@dataclass(frozen=True)
class MaskedImages:
    """Images and their masks.

    Attributes:
        images: Files that are not masks.
        masks: Candidates for the mask of an image, by the path of the image; best first. More than one is an error.
    """

    images: tuple[FoundImage, ...]
    masks: Mapping[str, tuple[Path, ...]]


def pair_masks(images: Sequence[FoundImage], folder: str | os.PathLike[str]) -> MaskedImages:
    """Find the mask of each image, and remove masks from the images.

    The mask of `a/b.tif` is `a/b.*` or `a/b_mask.*` in the folder of masks. The mask of `a/b_image.tif` can also be
    `a/b_mask.*`. If the folder is the input itself, only names with `_mask` are masks.

    Args:
        images: Image files of the inputs.
        folder: Folder of the masks, with the same subfolders as the input.

    Returns:
        The images without the masks, and the masks of each image.

    Raises:
        UserError: The folder does not exist or holds no image.
    """
    found = find_images(folder)
    real_path = {each.path: os.path.realpath(each.file) for each in found.images}
    mask_files = set(real_path.values())
    shared = {each.path for each in images if os.path.realpath(each.file) in mask_files}
    same_folder = len(shared) == len(images)
    by_stem: defaultdict[str, list[FoundImage]] = defaultdict(list)
    for each in found.images:
        by_stem[_stem(each.path)].append(each)
    # All files in a folder of masks inside the input are masks. In a folder of both, the name decides.
    not_images = {path for path in shared if not same_folder or _stem(path).endswith("_mask")}
    kept = tuple(each for each in images if each.path not in not_images)
    masks = {}
    for image in kept:
        image_file = os.path.realpath(image.file)
        # In a folder of both, the first name would be that of the image.
        names = mask_stems(image.path)[1 if same_folder else 0 :]
        files = next((by_stem[name] for name in names if name in by_stem), [])
        if candidates := tuple(each.file for each in files if real_path[each.path] != image_file):
            masks[image.path] = candidates
    return MaskedImages(kept, masks)


def _stem(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()


def mask_stems(path: str) -> list[str]:
    """Return the possible names of the mask of an image.

    Args:
        path: Path of the image, with forward slashes.

    Returns:
        Paths without suffix, best first.

    Example:
        >>> mask_stems("a/b.tif"), mask_stems("c_image.png")
        (['a/b', 'a/b_mask'], ['c_image', 'c_image_mask', 'c_mask'])
    """
    stem = _stem(path)
    names = [stem, f"{stem}_mask"]
    if stem.endswith("_image"):
        names.append(f"{stem.removesuffix('_image')}_mask")
    return names


def find_masks(images: Sequence[FoundImage]) -> set[FoundImage]:
    """Find masks of other files: `b_mask.*` next to `b.tif`, and `masks/b.*` next to `images/b.tif`.

    A file without a matching image is not a mask.

    Args:
        images: Image files of one folder, with paths relative to it.

    Returns:
        The masks among the files.

    Example:
        >>> names = ("images/a.tif", "masks/a.png", "masks/b.tif", "c.tif", "c_mask.tif", "d_mask.tif")
        >>> sorted(each.path for each in find_masks([FoundImage(Path(name), name) for name in names]))
        ['c_mask.tif', 'masks/a.png']
    """
    same_folder, mask_folder = set[str](), set[tuple[str, str]]()
    for image in images:
        same_folder.update(mask_stems(image.path)[1:])
        for parent, name, path in _folders(image.path):
            if name == IMAGES:
                mask_folder.update((parent, stem) for stem in mask_stems(path))
    return {
        each
        for each in images
        if _stem(each.path) in same_folder
        or any(name in MASKS and (parent, _stem(path)) in mask_folder for parent, name, path in _folders(each.path))
    }


def _folders(path: str) -> Iterator[tuple[str, str, str]]:
    """Yield each folder of a path: its parent, its name in lower case, and the path inside it."""
    parts = path.split("/")
    for level, name in enumerate(parts[:-1]):
        yield "/".join(parts[:level]), name.lower(), "/".join(parts[level + 1 :])


def read_mask(file: Path) -> np.ndarray:
    """Read a mask.

    Args:
        file: Image file with one series and one channel of whole numbers from 0 to 65535.

    Returns:
        (H, W) uint8, or uint16 if it holds values above 255.

    Raises:
        ImageReadError: The file cannot be read, has several series or channels, or holds other numbers.
    """
    try:
        array = read_image(file).array
    except ImageReadError as error:
        raise ImageReadError(f"its mask {str(error).removeprefix(f'{file.parent}{os.sep}')}") from error
    problem = ""
    if len(array) != 1:
        problem = f"has {len(array)} channels; save it with one channel"
    elif not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= MAX_VALUE and not (array % 1).any()):
        problem = (
            f"holds other values than whole numbers from 0 to {MAX_VALUE}; save the label numbers without scaling"
        )
    if problem:
        raise ImageReadError(f"its mask {file.name} {problem}")

    return array[0].astype(np.uint16 if array.max() > 255 else np.uint8)
