"""What the simulated structures are drawn with: field, emitters, and the lines most of them follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
        """A length in pixels.

        >>> Scene(224, 224, 20.0, 0.2).pixels(190.0)
        9.5
        """
        return nanometres / self.pixel_size_nm


@dataclass(frozen=True, eq=False)
class Emitters:
    """Fluorescent emitters: `position` (n, 2) as (y, x) in pixels, `brightness` (n,)."""

    position: np.ndarray
    brightness: np.ndarray


def centre_lines(rng: np.random.Generator, scene: Scene, count: int, persistence_nm: float) -> tuple[np.ndarray, ...]:
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
    position += anywhere(rng, scene, count)[:, None, :] - position[:, points // 2, None, :]
    return position, np.stack([along[..., 1], -along[..., 0]], axis=-1)


def anywhere(rng: np.random.Generator, scene: Scene, count: int) -> np.ndarray:
    """Random places of the field, (count, 2)."""
    return rng.uniform(0.0, 1.0, (count, 2)) * (scene.height, scene.width)


def beside_dendrites(rng: np.random.Generator, scene: Scene, count: int, distance_nm: float) -> np.ndarray:
    """Places beside two dendrites, two fifths of them anywhere in the field, (count, 2)."""
    lines, normals = centre_lines(rng, scene, 2, persistence_nm=14_000.0)
    line, at = rng.integers(0, 2, count), rng.integers(0, lines.shape[1], count)
    beside = scene.pixels(distance_nm) * rng.normal(0.0, 1.0, (count, 1))
    free = rng.random((count, 1)) < 0.4
    return np.where(free, anywhere(rng, scene, count), lines[line, at] + beside * normals[line, at])


def neurite_widths(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Widths in pixels (240 to 900 nm) of as many neurites as the wanted coverage takes."""
    widths = scene.pixels(240.0) + scene.pixels(660.0) * rng.uniform(0.0, 1.0, 16) ** 2
    covered = widths.cumsum() * 0.75 * max(scene.height, scene.width)
    return widths[: how_many(covered, scene)]


def how_many(covered: np.ndarray, scene: Scene) -> int:
    """How many of the objects are needed until their summed areas reach what the scene wants, one at least."""
    return min(1 + int(np.searchsorted(covered, scene.area)), len(covered))


def turned(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Turns every object's points (count, n, 2) by its angle (count,)."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    y, x = points[..., 0], points[..., 1]
    return np.stack([cos * y - sin * x, sin * y + cos * x], axis=-1)
