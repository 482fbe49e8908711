"""Simulated images with a planted grid of spots, whose position is known, and folders of labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from stedfm_hf.data.simulation.fields import bin_emitters, blur, bright_level, random_generator, to_uint16
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.data.simulation.scene import Emitters, Scene
from stedfm_hf.data.simulation.structures import STRUCTURES

WITH, WITHOUT = "with", "without"
BOX_PX, PERIOD_PX = 24, 5
PHYSICS = SimulationSettings(
    height=64, width=64, photons=(60.0, 200.0), background=(0.5, 3.0), coverage=(0.2, 0.35), match_with=()
)
"""Physical parameters; brighter than the default, so that noise does not hide small spots."""
_EMITTERS = 20


@dataclass(frozen=True, eq=False)
class PlantedImage:
    """Simulated image with a planted grid.

    Attributes:
        image: Photon counts, uint16 (H, W).
        box: Rows and columns around the grid in pixels, (top, bottom, left, right), the end excluded, or None.
    """

    image: np.ndarray
    box: tuple[int, int, int, int] | None


def plant(class_name: str, *, seed: int, index: int, physics: SimulationSettings = PHYSICS) -> PlantedImage:
    """Simulate puncta with a grid of 5 x 5 spots at a random position (class "with"), or without it ("without").

    The spots are 100 nm apart, and their peak is 0.4 to 0.6 times the bright level of the puncta: the grid is not the
    brightest object.

    Args:
        class_name: "with" or "without".
        seed: Random seed of the data set, at least 0.
        index: Number of the image within the class and seed, at least 0.
        physics: Physical parameters.
    """
    rng = random_generator(class_name, seed, index)
    scene = Scene(physics.height, physics.width, physics.pixel_size_nm, rng.uniform(*physics.coverage))
    sigma = physics.sigma(rng.uniform(*physics.fwhm_nm))
    signal = blur(bin_emitters(STRUCTURES["puncta"](rng, scene), rng, scene), sigma)
    signal /= bright_level(signal)
    box = None
    if class_name == WITH:
        top, left = (int(rng.integers(size - BOX_PX + 1)) for size in signal.shape)
        box = (top, top + BOX_PX, left, left + BOX_PX)
        at = np.arange(2, BOX_PX, PERIOD_PX)
        spots = np.stack(np.meshgrid(top + at, left + at, indexing="ij"), axis=-1).reshape(-1, 2)
        position = np.repeat(spots, _EMITTERS, axis=0) + rng.normal(0.0, 0.4, (len(spots) * _EMITTERS, 2))
        grid = blur(bin_emitters(Emitters(position, np.ones(len(position))), rng, scene), sigma)
        signal += grid * np.float32(rng.uniform(0.4, 0.6) / grid.max())
    counts = signal * rng.uniform(*physics.photons) + rng.uniform(*physics.background)
    return PlantedImage(to_uint16(rng.poisson(counts)), box)


def write_classes(folder: Path, splits: Mapping[str, Mapping[str, Iterable[np.ndarray]]]) -> None:
    """Write images as `folder/SPLIT/CLASS/NNNNN.tif`, which the commands read as a labelled data set.

    Args:
        folder: Folder to write.
        splits: Images (H, W) of each class of each split.
    """
    for split, classes in splits.items():
        for name, images in classes.items():
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for number, image in enumerate(images):
                # Ids of sources come from file names: the same name in two splits would be one source image.
                tifffile.imwrite(folder / split / name / f"{split}_{name}_{number:05d}.tif", image)
