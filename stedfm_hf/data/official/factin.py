"""Importer of factin: rings and fibres of F-actin in neurons, which may overlap, with dendrite masks.

HDF5 files `training_...`, `validation_...` and `testing_...` with groups of `data` (N, H, W) and `label` (N, 3, H, W):
rings, fibres and the dendrite, where values are above 0. The attribute `shapes` of `label` contains the size of each
image without padding. Crops of 224 pixels every 168 pixels, with zeros beyond the image, are kept if rings and fibres
together cover a tenth of the crop. Pixels are stored unchanged.

Source: reference protocol.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from stedfm_hf.data.official.annotated import STEP, corners, cut_crop, pixels_inside, require_items
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import hdf5_names, image, images, member, members, open_hdf5
from stedfm_hf.data.official.pixels import SIZE, crop_as_stored
from stedfm_hf.data.official.plan import Item, Plan, split_in
from stedfm_hf.data.repository.layout import Crop

CLASSES = ("rings", "fibres")
MIN_ANNOTATED = 0.1
CORRECTIONS = (
    "The dendrite is the region of interest in every split, if it is marked in the image; in the reference only in "
    "the test set. Crops without dendrite pixels are skipped.",
    "Zeros beyond the border of an image are outside the region of interest; in the reference they count as "
    "background.",
    "An image with the same pixels in two splits is kept in the test set, or else in the validation set.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of factin.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(())
    for name in hdf5_names(files):
        if (split := split_in(name)) is None:
            planned.skipped[name] = "the file name contains no split (training, validation, testing)"
            continue
        with planned.reading(name):
            file = open_hdf5(files, name)
            planned.items += [
                item for group in members(file) for item in _items_of_group(file, name, group, split, legacy)
            ]
    require_items(files.identity["name"], len(planned.items), planned.failed, "training_*.hdf5 and the like")
    return planned


def _items_of_group(file: Any, name: str, group: str, split: str, legacy: bool) -> list[Item]:
    """Plan the images of one group of an open HDF5 file; `name` is the name of the file in the manifest.

    Raises:
        ValueError: A dataset of the group is missing, or shapes do not match.
    """
    datasets = member(file, group)
    pixels, label = images(datasets, "data"), member(datasets, "label")
    shape: tuple[int, ...] = getattr(label, "shape", ())
    if len(shape) != 4 or shape[1] not in (2, 3) or (shape[0], *shape[2:]) != (len(pixels), *pixels.shape[-2:]):
        raise ValueError(f"{group}/label has the shape {shape}, which does not match {pixels.shape} of data")
    sizes = np.asarray(label.attrs.get("shapes", [shape[2:]] * len(pixels))).reshape(len(pixels), -1)[:, -2:]
    if sizes.shape[1] != 2 or (sizes < 1).any() or (sizes > shape[2:]).any():
        raise ValueError(f"the attribute shapes of {group}/label does not fit {shape}")
    items = []
    for row, (height, width) in enumerate(sizes.astype(int).tolist()):
        item = f"{name}#{group}/{row}"
        # The reference uses the dendrite only in the test split.
        use_dendrite = split == "test" or not legacy
        read = partial(_read, pixels, label, row, (height, width), use_dendrite, legacy)
        items.append(Item(item, item, split, None, read))
    return items


def _read(pixels: Any, label: Any, row: int, shape: tuple[int, int], use_dendrite: bool, legacy: bool) -> list[Crop]:
    """Read the crops of one image in which rings and fibres cover enough pixels.

    Args:
        pixels: Dataset of images, (N, H, W), padded.
        label: Dataset of masks, (N, 2 or 3, H, W): rings, fibres and the dendrite, which may be missing.
        row: Index of the image.
        shape: Height and width of the image without padding.
        use_dendrite: Whether the dendrite is the region of interest.
        legacy: Whether to keep crops without dendrite pixels, and pixels beyond the image as background.
    """
    height, width = shape
    plane = image(pixels, row)[:height, :width]
    planes = np.asarray(label[row])[:, :height, :width] > 0
    dendrite = planes[2] if len(planes) == 3 and use_dendrite and (legacy or planes[2].any()) else None
    whole = crop_as_stored(plane)
    scaling = whole.scaling if whole.scaling.applied else replace(whole.scaling, fitted_on="source")
    crops = []
    for y, x in corners(shape, STEP):
        classes = cut_crop(planes[:2], y, x)
        if classes.sum() < MIN_ANNOTATED * SIZE**2:
            continue
        region = None if dendrite is None else cut_crop(dendrite, y, x)
        if not legacy:
            region = pixels_inside(shape, y, x) if region is None else region
            if region is not None and not region.any():
                continue
        crops.append(
            Crop(
                cut_crop(whole.pixels, y, x),
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
