"""peroxisome: Pex3 of yeast after 4, 6, 8 and 16 hours on methanol.

TIFF files, their first channel; min-max of each image, zeros to the right and below up to 224 pixels. Splits by the
authors' lists `peroxisome-{training,validation,testing}.txt`, or as these were made: the replicate "Triplo" is the
test set, the rest is dealt 80 to 20 by seed 42. (Reference protocol.)
"""

from __future__ import annotations

from functools import partial

from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.pixels import padded_crops, read_plane
from stedfm_hf.data.official.plan import (
    Item,
    Plan,
    find_classes,
    list_tiff_files,
    python_sampler,
    random_splits,
    read_split_lists,
)
from stedfm_hf.data.repository.layout import SPLITS, Crop

CLASSES = ("4hMeOH", "6hMeOH", "8hMeOH", "16hMeOH")
CORRECTED = (
    "A class is a whole word of the path; in the reference 6hMeOH is found in 16hMeOH, and images of 16 hours carry "
    "both labels.",
    "Validation and test keep all images; the reference takes as many of each class as the rarest has, without a "
    "seed. The training split is drawn so, by seed 42; --keep-all keeps all of it.",
    "Images larger than 224 pixels are cut on a grid; the reference fails at them.",
    "An image without contrast becomes zeros; the reference divides by zero and gets NaN.",
    "An image that lies in two splits stays in the test set, else in validation.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan(CLASSES)
    pairs = read_split_lists(files, "peroxisome", found)
    if pairs is None:
        names = list_tiff_files(files, "FigureImages", "_conf")
        pairs = [(name, "test") for name in names if "Triplo" in name]
        pairs += random_splits([name for name in names if "Triplo" not in name], {"train": 0.8, "validation": 0.2})
        found.notes.append("the source has no lists of files: splits are made by the rule that the lists were made by")
    for name, split in pairs:
        path = "/".join(files.parts(name))
        labels = [each for each in CLASSES if each in path] if legacy else find_classes(path, CLASSES)
        if not labels:
            found.skipped[name] = "is of no class of the set"
        elif len(labels) > 1 and not legacy:
            found.failed[name] = f"its path names several classes ({', '.join(labels)}); rename it"
        for label in labels if legacy or len(labels) == 1 else ():
            item = name if len(labels) == 1 else f"{name} as {label}"
            found.items.append(Item(item, name, split, label, partial(_read, files, name, legacy)))
    found.require_classes(files.identity["name"])
    if not legacy:
        found.keep_sources_in_one_split()
    found.balance(SPLITS if legacy else () if keep_all else ("train",), python_sampler)
    return found


def _read(files: SourceFiles, name: str, legacy: bool) -> list[Crop]:
    return padded_crops(read_plane(files.read(name), 0), legacy=legacy)
