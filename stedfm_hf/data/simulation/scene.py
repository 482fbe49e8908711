"""Building blocks of simulated structures: scene, emitters, random positions and centre lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scene:
    """Field of view in which the emitters of a structure are placed.

    Attributes:
        height: Height of the field, in pixels.
        width: Width of the field, in pixels.
        pixel_size_nm: Pixel size, in nm.
        coverage: Fraction of the pixels that the structure should cover, in [0, 1].
    """

    height: int
    width: int
    pixel_size_nm: float
    coverage: float

    @property
    def reach(self) -> float:
        """Length of a curve that crosses the whole field in any direction, in pixels."""
        return 1.3 * float(np.hypot(self.height, self.width))

    @property
    def area(self) -> float:
        """Number of pixels that the structure should cover."""
        return self.coverage * self.height * self.width

    def pixels(self, nanometres: float) -> float:
        """Convert a length in nm to pixels.

        Args:
            nanometres: Length, in nm.

        Example:
            >>> Scene(224, 224, 20.0, 0.2).pixels(190.0)
            9.5
        """
        return nanometres / self.pixel_size_nm


@dataclass(frozen=True, eq=False)
class Emitters:
    """Fluorescent emitters.

    Attributes:
        position: Positions (y, x) in pixels, also outside the field, (n, 2).
        brightness: Relative brightness, (n,).
    """

    position: np.ndarray
    brightness: np.ndarray


def centre_lines(rng: np.random.Generator, scene: Scene, count: int, persistence_nm: float) -> tuple[np.ndarray, ...]:
    """Generate worm-like chains through random points of the field, with one point every half pixel.

    Args:
        rng: Random generator of the field.
        scene: Field of view.
        count: Number of chains.
        persistence_nm: Persistence length, in nm; larger values give straighter chains.

    Returns:
        Positions (y, x) in pixels, (count, points, 2), and unit normals of the same shape.
    """
    step = 0.5
    points = int(scene.reach / step)
    turn = np.sqrt(step / scene.pixels(persistence_nm))
    heading = rng.normal(0.0, turn, (count, points)).cumsum(axis=1)
    heading += rng.uniform(0.0, 2.0 * np.pi, (count, 1)) - heading[:, points // 2, None]
    along = np.stack([np.sin(heading), np.cos(heading)], axis=-1)
    position = step * along.cumsum(axis=1)
    position += random_positions(rng, scene, count)[:, None, :] - position[:, points // 2, None, :]
    return position, np.stack([along[..., 1], -along[..., 0]], axis=-1)


def random_positions(rng: np.random.Generator, scene: Scene, count: int) -> np.ndarray:
    """Sample `count` positions (y, x) in pixels uniformly from the field, (count, 2)."""
    return rng.uniform(0.0, 1.0, (count, 2)) * (scene.height, scene.width)


def positions_near_dendrites(rng: np.random.Generator, scene: Scene, count: int, distance_nm: float) -> np.ndarray:
    """Sample positions near two random dendrites; 40 % of them are anywhere in the field.

    Args:
        rng: Random generator of the field.
        scene: Field of view.
        count: Number of positions.
        distance_nm: Standard deviation of the distance from the centre line of a dendrite, in nm.

    Returns:
        Positions (y, x) in pixels, (count, 2).
    """
    lines, normals = centre_lines(rng, scene, 2, persistence_nm=14_000.0)
    line, at = rng.integers(0, 2, count), rng.integers(0, lines.shape[1], count)
    offset = scene.pixels(distance_nm) * rng.normal(0.0, 1.0, (count, 1))
    random = rng.random((count, 1)) < 0.4
    return np.where(random, random_positions(rng, scene, count), lines[line, at] + offset * normals[line, at])


def neurite_widths(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Sample widths of neurites (240 to 900 nm), in pixels, until they reach the coverage of the scene."""
    widths = scene.pixels(240.0) + scene.pixels(660.0) * rng.uniform(0.0, 1.0, 16) ** 2
    covered = widths.cumsum() * 0.75 * max(scene.height, scene.width)
    return widths[: count_objects(covered, scene)]


def count_objects(covered: np.ndarray, scene: Scene) -> int:
    """Count the objects needed to reach the coverage of the scene, at least one.

    Args:
        covered: Cumulative sum of the areas of the objects, in pixels, (n,).
        scene: Field of view.

    Returns:
        Number of objects, in [1, n].

    Example:
        >>> count_objects(np.array([30.0, 60.0, 90.0]), Scene(10, 10, 20.0, 0.5))
        2
    """
    return min(1 + int(np.searchsorted(covered, scene.area)), len(covered))


def rotate_points(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotate the points of every object around the origin.

    Args:
        points: Points (y, x) of each object, (count, n, 2).
        angle: Angle of each object in radians, (count,).

    Returns:
        Rotated points, (count, n, 2).
    """
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    y, x = points[..., 0], points[..., 1]
    return np.stack([cos * y - sin * x, sin * y + cos * x], axis=-1)
