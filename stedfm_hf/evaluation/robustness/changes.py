"""Changes of the acquisition, applied to the measured pixels in photon counts, before they are scaled.

Each function takes `Counts` and a level, and returns the changed counts (C, H, W) float64. `families.py` lists the
levels.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from stedfm_hf.data.simulation.physics import SIGMA_PER_FWHM
from stedfm_hf.evaluation.robustness.counts import Counts, thin


def photon_fraction(counts: Counts, level: float) -> np.ndarray:
    """Return the fraction of the photons that a photon budget keeps, (C, 1, 1); 1 if the image has no more.

    Args:
        counts: Image in counts.
        level: Counts at the brightest pixels.
    """
    return np.minimum(1.0, level / counts.peak)


def photon_budget(counts: Counts, level: float) -> np.ndarray:
    """Reduce the photons so that the brightest pixels have `level` counts.

    Args:
        counts: Image in counts.
        level: Counts at the brightest pixels.
    """
    return thin(counts.values, photon_fraction(counts, level), counts.rng)


def background(counts: Counts, level: float) -> np.ndarray:
    """Add Poisson-distributed background photons.

    Args:
        counts: Image in counts.
        level: Mean number of counts in each pixel.
    """
    return counts.values + counts.rng.poisson(level, counts.values.shape)


def detector_offset(counts: Counts, level: float) -> np.ndarray:
    """Add a constant.

    Args:
        counts: Image in counts.
        level: Counts to add to each pixel.
    """
    return counts.values + level


def depletion(counts: Counts, level: float) -> np.ndarray:
    """Blur as a wider point spread function of less depletion power does, and count the photons again.

    Widths of Gaussians add in quadrature: the extra blur has a full width of sqrt(level² - current²). Blur alone would
    average the shot noise away, which no microscope does; the blurred counts are therefore means of Poisson numbers.

    Args:
        counts: Image in counts.
        level: Full width at half maximum of the point spread function, in the unit of the pixel size.
    """
    sigma = np.sqrt(max(level**2 - counts.psf_fwhm**2, 0.0)) * SIGMA_PER_FWHM
    blurred = gaussian_filter(counts.values, (0.0, sigma / counts.pixel_size[0], sigma / counts.pixel_size[1]))
    return counts.rng.poisson(np.maximum(blurred, 0.0)).astype(np.float64)


def drift(counts: Counts, level: float) -> np.ndarray:
    """Move the rows of a frame, more from top to bottom, to the left or to the right.

    Rows move by whole pixels, so that pixels keep their noise. Pixels that come from outside are mirrored.

    Args:
        counts: Image in counts.
        level: Drift from the first to the last row, in the unit of the pixel size.
    """
    _, height, width = counts.values.shape
    direction = counts.rng.choice([-1.0, 1.0])
    shift = direction * level / counts.pixel_size[1] * np.arange(height) / max(height - 1, 1)
    columns = (np.arange(width) - np.round(shift).astype(np.int64)[:, None]) % (2 * width)
    columns = np.where(columns < width, columns, 2 * width - 1 - columns)
    return np.take_along_axis(counts.values, np.broadcast_to(columns, counts.values.shape), axis=2)


def larger_pixels(counts: Counts, level: float) -> np.ndarray:
    """Keep fewer of the measured pixels, as a scan with larger steps and the same dwell time measures them.

    Args:
        counts: Image in counts.
        level: Pixel size, in the unit of the pixel size; smaller values than that of the image change nothing.
    """
    changed = counts.values
    for axis, size in ((1, counts.pixel_size[0]), (2, counts.pixel_size[1])):
        step = max(1.0, level / size)
        number = max(1, int(changed.shape[axis] / step))
        chosen = np.minimum(((np.arange(number) + 0.5) * step).astype(np.int64), changed.shape[axis] - 1)
        changed = changed.take(chosen, axis=axis)
    return changed


def gain(counts: Counts, level: float) -> np.ndarray:
    """Multiply the pixels.

    Args:
        counts: Image in counts.
        level: Increase in %.
    """
    return counts.values * (1 + level / 100)


def gamma(counts: Counts, level: float) -> np.ndarray:
    """Raise the intensities, relative to the brightest pixels, to a power above 1.

    Args:
        counts: Image in counts.
        level: Exponent, in % above 1.
    """
    return counts.peak * (np.maximum(counts.values, 0.0) / counts.peak) ** (1 + level / 100)


def saturation(counts: Counts, level: float) -> np.ndarray:
    """Clip the brightest pixels, as a detector that saturates.

    Args:
        counts: Image in counts.
        level: Fraction of the pixels to clip, in %.
    """
    return np.minimum(counts.values, np.percentile(counts.values, 100 - level, axis=(1, 2), keepdims=True))


def bleaching(counts: Counts, level: float) -> np.ndarray:
    """Reduce the photons exponentially from the first to the last row of a frame.

    Args:
        counts: Image in counts.
        level: Loss in the last row, in %.
    """
    height = counts.values.shape[1]
    fraction = (1 - level / 100) ** (np.arange(height) / max(height - 1, 1))
    return thin(counts.values, fraction[:, None], counts.rng)


def rotation(counts: Counts, level: float) -> np.ndarray:
    """Rotate an image.

    Args:
        counts: Image in counts.
        level: Angle in degrees, a multiple of 90.
    """
    return np.rot90(counts.values, round(level / 90), axes=(1, 2))


def flip(counts: Counts, level: float) -> np.ndarray:
    """Mirror an image.

    Args:
        counts: Image in counts.
        level: Axis: 1 swaps left and right, 2 top and bottom.
    """
    return np.flip(counts.values, axis=2 if level == 1 else 1)
