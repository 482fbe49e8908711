"""Changes of the reference protocol, applied to scaled images.

Source:
    Synthetic batch effects of the published code (reference protocol). Two accidents of it are not repeated: its
    rotations and flips are the same for all images of a batch, and its noise has another scale for networks with three
    channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import correlate1d

from stedfm_hf.evaluation.robustness.counts import Calibration, Counts, generator
from stedfm_hf.evaluation.robustness.families import Family, select_families
from stedfm_hf.evaluation.settings import REFERENCE_FAMILIES
from stedfm_hf.images import StedImage
from stedfm_hf.modeling.image_processing_stedfm import apply_intensity_range, fit_intensity_range

_GAIN = 10.0


@dataclass(frozen=True)
class ReferenceFamily(Family):
    """Changes of scaled images; `change` takes and returns images in [0, 1] instead of counts."""

    def apply(
        self, image: StedImage, level: float, *, calibration: Calibration, seed: int = 0, image_id: str = ""
    ) -> StedImage:
        """Change an image after scaling; the result has the grey values of the image again, and a known range.

        Args:
            image: Unscaled image.
            level: Level.
            calibration: Not used.
            seed: Random seed.
            image_id: Id of the image.
        """
        if level == self.identity:
            return image
        known = image.intensity_range
        limits = (
            fit_intensity_range(image.array)
            if known is None
            else np.broadcast_to(np.array([known], dtype=np.float64), (len(image.array), 2))
        )
        scaled = apply_intensity_range(image.array, limits).astype(np.float64)
        rng = generator(seed, image_id, self.name, level)
        changed = self.change(Counts(scaled, np.ones((1, 1, 1)), (1.0, 1.0), 1.0, rng), level)
        low, high = limits[:, :1, None], limits[:, 1:, None]
        one_range = (float(limits[0, 0]), float(limits[0, 1])) if len(limits) == 1 else None
        array = np.ascontiguousarray(low + changed * (high - low), dtype=np.float32)
        return replace(image, array=array, intensity_range=one_range)


def _turn(counts: Counts) -> np.ndarray:
    """Rotate by 90, 180 or 270 degrees, at random."""
    return np.rot90(counts.values, int(counts.rng.integers(1, 4)), axes=(1, 2))


def _mirror(counts: Counts) -> np.ndarray:
    """Mirror one axis, at random."""
    return np.flip(counts.values, axis=int(counts.rng.integers(1, 3)))


def _poisson(counts: Counts, level: float) -> np.ndarray:
    """Add Poisson(level) / 255."""
    return counts.values + counts.rng.poisson(level, counts.values.shape) / 255


def _noise(counts: Counts, level: float) -> np.ndarray:
    """Add Gaussian noise of standard deviation `level`."""
    return counts.values + counts.rng.normal(0.0, level, counts.values.shape)


def _blur(counts: Counts, level: float) -> np.ndarray:
    """Blur with a kernel of 5 pixels and a standard deviation of `level` pixels."""
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / level) ** 2)
    blurred = counts.values
    for axis in (1, 2):
        blurred = correlate1d(blurred, kernel / kernel.sum(), axis=axis, mode="mirror")
    return blurred


def _contrast(counts: Counts, level: float) -> np.ndarray:
    """Apply a sigmoid around `level`, rescaled to [0, 1]."""
    low, high = counts.values.min(), counts.values.max()
    curve = 1 / (1 + np.exp(_GAIN * (level - (counts.values - low) / max(high - low, 1e-12))))
    return (curve - curve.min()) / max(float(np.ptp(curve)), 1e-12)


def _one_of(*functions: Callable[[Counts], np.ndarray]) -> Callable[[Counts, float], np.ndarray]:
    """Return the change whose level is the number of a function, from 1."""
    return lambda counts, level: functions[int(level) - 1](counts)


def reference_families(names: Sequence[str] | None = None) -> list[Family]:
    """Return the families of the reference protocol.

    Args:
        names: Names of the families to return; None returns those of the publication, without the sigmoid contrast.

    Raises:
        UserError: If a name is unknown.

    Example:
        >>> [len(family.levels) for family in reference_families()]
        [3, 6, 4, 5, 5]
    """
    mixed = _one_of(_turn, lambda c: _poisson(c, 1.0), lambda c: _noise(c, 0.01), lambda c: _blur(c, 1.0))
    setting = "a change of the reference protocol"
    families: list[Family] = [
        ReferenceFamily(
            "geometric",
            "Rotation and flip",
            setting,
            "",
            (0.0, 1.0, 2.0),
            "Scaled images are rotated by 90, 180 or 270 degrees, or mirrored along one axis, at random.",
            _one_of(_turn, _mirror),
            random=True,
            names=("unchanged", "rotation", "flip"),
        ),
        ReferenceFamily(
            "poisson",
            "Additive Poisson noise",
            setting,
            "/ 255",
            (0.0, 1.0, 2.0, 3.0, 4.0, 5.0),
            "Poisson numbers with this mean, divided by 255, are added to scaled images.",
            _poisson,
            random=True,
        ),
        ReferenceFamily(
            "gaussian-noise",
            "Gaussian noise",
            setting,
            "of the range",
            (0.0, 0.01, 0.025, 0.05),
            "Gaussian noise with this standard deviation is added to scaled images.",
            _noise,
            random=True,
        ),
        ReferenceFamily(
            "gaussian-blur",
            "Gaussian blur",
            setting,
            "px",
            (0.0, 0.1, 0.5, 1.0, 2.0),
            "Scaled images are blurred by a kernel of 5 pixels.",
            _blur,
        ),
        ReferenceFamily(
            "mixed",
            "Mixed changes",
            setting,
            "",
            (0.0, 1.0, 2.0, 3.0, 4.0),
            "Each of four changes of scaled images.",
            mixed,
            random=True,
            names=("unchanged", "rotation", "Poisson 1 / 255", "noise 0.01", "blur 1 px"),
        ),
        ReferenceFamily(
            "contrast",
            "Sigmoid contrast",
            setting,
            "(cutoff)",
            (0.0, 1.0, 2.0, 3.0),
            "A sigmoid with a gain of 10 is applied to scaled images.",
            _one_of(lambda c: _contrast(c, 0.3), lambda c: _contrast(c, 0.4), lambda c: _contrast(c, 0.5)),
            names=("unchanged", "cutoff 0.3", "cutoff 0.4", "cutoff 0.5"),
        ),
    ]
    return select_families(families, REFERENCE_FAMILIES if names is None else names)
