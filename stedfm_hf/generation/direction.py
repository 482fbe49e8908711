"""Direction of an attribute in the space of embeddings: a unit vector with a boundary, saved without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from stedfm_hf.runs import UserError, atomic_path

WEIGHTS = "direction.safetensors"
FACTS = "direction.json"
PERCENTILES = tuple(range(0, 101, 5))
"""Percentiles of the distances of the fitted images that are saved with a direction."""


@dataclass(frozen=True)
class Score:
    """How well a direction predicts its attribute for images of other source images.

    Attributes:
        name: "AUROC" for classes, "Spearman" (rank correlation) for numbers.
        value: Value over all held-out images.
        low: Lower bound of its 95 % confidence interval over source images.
        high: Upper bound.
        chance: Value of a direction that has nothing to do with the attribute.
    """

    name: str
    value: float
    low: float
    high: float
    chance: float

    @property
    def above_chance(self) -> bool:
        """Whether the confidence interval lies above chance."""
        return self.low > self.chance


@dataclass(frozen=True, eq=False)
class Direction:
    """Direction of an attribute, in standardised embeddings u = (z - mean) / scale.

    The signed distance of an embedding from the boundary is u · normal + offset. Its unit is a standard deviation of
    a column of the embeddings, or, if they are not standardised (mean 0, scale 1), that of the embeddings.

    A walk moves embeddings along `path`, by its length for each unit of distance. The shortest way, the normal, leads
    to embeddings that no image has if columns are correlated; see `fitting.along_pattern`.

    Attributes:
        normal: Unit vector (d,).
        offset: Offset of the boundary.
        mean: Mean of each column (d,).
        scale: Standard deviation of each column (d,), above 0.
        name: Name of the attribute.
        method: How it was fitted, such as "boundary" or "regression".
        classes: Classes on the negative and the positive side; empty for a direction of numbers or of variance.
        percentiles: Distances of the fitted images at `PERCENTILES`, by class, or by "all".
        score: Held-out score, or None for a direction that was not fitted to labels.
        orthogonal_to: Names of the attributes that it was made orthogonal to.
        model: Name of the encoder.
        weights_sha256: SHA-256 of the weights of the encoder, or None if unknown.
        encoder_fingerprint: Fingerprint of the encoder (`stedfm_hf.modeling.conditioning_stedfm`), or None if unknown.
        size_px: Height and width of the fitted images in pixels, or None if unknown or different.
        path: Change of an embedding u for one unit of distance (d,): path · normal = 1; by default the normal.
        spread: Factor (d, r) of the covariance spread · spreadᵀ of the fitted embeddings u; empty if unknown.

    Example:
        >>> direction = Direction(np.array([0.6, 0.8]), 1.0)
        >>> direction.signed_distance(np.array([[5.0, 0.0], [0.0, 0.0]])).tolist()
        [4.0, 1.0]
        >>> direction.move(np.array([5.0, 0.0]), 6.0).round(6).tolist()
        [6.2, 1.6]
    """

    normal: np.ndarray
    offset: float = 0.0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    scale: np.ndarray = field(default_factory=lambda: np.ones(1))
    name: str = "attribute"
    method: str = "boundary"
    classes: tuple[str, ...] = ()
    percentiles: Mapping[str, Sequence[float]] = field(default_factory=dict)
    score: Score | None = None
    orthogonal_to: tuple[str, ...] = ()
    model: str = ""
    weights_sha256: str | None = None
    encoder_fingerprint: str | None = None
    size_px: int | None = None
    path: np.ndarray = field(default_factory=lambda: np.zeros(0))
    spread: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        """Check the arrays, and normalise the normal."""
        normal = np.asarray(self.normal, np.float64)
        length = float(np.linalg.norm(normal))
        if normal.ndim != 1 or not np.isfinite(length) or length == 0:
            raise ValueError("the normal of a direction must be a finite vector that is not zero")
        shape = normal.shape
        object.__setattr__(self, "normal", normal / length)
        path = np.asarray(self.path, np.float64) if np.size(self.path) else self.normal
        if path.shape != shape or not np.isfinite(path).all() or not path @ self.normal > 0:
            raise ValueError("the path of a direction must be a finite vector that leads to larger distances")
        object.__setattr__(self, "path", path / (path @ self.normal))
        for name in ("mean", "scale"):
            values = np.broadcast_to(np.asarray(getattr(self, name), np.float64), shape).copy()
            object.__setattr__(self, name, values)
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("mean and scale of a direction must be finite, and scale must be above 0")
        if not np.isfinite(self.offset):
            raise ValueError("the offset of a direction must be finite")

    def __len__(self) -> int:
        return len(self.normal)

    def signed_distance(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the signed distance of embeddings from the boundary.

        Args:
            embeddings: Embeddings (..., d).

        Returns:
            Distances (...,) float64; positive on the side of the second class.

        Raises:
            ValueError: The embeddings have another length.
        """
        standardised = self._standardised(embeddings)
        distances: np.ndarray = standardised @ self.normal + self.offset
        return distances

    def move(self, embeddings: np.ndarray, distances: float | np.ndarray) -> np.ndarray:
        """Move embeddings along the direction to a signed distance from the boundary.

        Args:
            embeddings: Embeddings (..., d).
            distances: Distance to reach, one for all or one each (...,).

        Returns:
            Embeddings (..., d) float64 with `signed_distance` equal to `distances`.

        Raises:
            ValueError: The embeddings have another length.
        """
        step = np.asarray(distances, np.float64) - self.signed_distance(embeddings)
        moved: np.ndarray = np.asarray(embeddings, np.float64) + step[..., None] * self.path * self.scale
        return moved

    def at_percentile(self, percentile: float, group: str = "all") -> float:
        """Return the signed distance at a percentile of the fitted images.

        Args:
            percentile: Percentile in [0, 100].
            group: Name of a class, or "all".

        Raises:
            UserError: There are no images of the class.
        """
        if group not in self.percentiles:
            known = ", ".join(self.percentiles) or "none"
            raise UserError(f"direction {self.name}: has no percentiles of {group!r}; there are: {known}")
        if not 0 <= percentile <= 100:
            raise UserError(f"percentile {percentile:g} is not in [0, 100]")
        return float(np.interp(percentile, PERCENTILES, self.percentiles[group]))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `direction.safetensors` and `direction.json` to a folder.

        Args:
            folder: Folder; created if it does not exist.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name) for name in ("normal", "mean", "scale", "path")}
        if self.spread.size:
            arrays["spread"] = np.ascontiguousarray(self.spread, np.float32)
        with atomic_path(target / WEIGHTS) as temporary:
            save_file({**arrays, "offset": np.array([self.offset])}, temporary)
        facts = {name: getattr(self, name) for name in (*_FACTS, *_LATER_FACTS)} | {
            "percentiles": {name: [float(value) for value in values] for name, values in self.percentiles.items()},
            "score": None if self.score is None else asdict(self.score),
        }
        with atomic_path(target / FACTS) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Direction:
        """Read a direction that `save` wrote.

        Args:
            folder: Folder.

        Raises:
            UserError: A file is missing or damaged.

        Example:
            >>> import tempfile
            >>> folder = tempfile.mkdtemp()
            >>> Direction(np.array([3.0, 4.0]), name="activity").save(folder)
            >>> loaded = Direction.load(folder)
            >>> loaded.name, loaded.normal.tolist()
            ('activity', [0.6, 0.8])
        """
        path = Path(folder)
        missing = [name for name in (WEIGHTS, FACTS) if not (path / name).is_file()]
        if missing:
            raise UserError(
                f"{folder}: is not a direction ({' and '.join(missing)} missing); make one with `stedfm attribute fit`"
            )
        try:
            arrays = load_file(path / WEIGHTS)
            facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
            score = None if facts["score"] is None else Score(**facts["score"])
            known = {name: tuple(facts[name]) if isinstance(facts[name], list) else facts[name] for name in _FACTS}
            known |= {name: facts.get(name) for name in _LATER_FACTS}
            found = cls(arrays["normal"], float(arrays["offset"][0]), arrays["mean"], arrays["scale"])
            known |= {name: arrays[name] for name in _LATER_ARRAYS if name in arrays}
            return found.with_facts(percentiles=facts["percentiles"], score=score, **known)
        except (SafetensorError, KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{folder}: holds a damaged direction ({error}); fit it again") from error

    def with_facts(self, **facts: Any) -> Direction:
        """Return the direction with other values of some attributes."""
        return replace(self, **facts)

    def _standardised(self, embeddings: np.ndarray) -> np.ndarray:
        values = np.asarray(embeddings, np.float64)
        if values.shape[-1:] != self.normal.shape:
            raise ValueError(
                f"the embeddings have length {values.shape[-1] if values.ndim else 0}, and the direction "
                f"{self.name} has {len(self)}: use the encoder that it was fitted with"
            )
        return (values - self.mean) / self.scale


_FACTS = ("name", "method", "classes", "orthogonal_to", "model", "weights_sha256")
_LATER_FACTS = ("encoder_fingerprint", "size_px")
_LATER_ARRAYS = ("path", "spread")
"""Facts and arrays that directions of earlier versions do not have."""
