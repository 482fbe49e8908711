"""low-high-quality: the same dyes imaged with little and with more excitation.

HDF5 files with the groups `low` and `high`, in them a data set (N, 224, 224) for each dye and excitation. Taken are
`5percent` and `10percent` as low, `15percent` (far-red dyes) and `30percent` as high. Pixels are taken as they are in
the file. (Reference protocol; the splits are not published: where a file's name has none, a hash of the
source id decides.)
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import get_images, get_member, list_hdf5_files, list_members, open_hdf5, read_image
from stedfm_hf.data.official.pixels import crop_as_stored
from stedfm_hf.data.official.plan import Item, Plan, find_split
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.runs import UserError

CLASSES = ("low", "high")
EXCITATIONS = {"low": ("5percent", "10percent"), "high": ("15percent", "30percent")}
CORRECTED = (
    "Image n of a dye with little excitation and image n of it with more count as one source, because they may show "
    "the same place: they are never on two sides of a split.",
    "An image that lies in two splits with the same pixels stays in the test set, else in validation.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan(CLASSES)
    for name in list_hdf5_files(files):
        try:
            file = open_hdf5(files, name)
            of_file = Plan(CLASSES)
            for label in CLASSES:
                _plan_class(get_member(file, label), label, name, of_file)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            found.failed[name] = f"cannot be read ({error}); get it again"
            continue
        found.items += of_file.items
        found.skipped |= of_file.skipped
    found.require_classes(files.identity["name"])
    if not found.items:
        failures = "; ".join(f"{name} {reason}" for name, reason in found.failed.items())
        raise UserError(f"{files.identity['name']}: holds no image ({failures})")
    if any(item.split is None for item in found.items):
        found.notes.append("files whose names say no split were split 70 / 15 / 15 by a hash of each source id")
    return found


def _plan_class(group: Any, label: str, name: str, found: Plan) -> None:
    for condition in list_members(group):
        words = condition.split("_")
        excitation = next((word for word in words if word in EXCITATIONS[label]), None)
        if excitation is None:
            found.skipped[f"{name}#{label}/{condition}"] = "its excitation is not of the published set"
            continue
        dye = "_".join(word for word in words if word != excitation)
        pixels = get_images(group, condition)
        for row in range(len(pixels)):
            item, source = f"{name}#{label}/{condition}/{row}", f"{name}#{dye}/{row}"
            found.items.append(Item(item, source, find_split(name), label, partial(_read, pixels, row, condition)))


def _read(pixels: Any, row: int, condition: str) -> list[Crop]:
    return [replace(crop_as_stored(read_image(pixels, row)), metadata={"condition": condition})]
