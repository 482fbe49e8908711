"""What a trained network must beat: an intensity histogram, the pixels, a log power spectrum, and textures.

The histogram asks whether brightness alone gives the labels away. The spectrum is a strong hand-made feature for
images that differ in texture: beating it is an achievement, losing to it is worth saying.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA


def intensity_histograms(images: Sequence[np.ndarray], *, bins: int = 32) -> np.ndarray:
    """Square roots of the shares of pixels in equal bins from 0 to 1.

    The root makes the cosine of two vectors the Bhattacharyya similarity of the histograms.

    Args:
        images: scaled images (H, W) in [0, 1], of any sizes.
        bins: number of bins.

    Returns:
        Features (n, bins), each of length 1.

    Example:
        >>> intensity_histograms([np.array([[0.0, 0.0], [0.0, 1.0]])], bins=2).round(3).tolist()
        [[0.866, 0.5]]
    """
    counts = np.stack([np.histogram(np.clip(image, 0.0, 1.0), bins, (0.0, 1.0))[0] for image in images])
    return np.sqrt(counts / counts.sum(axis=1, keepdims=True))


def log_spectra(images: Sequence[np.ndarray], *, size: int = 64) -> np.ndarray:
    """Logarithm of the power spectrum, averaged over half-overlapping windows of each image (Welch's method).

    Images smaller than a window are padded by reflection.

    Args:
        images: scaled images (H, W) in [0, 1], of any sizes.
        size: side of the windows, in pixels.

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
        lack = [max(0, size - side) for side in image.shape]
        padded = np.pad(np.asarray(image, np.float64), [(0, lack[0]), (0, lack[1])], mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))[:: size // 2, :: size // 2]
        windows = windows - windows.mean(axis=(-2, -1), keepdims=True)
        power = np.abs(np.fft.rfft2(windows * taper)) ** 2
        spectra.append(np.log(power.mean(axis=(0, 1)) + 1e-8).ravel())
    return np.stack(spectra)


GREY_LEVELS = 32
GLCM_DISTANCES = (1, 2, 4)
GLCM_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
LBP_RINGS = ((8, 1), (16, 2))
"""Points and radius of the rings that local binary patterns are taken on."""


def texture_features(images: Sequence[np.ndarray]) -> np.ndarray:
    """Grey-level co-occurrence and local binary patterns of scikit-image, in one fixed setting.

    Co-occurrence: 32 grey levels, distances 1, 2 and 4 pixels, mean over four directions of six properties. Patterns:
    shares of the rotation-invariant uniform ones on rings of radius 1 and 2.

    Args:
        images: scaled images (H, W) in [0, 1], of any sizes.

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
        # Of whole numbers: patterns compare neighbours, and rounding of floats would decide where they are equal.
        whole = (clipped * 65535).astype(np.uint16)
        for points, radius in LBP_RINGS:
            patterns = local_binary_pattern(whole, points, radius, "uniform")
            parts.append(np.bincount(patterns.astype(np.int64).ravel(), minlength=points + 2) / patterns.size)
        rows.append(np.concatenate(parts))
    return np.nan_to_num(np.stack(rows))


def small_pixels(images: Sequence[np.ndarray], *, side: int = 64) -> np.ndarray:
    """The pixels of images made small, so that images of all sizes can be compared pixel by pixel.

    Args:
        images: scaled images (H, W), of any sizes.
        side: rows and columns they are resized to, bilinear with antialiasing.

    Returns:
        Features (n, side * side), float32.

    Example:
        >>> small_pixels([np.ones((10, 20)), np.zeros((64, 64))]).shape
        (2, 4096)
    """
    rows = []
    for image in images:
        pixels = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
        small = torch.nn.functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
        rows.append(small.numpy().ravel())
    return np.stack(rows)


def fit_components(features: np.ndarray, *, components: int = 64) -> PCA:
    """Principal components of features, to be fitted on the training part alone.

    Args:
        features: (n, d).
        components: components kept; fewer where there are fewer images.
    """
    return PCA(min(components, *features.shape), random_state=0).fit(features)
