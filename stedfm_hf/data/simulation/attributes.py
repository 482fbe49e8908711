"""Simulated crops whose attributes vary continuously and are known: visibility of rings, density of puncta, blur.

The crops show what `fields` simulates, but one attribute of the structure and the width of the point spread function
are given or sampled, independently of each other and of the nuisances (photons, background, coverage). Pixels are
photon counts; no intensities are matched, because that would change the attributes.

Example:
    >>> crop = simulate_attributes("puncta", seed=0, index=7, density_per_um2=4.0)
    >>> crop.image.shape, crop.attributes["density_per_um2"]
    ((64, 64), 4.2725)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.data.simulation.fields import bin_emitters, blur, bright_level, random_generator, to_uint16
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.data.simulation.scene import Emitters, Scene, random_positions
from stedfm_hf.data.simulation.structures import fibres, place_puncta, rings
from stedfm_hf.runs.errors import UserError

ACTIN, PUNCTA = "actin", "puncta"
BLUR = "fwhm_nm"
ATTRIBUTES = {ACTIN: "ring_visibility", PUNCTA: "density_per_um2"}
"""Attribute of each structure; all structures have the attribute `fwhm_nm`, too."""
RANGES = {"ring_visibility": (0.0, 1.0), "density_per_um2": (1.2, 9.0), BLUR: (45.0, 110.0)}
"""Range from which each attribute is sampled uniformly."""
PHYSICS = SimulationSettings(
    height=64,
    width=64,
    fwhm_nm=RANGES[BLUR],
    photons=(60.0, 200.0),
    background=(0.5, 3.0),
    coverage=(0.12, 0.30),
    match_with=(),
)
"""Physical parameters; brighter than the default, so that noise does not hide the attributes in small crops."""
_MIN_DISTANCE_NM = 150.0
_MAX_ATTEMPTS = 20
_MIN_LIGHT = 0.25


@dataclass(frozen=True, eq=False)
class AttributeCrop:
    """Simulated crop with its attributes.

    Attributes:
        image: Photon counts, uint16 (H, W).
        attributes: True value of each attribute that the structure has.
        parameters: Structure and nuisances: photons, background and, for actin, coverage.
    """

    image: np.ndarray
    attributes: dict[str, float]
    parameters: dict[str, Any]


def simulate_attributes(
    structure: str,
    *,
    seed: int,
    index: int,
    settings: SimulationSettings = PHYSICS,
    ring_visibility: float | None = None,
    density_per_um2: float | None = None,
    fwhm_nm: float | None = None,
) -> AttributeCrop:
    """Simulate a crop with given attributes; attributes that are not given are sampled from `RANGES`.

    Crops with the same seed and index differ only in the given attributes: actin keeps its neurites and rings, puncta
    their positions (a higher density adds puncta), and all keep photons and background.

    Args:
        structure: "actin" or "puncta".
        seed: Random seed of the data set, at least 0.
        index: Number of the crop within the structure and seed, at least 0.
        settings: Physical parameters.
        ring_visibility: Fraction of the light of actin from periodic rings, in [0, 1]; the rest is from fibres.
        density_per_um2: Number of puncta per µm², rounded to whole puncta in the crop.
        fwhm_nm: Full width at half maximum of the point spread function, in nm.

    Raises:
        UserError: There is no such structure, the structure does not have a given attribute, or a value is too small.

    Example:
        >>> blurred = simulate_attributes("actin", seed=0, index=3, ring_visibility=1.0, fwhm_nm=110.0)
        >>> blurred.attributes
        {'ring_visibility': 1.0, 'fwhm_nm': 110.0}
    """
    requested = {"ring_visibility": ring_visibility, "density_per_um2": density_per_um2, BLUR: fwhm_nm}
    given = {name: value for name, value in requested.items() if value is not None}
    own = _attribute_of(structure, given)
    rng = random_generator(structure, seed, index)
    # Always in the same order, so that given attributes do not change the other random numbers.
    sampled = {name: float(rng.uniform(*RANGES[name])) for name in (own, BLUR)}
    values = sampled | given
    photons, background = rng.uniform(*settings.photons), rng.uniform(*settings.background)
    layout, noise = rng.spawn(2)
    nuisances = {"photons": round(photons, 3), "background": round(background, 3)}
    if structure == ACTIN:
        light, coverage = _actin(layout, settings, values[own])
        nuisances["coverage"] = round(coverage, 4)
    else:
        light, values[own] = _puncta(layout, settings, values[own])
    signal = blur(light, settings.sigma(values[BLUR]))
    signal *= np.float32(photons / bright_level(signal))
    return AttributeCrop(
        image=to_uint16(noise.poisson(signal + np.float32(background))),
        attributes={name: round(values[name], 4) for name in (own, BLUR)},
        parameters={"structures": [structure], **nuisances},
    )


def _attribute_of(structure: str, given: dict[str, float]) -> str:
    """Return the attribute of a structure; refuse attributes that it does not have, and values out of range."""
    if structure not in ATTRIBUTES:
        raise UserError(f"unknown structure {structure!r}; choose {' or '.join(ATTRIBUTES)}")
    own = ATTRIBUTES[structure]
    for name, value in given.items():
        if name not in (own, BLUR):
            raise UserError(f"{structure} has no {name}; its attributes are {own} and {BLUR}")
        if not (0.0 <= value <= 1.0 if name == "ring_visibility" else value > 0.0):
            raise UserError(f"{name} must be {'from 0 to 1' if name == 'ring_visibility' else 'above 0'}, not {value}")
    return own


def _actin(rng: np.random.Generator, settings: SimulationSettings, visibility: float) -> tuple[np.ndarray, float]:
    """Return the light of rings and fibres on the same neurites, (H, W), and the requested coverage.

    Args:
        rng: Random generator of the layout.
        settings: Physical parameters.
        visibility: Fraction of the light from rings.
    """
    for _ in range(_MAX_ATTEMPTS):
        coverage = float(rng.uniform(*settings.coverage))
        scene = Scene(settings.height, settings.width, settings.pixel_size_nm, coverage)
        start = int(rng.integers(2**63))
        maps = []
        for structure in (rings, fibres):
            # Both functions first sample the neurites: with the same generator, they are at the same positions.
            same = np.random.default_rng(start)
            light = bin_emitters(structure(same, scene), same, scene)
            maps.append(light / max(float(light.sum()), 1e-9))
        wide = blur(maps[0] + maps[1], settings.sigma(200.0))
        if np.count_nonzero(wide > _MIN_LIGHT * wide.max()) > settings.coverage[0] * wide.size:
            break
    return (visibility * maps[0] + (1.0 - visibility) * maps[1]).astype(np.float32), coverage


def _puncta(rng: np.random.Generator, settings: SimulationSettings, density: float) -> tuple[np.ndarray, float]:
    """Return the light of puncta at random positions, (H, W), and their number per µm².

    Args:
        rng: Random generator of the layout.
        settings: Physical parameters.
        density: Requested number of puncta per µm².
    """
    scene = Scene(settings.height, settings.width, settings.pixel_size_nm, 0.0)
    area_um2 = settings.height * settings.width * (settings.pixel_size_nm / 1000.0) ** 2
    wanted = max(1, round(density * area_um2))
    tried = random_positions(rng, scene, 50 * 16)
    sizes = scene.pixels(38.0) * rng.lognormal(0.0, 0.3, len(tried))
    kept: list[int] = []
    for number, position in enumerate(tried):
        if len(kept) == wanted:
            break
        distances = np.linalg.norm(tried[kept] - position, axis=1)
        if not kept or distances.min() > scene.pixels(_MIN_DISTANCE_NM):
            kept.append(number)
    # Each punctum has its generator, so that a higher density does not change the others.
    children = rng.spawn(len(kept))
    clouds = [place_puncta(child, tried[[each]], sizes[[each]]) for child, each in zip(children, kept, strict=True)]
    emitters = Emitters(
        np.concatenate([cloud.position for cloud in clouds]), np.concatenate([cloud.brightness for cloud in clouds])
    )
    return bin_emitters(emitters, rng, scene), len(kept) / area_um2
