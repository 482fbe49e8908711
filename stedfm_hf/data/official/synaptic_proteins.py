"""Importer of synaptic-proteins: images of four synaptic proteins.

HDF5 files `train_v2.hdf5`, `valid_v2.hdf5` and `test_v2.hdf5` with the datasets `images`, `proteins` and
`conditions`. Pixels are stored unchanged, because no scaling is stated. Classes are sorted by name; the reference
protocol defines no order.

Source: reference protocol.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import hdf5_names, image, images, open_hdf5, values
from stedfm_hf.data.official.pixels import crop_as_stored
from stedfm_hf.data.official.plan import Item, Plan, split_in
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.runs import UserError

CLASSES = ()
CORRECTIONS = (
    "The classes have names; the script of the reference fails on this set, because it has none.",
    "An image with the same pixels in two splits is kept in the test set, or else in the validation set.",
    "The files do not tell which acquisition an image belongs to, so every image counts as a separate source.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of synaptic-proteins.

    Args:
        files: Files of the set.
        legacy: Not used: the items of this set are the same in both protocols.
        keep_all: Ignored; the set is not balanced.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(CLASSES)
    for name in hdf5_names(files):
        if (split := split_in(name)) is None:
            planned.skipped[name] = "the file name contains no split (train, valid, test)"
            continue
        with planned.reading(name):
            file = open_hdf5(files, name)
            pixels = images(file, "images")
            proteins = values(file, "proteins", len(pixels)).tolist()
            conditions = values(file, "conditions", len(pixels)).tolist()
            for row, (protein, condition) in enumerate(zip(proteins, conditions, strict=True)):
                read = partial(_read, pixels, row, condition)
                planned.items.append(Item(f"{name}#{row}", f"{name}#{row}", split, str(protein), read))
    if not planned.items:
        raise UserError(
            f"{files.identity['name']}: no image in train_*.hdf5, valid_*.hdf5 or test_*.hdf5 "
            f"({planned.failures or 'no such file'}). "
            "Pass the authors' folder or one of these files."
        )
    return replace(planned, classes=tuple(sorted({item.label for item in planned.items if item.label is not None})))


def _read(pixels: Any, row: int, condition: str | int | float) -> list[Crop]:
    return [replace(crop_as_stored(image(pixels, row)), metadata={"condition": condition})]
