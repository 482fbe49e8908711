"""resolution: crops and the resolution that an estimator found in them, for a regression.

HDF5 files with the data sets `data` (photons summed over the time bins 10 to 110) and `labels`. The target is the
entry `resolution_nm` of the metadata. A file whose name says train, valid or test is that split; others are split
70 / 15 / 15 by a hash of the source id. Pixels are taken as they are in the file. (Reference protocol; which images
the authors' split put where is not published.)
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import get_images, list_hdf5_files, open_hdf5, read_image, read_values
from stedfm_hf.data.official.pixels import crop_as_stored
from stedfm_hf.data.official.plan import Item, Plan, find_split
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.runs import UserError

TARGET = "resolution_nm"
CORRECTED = (
    "An image that lies in two splits with the same pixels stays in the test set, else in validation.",
    "The files do not say which recording a crop is of, so every crop counts as a source of its own.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan(())
    for name in list_hdf5_files(files):
        try:
            file = open_hdf5(files, name)
            pixels = get_images(file, "data")
            targets = read_values(file, "labels", len(pixels)).astype(float).tolist()
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            found.failed[name] = f"cannot be read ({error}); get it again"
            continue
        for row, target in enumerate(targets):
            item = f"{name}#{row}"
            if math.isfinite(target):
                found.items.append(Item(item, item, find_split(name), None, partial(_read, pixels, row, target)))
            else:
                found.skipped[item] = "its target is NaN or infinite: the estimator did not converge"
    if not found.items:
        failures = "; ".join(f"{name} {reason}" for name, reason in found.failed.items())
        raise UserError(f"{files.identity['name']}: holds no crop with a target ({failures or 'all are NaN'})")
    if any(item.split is None for item in found.items):
        found.notes.append("files whose names say no split were split 70 / 15 / 15 by a hash of each source id")
    return found


def _read(pixels: Any, row: int, target: float) -> list[Crop]:
    return [replace(crop_as_stored(read_image(pixels, row)), metadata={TARGET: target})]
