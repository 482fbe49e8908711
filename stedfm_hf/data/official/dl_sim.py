"""dl-sim: structured illumination images of four structures, cut into crops.

TIFF files whose path names the structure; min-max of the whole image, crops of 224 pixels every 168, shifted inward
at the borders, kept if more than a tenth of the crop is above Otsu's threshold of the image. Splits by the authors'
lists, or as these were made: "testing" in the path is the test set, the rest is dealt 70 to 30 by seed 42. (Reference
protocol; the first plane of a file with several: ours.)
"""

from __future__ import annotations

from functools import partial

import numpy as np
from skimage.filters import threshold_otsu

from stedfm_hf.data.building.cropping import CropRule, grid
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.pixels import SIZE, minmax_crops, read_plane
from stedfm_hf.data.official.plan import Item, Plan, find_classes, list_tiff_files, random_splits, read_split_lists
from stedfm_hf.data.repository.layout import Crop

CLASSES = ("adhesion", "factin", "microtubule", "mitochondrial")
STEP = 168
LEAST_FOREGROUND = 0.1
CORRECTED = (
    "Crops at the border are there once; in the reference several places of the grid are shifted to the same one.",
    "An image that lies in two splits stays in the test set, else in validation.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan(CLASSES)
    pairs = read_split_lists(files, "dl-sim", found)
    if pairs is None:
        names = list_tiff_files(files)
        pairs = [(name, "test") for name in names if "testing" in name]
        pairs += random_splits([name for name in names if "testing" not in name], {"train": 0.7, "validation": 0.3})
        found.notes.append("the source has no lists of files: splits are made by the rule that the lists were made by")
    for name, split in pairs:
        labels = find_classes("/".join(files.parts(name)), CLASSES)
        if not labels:
            found.skipped[name] = "is of no class of the set"
        elif len(labels) > 1:
            found.failed[name] = f"its path names several classes ({', '.join(labels)}); rename it"
        else:
            found.items.append(Item(name, name, split, labels[0], partial(_read, files, name, legacy)))
    found.require_classes(files.identity["name"])
    if not legacy:
        found.keep_sources_in_one_split()
    return found


def places(length: int, *, legacy: bool) -> list[int]:
    """Where crops begin along a side.

    >>> places(560, legacy=False), places(560, legacy=True)
    ([0, 168, 336], [0, 168, 336, 336])
    """
    if legacy:
        return [min(start, length - SIZE) for start in range(0, length, STEP)]
    return grid(length, CropRule(SIZE, STEP))


def _read(files: SourceFiles, name: str, legacy: bool) -> list[Crop]:
    plane = read_plane(files.read(name), 0)
    if min(plane.shape) < SIZE:
        raise ValueError(f"is {plane.shape[0]} x {plane.shape[1]}, smaller than a crop of {SIZE}")
    if plane.min() == plane.max():
        return []
    scaled = _scaled(plane)
    foreground = scaled > threshold_otsu(scaled)
    rows, columns = (places(side, legacy=legacy) for side in plane.shape)
    kept = [(y, x) for y in rows for x in columns if foreground[y : y + SIZE, x : x + SIZE].mean() > LEAST_FOREGROUND]
    return minmax_crops(plane, kept, legacy=legacy)


def _scaled(plane: np.ndarray) -> np.ndarray:
    whole = plane.astype(np.float64)
    scaled: np.ndarray = (whole - whole.min()) / (whole.max() - whole.min())
    return scaled
