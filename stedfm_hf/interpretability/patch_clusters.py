"""Foreground of an image from clusters of its patch tokens, without training and without labels."""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_otsu
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

CLUSTERS = 8
"""Default number of clusters: two clusters need not separate structures from background, but two structures."""
_CONSTANT = 1e-5
"""Relative range up to which values are constant: a threshold would separate rounding errors."""


def cluster_margins(
    tokens: np.ndarray, brightness: np.ndarray, *, clusters: int = CLUSTERS, seed: int = 0
) -> np.ndarray:
    """Find the foreground patches of an image by clusters of tokens of similar direction.

    1. k-means clusters the tokens after each is divided by its norm.
    2. Every patch gets the mean brightness of its cluster. Otsu's threshold of these values separates foreground
       clusters from background clusters.

    A dim patch is therefore foreground if its token is similar to those of bright patches.

    Args:
        tokens: Patch tokens (rows, cols, D).
        brightness: Mean intensity of each patch (rows, cols).
        clusters: Number of clusters; at most one for each patch.
        seed: Random seed of k-means.

    Returns:
        (rows, cols) float64: squared distance to the nearest background centre minus that to the nearest foreground
        centre. Positive for foreground patches. -1 everywhere if all clusters have the same brightness.

    Example:
        >>> tokens = np.array([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]])
        >>> (cluster_margins(tokens, np.array([[0.2, 0.1, 0.9, 0.1]]), clusters=2) > 0).tolist()
        [[False, False, True, True]]
    """
    unit = normalize(np.asarray(tokens, np.float64).reshape(-1, tokens.shape[-1]))
    bright = np.asarray(brightness, np.float64).ravel()
    # More clusters than different tokens would only give a warning.
    count = min(clusters, len(np.unique(unit, axis=0)))
    with threadpool_limits(1):  # threads cost more than they save for a few hundred tokens
        fitted = KMeans(count, n_init=4, random_state=seed).fit(unit)
    means = np.array([bright[fitted.labels_ == number].mean() for number in range(count)])
    foreground = above_otsu(means[fitted.labels_], means)
    if not foreground.any():
        return np.full(brightness.shape, -1.0)
    distances = fitted.transform(unit) ** 2
    margins: np.ndarray = distances[:, ~foreground].min(axis=1) - distances[:, foreground].min(axis=1)
    return margins.reshape(brightness.shape)


def above_otsu(sample: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Return which values are above Otsu's threshold of a sample; none if the sample is constant up to rounding.

    Args:
        sample: Values from which the threshold is computed, of any shape.
        values: Values to compare with it; None means the sample.

    Returns:
        Array of bool in the shape of `values`.

    Example:
        >>> above_otsu(np.array([0.1, 0.2, 0.9])).tolist(), above_otsu(np.ones(2)).tolist()
        ([False, False, True], [False, False])
    """
    values = sample if values is None else values
    low, high = float(sample.min()), float(sample.max())
    if high - low <= _CONSTANT * max(abs(low), abs(high)):
        return np.zeros(values.shape, bool)
    return np.asarray(values > threshold_otsu(sample))
