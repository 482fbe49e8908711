"""A random forest over the pixels: what interactive segmentation tools learn from a few annotated crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from stedfm_hf.evaluation.segmentation.baselines import Regions, check_fitted, class_shares, pixels_of
from stedfm_hf.runs import UserError

SMALLEST, LARGEST = 0.5, 8.0
"""Standard deviations of the Gaussian smoothing in pixels, doubled from one to the next."""


def pixel_features(image: np.ndarray) -> np.ndarray:
    """Intensity, gradient magnitude and Hessian eigenvalues at five scales of each channel of (C, H, W): (H, W, 20 C).

    Example:
        >>> pixel_features(np.zeros((1, 8, 9))).shape
        (8, 9, 20)
    """
    if image.ndim != 3 or min(image.shape[1:]) < 2:
        raise UserError(f"pixel features need an image (C, H, W) of 2 x 2 pixels or more, not {image.shape}")
    if not np.isfinite(image).all():
        raise UserError("the image has pixels that are no finite numbers; scale it by the processor first")
    return multiscale_basic_features(
        np.asarray(image, np.float32), sigma_min=SMALLEST, sigma_max=LARGEST, workers=1, channel_axis=0
    )


class PixelForest:
    """A random forest over the features of single pixels, with no network behind them.

    It sees at most `pixels` pixels, drawn evenly from all that count: its probabilities fit how frequent classes are.

    Args:
        exclusive: whether classes exclude each other; else the forest answers for each of them.
        pixels: that it learns from.
        trees: of the forest.
        least_leaf: pixels in a leaf, at least.
        seed: of the draw and of the forest.

    Example:
        >>> image = np.random.default_rng(0).random((1, 16, 16))
        >>> forest = PixelForest(trees=5).fit([image], [image > 0.5])
        >>> maps = forest.predict(image)
        >>> maps.shape, bool(maps[image > 0.8].mean() > maps[image < 0.2].mean())
        ((1, 16, 16), True)
    """

    name = "pixel forest"

    def __init__(
        self,
        *,
        exclusive: bool = False,
        pixels: int = 20_000,
        trees: int = 100,
        least_leaf: int = 5,
        seed: int = 0,
    ) -> None:
        self.exclusive, self.pixels, self.seed = exclusive, pixels, seed
        self.options = {"n_estimators": trees, "min_samples_leaf": least_leaf, "random_state": seed, "n_jobs": 1}
        self.forest: RandomForestClassifier | None = None
        self.classes = 0

    def fit(self, images: Sequence[np.ndarray], targets: Sequence[np.ndarray], regions: Regions | None = None) -> Self:
        """Learn from pixels drawn of the annotated images."""
        self.classes = len(class_shares(targets, regions))
        regions = regions or [None] * len(images)
        sizes = [pixels_of(target, region).shape[1] for target, region in zip(targets, regions, strict=True)]
        drawn = self._draw(sizes)
        features, truth = [], []
        for image, target, region, places in zip(images, targets, regions, drawn, strict=True):
            if len(places):
                # The rows of an image are let go before the next one: only the drawn ones are kept.
                rows = pixel_features(image)
                inside = rows.reshape(-1, rows.shape[-1]) if region is None else rows[region]
                features.append(inside[places])
                truth.append((pixels_of(target, region)[:, places] > 0.5).T)
        labels = np.concatenate(truth)
        known = labels.argmax(axis=1) if self.exclusive else labels.astype(np.int64)
        if known.ndim == 2 and known.shape[1] == 1:
            known = known[:, 0]
        self.forest = RandomForestClassifier(**self.options).fit(np.concatenate(features), known)
        return self

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Probability of each class at each pixel."""
        check_fitted([] if self.forest is None else [self.forest])
        assert self.forest is not None
        features = pixel_features(image)
        answer = self.forest.predict_proba(features.reshape(-1, features.shape[-1]))
        maps = np.zeros((self.classes, features.shape[0] * features.shape[1]), np.float32)
        if self.exclusive:  # classes that were never drawn have no column, and no probability
            maps[self.forest.classes_] = answer.T
        else:
            several = isinstance(answer, list)
            answers, known = (answer, self.forest.classes_) if several else ([answer], [self.forest.classes_])
            for plane, each, numbers in zip(maps, answers, known, strict=True):
                plane[:] = each[:, numbers == 1].sum(axis=1)
        return maps.reshape(self.classes, *features.shape[:2])

    def _draw(self, sizes: Sequence[int]) -> list[np.ndarray]:
        """Numbers of the pixels of each image that are drawn."""
        total, ends = sum(sizes), np.cumsum(sizes)
        places = np.arange(total)
        if total > self.pixels:
            places = np.sort(np.random.default_rng(self.seed).choice(total, self.pixels, replace=False))
        return [
            each - (end - size)
            for each, end, size in zip(np.split(places, np.searchsorted(places, ends[:-1])), ends, sizes, strict=True)
        ]
