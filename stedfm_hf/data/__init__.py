"""Data sets: simulated STED images with known labels."""

from stedfm_hf.data.simulate import SimulationSettings, simulate_image, write_images
from stedfm_hf.data.structures import STRUCTURES

__all__ = ["STRUCTURES", "SimulationSettings", "simulate_image", "write_images"]
