"""Small annotated data sets for the tests: folders of images and masks, and crops with masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow.parquet as pq
import tifffile

from stedfm_hf.data.assembly.assemble import index_of
from stedfm_hf.data.repository.layout import Crop, Scaling
from stedfm_hf.runs import write_json
from tests.data.assembled import as_table
from tests.data.repos import CARD

SHAPE = (12, 16)


def sample_image(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return uint16 noise."""
    return np.random.default_rng(seed).poisson(50, shape).astype(np.uint16)


def label_mask(*values: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return a mask whose first rows hold these values, one row each, and 0 below."""
    mask = np.zeros(shape, np.uint8)
    for row, value in enumerate(values):
        mask[row] = value
    return mask


def pair_folder(folder: Path, masks: Mapping[str, np.ndarray | None]) -> Path:
    """Write `images/` and `masks/` with a pair of TIFFs per name; None writes no mask."""
    for number, (name, mask) in enumerate(masks.items()):
        for kind, array in (("images", sample_image(number)), ("masks", mask)):
            file = folder / kind / f"{name}.tif"
            file.parent.mkdir(parents=True, exist_ok=True)
            if array is not None:
                tifffile.imwrite(file, array, photometric="minisblack")
    return folder


def masked_repo(
    folder: Path,
    splits: Mapping[str, Sequence[tuple[np.ndarray | None, str]]],
    mask_names: Mapping[int, str] = MappingProxyType({}),
) -> Path:
    """Write a data set with crops of these masks and sources in each split."""
    (folder / "data").mkdir(parents=True)
    lines, number = [], 0
    for split, rows in splits.items():
        crops = []
        for mask, source in rows:
            crops.append(Crop(sample_image(number), Scaling(0.0, 100.0, applied=False), source, mask=mask))
            number += 1
        pq.write_table(as_table(crops), folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=2)
        lines.append(f"  - split: {split}\n    path: data/{split}-*.parquet\n")
    # The datasets library caches rows by name and version, so each test needs a different version.
    card = CARD.format(version=abs(hash(str(folder))) % 10**6).partition("  - split")[0]
    (folder / "README.md").write_text(card + "".join(lines) + "---\n", encoding="utf-8")
    write_json(folder / "index.json", index_of({}, mask_names=mask_names))
    return folder
