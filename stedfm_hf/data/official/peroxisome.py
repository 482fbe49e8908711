"""Importer of peroxisome: Pex3 of yeast after 4, 6, 8 and 16 hours on methanol.

First channel of TIFF files, scaled by the minimum and maximum of each image and padded with zeros at the right and
bottom to 224 pixels. Splits follow the authors' lists `peroxisome-{training,validation,testing}.txt`, or the rule that
produced them: the replicate "Triplo" is the test set; the rest is split 80 to 20 with seed 42.

Source: reference protocol.
"""

from __future__ import annotations

from functools import partial

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.pixels import padded_crops, read_plane
from stedfm_hf.data.official.plan import (
    NO_LISTS,
    Item,
    Plan,
    classes_in,
    listed_splits,
    python_sampler,
    seeded_splits,
    tiff_names,
)
from stedfm_hf.data.repository.layout import SPLITS, Crop

CLASSES = ("4hMeOH", "6hMeOH", "8hMeOH", "16hMeOH")
CORRECTIONS = (
    "A class is a whole word of the path; in the reference, 6hMeOH matches 16hMeOH, and images of 16 hours have both "
    "labels.",
    "Validation and test keep all images; the reference balances the classes of every split without a seed. The "
    "training split is balanced with seed 42; --keep-all keeps all of it.",
    "Images larger than 224 pixels are split into crops on a grid; the reference fails on them.",
    "An image without contrast becomes zeros; the reference divides by zero and returns NaN.",
    "An image in two splits is kept in the test set, or else in the validation set.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of peroxisome.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Keep all training images instead of balancing the classes.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(CLASSES)
    pairs = listed_splits(files, "peroxisome", planned)
    if pairs is None:
        names = tiff_names(files, "FigureImages", "_conf")
        pairs = [(name, "test") for name in names if "Triplo" in name]
        pairs += seeded_splits([name for name in names if "Triplo" not in name], {"train": 0.8, "validation": 0.2})
        planned.notes.append(NO_LISTS)
    for name, split in pairs:
        path = "/".join(files.parts(name))
        labels = [each for each in CLASSES if each in path] if legacy else classes_in(path, CLASSES)
        if not labels:
            planned.skipped[name] = "the path contains no class of the set"
        elif len(labels) > 1 and not legacy:
            planned.failed[name] = f"the path contains more than one class ({', '.join(labels)}). Rename the file."
        for label in labels if legacy or len(labels) == 1 else ():
            item = name if len(labels) == 1 else f"{name} as {label}"
            planned.items.append(Item(item, name, split, label, partial(_read, files, name, legacy)))
    planned.require_classes(files.identity["name"])
    if not legacy:
        planned.keep_one_split_per_source()
    planned.balance(SPLITS if legacy else () if keep_all else ("train",), python_sampler)
    return planned


def _read(files: SourceFiles, name: str, legacy: bool) -> list[Crop]:
    return padded_crops(read_plane(files.read(name), 0), legacy=legacy)
