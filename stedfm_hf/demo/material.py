"""The images a demo works on: simulated, or the user's own, scaled as `embed` scales them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stedfm_hf.data import SimulationSettings, write_images
from stedfm_hf.images import ImageReadError, find_images, read_series
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.reports.figures import middle

LARGEST_SIDE = 2048

PHYSICS = SimulationSettings(height=128, width=128, photons=(20.0, 80.0), background=(0.3, 1.5), coverage=(0.45, 0.65))
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
    first = 0
    for name, count in (("train", sizes.train), ("test/gallery", sizes.gallery), ("test/query", sizes.query)):
        write_images(folder / name, per_structure=count, seed=seed, first_index=first, settings=PHYSICS)
        first += count
    return folder / "train", folder / "test"


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


def folder_labels(paths: Sequence[str], *, simulated: bool = False) -> list[str | None]:
    """Labels from folder names: the first folder of a path (behind `gallery` or `query` of a simulated one).

    Images have labels only where all of them lie in folders, of which there are two or more with two files or more.

    Example:
        >>> folder_labels(["a/1.tif", "a/2.tif", "b/1.tif", "b/2.tif"])
        ['a', 'a', 'b', 'b']
        >>> folder_labels(["1.tif", "2.tif"])
        [None, None]
    """
    depth = 1 if simulated else 0
    parts = [path.split("/") for path in paths]
    if any(len(part) < depth + 2 for part in parts):
        return [None] * len(paths)
    names = [part[depth] for part in parts]
    files = Counter(name for _, name in set(zip(paths, names, strict=True)))
    if len(files) < 2 or min(files.values()) < 2:
        return [None] * len(paths)
    return list(names)
