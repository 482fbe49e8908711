"""Data sets: built from files, imported from archives or simulated; streamed, decoded, described and published."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stedfm_hf.data.archives.import_archive import import_archive
    from stedfm_hf.data.building.build import build
    from stedfm_hf.data.official.import_set import import_set
    from stedfm_hf.data.official.registry import OFFICIAL_SETS, OfficialSet
    from stedfm_hf.data.repository.decoding import decode, to_unit_range
    from stedfm_hf.data.simulation.fields import SimulatedField, SimulationSettings, simulate_field, simulate_image
    from stedfm_hf.data.simulation.simulate import simulate
    from stedfm_hf.data.simulation.structures import STRUCTURES
    from stedfm_hf.data.streaming.local import EpochBatches, LocalCrops
    from stedfm_hf.data.streaming.stream import CropStream, stream

_HOMES = {
    "OFFICIAL_SETS": "official.registry",
    "STRUCTURES": "simulation.structures",
    "CropStream": "streaming.stream",
    "EpochBatches": "streaming.local",
    "LocalCrops": "streaming.local",
    "OfficialSet": "official.registry",
    "SimulatedField": "simulation.fields",
    "SimulationSettings": "simulation.fields",
    "build": "building.build",
    "decode": "repository.decoding",
    "import_archive": "archives.import_archive",
    "import_set": "official.import_set",
    "simulate": "simulation.simulate",
    "simulate_field": "simulation.fields",
    "simulate_image": "simulation.fields",
    "stream": "streaming.stream",
    "to_unit_range": "repository.decoding",
}

__all__ = [
    "OFFICIAL_SETS",
    "STRUCTURES",
    "CropStream",
    "EpochBatches",
    "LocalCrops",
    "OfficialSet",
    "SimulatedField",
    "SimulationSettings",
    "build",
    "decode",
    "import_archive",
    "import_set",
    "simulate",
    "simulate_field",
    "simulate_image",
    "stream",
    "to_unit_range",
]


def __getattr__(name: str) -> Any:
    # The verbs start fast because each loads only what it needs.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
