"""Resolution and bleaching of a simulated STED image against the power of the depletion beam.

Differences to the reference protocol: its two confocal images had the same noise and its scans did not bleach, so that
its bleaching was always 0. Here all images have independent noise, scans bleach, and the pixels in which the signal is
compared are selected in a third confocal image: selected in one of the two, they would be brighter in it by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from stedfm_hf.acquisition.microscope import Frame
from stedfm_hf.acquisition.simulated_microscope import OVERVIEW, STED, SimulatedMicroscope
from stedfm_hf.data.simulation.fields import make_specimen, random_generator
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.metrics.resolution import resolution_of_pair_nm

POWERS_MW = (0.0, 10.0, 25.0, 50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 350.0)
"""Powers of the depletion beam, in mW. Source: range of the reference protocol."""
STRUCTURES = ("puncta", "fibres", "microtubules")
"""Structures that resemble those of the reference protocol: PSD95, F-actin and tubulin."""
PER_UM2 = 800.0
"""Molecules in each µm² of a structure."""
BRIGHT = 0.95
"""Quantile of a confocal image above which pixels count. Source: reference protocol."""


@dataclass(frozen=True)
class PowerRow:
    """One simulated STED image.

    Attributes:
        structure: Structure.
        seed: Random seed.
        depletion_mw: Power of the depletion beam, in mW.
        resolution_nm: Resolution of two STED images of the same sample, in nm; NaN if it cannot be measured.
        signal_loss: Loss of confocal signal by one STED image, as a fraction.
        bleached: Fraction of all molecules that one STED image bleached.
        energy_mj: Energy of both beams, in mJ.
    """

    structure: str
    seed: int
    depletion_mw: float
    resolution_nm: float
    signal_loss: float
    bleached: float
    energy_mj: float


def measure_power(
    powers_mw: Sequence[float] = POWERS_MW,
    *,
    structures: Sequence[str] = STRUCTURES,
    seeds: Sequence[int] = (0,),
    engine: str | None = None,
    size_px: int = 224,
    pixel_size_nm: float = 20.0,
) -> list[PowerRow]:
    """Measure resolution and bleaching of simulated STED images.

    Args:
        powers_mw: Powers of the depletion beam, in mW.
        structures: Names of simulated structures.
        seeds: Random seeds of samples and noise.
        engine: `pysted` or `builtin`; None uses pySTED if it is installed.
        size_px: Height and width of the images, in pixels.
        pixel_size_nm: Size of a pixel, in nm.

    Returns:
        One row for each structure, seed and power.

    Example:
        >>> weak, strong = measure_power([0, 200], structures=["puncta"], engine="builtin", size_px=96)
        >>> weak.bleached, strong.bleached > 0.5, strong.resolution_nm < weak.resolution_nm
        (0.0, True, True)
    """
    physics = SimulationSettings(height=size_px, width=size_px, pixel_size_nm=pixel_size_nm, match_with=())
    rows = []
    for structure, seed in product(structures, seeds):
        rng = random_generator(structure, seed, 0)
        specimen = make_specimen([structure], rng, physics)
        light = specimen.emitter_maps[0] / specimen.emitter_maps[0].sum()
        area_um2 = specimen.coverage * (size_px * pixel_size_nm / 1000) ** 2
        molecules = rng.poisson(PER_UM2 * area_um2 * light)
        rows += [
            _measure(structure, seed, power, molecules, engine, pixel_size_nm, int(rng.integers(2**32)))
            for power in powers_mw
        ]
    return rows


def _measure(
    structure: str, seed: int, power: float, molecules: np.ndarray, engine: str | None, size_nm: float, noise: int
) -> PowerRow:
    """Take two STED images of equal samples, and confocal images before and after one of them."""
    beams = replace(STED, depletion_mw=power)
    height, width = molecules.shape

    def start(number: int) -> SimulatedMicroscope:
        seed_of_noise = int(np.random.SeedSequence([noise, number]).generate_state(1)[0])
        return SimulatedMicroscope(molecules, size_nm, engine=engine, seed=seed_of_noise)

    def confocal(microscope: SimulatedMicroscope) -> Frame:
        return microscope.scan(0, 0, height, width, OVERVIEW)

    used, other = start(0), start(1)
    selected = confocal(used).pixels
    bright = selected > np.quantile(selected, BRIGHT)
    before = confocal(used).pixels[bright].mean()
    energy, left = used.dose.energy_mj, used.molecules.sum()
    first, second = (each.scan(0, 0, height, width, beams) for each in (used, other))
    energy, left = used.dose.energy_mj - energy, used.molecules.sum() / left
    return PowerRow(
        structure,
        seed,
        power,
        resolution_of_pair_nm(first.pixels, second.pixels, size_nm),
        1 - float(confocal(used).pixels[bright].mean() / before),
        1 - float(left),
        energy,
    )
