"""Importer of neural-activity-states: PSD95 of neurons under four conditions.

Archives `NAS_PSD95_{train,valid,test}_v2.tar`; the members `<condition>-PSD95-<n>` are `.npz` files with `image`
(scaled by the 0.0001 and 0.9999 quantiles of its source), `mask` and pickled `metadata` with condition, protein and
img_folder.

Source: reference protocol.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np

from stedfm_hf.data.official.files import SourceFiles, TarMembers
from stedfm_hf.data.official.npz import read_npz
from stedfm_hf.data.official.pixels import crop_as_stored
from stedfm_hf.data.official.plan import SPLIT_WORDS, Item, Plan, numpy_sampler
from stedfm_hf.data.repository.layout import SPLITS, Crop
from stedfm_hf.runs import UserError

CLASSES = ("Block", "0MgGlyBic", "GluGly", "48hTTX")
CORRECTIONS = (
    "Validation and test keep all images; the reference balances the classes of every split, which changes their "
    "distribution. The training split is balanced with seed 42; --keep-all keeps all of it.",
    "An image in two splits, by the folder in its metadata or by its pixels, is kept in the test set, or else in the "
    "validation set.",
)
_TAR = re.compile(r"NAS_PSD95_(train|valid|test)(?:_v\d+)?\.tar")


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of neural-activity-states.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Keep all training images instead of balancing the classes.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(CLASSES)
    for name in files.names:
        if match := _TAR.fullmatch(name.rpartition("/")[2]):
            _plan_tar(files, name, SPLIT_WORDS[match[1]], planned)
    if not planned.items and not planned.failed:
        raise UserError(
            f"{files.identity['name']}: no NAS_PSD95_train_v2.tar, NAS_PSD95_valid_v2.tar or "
            "NAS_PSD95_test_v2.tar. Pass the folder that contains them, or one of them."
        )
    planned.require_classes(files.identity["name"])
    if not legacy:
        _separate_shared_folders(planned)
        planned.keep_one_split_per_source()
    planned.balance(SPLITS if legacy else () if keep_all else ("train",), numpy_sampler)
    return planned


def _plan_tar(files: SourceFiles, name: str, split: str, planned: Plan) -> None:
    """Add the images of a tar to the plan, with condition and source from their metadata; pixels are read later.

    If the tar is damaged, the members before the damage are used. The source is a hash of the authors' folder, whose
    name may identify people.
    """
    tar = TarMembers(files.local(name))
    if tar.damage is not None:
        planned.failed[name] = tar.damage
    for number, member in tar.names.items():
        item = f"{name}#{number} {member}"
        try:
            metadata = read_npz(tar.read(number), "metadata").get("metadata", {})
            condition, folder = _condition_and_folder(member, metadata)
        except Exception as error:  # damaged bytes raise various exceptions; the other files are read
            planned.failed[item] = f"damaged ({error or type(error).__name__}); download the archive again"
            continue
        if condition not in CLASSES:
            planned.skipped[item] = "the condition is not a class of the set"
            continue
        source = sha256(folder.encode()).hexdigest()[:32] if folder else f"{split}/{member}"
        planned.items.append(Item(item, source, split, condition, partial(_read, tar, number)))


def _condition_and_folder(member: str, metadata: Any) -> tuple[str, str]:
    """Return the condition of an image, from its metadata or else its name, and its folder, "" if unknown.

    Raises:
        ValueError: The metadata are not a dictionary.
    """
    if not isinstance(metadata, dict):
        raise ValueError("the metadata are not a dictionary")
    condition = metadata.get("condition")
    folder = metadata.get("img_folder")
    in_name = member.partition("-PSD95-")[0]
    return (condition if isinstance(condition, str) else in_name), (folder if isinstance(folder, str) else "")


def _separate_shared_folders(planned: Plan) -> None:
    """Add the split to source ids that are in more than one split, if img_folder does not identify single images.

    The authors split by image. If skipping images that share an img_folder with another split would leave a class
    without images, the folders contain more than one image each.
    """
    trial = replace(planned, items=list(planned.items), skipped={}, notes=[])
    trial.keep_one_split_per_source()
    before, after = ({(item.split, item.label) for item in each.items} for each in (planned, trial))
    if before == after:
        return
    splits_of_source = defaultdict[str, set[str | None]](set)
    for item in planned.items:
        splits_of_source[item.source].add(item.split)
    planned.items = [
        replace(item, source=f"{item.split}/{item.source}") if len(splits_of_source[item.source]) > 1 else item
        for item in planned.items
    ]
    planned.notes.append(
        "img_folder in the metadata does not identify single images, because folders are in more than one split; each "
        "folder within a split counts as a source, and only equal pixels reveal an image in two splits"
    )


def _read(tar: TarMembers, number: int) -> list[Crop]:
    arrays = read_npz(tar.read(number), "image", "mask")
    if "image" not in arrays:
        raise ValueError("contains no array named image")
    crop = crop_as_stored(arrays["image"])
    mask = arrays.get("mask")
    return [crop if mask is None else replace(crop, mask=(np.asarray(mask) > 0).astype(np.uint8))]
