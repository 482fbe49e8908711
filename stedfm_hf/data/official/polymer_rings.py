"""Importer of polymer-rings: ESCRT-III rings in archaea, classified by the imaged protein.

TIFF files whose names, split at "_", list the proteins of their channels from the fourth word on. A file with both
proteins gives one image of CdvB1 and one of CdvB2. Each image is scaled by its minimum and maximum and padded with
zeros at the right and bottom to 224 pixels. Splits follow the authors' lists, or the rule that produced them: 70 %,
15 % and 15 %, shuffled with seed 42. With four classes, a folder in the path tells whether CdvB is present.

Source: reference protocol.
"""

from __future__ import annotations

from functools import partial

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.pixels import padded_crops, read_plane
from stedfm_hf.data.official.plan import NO_LISTS, Item, Plan, classes_in, listed_splits, seeded_splits, tiff_names
from stedfm_hf.data.repository.layout import Crop

PROTEINS = ("CdvB1", "CdvB2")
BACKGROUNDS = ("with_CdvB", "no_CdvB")
CLASSES = PROTEINS
FOUR_CLASSES = tuple(f"{protein} ({background})" for protein in PROTEINS for background in BACKGROUNDS)
FIRST_PROTEIN = 3
CORRECTIONS = (
    "Images larger than 224 pixels are split into crops on a grid; the reference fails on them.",
    "An image without contrast becomes zeros; the reference divides by zero and gets NaN.",
    "An image in two splits is kept in the test set, or else in the validation set.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool, four_classes: bool = False) -> Plan:
    """Plan the import of polymer-rings.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.
        four_classes: Distinguish images with and without CdvB.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan(FOUR_CLASSES if four_classes else CLASSES)
    pairs = listed_splits(files, "polymer-rings", planned)
    if pairs is None:
        pairs = seeded_splits(tiff_names(files), {"train": 0.7, "validation": 0.15, "test": 0.15})
        planned.notes.append(NO_LISTS)
    for name, split in pairs:
        words = name.rpartition("/")[2].rpartition(".")[0].split("_")
        backgrounds = classes_in("/".join(files.parts(name)), BACKGROUNDS)
        shown = [protein for protein in PROTEINS if protein in words[FIRST_PROTEIN:]]
        if not shown:
            planned.skipped[name] = "the file name contains neither CdvB1 nor CdvB2 from its fourth word on"
        elif four_classes and len(backgrounds) != 1:
            planned.skipped[name] = f"the path does not contain exactly one of {', '.join(BACKGROUNDS)}"
        else:
            for protein in shown:
                label = f"{protein} ({backgrounds[0]})" if four_classes else protein
                channel = words.index(protein, FIRST_PROTEIN) - FIRST_PROTEIN
                item = name if len(shown) == 1 else f"{name} {protein}"
                planned.items.append(Item(item, name, split, label, partial(_read, files, name, channel, legacy)))
    planned.require_classes(files.identity["name"])
    if not legacy:
        planned.keep_one_split_per_source()
    return planned


def _read(files: SourceFiles, name: str, channel: int, legacy: bool) -> list[Crop]:
    return padded_crops(read_plane(files.read(name), channel), legacy=legacy)
