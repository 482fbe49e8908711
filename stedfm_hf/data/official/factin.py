"""factin: rings and fibres of F-actin in neurons, which may overlap, on dendrites that are marked.

HDF5 files `training_...`, `validation_...` and `testing_...` of groups, in them `data` (N, H, W) and `label` (N, 3,
H, W): rings, fibres and the dendrite, above 0 where they are. The attribute `shapes` of `label` says how much of each
image is none of the filling that makes all equally large. Crops of 224 pixels every 168, zeros beyond the image, kept
if rings and fibres together have a tenth of the crop's pixels. Pixels are taken as they are in the file. (Reference
protocol.)
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from stedfm_hf.data.official.annotated import STEP, corners, cut, real_pixels, require_items
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import get_images, get_member, list_hdf5_files, list_members, open_hdf5, read_image
from stedfm_hf.data.official.pixels import SIZE, crop_as_stored
from stedfm_hf.data.official.plan import Item, Plan, find_split
from stedfm_hf.data.repository.layout import Crop

CLASSES = ("rings", "fibres")
LEAST_ANNOTATED = 0.1
CORRECTED = (
    "The dendrite is the region of interest of every split, where it is marked in the image; in the reference it is"
    " that of the test set alone. Crops without a pixel of it are left out.",
    "Zeros beyond the border of an image are outside of the region of interest; in the reference they count as "
    "pixels without a structure.",
    "An image that lies in two splits with the same pixels stays in the test set, else in validation.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan(())
    for name in list_hdf5_files(files):
        if (split := find_split(name)) is None:
            found.skipped[name] = "its name says no split (training, validation, testing)"
            continue
        try:
            file = open_hdf5(files, name)
            items = [item for group in list_members(file) for item in _group(file, name, group, split, legacy)]
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            found.failed[name] = f"cannot be read ({error}); get it again"
            continue
        found.items += items
    require_items(files.identity["name"], len(found.items), found.failed, "training_*.hdf5 and the like")
    return found


def _group(file: Any, name: str, group: str, split: str, legacy: bool) -> list[Item]:
    holder = get_member(file, group)
    pixels, label = get_images(holder, "data"), get_member(holder, "label")
    shape: tuple[int, ...] = getattr(label, "shape", ())
    if len(shape) != 4 or shape[1] not in (2, 3) or (shape[0], *shape[2:]) != (len(pixels), *pixels.shape[-2:]):
        raise ValueError(f"its {group}/label is {shape}, where data is {pixels.shape}")
    sides = np.asarray(label.attrs.get("shapes", [shape[2:]] * len(pixels))).reshape(len(pixels), -1)[:, -2:]
    if sides.shape[1] != 2 or (sides < 1).any() or (sides > shape[2:]).any():
        raise ValueError(f"the shapes of its {group}/label are none of images in {shape}")
    items = []
    for row, (height, width) in enumerate(sides.astype(int).tolist()):
        item = f"{name}#{group}/{row}"
        read = partial(_read, pixels, label, row, (height, width), split == "test" or not legacy, legacy)
        items.append(Item(item, item, split, None, read))
    return items


def _read(pixels: Any, label: Any, row: int, shape: tuple[int, int], marked: bool, legacy: bool) -> list[Crop]:
    height, width = shape
    plane = read_image(pixels, row)[:height, :width]
    planes = np.asarray(label[row])[:, :height, :width] > 0
    dendrite = planes[2] if len(planes) == 3 and marked and (legacy or planes[2].any()) else None
    whole = crop_as_stored(plane)
    scaling = whole.scaling if whole.scaling.applied else replace(whole.scaling, fitted_on="source")
    crops = []
    for y, x in corners(shape, STEP):
        classes = cut(planes[:2], y, x)
        if classes.sum() < LEAST_ANNOTATED * SIZE**2:
            continue
        region = None if dendrite is None else cut(dendrite, y, x)
        if not legacy:
            region = real_pixels(shape, y, x) if region is None else region
            if region is not None and not region.any():
                continue
        crops.append(
            Crop(
                cut(whole.pixels, y, x),
                scaling,
                source="",
                y=y,
                x=x,
                mask=classes,
                mask_planes=CLASSES,
                region=region,
            )
        )
    return crops
