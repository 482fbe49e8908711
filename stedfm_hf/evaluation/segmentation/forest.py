"""Random forest on pixel features, as in interactive segmentation tools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from stedfm_hf.evaluation.segmentation.baselines import Baseline, Regions, region_pixels
from stedfm_hf.runs import UserError

SIGMA_MIN, SIGMA_MAX = 0.5, 8.0
"""Smallest and largest standard deviation of the Gaussian smoothing, in pixels; scales are powers of two between."""


def pixel_features(image: np.ndarray) -> np.ndarray:
    """Compute intensity, gradient magnitude and Hessian eigenvalues at five scales, for each pixel.

    Args:
        image: Scaled image (C, H, W).

    Returns:
        Features (H, W, 20 * C) float32.

    Raises:
        UserError: If the image is smaller than 2 x 2 pixels, or has pixels that are not finite.

    Example:
        >>> pixel_features(np.zeros((1, 8, 9))).shape
        (8, 9, 20)
    """
    if image.ndim != 3 or min(image.shape[1:]) < 2:
        raise UserError(f"the image must have the shape (C, H, W) and at least 2 x 2 pixels, not {image.shape}")
    if not np.isfinite(image).all():
        raise UserError("the image has pixels that are not finite; scale it by the processor first")
    return multiscale_basic_features(
        np.asarray(image, np.float32), sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, workers=1, channel_axis=0
    )


class PixelForest(Baseline):
    """Random forest on the features of single pixels, without a network.

    The training pixels are sampled uniformly from all annotated pixels, so that probabilities follow class
    frequencies.

    Args:
        exclusive: Whether each pixel belongs to one class; otherwise the forest predicts each class separately.
        n_pixels: Number of training pixels.
        n_estimators: Number of trees.
        min_samples_leaf: Smallest number of pixels in a leaf.
        seed: Random seed of the sample and of the forest.

    Example:
        >>> image = np.random.default_rng(0).random((1, 16, 16))
        >>> forest = PixelForest(n_estimators=5).fit([image], [image > 0.5])
        >>> maps = forest.predict(image)
        >>> maps.shape, bool(maps[image > 0.8].mean() > maps[image < 0.2].mean())
        ((1, 16, 16), True)
    """

    name = "pixel forest"

    def __init__(
        self,
        *,
        exclusive: bool = False,
        n_pixels: int = 20_000,
        n_estimators: int = 100,
        min_samples_leaf: int = 5,
        seed: int = 0,
    ) -> None:
        self.exclusive, self.n_pixels, self.seed = exclusive, n_pixels, seed
        self.forest = RandomForestClassifier(
            n_estimators=n_estimators, min_samples_leaf=min_samples_leaf, random_state=seed, n_jobs=1
        )

    def _fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: Regions) -> None:
        """Fit the forest on a random sample of annotated pixels."""
        sizes = [region_pixels(target, region).shape[1] for target, region in zip(targets, regions, strict=True)]
        sample = self._sample(sizes)
        features, truth = [], []
        for image, target, region, numbers in zip(images, targets, regions, sample, strict=True):
            if len(numbers):
                # Only the sampled rows of each image stay in memory.
                rows = pixel_features(image)
                inside = rows.reshape(-1, rows.shape[-1]) if region is None else rows[region]
                features.append(inside[numbers])
                truth.append((region_pixels(target, region)[:, numbers] > 0.5).T)
        labels = np.concatenate(truth)
        targets_to_fit = labels.argmax(axis=1) if self.exclusive else labels.astype(np.int64)
        if targets_to_fit.ndim == 2 and targets_to_fit.shape[1] == 1:
            targets_to_fit = targets_to_fit[:, 0]
        self.forest.fit(np.concatenate(features), targets_to_fit)

    def _predict(self, image: np.ndarray) -> np.ndarray:
        """Predict the probability of each class for each pixel."""
        features = pixel_features(image)
        probabilities = self.forest.predict_proba(features.reshape(-1, features.shape[-1]))
        maps = np.zeros((len(self.frequencies), features.shape[0] * features.shape[1]), np.float32)
        if self.exclusive:  # classes without sampled pixels have no column, and probability 0
            maps[self.forest.classes_] = probabilities.T
        else:
            multilabel = isinstance(probabilities, list)
            by_class = probabilities if multilabel else [probabilities]
            values = self.forest.classes_ if multilabel else [self.forest.classes_]
            for plane, each, class_values in zip(maps, by_class, values, strict=True):
                plane[:] = each[:, class_values == 1].sum(axis=1)
        return maps.reshape(len(maps), *features.shape[:2])

    def _sample(self, sizes: Sequence[int]) -> list[np.ndarray]:
        """Sample at most `n_pixels` pixels of all images together, and return their sorted numbers in each image.

        Args:
            sizes: Number of annotated pixels of each image.
        """
        total, image_ends = sum(sizes), np.cumsum(sizes)
        numbers = np.arange(total)
        if total > self.n_pixels:
            numbers = np.sort(np.random.default_rng(self.seed).choice(total, self.n_pixels, replace=False))
        return [
            each - (end - size)
            for each, end, size in zip(
                np.split(numbers, np.searchsorted(numbers, image_ends[:-1])), image_ends, sizes, strict=True
            )
        ]
