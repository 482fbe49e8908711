"""Resolution of one image, or of two images of the same object, by Fourier ring correlation."""

from __future__ import annotations

import numpy as np

THRESHOLD = 1 / 7
"""Correlation at which the resolution is read."""
_RING_PX = 1.0


def fourier_ring_correlation(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation of two images in rings of spatial frequency.

    Args:
        first: Image (H, W).
        second: Another image (H, W) of the same object, with independent noise.

    Returns:
        Frequencies in cycles per pixel (rings,), and correlations in [-1, 1] (rings,).

    Raises:
        ValueError: The images are not 2-D, or of different shapes.

    Source:
        Nieuwenhuizen et al., "Measuring image resolution in optical nanoscopy", 2013.

    Example:
        >>> image = np.random.default_rng(0).normal(size=(32, 32))
        >>> bool(np.allclose(fourier_ring_correlation(image, image)[1], 1))
        True
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(f"two images (H, W) of one shape are needed, not {first.shape} and {second.shape}")
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in first.shape))
    spectra = [np.fft.fft2((np.asarray(each, np.float64) - np.mean(each)) * window) for each in (first, second)]
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size) for size in first.shape), indexing="ij"))
    size = min(first.shape)
    ring = np.rint(frequency * size / _RING_PX).astype(int).ravel()
    rings = size // 2 + 1

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring, weights=values.ravel(), minlength=rings)[1:rings]

    shared = sums((spectra[0] * spectra[1].conj()).real)
    power = np.sqrt(sums(np.abs(spectra[0]) ** 2) * sums(np.abs(spectra[1]) ** 2))
    correlation = np.divide(shared, power, out=np.zeros_like(shared), where=power > 0)
    return np.arange(1, rings) * _RING_PX / size, correlation


def resolution_nm(image: np.ndarray, pixel_size_nm: float) -> float:
    """Estimate the resolution of one image: the period at which Fourier ring correlation falls below 1/7.

    The image is divided into two pairs of images by a checkerboard, whose noise is independent; their pixels are
    twice as large, so that nothing finer than four pixels can be measured.

    Args:
        image: Image (H, W), at least 32 pixels wide and high.
        pixel_size_nm: Size of a pixel in nm.

    Returns:
        Resolution in nm; NaN if the correlation never falls below 1/7 or is below it everywhere, as for an image of
        noise.

    Raises:
        ValueError: The image is not 2-D or too small, or the pixel size is not above 0.

    Source:
        Koho et al., "Fourier ring correlation simplifies image restoration in fluorescence microscopy", 2019. Their
        calibration of the frequencies is left out: compare values with each other, not with those of two images.

    Example:
        >>> from scipy.ndimage import gaussian_filter
        >>> rng = np.random.default_rng(0)
        >>> points = (rng.random((256, 256)) < 0.01) * 500.0
        >>> sharp, blurred = (rng.poisson(gaussian_filter(points, sigma) + 1) for sigma in (1.5, 4.0))
        >>> resolution_nm(sharp, 20.0) < resolution_nm(blurred, 20.0)
        True
    """
    if image.ndim != 2 or min(image.shape) < 32:
        raise ValueError(f"the image must be (H, W) of at least 32 x 32 pixels, not {image.shape}")
    if not pixel_size_nm > 0:
        raise ValueError(f"pixel_size_nm must be above 0, not {pixel_size_nm}")
    height, width = (size // 2 * 2 for size in image.shape)
    part = [[image[row:height:2, col:width:2] for col in range(2)] for row in range(2)]
    frequency, first = fourier_ring_correlation(part[0][0], part[1][1])
    _, second = fourier_ring_correlation(part[0][1], part[1][0])
    correlation = (first + second) / 2
    crossing = _crossing(frequency, correlation)
    return float(2 * pixel_size_nm / crossing)


def resolution_of_pair_nm(first: np.ndarray, second: np.ndarray, pixel_size_nm: float) -> float:
    """Estimate the resolution of two images of the same object: the period at which their correlation is below 1/7.

    Args:
        first: Image (H, W).
        second: Image (H, W) with independent noise.
        pixel_size_nm: Size of a pixel in nm.

    Returns:
        Resolution in nm; NaN if the correlation never falls below 1/7 or is below it everywhere.

    Raises:
        ValueError: The images are not 2-D, or of different shapes, or the pixel size is not above 0.

    Source:
        Nieuwenhuizen et al., "Measuring image resolution in optical nanoscopy", 2013.

    Example:
        >>> from scipy.ndimage import gaussian_filter
        >>> rng = np.random.default_rng(0)
        >>> light = gaussian_filter((rng.random((256, 256)) < 0.01) * 500.0, 3.0)
        >>> 60 < resolution_of_pair_nm(rng.poisson(light), rng.poisson(light), 20.0) < 300
        True
    """
    if not pixel_size_nm > 0:
        raise ValueError(f"pixel_size_nm must be above 0, not {pixel_size_nm}")
    return float(pixel_size_nm / _crossing(*fourier_ring_correlation(first, second)))


def _crossing(frequency: np.ndarray, correlation: np.ndarray) -> float:
    """Return the first frequency at which a smoothed correlation falls below the threshold, or NaN."""
    smooth = np.convolve(np.pad(correlation, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    below = np.flatnonzero(smooth < THRESHOLD)
    if not len(below) or below[0] == 0:
        return float("nan")
    at = below[0]
    # Between the two rings around the threshold.
    share = (smooth[at - 1] - THRESHOLD) / (smooth[at - 1] - smooth[at])
    return float(frequency[at - 1] + share * (frequency[at] - frequency[at - 1]))
