"""Importer of low-high-quality: the same dyes imaged with low and high excitation.

HDF5 files with the groups `low` and `high`, each with one dataset (N, 224, 224) per dye and excitation. `5percent` and
`10percent` are low; `15percent` (far-red dyes) and `30percent` are high. Pixels are stored unchanged. The splits are
not published: if the file name contains no split, a hash of the source id decides.

Source: reference protocol.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import hdf5_names, image, images, member, members, open_hdf5
from stedfm_hf.data.official.pixels import crop_as_stored
from stedfm_hf.data.official.plan import HASHED_SPLITS, Item, Plan, split_in
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.runs import UserError

CLASSES = ("low", "high")
EXCITATIONS = {"low": ("5percent", "10percent"), "high": ("15percent", "30percent")}
CORRECTIONS = (
    "Image n of a dye with low excitation and image n with high excitation count as one source, because they may "
    "show the same field of view: they are always in the same split.",
    "An image with the same pixels in two splits is kept in the test set, or else in the validation set.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of low-high-quality.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(CLASSES)
    for name in hdf5_names(files):
        with planned.reading(name):
            file = open_hdf5(files, name)
            file_plan = Plan(CLASSES)  # merged below, so that a damaged file adds no image
            for label in CLASSES:
                _plan_class(member(file, label), label, name, file_plan)
            planned.items += file_plan.items
            planned.skipped |= file_plan.skipped
    planned.require_classes(files.identity["name"])
    if not planned.items:
        raise UserError(f"{files.identity['name']}: no image can be read ({planned.failures})")
    if any(item.split is None for item in planned.items):
        planned.notes.append(HASHED_SPLITS)
    return planned


def _plan_class(group: Any, label: str, name: str, planned: Plan) -> None:
    """Add the images of one class of a file to the plan; datasets with another excitation are skipped.

    The name of a dataset, such as `dye_5percent`, has the dye and the excitation.
    """
    for condition in members(group):
        words = condition.split("_")
        excitation = next((word for word in words if word in EXCITATIONS[label]), None)
        if excitation is None:
            planned.skipped[f"{name}#{label}/{condition}"] = "the excitation is not part of the published set"
            continue
        dye = "_".join(word for word in words if word != excitation)
        pixels = images(group, condition)
        for row in range(len(pixels)):
            item, source = f"{name}#{label}/{condition}/{row}", f"{name}#{dye}/{row}"
            planned.items.append(Item(item, source, split_in(name), label, partial(_read, pixels, row, condition)))


def _read(pixels: Any, row: int, condition: str) -> list[Crop]:
    return [replace(crop_as_stored(image(pixels, row)), metadata={"condition": condition})]
