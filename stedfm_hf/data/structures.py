"""The structures the simulator can draw, one small function each.

Every structure is a cloud of fluorescent emitters: positions in pixels and a brightness each. Blur, photons and noise
are the same for all of them and live in :mod:`stedfm_hf.data.simulate`, so two structures differ in their geometry
only. Geometry follows what STED shows in cultured neurons: actin rings every 190 nm around an axon (Xu et al. 2013),
actin fibres along a dendrite, a mesh of microtubules, and clusters of a postsynaptic protein beside a dendrite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RING_PERIOD_NM = 190.0


@dataclass(frozen=True)
class Scene:
    """The piece of sample a structure is drawn into.

    Args:
        height: rows, in pixels.
        width: columns, in pixels.
        pixel_size_nm: side of a pixel.
        coverage: share of the pixels the structure should touch, 0 to 1.
    """

    height: int
    width: int
    pixel_size_nm: float
    coverage: float

    @property
    def reach(self) -> float:
        """Length in pixels of a curve that crosses the whole field whatever its direction."""
        return 1.3 * float(np.hypot(self.height, self.width))

    @property
    def area(self) -> float:
        """Pixels the structure should touch."""
        return self.coverage * self.height * self.width

    def pixels(self, nanometres: float) -> float:
        """A length in pixels."""
        return nanometres / self.pixel_size_nm


@dataclass(frozen=True, eq=False)
class Emitters:
    """Fluorescent emitters: `position` (n, 2) as (y, x) in pixels, `brightness` (n,)."""

    position: np.ndarray
    brightness: np.ndarray


def _centre_lines(rng: np.random.Generator, scene: Scene, count: int, persistence_nm: float) -> tuple[np.ndarray, ...]:
    """Worm-like chains through random points of the field, one point every half pixel.

    Returns:
        Positions (count, points, 2) as (y, x) in pixels and unit normals of the same shape.
    """
    step = 0.5
    points = int(scene.reach / step)
    turn = np.sqrt(step / scene.pixels(persistence_nm))
    heading = rng.normal(0.0, turn, (count, points)).cumsum(axis=1)
    heading += rng.uniform(0.0, 2.0 * np.pi, (count, 1)) - heading[:, points // 2, None]
    along = np.stack([np.sin(heading), np.cos(heading)], axis=-1)
    position = step * along.cumsum(axis=1)
    middle = rng.uniform(0.0, 1.0, (count, 1, 2)) * (scene.height, scene.width)
    position += middle - position[:, points // 2, None, :]
    return position, np.stack([along[..., 1], -along[..., 0]], axis=-1)


def _neurite_widths(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Widths in pixels (240 to 900 nm) of as many neurites as the wanted coverage takes."""
    widths = scene.pixels(240.0) + scene.pixels(660.0) * rng.uniform(0.0, 1.0, 16) ** 2
    covered = widths.cumsum() * 0.75 * max(scene.height, scene.width)
    return widths[: 1 + int(np.searchsorted(covered, scene.area))]


def rings(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Periodic actin: rings every 190 nm around axons, each a circle seen from the side.

    Args:
        rng: source of randomness.
        scene: field to draw into.

    Returns:
        The emitters, some of them outside the field.
    """
    widths = _neurite_widths(rng, scene)
    position, normal = _centre_lines(rng, scene, len(widths), persistence_nm=14_000.0)
    period = scene.pixels(RING_PERIOD_NM)
    per_ring, per_gap = 30, 8
    clouds, brightness = [], []
    for centre, across, width in zip(position, normal, widths, strict=True):
        places = np.arange(rng.uniform(0.0, period), scene.reach - 1.0, period)
        places = places + rng.normal(0.0, 0.05 * period, len(places))
        # Most emitters sit on the rings, some on the membrane between them.
        along = np.repeat(places, per_ring + per_gap).reshape(len(places), -1)
        along[:, :per_ring] += rng.normal(0.0, scene.pixels(9.0), (len(places), per_ring))
        along[:, per_ring:] += rng.uniform(0.0, period, (len(places), per_gap))
        at = np.clip(2.0 * along, 0, len(centre) - 1).astype(np.intp).ravel()
        around = np.sin(rng.uniform(0.0, 2.0 * np.pi, (at.size, 1)))
        clouds.append(centre[at] + 0.5 * width * around * across[at])
        label = rng.gamma(4.0, 0.25, (len(places), 1)) * rng.exponential(width, along.shape)
        brightness.append(label.ravel())
    return Emitters(np.concatenate(clouds), np.concatenate(brightness))


def fibres(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Longitudinal actin: bundles of fibres that follow a neurite and wander across it.

    Args:
        rng: source of randomness.
        scene: field to draw into.

    Returns:
        The emitters, some of them outside the field.
    """
    widths = _neurite_widths(rng, scene)
    position, normal = _centre_lines(rng, scene, len(widths), persistence_nm=14_000.0)
    clouds, brightness = [], []
    points = position.shape[1]
    for centre, across, width in zip(position, normal, widths, strict=True):
        count = 2 + int(width / scene.pixels(110.0))
        drift = rng.normal(0.0, 0.035, (count, points)).cumsum(axis=1) + rng.uniform(0.0, 2.0 * np.pi, (count, 1))
        fibre = centre + 0.5 * width * np.sin(drift)[..., None] * across
        clouds.append(fibre.reshape(-1, 2))
        label = rng.gamma(2.0, 0.5, (count, 1)) * rng.exponential(1.0, (count, points))
        brightness.append(label.ravel())
    return Emitters(np.concatenate(clouds), np.concatenate(brightness))


def microtubules(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Microtubules: single smooth filaments that cross the field in every direction.

    Args:
        rng: source of randomness.
        scene: field to draw into.

    Returns:
        The emitters, some of them outside the field.
    """
    count = 3 + int(scene.area / (scene.pixels(85.0) * max(scene.height, scene.width)))
    position, _ = _centre_lines(rng, scene, count, persistence_nm=8_000.0)
    label = rng.gamma(3.0, 1.0 / 3.0, (count, 1)) * rng.exponential(1.0, position.shape[:2])
    return Emitters(position.reshape(-1, 2), label.ravel())


def puncta(rng: np.random.Generator, scene: Scene) -> Emitters:
    """PSD95-like synaptic puncta: clusters of 80 to 350 nm, most of them beside a dendrite.

    Args:
        rng: source of randomness.
        scene: field to draw into.

    Returns:
        The emitters, some of them outside the field.
    """
    spread = scene.pixels(38.0) * rng.lognormal(0.0, 0.4, 400)
    covered = (np.pi * (2.0 * spread) ** 2).cumsum()
    spread = spread[: 3 + int(np.searchsorted(covered, scene.area))]
    count, per_cluster = len(spread), 50
    lines, normals = _centre_lines(rng, scene, 2, persistence_nm=14_000.0)
    line = rng.integers(0, 2, count)
    at = rng.integers(0, lines.shape[1], count)
    beside = scene.pixels(300.0) * rng.normal(0.0, 1.0, (count, 1))
    anywhere = rng.uniform(0.0, 1.0, (count, 2)) * (scene.height, scene.width)
    centre = np.where(rng.uniform(size=(count, 1)) < 0.4, anywhere, lines[line, at] + beside * normals[line, at])
    # An ellipse with a random axis ratio and direction: scaffolds are seen face on and edge on.
    axes = spread[:, None] * np.stack([np.ones(count), rng.uniform(0.4, 1.0, count)], axis=-1)
    turn = rng.uniform(0.0, np.pi, count)
    local = rng.normal(0.0, 1.0, (count, per_cluster, 2)) * axes[:, None, :]
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    rotated = np.stack([cos * local[..., 0] - sin * local[..., 1], sin * local[..., 0] + cos * local[..., 1]], axis=-1)
    label = rng.gamma(2.0, 0.5, (count, 1)) * spread[:, None] ** 2 * rng.exponential(1.0, (count, per_cluster))
    return Emitters((centre[:, None, :] + rotated).reshape(-1, 2), label.ravel() / per_cluster)


STRUCTURES: dict[str, Callable[[np.random.Generator, Scene], Emitters]] = {
    "rings": rings,
    "fibres": fibres,
    "microtubules": microtubules,
    "puncta": puncta,
}
"""Name of a structure -> the function that draws it."""
