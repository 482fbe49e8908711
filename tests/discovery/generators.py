"""Point clouds with and without groups: structure in a few axes of a 384-d cloud with a power-law spectrum, rotated.

The variance of axis i of the noise is proportional to i^-1.2, so that the widest axis has standard deviation 1. All
lengths are in these units. The random rotation keeps a z-score of the columns from flattening the spectrum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

DIMENSIONS = 384


@dataclass(frozen=True)
class Cloud:
    """A simulated data set.

    Attributes:
        X: Items (n, d), float32.
        labels: Group of each item (n,); all 0 for noise.
        tree: Right shape of the tree, such as "3(2,2,2)"; "" where several shapes are right.
    """

    X: np.ndarray
    labels: np.ndarray
    tree: str = "1"


Made = Callable[[int, int], Cloud]
"""Function that makes a cloud from the number of items and a seed."""


def deviations(dimensions: int = DIMENSIONS) -> np.ndarray:
    """Standard deviation of each axis of the noise."""
    return np.arange(1, dimensions + 1) ** -0.6


def rotated(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a random rotation."""
    rotation, _ = np.linalg.qr(rng.standard_normal((X.shape[1], X.shape[1])).astype(np.float32))
    return (X.astype(np.float32) @ rotation).astype(np.float32)


def power_law(n: int, rng: np.random.Generator, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Gaussian noise in the axes of the spectrum."""
    return rng.standard_normal((n, dimensions)) * deviations(dimensions)


def directions(k: int, rng: np.random.Generator, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Return k orthonormal directions (k, d)."""
    return np.linalg.qr(rng.standard_normal((dimensions, k)))[0].T


def at_centres(centres: np.ndarray, labels: np.ndarray, tree: str, rng: np.random.Generator) -> Cloud:
    """Put noise around the centre of each item."""
    X = power_law(len(labels), rng, centres.shape[1]) + centres[labels]
    return Cloud(rotated(X, rng), labels, tree)


def equal(n: int, k: int) -> np.ndarray:
    """Labels of k groups of the same size."""
    return np.arange(n) % k


def blobs(n: int, seed: int, *, k: int, separation: float = 5, dimensions: int = DIMENSIONS) -> Cloud:
    """Equidistant groups in random directions: the centres are `separation` apart."""
    rng = np.random.default_rng(seed)
    centres = directions(k, rng, dimensions) * separation / np.sqrt(2)
    return at_centres(centres, equal(n, k), str(k), rng)


def scattered(n: int, seed: int, *, k: int, separation: float = 5, dimensions: int = DIMENSIONS) -> Cloud:
    """Groups at random positions in the ten widest axes; the two nearest centres are `separation` apart."""
    rng = np.random.default_rng(seed)
    centres = np.zeros((k, dimensions))
    centres[:, :10] = rng.standard_normal((k, 10))
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)[np.triu_indices(k, 1)]
    return at_centres(centres * separation / apart.min(), equal(n, k), "", rng)


def unbalanced(n: int, seed: int, *, ratio: int = 5, separation: float = 5) -> Cloud:
    """Three groups of sizes ratio : 1 : 1."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [n - 2 * (n // (ratio + 2)), n // (ratio + 2), n // (ratio + 2)])
    return at_centres(directions(3, rng) * separation / np.sqrt(2), labels, "3", rng)


def anisotropic(n: int, seed: int, *, k: int = 4, separation: float = 8, stretch: float = 3) -> Cloud:
    """Groups that are `stretch` times as long along one random direction each."""
    rng = np.random.default_rng(seed)
    labels = equal(n, k)
    X = power_law(n, rng) + directions(k, rng)[labels] * separation / np.sqrt(2)
    X += rng.standard_normal((n, 1)) * directions(k, rng)[labels] * stretch
    return Cloud(rotated(X, rng), labels, str(k))


def nested(
    n: int,
    seed: int,
    *,
    counts: tuple[int, ...],
    separation: float = 5,
    growth: float = 4,
    dimensions: int = DIMENSIONS,
) -> Cloud:
    """Groups in groups: `counts` children per level; each level above is `growth` times as far apart."""
    rng = np.random.default_rng(seed)
    X, tree = power_law(n, rng, dimensions), ""
    leaves = int(np.prod(counts))
    item = equal(n, leaves)
    below = leaves
    for level, count in enumerate(counts):
        below //= count
        branch = item // below
        distance = separation * growth ** (len(counts) - 1 - level)
        X += directions(int(branch.max()) + 1, rng, dimensions)[branch] * distance / np.sqrt(2)
    for count in reversed(counts):
        tree = f"{count}({','.join([tree] * count)})" if tree else str(count)
    return Cloud(rotated(X, rng), item, tree)


def planted(n: int, seed: int, *, fraction: float = 0.05, separation: float = 3) -> Cloud:
    """One large group, and a small one displaced in a random direction."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) < round(fraction * n)).astype(int)
    return at_centres(np.stack([np.zeros(DIMENSIONS), directions(1, rng)[0] * separation]), labels, "2", rng)


def shifted(n: int, seed: int, *, separation: float, axis: int = 0) -> Cloud:
    """Two groups, `separation` standard deviations of one axis apart along this axis."""
    rng = np.random.default_rng(seed)
    labels, X = equal(n, 2), power_law(n, rng)
    X[:, axis] += separation * labels * deviations()[axis]
    return Cloud(rotated(X, rng), labels, "2")


def cigars(n: int, seed: int, *, k: int = 2, length: float = 3, across: float = 5.8) -> Cloud:
    """Parallel cigars: long in axis 1, `across` standard deviations of axis 2 apart."""
    rng = np.random.default_rng(seed)
    labels, X = equal(n, k), power_law(n, rng)
    X[:, 0] *= length
    X[:, 1] += labels * across * deviations()[1]
    return Cloud(rotated(X, rng), labels, str(k))


def moons(n: int, seed: int, *, radius: float = 5, noise: float = 0.5) -> Cloud:
    """Two interleaved half circles."""
    rng = np.random.default_rng(seed)
    labels, angle, X = equal(n, 2), rng.uniform(0, np.pi, n), noise * power_law(n, rng)
    X[:, 0] += radius * np.where(labels, 1 - np.cos(angle), np.cos(angle))
    X[:, 1] += radius * np.where(labels, 0.5 - np.sin(angle), np.sin(angle))
    return Cloud(rotated(X, rng), labels, "2")


def noise(X: np.ndarray, rng: np.random.Generator) -> Cloud:
    """Wrap a cloud without groups."""
    return Cloud(rotated(X, rng), np.zeros(len(X), int))


def along_curve(n: int, seed: int, curve: Callable[[np.ndarray], np.ndarray], thickness: float) -> Cloud:
    """Noise around a plane curve, given as a function of positions in [0, 1]."""
    rng = np.random.default_rng(seed)
    X = thickness * power_law(n, rng)
    X[:, :2] += curve(rng.uniform(size=n)).T
    return noise(X, rng)


def gaussian(n: int, seed: int) -> Cloud:
    rng = np.random.default_rng(seed)
    return noise(power_law(n, rng), rng)


def isotropic(n: int, seed: int) -> Cloud:
    rng = np.random.default_rng(seed)
    return noise(rng.standard_normal((n, DIMENSIONS)), rng)


def heavy_tailed(n: int, seed: int) -> Cloud:
    """Multivariate t with 5 degrees of freedom."""
    rng = np.random.default_rng(seed)
    return noise(power_law(n, rng) / np.sqrt(rng.chisquare(5, (n, 1)) / 5), rng)


def skewed(n: int, seed: int) -> Cloud:
    """Independent exponential axes."""
    rng = np.random.default_rng(seed)
    return noise(rng.exponential(size=(n, DIMENSIONS)) * deviations(), rng)


def log_normal(n: int, seed: int) -> Cloud:
    """Log-normal columns, without a rotation, from correlated noise: like areas and intensities."""
    rng = np.random.default_rng(seed)
    return Cloud(np.exp(0.6 * rotated(2 * power_law(n, rng, 24), rng)), np.zeros(n, int))


def correlated(n: int, seed: int) -> Cloud:
    """Gaussian columns with a random covariance, without a rotation."""
    rng = np.random.default_rng(seed)
    return Cloud((rng.standard_normal((n, 30)) @ rng.standard_normal((30, 60))).astype(np.float32), np.zeros(n, int))


def flat_spectrum(n: int, seed: int) -> Cloud:
    """A power-law Gaussian that is not rotated, so that the z-score flattens it."""
    return Cloud(power_law(n, np.random.default_rng(seed)).astype(np.float32), np.zeros(n, int))


def uniform(n: int, seed: int) -> Cloud:
    rng = np.random.default_rng(seed)
    return noise(rng.uniform(-1, 1, (n, DIMENSIONS)) * np.sqrt(3) * deviations(), rng)


def ball(n: int, seed: int, *, dimensions: int = 3, radius: float = 5) -> Cloud:
    """Uniform ball in a few axes, in thin noise."""
    rng = np.random.default_rng(seed)
    X, direction = 0.3 * power_law(n, rng), rng.standard_normal((n, dimensions))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    X[:, :dimensions] += radius * direction * rng.uniform(size=(n, 1)) ** (1 / dimensions)
    return noise(X, rng)


def balls(n: int, seed: int) -> Cloud:
    """Mixture of three overlapping uniform balls of different size around one centre."""
    rng = np.random.default_rng(seed)
    parts = [ball(n // 3, seed * 3 + part, dimensions=3 + 2 * part, radius=3 + part).X for part in range(3)]
    return noise(np.concatenate(parts), rng)


def elongated(n: int, seed: int) -> Cloud:
    rng = np.random.default_rng(seed)
    X = power_law(n, rng)
    X[:, 0] *= 10
    return noise(X, rng)


def banana(n: int, seed: int) -> Cloud:
    rng = np.random.default_rng(seed)
    X = power_law(n, rng)
    X[:, 0] *= 3
    X[:, 1] += 0.3 * X[:, 0] ** 2
    return noise(X, rng)


def circle(angle: np.ndarray, radius: float = 5) -> np.ndarray:
    return radius * np.stack([np.cos(angle), np.sin(angle)])


def arc(n: int, seed: int, *, thickness: float = 0.3) -> Cloud:
    return along_curve(n, seed, lambda at: circle(at * np.radians(150)), thickness)


def ring(n: int, seed: int, *, thickness: float = 0.3) -> Cloud:
    return along_curve(n, seed, lambda at: circle(at * 2 * np.pi), thickness)


def sheet(n: int, seed: int) -> Cloud:
    """Curved sheet: an arc times a uniform axis."""
    rng = np.random.default_rng(seed)
    X = 0.3 * power_law(n, rng)
    X[:, :2] += circle(rng.uniform(0, np.radians(150), n)).T
    X[:, 2] += rng.uniform(-5, 5, n)
    return noise(X, rng)


def spiral(n: int, seed: int, *, turns: float = 1, thickness: float = 0.3) -> Cloud:
    """Spiral of Archimedes with radius 2 to 8."""
    return along_curve(n, seed, lambda at: circle(at * 2 * np.pi * turns, 1.0) * (2 + 6 * at), thickness)


def s_curve(n: int, seed: int, *, degrees: float = 135, thickness: float = 0.3) -> Cloud:
    """Two opposite arcs of this angle."""

    def curve(at: np.ndarray) -> np.ndarray:
        angle = (2 * at - 1) * np.radians(degrees)
        return 5 * np.stack([np.sign(angle) * (1 - np.cos(angle)), np.sin(np.abs(angle)) * np.sign(angle)])

    return along_curve(n, seed, curve, thickness)


def repeated(cloud: Cloud, times: int, jitter: float, seed: int) -> tuple[Cloud, np.ndarray]:
    """Take every item several times, as crops of one source, and return the source of each."""
    rng = np.random.default_rng(seed)
    sources = np.repeat(np.arange(len(cloud.X)), times)
    X = cloud.X[sources] + jitter * cloud.X.std(axis=0) * rng.standard_normal((len(sources), cloud.X.shape[1]))
    return Cloud(X.astype(np.float32), cloud.labels[sources], cloud.tree), sources


NOISE: dict[str, Made] = {
    "Gaussian": gaussian,
    "heavy-tailed": heavy_tailed,
    "skewed": skewed,
    "uniform": uniform,
    "ball": ball,
    "elongated": elongated,
    "banana": banana,
    "arc": arc,
    "ring": ring,
    "sheet": sheet,
}
"""Kinds of noise that must give one leaf."""
