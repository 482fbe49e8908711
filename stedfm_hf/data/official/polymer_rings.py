"""polymer-rings: ESCRT-III rings in archaea, by the protein that is shown.

TIFF files whose names, split at "_", have the proteins of their channels from the fourth word on: a file is an image
of CdvB1 and one of CdvB2 where it has both. Min-max of each image, zeros to the right and below up to 224 pixels.
Splits by the authors' lists, or as these were made: 70, 15 and 15 of a hundred by seed 42. With four classes, a folder
of the path says whether CdvB is there, too. (Reference protocol.)
"""

from __future__ import annotations

from functools import partial

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.pixels import padded_crops, read_plane
from stedfm_hf.data.official.plan import Item, Plan, find_classes, list_tiff_files, random_splits, read_split_lists
from stedfm_hf.data.repository.layout import Crop

PROTEINS = ("CdvB1", "CdvB2")
BACKGROUNDS = ("with_CdvB", "no_CdvB")
CLASSES = PROTEINS
FOUR_CLASSES = tuple(f"{protein} ({background})" for protein in PROTEINS for background in BACKGROUNDS)
FIRST_PROTEIN = 3
CORRECTED = (
    "Images larger than 224 pixels are cut on a grid; the reference fails at them.",
    "An image without contrast becomes zeros; the reference divides by zero and gets NaN.",
    "An image that lies in two splits stays in the test set, else in validation.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool, four_classes: bool = False) -> Plan:
    """Plans the import."""
    found = Plan(FOUR_CLASSES if four_classes else CLASSES)
    pairs = read_split_lists(files, "polymer-rings", found)
    if pairs is None:
        pairs = random_splits(list_tiff_files(files), {"train": 0.7, "validation": 0.15, "test": 0.15})
        found.notes.append("the source has no lists of files: splits are made by the rule that the lists were made by")
    for name, split in pairs:
        words = name.rpartition("/")[2].rpartition(".")[0].split("_")
        backgrounds = find_classes("/".join(files.parts(name)), BACKGROUNDS)
        shown = [protein for protein in PROTEINS if protein in words[FIRST_PROTEIN:]]
        if not shown:
            found.skipped[name] = "names none of the proteins from its fourth word on"
        elif four_classes and len(backgrounds) != 1:
            found.skipped[name] = f"its path names not one of {', '.join(BACKGROUNDS)}"
        else:
            for protein in shown:
                label = f"{protein} ({backgrounds[0]})" if four_classes else protein
                channel = words.index(protein, FIRST_PROTEIN) - FIRST_PROTEIN
                item = name if len(shown) == 1 else f"{name} {protein}"
                found.items.append(Item(item, name, split, label, partial(_read, files, name, channel, legacy)))
    found.require_classes(files.identity["name"])
    if not legacy:
        found.keep_sources_in_one_split()
    return found


def _read(files: SourceFiles, name: str, channel: int, legacy: bool) -> list[Crop]:
    return padded_crops(read_plane(files.read(name), channel), legacy=legacy)
