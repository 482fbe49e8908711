"""Images in photon counts, and the random generator of a change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from stedfm_hf.images import StedImage
from stedfm_hf.modeling.image_processing_stedfm import fit_intensity_range

PEAK_COUNTS = 50.0
"""Counts at the brightest pixel that are assumed for images whose pixels are not counts."""
PSF_FWHM_NM = 60.0
"""Assumed full width at half maximum of the point spread function of the unchanged images, in nm."""
_LEAST_CONTRAST = 0.25


@dataclass(frozen=True)
class Calibration:
    """Facts about an acquisition that image files do not contain.

    Attributes:
        peak_counts: Photon counts at the brightest pixel of every unchanged image; None takes pixel values as counts.
        psf_fwhm: Full width at half maximum of the point spread function of the unchanged images, in `unit`.
        unit: Unit of lengths: "nm", or "px" (pixels of the unchanged image) if pixel sizes are unknown.
        pixel_size_nm: Pixel size of images whose file has none, in nm; None if unknown.
    """

    peak_counts: float | None = None
    psf_fwhm: float = PSF_FWHM_NM
    unit: str = "nm"
    pixel_size_nm: float | None = None

    def pixel_size(self, image: StedImage) -> tuple[float, float]:
        """Return the size (y, x) of the pixels of an image, in `unit`.

        Args:
            image: Image.
        """
        if self.unit == "px":
            return 1.0, 1.0
        known = image.pixel_size_nm or (self.pixel_size_nm, self.pixel_size_nm)
        assert known[0] is not None and known[1] is not None, "lengths are in pixels if a pixel size is unknown"
        return float(known[0]), float(known[1])


@dataclass(frozen=True, eq=False)
class Counts:
    """Image in photon counts, as the input of a change.

    Attributes:
        values: Counts (C, H, W) float64; negative where a file has negative pixels.
        peak: Counts at the brightest pixels of each channel (C, 1, 1): the upper end of the intensity range.
        pixel_size: Size (y, x) of a pixel, in the unit of the calibration.
        psf_fwhm: Full width at half maximum of the point spread function, in the same unit.
        rng: Random generator of this image, family and level.
    """

    values: np.ndarray
    peak: np.ndarray
    pixel_size: tuple[float, float]
    psf_fwhm: float
    rng: np.random.Generator


def to_counts(image: StedImage, calibration: Calibration, rng: np.random.Generator) -> tuple[Counts, np.ndarray]:
    """Convert an image to photon counts.

    Args:
        image: Unscaled image.
        calibration: Facts about the acquisition.
        rng: Random generator of the change.

    Returns:
        The counts, and the counts of one grey value in each channel (C, 1, 1).

    Example:
        >>> image = StedImage(np.array([[[0, 8]]]), None, ("0",), {}, "a.tif", "image")
        >>> counts, per_grey_value = to_counts(image, Calibration(peak_counts=4, unit="px"), np.random.default_rng(0))
        >>> counts.values.round(1).tolist(), round(per_grey_value.item(), 2)
        ([[[0.0, 4.0]]], 0.5)
    """
    values = np.nan_to_num(image.array.astype(np.float64), posinf=0.0, neginf=0.0)
    range_of = np.array([image.intensity_range]) if image.intensity_range else fit_intensity_range(image.array)
    peak = np.maximum(np.broadcast_to(range_of[:, 1], len(values)), 1e-12).reshape(-1, 1, 1)
    factor = np.ones_like(peak) if calibration.peak_counts is None else calibration.peak_counts / peak
    counts = Counts(values * factor, peak * factor, calibration.pixel_size(image), calibration.psf_fwhm, rng)
    return counts, factor


def thin(counts: np.ndarray, fraction: np.ndarray | float, rng: np.random.Generator) -> np.ndarray:
    """Detect a fraction of the photons: counts stay Poisson distributed if they were.

    Args:
        counts: Photon counts (C, H, W). Fractions are rounded up or down at random; negative values are only scaled.
        fraction: Fraction of the photons to keep, in [0, 1]; it broadcasts to `counts`.
        rng: Random generator.

    Returns:
        Counts (C, H, W) float64.

    Example:
        >>> counts = np.full((1, 100, 100), 40.0)
        >>> round(float(thin(counts, 0.25, np.random.default_rng(0)).mean()))
        10
    """
    positive = np.maximum(counts, 0.0)
    whole = np.floor(positive)
    whole += rng.random(counts.shape) < positive - whole
    return (
        rng.binomial(whole.astype(np.int64), np.broadcast_to(fraction, counts.shape)) + (counts - positive) * fraction
    )


def moved_range(image: StedImage, changed: np.ndarray, gain: float) -> tuple[float, float] | None:
    """Return the intensity range of a changed crop, for which its whole image would have to be changed.

    The range moves as the percentiles of the crop do. A crop with little contrast says little about the brightest
    pixels of its image: its range is multiplied by the expected gain and moved with the median.

    Args:
        image: Unchanged image.
        changed: Changed pixels (C, H, W).
        gain: Expected factor of the intensities.

    Returns:
        Intensities that become 0 and 1; None if the processor must find them, because the image is not a crop.
    """
    if image.intensity_range is None:
        return None
    low, high = image.intensity_range
    (before,), (after,) = fit_intensity_range(image.array[:1]), fit_intensity_range(changed[:1])
    if np.allclose(before, (low, high), rtol=0, atol=1e-3 * (high - low)):
        return None
    if before[1] - before[0] >= _LEAST_CONTRAST * (high - low):
        gain = (after[1] - after[0]) / (before[1] - before[0])
        shift = after[0] - gain * before[0]
    else:
        shift = float(np.median(changed)) - gain * float(np.median(image.array))
    moved = gain * low + shift, gain * high + shift
    return moved if moved[1] > moved[0] else None


def generator(seed: int, image_id: str, family: str, level: float) -> np.random.Generator:
    """Return the random generator of one change of one image, regardless of the order of the images.

    Args:
        seed: Random seed.
        image_id: Id of the image.
        family: Name of the family of changes.
        level: Level of the change.
    """
    digest = hashlib.sha256(repr((seed, image_id, family, float(level))).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
