"""Importer of resolution: image crops with the resolution that an estimator measured, for regression.

HDF5 files with the datasets `data` (photons summed over the time bins 10 to 110) and `labels`. The target is the
entry `resolution_nm` of the metadata. A file whose name contains train, valid or test belongs to that split; other
files are split 70 / 15 / 15 by a hash of the source id. Pixels are stored unchanged. The authors' assignment of images
to splits is not published.

Source: reference protocol.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import hdf5_names, image, images, open_hdf5, values
from stedfm_hf.data.official.pixels import crop_as_stored
from stedfm_hf.data.official.plan import HASHED_SPLITS, Item, Plan, split_in
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.runs import UserError

TARGET = "resolution_nm"
CORRECTIONS = (
    "An image with the same pixels in two splits is kept in the test set, or else in the validation set.",
    "The files do not tell which acquisition a crop belongs to, so every crop counts as a separate source.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of resolution.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(())
    for name in hdf5_names(files):
        with planned.reading(name):
            file = open_hdf5(files, name)
            pixels = images(file, "data")
            for row, target in enumerate(values(file, "labels", len(pixels)).astype(float).tolist()):
                item = f"{name}#{row}"
                if math.isfinite(target):
                    planned.items.append(Item(item, item, split_in(name), None, partial(_read, pixels, row, target)))
                else:
                    planned.skipped[item] = "the target is NaN or infinite: the estimator did not converge"
    if not planned.items:
        reason = planned.failures or "all targets are NaN"
        raise UserError(f"{files.identity['name']}: no crop with a target ({reason})")
    if any(item.split is None for item in planned.items):
        planned.notes.append(HASHED_SPLITS)
    return planned


def _read(pixels: Any, row: int, target: float) -> list[Crop]:
    return [replace(crop_as_stored(image(pixels, row)), metadata={TARGET: target})]
