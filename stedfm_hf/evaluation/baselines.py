"""Baseline features without a trained network: intensity histogram, raw pixels, log power spectrum and texture.

The histogram shows whether brightness alone predicts the labels. The power spectrum is a strong baseline for images
that differ in texture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA


def intensity_histograms(images: Sequence[np.ndarray], *, bins: int = 32) -> np.ndarray:
    """Compute the square root of the normalised intensity histogram of each image.

    With the square root, the cosine similarity of two images is the Bhattacharyya coefficient of their histograms.

    Args:
        images: Scaled images (H, W) in [0, 1], of any size.
        bins: Number of bins of equal width from 0 to 1.

    Returns:
        Features (n, bins) with norm 1.

    Example:
        >>> intensity_histograms([np.array([[0.0, 0.0], [0.0, 1.0]])], bins=2).round(3).tolist()
        [[0.866, 0.5]]
    """
    counts = np.stack([np.histogram(np.clip(image, 0.0, 1.0), bins, (0.0, 1.0))[0] for image in images])
    return np.sqrt(counts / counts.sum(axis=1, keepdims=True))


def log_spectra(images: Sequence[np.ndarray], *, size: int = 64) -> np.ndarray:
    """Compute the logarithm of the power spectrum of each image by Welch's method.

    The spectrum is averaged over tiles that overlap by half, with a Hann window. Images smaller than a tile are padded
    by reflection.

    Args:
        images: Scaled images (H, W) in [0, 1], of any size.
        size: Size of the square tiles, in pixels.

    Returns:
        Features (n, size * (size // 2 + 1)).

    Example:
        >>> log_spectra([np.zeros((80, 70)), np.ones((16, 16))], size=32).shape
        (2, 544)
    """
    taper = np.hanning(size + 2)[1:-1]
    taper = taper[:, None] * taper[None, :]
    spectra = []
    for image in images:
        padding = [(0, max(0, size - length)) for length in image.shape]
        padded = np.pad(np.asarray(image, np.float64), padding, mode="symmetric")
        tiles = np.lib.stride_tricks.sliding_window_view(padded, (size, size))[:: size // 2, :: size // 2]
        tiles = tiles - tiles.mean(axis=(-2, -1), keepdims=True)
        power = np.abs(np.fft.rfft2(tiles * taper)) ** 2
        spectra.append(np.log(power.mean(axis=(0, 1)) + 1e-8).ravel())
    return np.stack(spectra)


GREY_LEVELS = 32
GLCM_DISTANCES = (1, 2, 4)
GLCM_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
LBP_RINGS = ((8, 1), (16, 2))
"""Number of points and radius in pixels of the local binary patterns."""


def texture_features(images: Sequence[np.ndarray]) -> np.ndarray:
    """Compute texture features: grey-level co-occurrence matrices and local binary patterns of scikit-image.

    Co-occurrence matrices have 32 grey levels and distances of 1, 2 and 4 pixels; six properties are averaged over
    four directions. Local binary patterns are rotation-invariant and uniform, with radii of 1 and 2 pixels; the
    features are their frequencies.

    Args:
        images: Scaled images (H, W) in [0, 1], of any size.

    Returns:
        Features (n, 46), finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> texture_features([rng.random((32, 32)), np.zeros((16, 16))]).shape
        (2, 46)
    """
    from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

    angles = np.arange(4) * np.pi / 4
    rows = []
    for image in images:
        clipped = np.clip(image, 0.0, 1.0)
        levels = np.minimum(clipped * GREY_LEVELS, GREY_LEVELS - 1).astype(np.uint8)
        matrix = graycomatrix(levels, GLCM_DISTANCES, angles, GREY_LEVELS, symmetric=True, normed=True)
        parts = [graycoprops(matrix, name).mean(axis=1) for name in GLCM_PROPERTIES]
        # Integers: patterns compare neighbouring pixels, and the rounding of floats would decide ties.
        integers = (clipped * 65535).astype(np.uint16)
        for points, radius in LBP_RINGS:
            patterns = local_binary_pattern(integers, points, radius, "uniform")
            parts.append(np.bincount(patterns.astype(np.int64).ravel(), minlength=points + 2) / patterns.size)
        rows.append(np.concatenate(parts))
    return np.nan_to_num(np.stack(rows))


def resized_pixels(images: Sequence[np.ndarray], *, size: int = 64) -> np.ndarray:
    """Resize images to one size and return their pixels.

    Args:
        images: Scaled images (H, W), of any size.
        size: Height and width after resizing (bilinear, antialiased), in pixels.

    Returns:
        Features (n, size * size) float32.

    Example:
        >>> resized_pixels([np.ones((10, 20)), np.zeros((64, 64))]).shape
        (2, 4096)
    """
    rows = []
    for image in images:
        pixels = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
        small = torch.nn.functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        rows.append(small.numpy().ravel())
    return np.stack(rows)


def fit_components(features: np.ndarray, *, components: int = 64) -> PCA:
    """Fit a principal component analysis.

    Args:
        features: Training features (n, d).
        components: Number of components; at most n and d.

    Returns:
        The fitted PCA.

    Example:
        >>> fit_components(np.random.default_rng(0).random((10, 5)), components=3).n_components_
        3
    """
    return PCA(min(components, *features.shape), random_state=0).fit(features)
