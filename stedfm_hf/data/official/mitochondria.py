"""mitochondria: where mitochondria divide, in frames of live recordings.

HDF5 files `Mito.h5` and `Proc.h5` with data sets of the same names: frames of 8 bit, divided by 255, and where the
division is, above 0. The frames 0 to 23999 are for training, 24000 to 29999 for validation, 30000 to 36999 for the
test. (Reference protocol, but for the test; frames keep the size they have in the file.)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from stedfm_hf.data.official.annotated import require_items
from stedfm_hf.data.official.files import SourceFiles
from stedfm_hf.data.official.hdf5 import get_images, list_hdf5_files, open_hdf5, read_image
from stedfm_hf.data.official.plan import Item, Plan
from stedfm_hf.data.repository.layout import STORED_DTYPES, Crop, Scaling
from stedfm_hf.runs import UserError

RANGES = {"train": (0, 24_000), "validation": (24_000, 30_000), "test": (30_000, 37_000)}
"""Frames of every split."""
LEGACY_TEST = (24_000, 37_000)
LARGEST = 255
CORRECTED = (
    "The test set has no frame of the validation set; in the reference it holds all of them.",
    "A frame that lies in two splits with the same pixels stays in the test set, else in validation.",
    "The files do not say which recording a frame is of, so every frame counts as a source of its own: neighbours "
    "in time may be in two splits.",
)


def plan(files: SourceFiles, *, legacy: bool, keep_all: bool) -> Plan:
    """Plans the import."""
    found = Plan((), mask_names={0: "background", 1: "fission"})
    frames, divisions = (_data_set(files, name) for name in ("Mito", "Proc"))
    if frames.shape != divisions.shape:
        raise UserError(
            f"{files.identity['name']}: Mito is {frames.shape}, Proc {divisions.shape}: they are not of the same "
            "frames; get both again"
        )
    ranges = RANGES | ({"test": LEGACY_TEST} if legacy else {})
    for split, (first, end) in ranges.items():
        for row in range(first, min(end, len(frames))):
            item = f"frame {row}" + (" in the test" if legacy and split == "test" else "")
            found.items.append(Item(item, f"frame {row}", split, None, partial(_read, frames, divisions, row)))
    if (more := len(frames) - max(end for _, end in ranges.values())) > 0:
        found.notes.append(f"{more} frames after the last of the published splits were left out")
    require_items(files.identity["name"], len(found.items), found.failed, "frames in Mito.h5")
    return found


def _data_set(files: SourceFiles, name: str) -> Any:
    there = [each for each in list_hdf5_files(files) if each.rpartition("/")[2].lower().startswith(f"{name.lower()}.")]
    if len(there) != 1:
        raise UserError(
            f"{files.identity['name']}: holds {'no' if not there else len(there)} {name}.h5; name the folder that "
            "holds Mito.h5 and Proc.h5"
        )
    try:
        return get_images(open_hdf5(files, there[0]), name)
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise UserError(f"{there[0]}: cannot be read ({error}); get it again") from error


def _read(frames: Any, divisions: Any, row: int) -> list[Crop]:
    pixels = read_image(frames, row)
    if pixels.dtype.name not in STORED_DTYPES:
        pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise ValueError("holds values that are NaN or infinite")
    mask = (read_image(divisions, row) > 0).astype(np.uint8)
    return [Crop(pixels, Scaling(0.0, float(LARGEST), applied=False), source="", mask=mask)]
