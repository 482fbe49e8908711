"""Simulated images of the benchmark of planted phenotypes, with one nanoscale property changed, and their features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from stedfm_hf.data.simulation import structures
from stedfm_hf.data.simulation.fields import simulate_image
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.data.simulation.scene import Emitters, Scene
from stedfm_hf.evaluation.morphology import morphology_features
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.modeling.tiling_stedfm import encode_images

CROP_PX, IMAGE_CROPS = 128, 2
PIXEL_UM = 0.02
KINDS = ("encoder `demo`", "morphology")
"""Kinds of features."""


Place = Callable[[np.random.Generator, Scene], Emitters]


def larger(
    place: Callable[[np.random.Generator, Scene], Emitters], factor: float, rng: np.random.Generator, scene: Scene
) -> Emitters:
    """Place a structure whose lengths are all longer by a factor, with the same coverage."""
    return place(rng, replace(scene, pixel_size_nm=scene.pixel_size_nm / factor))


@contextmanager
def longer_period(nanometres: float) -> Iterator[None]:
    """Change the period of the rings."""
    with mock.patch.object(structures, "RING_PERIOD_NM", nanometres):
        yield


@contextmanager
def larger_clusters(factor: float) -> Iterator[None]:
    """Change the size of the clusters."""
    changed = partial(larger, structures.clusters, factor)
    with mock.patch.dict(structures.STRUCTURES, {"clusters": changed}):
        yield


PROPERTIES: dict[str, tuple[str, Callable[[], AbstractContextManager[None]]]] = {
    "rings, period 190 to 260 nm": ("rings", partial(longer_period, 260.0)),
    "clusters, 1.5 times as large": ("clusters", partial(larger_clusters, 1.5)),
}
"""What is changed, to the structure and the change."""


def crops_of(structure: str, seed: int, indices: range) -> list[np.ndarray]:
    """Simulate fields, scale each as a whole, and cut it in two crops."""
    settings = SimulationSettings(height=CROP_PX, width=IMAGE_CROPS * CROP_PX, match_with=(structure,))
    processor = StedFmImageProcessor()
    crops = []
    for index in indices:
        field = processor.prepare(simulate_image(structure, seed=seed, index=index, settings=settings))[0]
        crops += np.split(field, IMAGE_CROPS, axis=1)
    return crops


def image_features(crops: list[np.ndarray], encoder: Any) -> dict[str, np.ndarray]:
    """Return both kinds of features of crops."""
    embedded = np.stack(list(encode_images(encoder, (crop[None] for crop in crops), batch_size=64)))
    measured = morphology_features(crops, pixel_size_um=PIXEL_UM).values.astype(np.float32)
    return dict(zip(KINDS, (embedded, measured), strict=True))
