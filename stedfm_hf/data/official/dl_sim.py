"""Importer of dl-sim: structured illumination images of four structures, split into crops.

TIFF files whose path contains the structure; the first plane is used. Pixels are scaled by the minimum and maximum of
the whole image. Crops of 224 pixels every 168 pixels, moved inward at the borders, are kept if more than a tenth of
the crop is above Otsu's threshold of the image. Splits follow the authors' lists, or the rule that produced them:
"testing" in the path marks the test set; the rest is split 70 to 30 with seed 42.

Source: reference protocol.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from skimage.filters import threshold_otsu

from stedfm_hf.data.building.cropping import CropRule, grid
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.pixels import SIZE, minmax_crops, read_plane
from stedfm_hf.data.official.plan import NO_LISTS, Item, Plan, classes_in, listed_splits, seeded_splits, tiff_names
from stedfm_hf.data.repository.layout import Crop

CLASSES = ("adhesion", "factin", "microtubule", "mitochondrial")
STEP = 168
MIN_FOREGROUND = 0.1
CORRECTIONS = (
    "Each crop at the border is stored once; the reference moves several grid positions to the same one.",
    "An image in two splits is kept in the test set, or else in the validation set.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of dl-sim.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(CLASSES)
    pairs = listed_splits(files, "dl-sim", planned)
    if pairs is None:
        names = tiff_names(files)
        pairs = [(name, "test") for name in names if "testing" in name]
        pairs += seeded_splits([name for name in names if "testing" not in name], {"train": 0.7, "validation": 0.3})
        planned.notes.append(NO_LISTS)
    for name, split in pairs:
        labels = classes_in("/".join(files.parts(name)), CLASSES)
        if not labels:
            planned.skipped[name] = "the path contains no class of the set"
        elif len(labels) > 1:
            planned.failed[name] = f"the path contains more than one class ({', '.join(labels)}). Rename the file."
        else:
            planned.items.append(Item(name, name, split, labels[0], partial(_read, files, name, legacy)))
    planned.require_classes(files.identity["name"])
    if not legacy:
        planned.keep_one_split_per_source()
    return planned


def crop_starts(length: int, *, legacy: bool) -> list[int]:
    """Return the first pixel of every crop along one axis.

    Args:
        length: Length of the image along the axis, in pixels.
        legacy: Repeat the last position, as the reference does.

    Example:
        >>> crop_starts(560, legacy=False), crop_starts(560, legacy=True)
        ([0, 168, 336], [0, 168, 336, 336])
    """
    if legacy:
        return [min(start, length - SIZE) for start in range(0, length, STEP)]
    return grid(length, CropRule(SIZE, STEP))


def _read(files: SourceFiles, name: str, legacy: bool) -> list[Crop]:
    """Read the crops with enough foreground; none for an image without contrast.

    Raises:
        ValueError: The image is smaller than a crop.
    """
    plane = read_plane(files.read(name), 0)
    if min(plane.shape) < SIZE:
        raise ValueError(f"{plane.shape[0]} x {plane.shape[1]} pixels are smaller than a crop of {SIZE}")
    if plane.min() == plane.max():
        return []
    scaled = _scale_to_unit(plane)
    foreground = scaled > threshold_otsu(scaled)
    rows, columns = (crop_starts(length, legacy=legacy) for length in plane.shape)
    kept = [(y, x) for y in rows for x in columns if foreground[y : y + SIZE, x : x + SIZE].mean() > MIN_FOREGROUND]
    return minmax_crops(plane, kept, legacy=legacy)


def _scale_to_unit(plane: np.ndarray) -> np.ndarray:
    """Scale an image with contrast by its minimum and maximum to [0, 1], in float64."""
    whole = plane.astype(np.float64)
    scaled: np.ndarray = (whole - whole.min()) / (whole.max() - whole.min())
    return scaled
