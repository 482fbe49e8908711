"""Simulated samples for the loop: objects of seven kinds, equally many and equally bright, at random positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from stedfm_hf.data.simulation.fields import make_specimen
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.data.simulation.structures import STRUCTURES

PIXEL_NM = 20.0
SIZE_UM = 16.0
"""Height and width of a scene, in µm."""
PER_KIND = 7
"""Objects of each kind in a scene."""
DISTANCE_UM = 1.7
"""Smallest distance between the centres of two objects, in µm."""
RADIUS_UM = (0.5, 0.64)
"""Range of the radii of objects, in µm."""
MOLECULES = 800.0
"""Median number of molecules of an object."""
BRIGHTNESS_SD = 0.35
"""Standard deviation of the logarithm of the number of molecules of an object, the same for all kinds."""
_PATCH = 64
_PHYSICS = SimulationSettings(
    height=_PATCH, width=_PATCH, pixel_size_nm=PIXEL_NM, coverage=(0.25, 0.35), match_with=()
)


@dataclass(frozen=True, eq=False)
class Scene:
    """Simulated sample with its objects.

    Attributes:
        molecules: Molecules of every pixel (H, W) int64.
        owner: Object that each pixel belongs to, from 1, or 0 (H, W) int64.
        kinds: Kind of each object, in the order of their numbers.
        centres: Row and column of the centre of each object, in pixels (n, 2).
    """

    molecules: np.ndarray
    owner: np.ndarray
    kinds: tuple[str, ...]
    centres: np.ndarray

    @property
    def pixel_size_nm(self) -> float:
        """Size of a pixel, in nm."""
        return PIXEL_NM

    def objects(self, kind: str) -> np.ndarray:
        """Return the numbers of the objects of a kind (n,) int64."""
        return np.flatnonzero(np.array(self.kinds) == kind) + 1

    def counts(self, molecules: np.ndarray) -> np.ndarray:
        """Sum molecules (H, W) over each object; (1 + n,) int64, where the first is outside of all objects."""
        weights = np.bincount(self.owner.ravel(), molecules.ravel(), minlength=len(self.kinds) + 1)
        return weights.round().astype(np.int64)

    def mask(self, kind: str, step: int = 1) -> np.ndarray:
        """Return the pixels of a kind (H / step, W / step) bool, of an overview with this step."""
        inside = np.isin(self.owner, self.objects(kind))
        return inside[::step, ::step]


def make_scene(
    seed: int | Sequence[int],
    *,
    kinds: tuple[str, ...] = tuple(STRUCTURES),
    size_um: float = SIZE_UM,
    per_kind: int = PER_KIND,
) -> Scene:
    """Simulate a scene; the same arguments always give the same scene.

    All kinds have the same number of objects, whose sizes, positions and numbers of molecules have the same
    distributions: the light of an object says nothing about its kind. Kinds still differ in how they concentrate this
    light, so that the brightest pixels favour compact kinds.

    Args:
        seed: Random seed, or numbers that make one.
        kinds: Kinds of objects, names of simulated structures.
        size_um: Height and width, in µm.
        per_kind: Number of objects of each kind.

    Raises:
        ValueError: If there is not enough room for the objects.

    Example:
        >>> scene = make_scene(0, kinds=("rings", "puncta"), size_um=5.12, per_kind=2)
        >>> scene.molecules.shape, sorted(scene.kinds), len(scene.objects("rings"))
        ((256, 256), ['puncta', 'puncta', 'rings', 'rings'], 2)
    """
    rng = np.random.default_rng(seed)
    size = round(1000 * size_um / PIXEL_NM)
    names = rng.permutation(np.repeat(np.array(kinds), per_kind)).tolist()
    centres = _positions(rng, size, len(names))
    molecules, owner = np.zeros((size, size), np.int64), np.zeros((size, size), np.int64)
    for number, (name, centre) in enumerate(zip(names, centres, strict=True), 1):
        light, inside = _object(rng, name)
        top, left = (int(each) - _PATCH // 2 for each in centre)
        window = slice(top, top + _PATCH), slice(left, left + _PATCH)
        total = MOLECULES * rng.lognormal(0.0, BRIGHTNESS_SD)
        molecules[window] += rng.poisson(total * light)
        owner[window][inside & (owner[window] == 0)] = number
    return Scene(molecules, owner, tuple(names), centres)


def _positions(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Sample centres (count, 2) in pixels that are far enough apart and from the border."""
    distance, found = 1000 * DISTANCE_UM / PIXEL_NM, np.empty((0, 2))
    for _ in range(10_000):
        if len(found) == count:
            return found
        at = rng.uniform(_PATCH / 2, size - _PATCH / 2, 2)
        if not len(found) or np.linalg.norm(found - at, axis=1).min() >= distance:
            found = np.vstack([found, at])
    raise ValueError(f"there is not enough room for {count} objects; make the scene larger")


def _object(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one object.

    Returns:
        Its light (h, w), which sums to 1, and the pixels inside of its uneven outline (h, w) bool.
    """
    y, x = np.mgrid[:_PATCH, :_PATCH] - (_PATCH - 1) / 2
    while True:
        radius = 1000 * rng.uniform(*RADIUS_UM) / PIXEL_NM
        uneven = gaussian_filter(rng.normal(size=(_PATCH, _PATCH)), 8)
        inside = np.hypot(y, x) * (1 + 0.1 * uneven / uneven.std()) < radius
        light = np.where(inside, make_specimen([kind], rng, _PHYSICS).emitter_maps[0], 0)
        # A patch that shows only a little of the structure would not be recognised by anybody.
        if np.count_nonzero(gaussian_filter(light, 3) > 0.1 * light[inside].mean()) > 0.5 * inside.sum():
            return light / light.sum(), inside
