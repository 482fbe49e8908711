"""Spots by undecimated wavelets: what microscopists use for puncta (Olivo-Marin, Pattern Recognition 2002)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy.ndimage import correlate1d
from scipy.stats import median_abs_deviation

from stedfm_hf.evaluation.segmentation.baselines import (
    Regions,
    check_fitted,
    class_shares,
    pixels_of,
    plane_of,
    settle,
)
from stedfm_hf.metrics.mask_scores import overlap

_SPLINE = np.array([1, 4, 6, 4, 1]) / 16
"""Cubic B-spline, the smoothing filter of the transform."""
SCALES = ((1, 2), (2, 3), (3,), (2, 3, 4), (3, 4), (4,), (4, 5))
TIMES = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
"""Settings that a fit chooses from: scales, and thresholds in standard deviations of the noise."""


def wavelet_planes(plane: np.ndarray, scales: int) -> np.ndarray:
    """Coefficients of the undecimated (à trous) wavelet transform.

    Each scale smooths by a cubic B-spline whose taps lie twice as far apart as those of the scale before; its
    coefficients are what the smoothing took away. They sum with the last smoothed image to the image.

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


class WaveletSpots:
    """Wavelet spots whose scales and threshold are those of the highest mean IoU on the training images, by class.

    A coefficient counts where it is above a number of standard deviations of the noise of its scale, which are
    estimated by the median absolute deviation of the coefficients. A pixel is part of a spot where the coefficients of
    all the scales count: the product of the thresholded scales, as in the paper; of its sign we take the bright side
    alone.

    Args:
        exclusive: whether classes exclude each other.
        background: number of the class that is none, then.
        channel: of the image.
        scales: choices of scales.
        times: choices of the threshold.

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
        times: Sequence[float] = TIMES,
    ) -> None:
        self.exclusive, self.background, self.channel = exclusive, background, channel
        self.choices = list(itertools.product([tuple(each) for each in scales], times))
        self.settings: list[tuple[tuple[int, ...], float]] = []
        """Scales and threshold of each class, once fitted."""
        self.shares = np.zeros(0)

    def fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: Regions | None = None) -> Self:
        """Choose scales and threshold for each class."""
        self.shares = class_shares(targets, regions)
        scores = np.zeros((len(images), len(self.choices), len(self.shares)))
        for number, (image, target) in enumerate(zip(images, targets, strict=True)):
            region = None if regions is None else regions[number]
            planes, truth = self._planes(image), pixels_of(target, region) > 0.5
            for place, (scales, times) in enumerate(self.choices):
                found = pixels_of(_spots(planes, scales, times)[None], region)
                scores[number, place], _ = overlap(np.broadcast_to(found, truth.shape), truth)
        # Images where a class is neither found nor there count for no setting.
        counted = ~np.isnan(scores)
        means = np.where(counted, scores, 0.0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
        self.settings = [self.choices[place] for place in means.argmax(axis=0)]
        return self

    def predict(self, image: np.ndarray) -> np.ndarray:
        """The spots, for each class by its own setting."""
        check_fitted(self.settings)
        planes = self._planes(image)
        found = np.stack([_spots(planes, scales, times) for scales, times in self.settings])
        return settle(found, self.shares, self.background if self.exclusive else None)

    def _planes(self, image: np.ndarray) -> np.ndarray:
        return _in_noise(plane_of(image, self.channel), max(max(scales) for scales, _ in self.choices))


def _in_noise(plane: np.ndarray, scales: int) -> np.ndarray:
    """Coefficients in standard deviations of the noise of their scale."""
    planes = wavelet_planes(plane, scales)
    noise = median_abs_deviation(planes, axis=(1, 2), scale="normal")
    # Where most coefficients are equal (an empty or constant image) rounding errors must not look like signal.
    least = 1e-9 * max(float(np.abs(plane).max(initial=0.0)), np.finfo(float).tiny)
    return planes / np.maximum(noise, least)[:, None, None]


def _spots(planes: np.ndarray, scales: Sequence[int], times: float) -> np.ndarray:
    return np.logical_and.reduce([planes[scale - 1] > times for scale in scales])
