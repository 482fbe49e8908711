"""Importer of optim, also called SO: four structures of optim-nanoscopy with quality scores.

Folders `optim_train`, `optim_valid` and `optim-data` (the test set) with one folder per class; files
`...-<score>.npz` with the array `arr_0`. Images with a score of 0.70 or more are kept and scaled by their minimum and
maximum.

Source: reference protocol.
"""

from __future__ import annotations

import re
from functools import partial

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.npz import read_npz
from stedfm_hf.data.official.pixels import minmax_crops
from stedfm_hf.data.official.plan import Item, Plan
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.runs import UserError

CLASSES = ("actin", "tubulin", "CaMKII_Neuron", "PSD95_Neuron")
FOLDERS = {"optim_train": "train", "optim_valid": "validation", "optim-data": "test"}
MIN_SCORE = 0.70
CORRECTIONS = (
    "An image without contrast becomes zeros; the reference divides by zero and returns NaN.",
    "An image with the same pixels in two splits is kept in the test set, or else in the validation set.",
    "The files do not tell which acquisition they belong to, so every file counts as a separate source.",
)
_SCORE = re.compile(r"-(0(?:\.\d+)?|1(?:\.0*)?)\.npz", re.IGNORECASE)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of optim.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(CLASSES)
    classes: dict[str, set[str]] = {}
    for name in files.names:
        parts = files.parts(name)
        level = max((n for n, part in enumerate(parts[:-2]) if part in FOLDERS), default=None)
        if level is None or not name.lower().endswith(".npz"):
            planned.skipped[name] = "not a .npz file in a class folder"
            continue
        folder, label = parts[level], parts[level + 1]
        if label not in CLASSES:
            planned.skipped[name] = "the folder is not a class of the set"
            continue
        classes.setdefault(folder, set()).add(label)
        score = _SCORE.search(parts[-1])
        if score is None:
            planned.skipped[name] = "no score in the file name"
        elif float(score[1]) < MIN_SCORE:
            planned.skipped[name] = f"score below {MIN_SCORE:.2f}"
        else:
            read = partial(_read, files, name, float(score[1]), legacy)
            planned.items.append(Item(name, "/".join(parts[level:]), FOLDERS[folder], label, read))
    if not classes:
        raise UserError(
            f"{files.identity['name']}: contains none of the folders {', '.join(FOLDERS)}. Pass the folder that "
            "contains them, one of them, or the zip."
        )
    for folder, labels in classes.items():
        if missing := [label for label in CLASSES if label not in labels]:
            raise UserError(f"{folder}: no folder {', '.join(missing)} with images. Download the whole set again.")
    return planned


def _read(files: SourceFiles, name: str, score: float, legacy: bool) -> list[Crop]:
    """Read the whole image as one crop, with its score in the metadata; raise `ValueError` if there is none."""
    arrays = read_npz(files.read(name), "arr_0")
    if "arr_0" not in arrays:
        raise ValueError("contains no array arr_0")
    crops = minmax_crops(arrays["arr_0"], size=None, legacy=legacy)
    for crop in crops:
        crop.metadata["score"] = score
    return crops
