"""Attributes measured in generated images, and how they change along walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from stedfm_hf.evaluation.morphology import MORPHOLOGY, morphology_features
from stedfm_hf.metrics.resolution import resolution_nm
from stedfm_hf.metrics.statistics import bootstrap_interval

PIXEL_SIZE_NM = 20.0
"""Pixel size of images that have none, in nm."""
MEASURES = ("brightness", "objects", *MORPHOLOGY, "resolution_nm")
"""Names of the measured attributes, in their order."""


def measure_images(images: np.ndarray | Sequence[np.ndarray], *, pixel_size_nm: float = PIXEL_SIZE_NM) -> np.ndarray:
    """Measure attributes of images.

    The attributes are the mean intensity, the number of bright spots, the 13 features of `morphology_features` (means
    over the spots), and the resolution by Fourier ring correlation.

    Args:
        images: Scaled images (n, H, W) in [0, 1].
        pixel_size_nm: Size of a pixel in nm.

    Returns:
        Attributes (n, 16) float64 in the order of `MEASURES`; the resolution is NaN where it is not defined.

    Example:
        >>> measured = measure_images(np.full((2, 64, 64), 0.25))
        >>> measured.shape, dict(zip(MEASURES, measured[0].tolist()))["brightness"]
        ((2, 16), 0.25)
    """
    pixels = [np.asarray(image, np.float64) for image in images]
    found = morphology_features(pixels, pixel_size_um=pixel_size_nm / 1000)
    brightness = [float(image.mean()) for image in pixels]
    resolution = [resolution_nm(image, pixel_size_nm) for image in pixels]
    return np.column_stack([brightness, found.objects, found.values, resolution])


def drift(images: np.ndarray) -> np.ndarray:
    """Return how much each image of a walk differs from the one before it: 1 - structural similarity.

    Args:
        images: Images (n, steps, H, W).

    Returns:
        Differences (n, steps - 1).
    """
    return np.array(
        [
            [1 - structural_similarity(one, other, data_range=1.0) for one, other in zip(each, each[1:], strict=False)]
            for each in images
        ]
    ).reshape(len(images), -1)


@dataclass(frozen=True, eq=False)
class Change:
    """Change of an attribute along walks.

    Attributes:
        name: Name of the attribute.
        mean: Mean over the walks at each step (steps,).
        low: Lower bound of its 95 % confidence interval over source images (steps,).
        high: Upper bound (steps,).
        rank_correlation: Spearman correlation of the step and the mean.
        total: Mean change from the first step to the last.
        total_low: Lower bound of its 95 % confidence interval over source images.
        total_high: Upper bound.
        walks: Number of walks in which the attribute is defined at the first and the last step.
    """

    name: str
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rank_correlation: float
    total: float
    total_low: float
    total_high: float
    walks: int


def change_along(name: str, values: np.ndarray, sources: np.ndarray) -> Change:
    """Summarise the values of an attribute along walks.

    Args:
        name: Name of the attribute.
        values: Values (n, steps); NaN where it is not defined.
        sources: Source image of each walk (n,).

    Example:
        >>> values = np.array([[1.0, 2.0, 4.0], [0.0, 1.0, 2.0]])
        >>> change = change_along("density", values, np.array(["a", "b"]))
        >>> change.mean.tolist(), change.rank_correlation, change.total
        ([0.5, 1.5, 3.0], 1.0, 2.5)
    """
    known = [values[np.isfinite(values[:, step]), step] for step in range(values.shape[1])]
    mean = np.array([each.mean() if len(each) else np.nan for each in known])
    bounds = np.array(
        [
            bootstrap_interval(each, sources[np.isfinite(values[:, step])]) if len(each) else (np.nan, np.nan)
            for step, each in enumerate(known)
        ]
    )
    both = np.isfinite(values[:, 0]) & np.isfinite(values[:, -1])
    totals = values[both, -1] - values[both, 0]
    low, high = bootstrap_interval(totals, sources[both]) if len(totals) else (np.nan, np.nan)
    return Change(
        name,
        mean,
        bounds[:, 0],
        bounds[:, 1],
        _rank_correlation(mean),
        float(totals.mean()) if len(totals) else float("nan"),
        low,
        high,
        int(both.sum()),
    )


def _rank_correlation(mean: np.ndarray) -> float:
    known = np.isfinite(mean)
    if known.sum() < 2 or np.ptp(mean[known]) == 0:
        return 0.0
    return float(spearmanr(np.flatnonzero(known), mean[known]).statistic)
