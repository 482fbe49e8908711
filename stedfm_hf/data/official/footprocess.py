"""Importer of footprocess: foot processes (FP) and slit diaphragms (SD) of the kidney, one class per pixel.

TIFF files `images/*.tif` with masks `labels/*_bin.tif` of the same name, lists `training.txt` and `validation.txt`,
and the same layout in a folder `test`. The first channel is resampled to 22.7 nm by the pixel size of the file. Crops
of 224 pixels every 168 pixels that lie completely in the image are kept if any pixel is annotated; each crop is scaled
by its minimum and maximum. Smaller images are padded by mirroring. The two largest values of the masks are the
classes: the smaller one is FP, the larger one SD. Without lists, files are split 80 to 20 with seed 42.

Source: reference protocol.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from stedfm_hf.data.official.annotated import STEP, inner_corners, minmax_crop, require_items
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.pixels import SIZE, read_plane
from stedfm_hf.data.official.plan import NO_LISTS, Item, Plan, listed_splits, seeded_splits, tiff_names
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.modeling.image_processing_stedfm import resample
from stedfm_hf.modeling.io_tiff_stedfm import read_tiff

CLASSES = ("FP", "SD")
PIXEL_NM = 22.724609375
CORRECTIONS = (
    "All masks together determine which value is which class; the reference determines it for each image, so that a "
    "single class may be mistaken for the other.",
    "A crop without contrast becomes zeros; the reference divides by zero and returns NaN.",
    "An image in two splits is kept in the test set, or else in the validation set.",
)
_MASK_SUFFIX = "_bin"


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of footprocess.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan((), mask_names={0: "background", **dict(enumerate(CLASSES, start=1))})
    names = tiff_names(files)
    labels = {_pair_key(files, name): name for name in names if _stem(name).endswith(_MASK_SUFFIX)}
    images = [name for name in names if not _stem(name).endswith(_MASK_SUFFIX)]
    pairs = [(name, "test") for name in images if _is_test(files, name)]
    listed = listed_splits(files, "footprocess", planned)
    if listed is None:
        listed = seeded_splits(
            [name for name in images if not _is_test(files, name)], {"train": 0.8, "validation": 0.2}
        )
        planned.notes.append(NO_LISTS)
    pairs += [(name, split) for name, split in listed if (name, split) not in pairs]
    values_of = {}
    for name, _ in pairs:
        if (label := labels.get(_pair_key(files, name))) is None:
            planned.skipped[name] = f"has no mask {_stem(name)}{_MASK_SUFFIX}.tif"
            continue
        try:
            values_of[name] = _two_largest_values(read_plane(files.read(label), 0))
        except Exception as error:  # damaged bytes raise various exceptions
            planned.failed[label] = f"cannot be read ({error or type(error).__name__}); download it again"
    common = Counter(each for each in values_of.values() if len(each) == 2).most_common(1)
    for name, split in pairs:
        if name not in values_of:
            continue
        class_values = values_of[name] if legacy or not common else common[0][0]
        if not legacy and (not common or not set(values_of[name]) <= set(class_values)):
            others = f"the other masks contain {class_values}" if common else "no mask contains both classes"
            planned.failed[name] = (
                f"the mask contains {values_of[name]}, and {others}: the classes cannot be determined"
            )
            continue
        label = labels[_pair_key(files, name)]
        planned.items.append(Item(name, name, split, None, partial(_read, files, name, label, class_values, legacy)))
    require_items(files.identity["name"], len(planned.items), planned.failed, "images/*.tif with labels/*_bin.tif")
    if not legacy:
        planned.keep_one_split_per_source()
    return planned


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _is_test(files: SourceFiles, name: str) -> bool:
    return "test" in files.parts(name)[:-1]


def _pair_key(files: SourceFiles, name: str) -> tuple[bool, str]:
    """Return a key that an image and its mask share: whether it is a test image, and the name without suffixes."""
    return _is_test(files, name), _stem(name).removesuffix(_MASK_SUFFIX)


def _two_largest_values(mask: np.ndarray) -> tuple[int, ...]:
    """Return the two largest values except 0, in ascending order."""
    return tuple(int(value) for value in np.unique(mask) if value > 0)[-2:]


def _read(files: SourceFiles, name: str, label: str, values: tuple[int, ...], legacy: bool) -> list[Crop]:
    """Read the annotated crops of an image, resampled to `PIXEL_NM`.

    Args:
        files: Files of the set.
        name: Name of the image.
        label: Name of its mask.
        values: Values of the mask that are the classes, in the order of `CLASSES`.
        legacy: Whether to store scaled pixels.

    Raises:
        ValueError: Image and mask differ in size, or the image has no pixel size.
    """
    series = read_tiff(io.BytesIO(files.read(name)))[0]
    plane, mask = series.load()[0], read_plane(files.read(label), 0)
    if mask.shape != plane.shape:
        raise ValueError(f"the image is {plane.shape}, its mask is {mask.shape}")
    if series.info.pixel_size_nm is None:
        raise ValueError("has no pixel size, which is needed for resampling. Set it in ImageJ.")
    numbers = np.zeros(mask.shape, np.uint8)
    for number, value in enumerate(values, start=1):
        numbers[mask == value] = number
    size_y, size_x = series.info.pixel_size_nm
    factors = size_y / PIXEL_NM, size_x / PIXEL_NM
    plane = resample(plane[None].astype(np.float32), factors)[0]
    numbers = _pad_mirrored(_resize_nearest(numbers, plane.shape))
    plane = _pad_mirrored(plane)
    crops = []
    for y, x in inner_corners(plane.shape, STEP):
        cut = slice(y, y + SIZE), slice(x, x + SIZE)
        if numbers[cut].any():
            crop = minmax_crop(plane[cut], legacy=legacy)
            crops.append(replace(crop, mask=numbers[cut], y=y, x=x, pixel_size_nm=(PIXEL_NM, PIXEL_NM)))
    return crops


def _resize_nearest(numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize class numbers with nearest-neighbour interpolation."""
    if numbers.shape == shape:
        return numbers
    planes = torch.from_numpy(numbers.astype(np.float32))[None, None]
    resized: np.ndarray = torch.nn.functional.interpolate(planes, size=shape, mode="nearest-exact")[0, 0].numpy()
    return resized.astype(np.uint8)


def _pad_mirrored(plane: np.ndarray) -> np.ndarray:
    """Pad to at least 224 x 224 pixels by mirroring."""
    return np.pad(plane, [(0, max(0, SIZE - length)) for length in plane.shape], mode="symmetric")
