"""Morphology features of the images of an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stedfm_hf.data.sources import ImageFile
from stedfm_hf.discovery.index.opened import Index
from stedfm_hf.evaluation.morphology import MORPHOLOGY, PIXEL_SIZE_UM, morphology_features
from stedfm_hf.images.folders import FoundImage
from stedfm_hf.images.mask_names import pair_masks
from stedfm_hf.labels.annotated.annotation_files import read_mask
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.runs import Progress, UserError, counted, print_note
from stedfm_hf.runs.wording import some_of

OBJECTS = "objects"
"""Name of the column with the number of objects."""


def image_features(index: Index, masks: str | Path | None = None) -> dict[str, np.ndarray]:
    """Compute the 13 morphology features of every image, and its number of objects.

    Each image is scaled by the default processor, and has its pixel size (15 nm if it is unknown).

    Args:
        index: Index whose images are found.
        masks: Folder of the masks of the objects; None detects bright spots.

    Returns:
        Features (n,) float64 by name, and `objects`.

    Raises:
        UserError: If images or masks are missing or cannot be read.
    """
    processor = StedFmImageProcessor()
    files = None if masks is None else _mask_files(index, masks)
    values, objects, unknown = [], [], 0
    with Progress(len(index), description="morphology", unit="images") as progress:
        for number in range(len(index)):
            image = index.read(number)
            if image is None:
                path = index.item(number)["path"]
                raise UserError(
                    f"{path}: is not found, or cannot be read; give the folder of the images with --images"
                )
            unknown += image.pixel_size_nm is None
            size = PIXEL_SIZE_UM if image.pixel_size_nm is None else float(np.mean(image.pixel_size_nm)) / 1000
            plane = processor.prepare(image)[0]
            given = None if files is None else read_mask(files[index.item(number)["path"]], plane.shape).planes
            mask = None if given is None else [np.any(given > 0, axis=0)]
            found = morphology_features([plane], mask, pixel_size_um=size)
            values.append(found.values[0])
            objects.append(found.objects[0])
            progress.update()
    if unknown:
        print_note(f"note: {counted(unknown, 'image')} without a pixel size; {PIXEL_SIZE_UM * 1000:g} nm is assumed")
    if empty := objects.count(0):
        print_note(f"note: {counted(empty, 'image')} without objects; features of objects are 0")
    columns = np.array(values, np.float64).reshape(-1, len(MORPHOLOGY))
    return {**dict(zip(MORPHOLOGY, columns.T, strict=True)), OBJECTS: np.array(objects, np.float64)}


def _mask_files(index: Index, masks: str | Path) -> dict[str, Path]:
    """Return the file of the mask of every image, by path.

    Raises:
        UserError: If an image has no mask, or more than one.
    """
    images = {}
    for number in range(len(index)):
        item = index.item(number)
        source = index.source(item)
        if isinstance(source, ImageFile):
            images[item["path"]] = FoundImage(source.file, item["path"])
    found = pair_masks(list(images.values()), masks).masks
    wrong = [path for path in index.items["path"].to_pylist() if len(found.get(path, ())) != 1]
    if wrong:
        raise UserError(
            f"--masks {masks}: {counted(len(wrong), 'image')} without exactly one mask ({some_of(wrong)}); name the "
            "mask like its image"
        )
    return {path: files[0] for path, files in found.items()}
