"""The images a demo works on: simulated, or the user's own, scaled as `embed` scales them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.data.building.labels import folder_labels
from stedfm_hf.data.simulation.simulate import simulate as simulate_set
from stedfm_hf.images import ImageReadError, find_images, read_series
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.reports.figures import middle

LARGEST_SIDE = 2048

STRUCTURES = ("rings", "fibres", "microtubules", "puncta")
"""Four of the seven structures: those that a minute or two of training can begin to tell apart."""

PHYSICS: dict[str, Any] = {
    "height": 128,
    "width": 128,
    "photons": (20.0, 80.0),
    "background": (0.3, 1.5),
    "coverage": (0.45, 0.65),
    "match_with": list(STRUCTURES),
}
"""Small dense fields with the counts of real STED images: a minute of training has none to spare for empty patches."""

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Sizes:
    """How many images of each structure are simulated for the training, the gallery and the queries."""

    train: int = 300
    gallery: int = 150
    query: int = 60


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, and what is known about it.

    Args:
        path: relative to the folder it was found under.
        pixels: (H, W) float32 in [0, 1]; of an image larger than `LARGEST_SIDE` its middle.
        pixel_size_nm: side of a pixel along x, or None.
        label: name of its class, or None.
        part: "gallery", "query" or "all".
    """

    path: str
    pixels: np.ndarray
    pixel_size_nm: float | None
    label: str | None
    part: str


def simulate(folder: Path, *, sizes: Sizes, seed: int) -> tuple[Path, Path]:
    """Writes the simulated files; the three sets have indices, hence fields, of their own.

    Returns:
        The folder to train on, and the folder to embed, with `gallery` and `query` in it.
    """
    parts: dict[str, dict[str, Any]] = {
        "train": {"per_structure": sizes.train},
        "test": {"splits": {"gallery": sizes.gallery, "query": sizes.query}, "first_index": sizes.train},
    }
    for name, fields in parts.items():
        # One process: a notebook's or a script's own code must not run again for the sake of a demo.
        simulate_set(
            folder / name, structures=list(STRUCTURES), seed=seed, masks=False, workers=1, **PHYSICS, **fields
        )
    return folder / "train" / "images", folder / "test" / "images"


def load_pixels(
    folder: Path, processor: StedFmImageProcessor
) -> tuple[dict[Key, tuple[np.ndarray, float | None]], dict[str, str]]:
    """Reads and scales every image below a folder, as `embed` does.

    Returns:
        By path, series and channel, the pixels (H, W) in [0, 1] and the pixel size; and by path, why a file could
        not be read.
    """
    found: dict[Key, tuple[np.ndarray, float | None]] = {}
    failed: dict[str, str] = {}
    for image in find_images([folder]).images:
        try:
            for one in read_series(image.file):
                planes = processor.prepare(one, channel=None)
                size = processor.target_pixel_size_nm or (one.pixel_size_nm[1] if one.pixel_size_nm else None)
                for name, plane in zip(one.channel_names, planes, strict=True):
                    kept = middle(plane, LARGEST_SIDE) if max(plane.shape) > LARGEST_SIDE else plane
                    found[image.path, one.series, name] = kept, size
        except (ImageReadError, OSError, ValueError) as error:
            failed[image.path] = str(error)
    return found, failed


def pictures_of(
    table: pa.Table, pixels: dict[Key, tuple[np.ndarray, float | None]], *, simulated: bool
) -> list[Picture]:
    """The image of every row of an embedding table, with its label from the folder it lies in."""
    rows = table.select(["path", "series", "channel"]).to_pylist()
    labels = folder_labels([row["path"] for row in rows], simulated=simulated)
    pictures = []
    for row, label in zip(rows, labels, strict=True):
        plane, size = pixels[row["path"], row["series"], row["channel"]]
        part = row["path"].split("/")[0] if simulated else "all"
        pictures.append(Picture(row["path"], plane, size, label, part))
    return pictures
