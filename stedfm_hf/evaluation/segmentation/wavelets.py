"""Spot detection by undecimated wavelets.

Source:
    Olivo-Marin, Extraction of spots in biological images using multiscale products, Pattern Recognition, 2002.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import correlate1d
from scipy.stats import median_abs_deviation

from stedfm_hf.evaluation.segmentation.baselines import (
    Baseline,
    Regions,
    combine_classes,
    region_pixels,
    select_channel,
)
from stedfm_hf.metrics.mask_scores import overlap

_SPLINE = np.array([1, 4, 6, 4, 1]) / 16
"""Cubic B-spline smoothing filter."""
SCALES = ((1, 2), (2, 3), (3,), (2, 3, 4), (3, 4), (4,), (4, 5))
"""Sets of scales to try."""
THRESHOLDS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
"""Thresholds to try, in standard deviations of the noise."""


def wavelet_planes(plane: np.ndarray, scales: int) -> np.ndarray:
    """Compute the undecimated (à trous) wavelet transform of an image.

    Each scale smooths the image by a cubic B-spline with twice the spacing of the previous scale. Its coefficients are
    the difference before and after smoothing. The coefficients of all scales and the last smoothed image sum to the
    image.

    Args:
        plane: Image (H, W).
        scales: Number of scales.

    Returns:
        Coefficients (scales, H, W) float64.

    Example:
        >>> wavelet_planes(np.ones((5, 6)), 2).shape
        (2, 5, 6)
    """
    smooth, planes = np.asarray(plane, np.float64), []
    for scale in range(scales):
        taps = np.zeros(4 * 2**scale + 1)
        taps[:: 2**scale] = _SPLINE
        rough, smooth = smooth, correlate1d(correlate1d(smooth, taps, 0, mode="mirror"), taps, 1, mode="mirror")
        planes.append(rough - smooth)
    return np.stack(planes)


class WaveletSpots(Baseline):
    """Bright spots at several wavelet scales.

    A pixel belongs to a spot if its coefficients at all selected scales exceed a threshold, in standard deviations of
    the noise of the scale. The noise is estimated by the median absolute deviation of the coefficients. Scales and
    threshold of each class have the highest mean IoU on the training images. Unlike in the paper, only positive
    coefficients (bright spots) are used.

    Args:
        exclusive: Whether each pixel belongs to one class.
        background: Number of the background class, if classes are exclusive.
        channel: Channel of the image.
        scales: Sets of scales to try.
        thresholds: Thresholds to try, in standard deviations of the noise.

    Example:
        >>> image = np.zeros((1, 32, 32))
        >>> image[0, 10:13, 20:23] = 1.0
        >>> spots = WaveletSpots().fit([image], [image > 0])
        >>> bool(spots.predict(image)[0, 11, 21])
        True
    """

    name = "wavelet spots"

    def __init__(
        self,
        *,
        exclusive: bool = False,
        background: int = 0,
        channel: int = 0,
        scales: Sequence[Sequence[int]] = SCALES,
        thresholds: Sequence[float] = THRESHOLDS,
    ) -> None:
        self.exclusive, self.background, self.channel = exclusive, background, channel
        self.choices = list(itertools.product([tuple(each) for each in scales], thresholds))
        self.settings: list[tuple[tuple[int, ...], float]] = []
        """Scales and threshold of each class, after fitting."""

    def _fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: Regions) -> None:
        """Select scales and threshold of each class."""
        scores = np.zeros((len(images), len(self.choices), len(self.frequencies)))
        for number, (image, target, region) in enumerate(zip(images, targets, regions, strict=True)):
            planes, truth = self._planes(image), region_pixels(target, region) > 0.5
            for choice, (scales, threshold) in enumerate(self.choices):
                predicted = region_pixels(_spots(planes, scales, threshold)[None], region)
                scores[number, choice], _ = overlap(np.broadcast_to(predicted, truth.shape), truth)
        # Undefined scores are excluded from the means.
        defined = ~np.isnan(scores)
        means = np.where(defined, scores, 0.0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
        self.settings = [self.choices[choice] for choice in means.argmax(axis=0)]

    def _predict(self, image: np.ndarray) -> np.ndarray:
        """Predict the spots of each class."""
        planes = self._planes(image)
        found = np.stack([_spots(planes, scales, threshold) for scales, threshold in self.settings])
        return combine_classes(found, self.frequencies, self.background if self.exclusive else None)

    def _planes(self, image: np.ndarray) -> np.ndarray:
        """Compute the normalised coefficients of an image."""
        return _noise_normalised(select_channel(image, self.channel), max(max(scales) for scales, _ in self.choices))


def _noise_normalised(plane: np.ndarray, scales: int) -> np.ndarray:
    """Return wavelet coefficients in standard deviations of the noise of their scale."""
    planes = wavelet_planes(plane, scales)
    noise = median_abs_deviation(planes, axis=(1, 2), scale="normal")
    # In empty or constant images, rounding errors must not look like signal.
    smallest = 1e-9 * max(float(np.abs(plane).max(initial=0.0)), np.finfo(float).tiny)
    return planes / np.maximum(noise, smallest)[:, None, None]


def _spots(planes: np.ndarray, scales: Sequence[int], threshold: float) -> np.ndarray:
    """Return the pixels (H, W) bool above the threshold at all scales."""
    return np.logical_and.reduce([planes[scale - 1] > threshold for scale in scales])
