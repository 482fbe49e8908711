"""optim, also called SO: structures of the set of optim-nanoscopy, with a score of quality.

Folders `optim_train`, `optim_valid` and `optim-data` (the test set) with a folder for each class; files
`...-<score>.npz` with the array `arr_0`. Kept from a score of 0.70 on; min-max of each image. (Reference protocol.)
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
LEAST_SCORE = 0.70
CORRECTED = (
    "An image without contrast becomes zeros; the reference divides by zero and gets NaN.",
    "An image that lies in two splits with the same pixels stays in the test set, else in validation.",
    "The files do not say which recording they are of, so every file counts as a source image of its own.",
)
_SCORE = re.compile(r"-(0(?:\.\d+)?|1(?:\.0*)?)\.npz", re.IGNORECASE)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan(CLASSES)
    classes: dict[str, set[str]] = {}
    for name in files.names:
        parts = files.parts(name)
        place = max((n for n, part in enumerate(parts[:-2]) if part in FOLDERS), default=None)
        if place is None or not name.lower().endswith(".npz"):
            found.skipped[name] = "is no .npz file in a folder of a class"
            continue
        folder, label = parts[place], parts[place + 1]
        if label not in CLASSES:
            found.skipped[name] = "is of no class of the set"
            continue
        classes.setdefault(folder, set()).add(label)
        score = _SCORE.search(parts[-1])
        if score is None:
            found.skipped[name] = "has no score in its name"
        elif float(score[1]) < LEAST_SCORE:
            found.skipped[name] = f"its score is below {LEAST_SCORE:.2f}"
        else:
            read = partial(_read, files, name, float(score[1]), legacy)
            found.items.append(Item(name, "/".join(parts[place:]), FOLDERS[folder], label, read))
    if not classes:
        raise UserError(
            f"{files.identity['name']}: has none of the folders {', '.join(FOLDERS)}; name the folder that holds "
            "them, one of them, or the zip"
        )
    for folder, labels in classes.items():
        if missing := [label for label in CLASSES if label not in labels]:
            raise UserError(f"{folder}: has no folder {', '.join(missing)} with images; get the whole set again")
    return found


def _read(files: SourceFiles, name: str, score: float, legacy: bool) -> list[Crop]:
    arrays = read_npz(files.read(name), "arr_0")
    if "arr_0" not in arrays:
        raise ValueError("holds no array arr_0")
    crops = minmax_crops(arrays["arr_0"], size=None, legacy=legacy)
    for crop in crops:
        crop.metadata["score"] = score
    return crops
