"""Data sets: built from files, imported from archives or simulated; streamed, decoded, described and published."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stedfm_hf.data.archives import import_archive
    from stedfm_hf.data.building import build
    from stedfm_hf.data.decoding import decode, to_unit_range
    from stedfm_hf.data.fields import SimulatedField, SimulationSettings, simulate_field, simulate_image
    from stedfm_hf.data.local import EpochBatches, LocalCrops
    from stedfm_hf.data.simulation import simulate
    from stedfm_hf.data.streaming import CropStream, stream
    from stedfm_hf.data.structures import STRUCTURES

_HOMES = {
    "STRUCTURES": "structures",
    "CropStream": "streaming",
    "EpochBatches": "local",
    "LocalCrops": "local",
    "SimulatedField": "fields",
    "SimulationSettings": "fields",
    "build": "building",
    "decode": "decoding",
    "import_archive": "archives",
    "simulate": "simulation",
    "simulate_field": "fields",
    "simulate_image": "fields",
    "stream": "streaming",
    "to_unit_range": "decoding",
}

__all__ = [
    "STRUCTURES",
    "CropStream",
    "EpochBatches",
    "LocalCrops",
    "SimulatedField",
    "SimulationSettings",
    "build",
    "decode",
    "import_archive",
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
