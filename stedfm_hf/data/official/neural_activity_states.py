"""neural-activity-states: PSD95 of neurons under four conditions.

Tars `NAS_PSD95_{train,valid,test}_v2.tar`; members `<condition>-PSD95-<n>` are `.npz` with `image` (scaled by the
0.0001 and 0.9999 quantiles of its source), `mask` and pickled `metadata` of condition, protein and img_folder.
(Reference protocol.)
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
CORRECTED = (
    "Validation and test keep all images; the reference takes as many of each class as the rarest has, which makes "
    "another distribution. The training split is drawn so, by seed 42; --keep-all keeps all of it.",
    "An image that lies in two splits, by the folder named in its metadata or by its pixels, stays in the test set, "
    "else in validation.",
)
_TAR = re.compile(r"NAS_PSD95_(train|valid|test)(?:_v\d+)?\.tar")


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan(CLASSES)
    for name in files.names:
        if match := _TAR.fullmatch(name.rpartition("/")[2]):
            _plan_tar(files, name, SPLIT_WORDS[match[1]], found)
    if not found.items and not found.failed:
        raise UserError(
            f"{files.identity['name']}: holds no NAS_PSD95_train_v2.tar, NAS_PSD95_valid_v2.tar or "
            "NAS_PSD95_test_v2.tar; name the folder that holds them, or one of them"
        )
    found.require_classes(files.identity["name"])
    if not legacy:
        _settle_sources(found)
        found.keep_sources_in_one_split()
    found.balance(SPLITS if legacy else () if keep_all else ("train",), numpy_sampler)
    return found


def _plan_tar(files: SourceFiles, name: str, split: str, found: Plan) -> None:
    tar = TarMembers(files.local_path(name))
    if tar.damage is not None:
        found.failed[name] = tar.damage
    for number, member in tar.names.items():
        item = f"{name}#{number} {member}"
        try:
            metadata = read_npz(tar.read(number), "metadata").get("metadata", {})
            condition, folder = _facts(member, metadata)
        except Exception as error:  # damaged bytes raise anything; the others go on
            found.failed[item] = f"is damaged ({error or type(error).__name__}); get the archive again"
            continue
        if condition not in CLASSES:
            found.skipped[item] = "is of no class of the set"
            continue
        source = sha256(folder.encode()).hexdigest()[:32] if folder else f"{split}/{member}"
        found.items.append(Item(item, source, split, condition, partial(_read, tar, number)))


def _facts(member: str, metadata: Any) -> tuple[str, str]:
    """Condition and folder of an image; the name tells the condition where the metadata do not."""
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are no dictionary")
    condition = metadata.get("condition")
    folder = metadata.get("img_folder")
    named = member.partition("-PSD95-")[0]
    return (condition if isinstance(condition, str) else named), (folder if isinstance(folder, str) else "")


def _settle_sources(found: Plan) -> None:
    """Sources that are one image only where the metadata name images.

    The authors split by image. If leaving out what shares an img_folder with another split would empty a class, then
    the folders hold several images, and tell nothing of single ones.
    """
    trial = replace(found, items=list(found.items), skipped={}, notes=[])
    trial.keep_sources_in_one_split()
    before, after = ({(item.split, item.label) for item in each.items} for each in (found, trial))
    if before == after:
        return
    splits = defaultdict[str, set[str | None]](set)
    for item in found.items:
        splits[item.source].add(item.split)
    found.items = [
        replace(item, source=f"{item.split}/{item.source}") if len(splits[item.source]) > 1 else item
        for item in found.items
    ]
    found.notes.append(
        "img_folder in the metadata names folders that are in several splits, so it names no single images: sources "
        "are these folders within their split, and only equal pixels show an image that is in two splits"
    )


def _read(tar: TarMembers, number: int) -> list[Crop]:
    arrays = read_npz(tar.read(number), "image", "mask")
    if "image" not in arrays:
        raise ValueError("holds no array image")
    crop = crop_as_stored(arrays["image"])
    mask = arrays.get("mask")
    return [crop if mask is None else replace(crop, mask=(np.asarray(mask) > 0).astype(np.uint8))]
