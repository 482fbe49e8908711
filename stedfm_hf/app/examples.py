"""Simulated images that come with the app: examples to try it with, and an index to search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from stedfm_hf.data.simulation.fields import simulate_field
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.data.simulation.structures import STRUCTURES

SEED = 20_261
INDEX_SIZE, INDEX_COUNT = 192, 8
"""Size of the images of the index in pixels, and their number for each structure."""
EXAMPLES: dict[str, tuple[tuple[str, ...], int]] = {
    "Rings": (("rings",), 256),
    "Microtubules": (("microtubules",), 256),
    "Rings and fibres": (("rings", "fibres"), 512),
}
"""Structures and size in pixels of the examples, by name."""


def write_examples(folder: Path) -> dict[str, Path]:
    """Simulate the example images as 16-bit TIFF files with their pixel size.

    Args:
        folder: Folder of the files.

    Returns:
        File of each example.
    """
    files = {}
    for name, (structures, size) in EXAMPLES.items():
        files[name] = folder / f"simulated {name.lower()}.tif"
        _write(files[name], structures, size, index=0)
    return files


def write_index_images(folder: Path) -> Path:
    """Simulate the images of the index, in one folder for each structure.

    Args:
        folder: Folder of the images.

    Returns:
        The folder.
    """
    for structure in STRUCTURES:
        for number in range(INDEX_COUNT):
            _write(folder / structure / f"{structure}_{number:02}.tif", (structure,), INDEX_SIZE, index=number + 1)
    return folder


def _write(file: Path, structures: tuple[str, ...], size: int, *, index: int) -> None:
    settings = SimulationSettings(height=size, width=size)
    image = simulate_field(structures, seed=SEED, index=index, settings=settings).image
    file.parent.mkdir(parents=True, exist_ok=True)
    per_um = 1000.0 / settings.pixel_size_nm
    tifffile.imwrite(
        file, image.astype(np.uint16), imagej=True, resolution=(per_um, per_um), metadata={"unit": "um", "axes": "YX"}
    )
