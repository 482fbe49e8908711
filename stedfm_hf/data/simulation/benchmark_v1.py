"""`benchmark-v1`: the frozen simulated data set behind every accuracy table of the project.

Seven structures; photon budget, background, density and blur come from the same ranges for all, and every noise-free
field takes over the sorted intensities of a field of any structure, so that brightness says next to nothing about the
class. It was fixed after looking at baselines without any trained model, and before one was trained on it.

Frozen: nothing here, nor what it computes, may change. An improvement is a `benchmark-v2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.runs.errors import UserError


@dataclass(frozen=True)
class Preset:
    """A data set that is defined once and for all.

    Args:
        name: what it is called.
        structures: the classes, in the order of their labels.
        seed: of everything random.
        splits: fields of each structure in each split; their indices follow each other, from 0.
        free_from: first index of fields that are in no split and never will be: for pretraining.
        physics: arguments of :class:`~stedfm_hf.data.simulation.physics.SimulationSettings`, none left to a default.
        mixed: whether a field shows two to four of the structures; `splits` then counts all fields.
    """

    name: str
    structures: tuple[str, ...]
    seed: int
    splits: Mapping[str, int]
    free_from: int
    physics: Mapping[str, Any]
    mixed: bool = False

    @property
    def settings(self) -> SimulationSettings:
        """The physics."""
        return SimulationSettings(**self.physics)


_STRUCTURES = ("rings", "fibres", "microtubules", "puncta", "clusters", "mitochondria", "polymer_rings")

BENCHMARK_V1 = Preset(
    name="benchmark-v1",
    structures=_STRUCTURES,
    seed=1,
    splits=MappingProxyType({"train": 300, "validation": 50, "test": 150}),
    free_from=1000,
    physics=MappingProxyType(
        {
            "height": 224,
            "width": 224,
            "pixel_size_nm": 20.0,
            "fwhm_nm": (45.0, 80.0),
            "photons": (6.0, 60.0),
            "background": (0.3, 2.5),
            "coverage": (0.12, 0.30),
            "match_with": _STRUCTURES,
            "depletion": 1.0,
            "confocal_fwhm_nm": 240.0,
            "occupied": 0.04,
        }
    ),
)
"""2100 fields for training, 350 for validation and 1050 for testing, of 224 x 224 pixels."""

BENCHMARK_V1_SCENES = replace(
    BENCHMARK_V1,
    name="benchmark-v1-scenes",
    structures=("rings", "fibres", "puncta"),
    splits=MappingProxyType({"train": 300, "validation": 50, "test": 150}),
    mixed=True,
)
"""500 fields that show two or three of rings, fibres and puncta, each in a territory: for segmentation."""

PRESETS = MappingProxyType({preset.name: preset for preset in (BENCHMARK_V1, BENCHMARK_V1_SCENES)})


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Example:
        >>> find_preset("benchmark-v1").splits["test"] * 7
        1050
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
    return PRESETS[name]
