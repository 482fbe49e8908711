"""Importer of mitochondria: division sites of mitochondria in frames of live acquisitions.

HDF5 files `Mito.h5` and `Proc.h5` with datasets of the same names: 8-bit frames, divided by 255, and division sites,
where values are above 0. Frames 0 to 23999 are the training split, 24000 to 29999 the validation split, and 30000 to
36999 the test split. Frames keep their size.

Source: reference protocol, except for the test split.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from stedfm_hf.data.official.annotated import require_items
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import hdf5_names, image, images, open_hdf5
from stedfm_hf.data.official.plan import Item, Plan
from stedfm_hf.data.repository.layout import STORED_DTYPES, Crop, Scaling
from stedfm_hf.runs import UserError

RANGES = {"train": (0, 24_000), "validation": (24_000, 30_000), "test": (30_000, 37_000)}
"""First frame and end (exclusive) of every split."""
LEGACY_TEST = (24_000, 37_000)
MAX_VALUE = 255
CORRECTIONS = (
    "The test set shares no frame with the validation set; in the reference it contains all of them.",
    "A frame with the same pixels in two splits is kept in the test set, or else in the validation set.",
    "The files do not tell which acquisition a frame belongs to, so every frame counts as a separate source: "
    "consecutive frames may be in two splits.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plan the import of mitochondria.

    Args:
        files: Files of the set.
        legacy: Repeat the flaws of the published code.
        keep_all: Ignored; the set is not balanced.

    Raises:
        UserError: The files are not those of the set.
    """
    planned = Plan((), mask_names={0: "background", 1: "fission"})
    frames, divisions = (_open_dataset(files, name) for name in ("Mito", "Proc"))
    if frames.shape != divisions.shape:
        raise UserError(
            f"{files.identity['name']}: Mito has the shape {frames.shape} and Proc {divisions.shape}; they are not "
            "of the same frames. Download both again."
        )
    ranges = RANGES | ({"test": LEGACY_TEST} if legacy else {})
    for split, (first, end) in ranges.items():
        for row in range(first, min(end, len(frames))):
            item = f"frame {row}" + (" in the test" if legacy and split == "test" else "")
            planned.items.append(Item(item, f"frame {row}", split, None, partial(_read, frames, divisions, row)))
    if (more := len(frames) - max(end for _, end in ranges.values())) > 0:
        planned.notes.append(f"{more} frames after the last one of the published splits were skipped")
    require_items(files.identity["name"], len(planned.items), planned.failed, "frames in Mito.h5")
    return planned


def _open_dataset(files: SourceFiles, name: str) -> Any:
    """Open the dataset (N, H, W) of the file with the same name, `Mito` or `Proc`.

    Raises:
        UserError: There is no such file, more than one, or it cannot be read.
    """
    present = [each for each in hdf5_names(files) if each.rpartition("/")[2].lower().startswith(f"{name.lower()}.")]
    if len(present) != 1:
        raise UserError(
            f"{files.identity['name']}: contains {len(present) or 'no'} {name}.h5; one is needed. Pass the folder "
            "that contains Mito.h5 and Proc.h5."
        )
    try:
        return images(open_hdf5(files, present[0]), name)
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise UserError(f"{present[0]}: cannot be read ({error}); download it again") from error


def _read(frames: Any, divisions: Any, row: int) -> list[Crop]:
    """Read a frame and the mask of its division sites as one crop.

    Raises:
        ValueError: The frame has values that are not finite.
    """
    pixels = image(frames, row)
    if pixels.dtype.name not in STORED_DTYPES:
        pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise ValueError("contains NaN or infinite values")
    mask = (image(divisions, row) > 0).astype(np.uint8)
    return [Crop(pixels, Scaling(0.0, float(MAX_VALUE), applied=False), source="", mask=mask)]
