"""`benchmark-v1`: the frozen simulated data set behind every accuracy table of the project.

It has seven structures. Photon counts, background, density and blur are sampled from the same ranges for all of them,
and every noise-free field is matched to the sorted intensities of a field of a random structure, so brightness carries
almost no information about the class. The set was fixed after an evaluation of baselines without trained models, and
before any model was trained on it.

The presets are frozen: neither their settings nor the images may change. Add improvements as a `benchmark-v2`.
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
    """Frozen settings of a simulated data set.

    Attributes:
        name: Name of the preset, as in `--preset`.
        structures: Classes, in the order of their labels.
        seed: Random seed of all fields.
        splits: Number of fields of each structure in each split; indices are consecutive across splits, from 0.
        free_from: First index reserved for pretraining; no split contains it or a higher one.
        physics: All arguments of `SimulationSettings`, without defaults.
        mixed: Whether a field shows two to four of the structures; `splits` then counts all fields.
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
        """Physical parameters of the fields."""
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
"""Preset for classification: 2100 training, 350 validation and 1050 test fields of 224 x 224 pixels."""

BENCHMARK_V1_SCENES = replace(
    BENCHMARK_V1,
    name="benchmark-v1-scenes",
    structures=("rings", "fibres", "puncta"),
    splits=MappingProxyType({"train": 300, "validation": 50, "test": 150}),
    mixed=True,
)
"""Preset for segmentation: 500 fields that show two or three of rings, fibres and puncta in separate regions."""

PRESETS = MappingProxyType({preset.name: preset for preset in (BENCHMARK_V1, BENCHMARK_V1_SCENES)})


def find_preset(name: str) -> Preset:
    """Return the preset with a name.

    Args:
        name: Name of a preset in `PRESETS`.

    Raises:
        UserError: There is no preset with this name.

    Example:
        >>> find_preset("benchmark-v1").splits["test"] * 7
        1050
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
