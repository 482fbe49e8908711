"""synaptic-proteins: images of four synaptic proteins.

HDF5 files `train_v2.hdf5`, `valid_v2.hdf5` and `test_v2.hdf5` with the data sets `images`, `proteins` and
`conditions`. Pixels are taken as they are in the file: no scaling of them is stated. (Reference protocol; the order of
the classes, sorted by name, is ours, for the reference's class has none.)
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import get_images, list_hdf5_files, open_hdf5, read_image, read_values
from stedfm_hf.data.official.pixels import crop_as_stored
from stedfm_hf.data.official.plan import Item, Plan, find_split
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.runs import UserError

CLASSES = ()
CORRECTED = (
    "The classes are named; the reference's own script fails at this set, because it has no names.",
    "An image that lies in two splits with the same pixels stays in the test set, else in validation.",
    "The files do not say which recording an image is of, so every image counts as a source of its own.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan(CLASSES)
    for name in list_hdf5_files(files):
        if (split := find_split(name)) is None:
            found.skipped[name] = "its name says no split (train, valid, test)"
            continue
        try:
            file = open_hdf5(files, name)
            pixels = get_images(file, "images")
            proteins = read_values(file, "proteins", len(pixels)).tolist()
            conditions = read_values(file, "conditions", len(pixels)).tolist()
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            found.failed[name] = f"cannot be read ({error}); get it again"
            continue
        for row, (protein, condition) in enumerate(zip(proteins, conditions, strict=True)):
            read = partial(_read, pixels, row, condition)
            found.items.append(Item(f"{name}#{row}", f"{name}#{row}", split, str(protein), read))
    if not found.items:
        failures = "; ".join(f"{name} {reason}" for name, reason in found.failed.items())
        raise UserError(
            f"{files.identity['name']}: holds no image in a file of a split ({failures or 'no such file'})"
        )
    return replace(found, classes=tuple(sorted({item.label for item in found.items if item.label is not None})))


def _read(pixels: Any, row: int, condition: str | int | float) -> list[Crop]:
    return [replace(crop_as_stored(read_image(pixels, row)), metadata={"condition": condition})]
