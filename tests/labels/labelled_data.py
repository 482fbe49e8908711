"""Small labelled data sets for the tests, whose classes differ in brightness and grain size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tifffile

from stedfm_hf.data.repository.layout import Crop, Scaling
from stedfm_hf.labels.labelled import LabelledImages, from_arrays
from tests.data.assembled import as_table
from tests.data.repos import CARD


def sample_image(kind: int, seed: int, size: int = 32) -> np.ndarray:
    """Return uint16 noise whose grain size and brightness depend on its class."""
    rng = np.random.default_rng([kind, seed])
    grain = 2**kind
    coarse = rng.poisson(40 + 30 * kind, (size // grain, size // grain))
    return np.kron(coarse, np.ones((grain, grain))).astype(np.uint16)


def class_folder(folder: Path, counts: Mapping[str, int], size: int = 32) -> Path:
    """Write a folder with the given number of TIFFs of each class."""
    for kind, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            tifffile.imwrite(folder / name / f"{number:03d}.tif", sample_image(kind, number, size))
    return folder


def crop_repo(
    folder: Path, splits: Mapping[str, Sequence[tuple[str | None, str]]], metadata: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """Write a data set with crops of these labels and sources in each split; metadata has one entry per crop."""
    (folder / "data").mkdir(parents=True)
    names = sorted({label for rows in splits.values() for label, _ in rows if label is not None})
    number = 0
    lines = []
    for split, rows in splits.items():
        crops = []
        for label, source in rows:
            kind = names.index(label) if label is not None else 0
            facts = dict(metadata[number]) if metadata else {}
            scaling = Scaling(0.0, 200.0, applied=False)
            crops.append(Crop(sample_image(kind, number), scaling, source, label, metadata=facts))
            number += 1
        pq.write_table(as_table(crops, names), folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=4)
        lines.append(f"  - split: {split}\n    path: data/{split}-*.parquet\n")
    # The datasets library caches rows by name and version, so each test needs a different version.
    card = CARD.format(version=abs(hash(str(folder))) % 10**6).partition("  - split")[0]
    (folder / "README.md").write_text(card + "".join(lines) + "---\n", encoding="utf-8")
    return folder


def arrays(per_class: int, classes: str = "abc", *, per_source: int = 1, size: int = 32) -> LabelledImages:
    """Return labelled images in memory."""
    images = [sample_image(kind, number, size) for kind in range(len(classes)) for number in range(per_class)]
    labels = [name for name in classes for _ in range(per_class)]
    sources = [f"{name}{number // per_source}" for name in classes for number in range(per_class)]
    return from_arrays("pictures", images, labels, sources=sources)


__all__ = ["arrays", "class_folder", "crop_repo", "sample_image"]
