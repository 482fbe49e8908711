"""Physical parameters of a simulation, and the names and class ids of structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stedfm_hf.data.simulation.structures import STRUCTURES
from stedfm_hf.runs.errors import UserError

SIGMA_PER_FWHM = 1.0 / np.sqrt(8.0 * np.log(2.0))
"""Standard deviation of a Gaussian with full width at half maximum 1."""


@dataclass(frozen=True)
class SimulationSettings:
    """Physical parameters of a simulation; pairs are ranges (low, high) of a uniform distribution over images.

    Attributes:
        height: Height of an image, in pixels.
        width: Width of an image, in pixels.
        pixel_size_nm: Pixel size, in nm.
        fwhm_nm: Full width at half maximum of the effective point spread function at full depletion, in nm.
        photons: Expected counts of the brightest pixels (99.9th percentile) above background, at full depletion:
            brightness of the label times dwell time.
        background: Expected background counts per pixel.
        coverage: Fraction of the pixels that a structure should cover, in [0, 1].
        match_with: Structures whose sorted intensities an image may take; empty for unmatched intensities.
        depletion: Fraction of the depletion power, from 0 (confocal) to 1 (STED). The point spread function is
            `confocal_fwhm_nm / sqrt(1 + depletion * saturation)` wide, with the saturation that gives `fwhm_nm` at 1.
            Its peak does not depend on `depletion`, so less depletion gives more photons.
        confocal_fwhm_nm: Full width at half maximum without depletion, in nm.
        occupied: Smallest fraction of pixels of a noise-free field above 0.2 times its bright level (99.9th
            percentile); emptier fields are simulated again.

    Example:
        >>> SimulationSettings(photons=(100.0, 100.0)).pixel_size_nm
        20.0
    """

    height: int = 224
    width: int = 224
    pixel_size_nm: float = 20.0
    fwhm_nm: tuple[float, float] = (45.0, 80.0)
    photons: tuple[float, float] = (12.0, 60.0)
    background: tuple[float, float] = (0.3, 2.5)
    coverage: tuple[float, float] = (0.12, 0.30)
    match_with: tuple[str, ...] = tuple(STRUCTURES)
    depletion: float = 1.0
    confocal_fwhm_nm: float = 240.0
    occupied: float = 0.04

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 8:
            raise UserError(
                f"an image of {self.height} x {self.width} pixels is too small to simulate; use 8 x 8 or more"
            )
        for name in ("pixel_size_nm", "confocal_fwhm_nm"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("fwhm_nm", "photons", "background", "coverage"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise UserError(f"{name} must be a range (low, high) with 0 <= low <= high, not {(low, high)}")
        if self.fwhm_nm[0] < 1 or self.fwhm_nm[1] > self.confocal_fwhm_nm:
            raise UserError(
                f"fwhm_nm must be a range from 1 to confocal_fwhm_nm = {self.confocal_fwhm_nm:g}, not {self.fwhm_nm}"
            )
        for name in ("depletion", "occupied"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        check_structures(self.match_with)

    def sigma(self, fwhm_nm: float) -> float:
        """Convert a full width at half maximum in nm to the standard deviation of a Gaussian in pixels.

        Args:
            fwhm_nm: Full width at half maximum, in nm.

        Example:
            >>> round(SimulationSettings(pixel_size_nm=20.0).sigma(47.1), 3)
            1.0
        """
        return float(fwhm_nm * SIGMA_PER_FWHM / self.pixel_size_nm)

    def effective_fwhm_nm(self, fwhm_nm: float, depletion: float) -> float:
        """Compute the full width at half maximum of the point spread function at a depletion power, in nm.

        Args:
            fwhm_nm: Full width at half maximum at full depletion, in nm.
            depletion: Fraction of the depletion power, in [0, 1].

        Example:
            >>> settings = SimulationSettings(confocal_fwhm_nm=240.0)
            >>> [round(settings.effective_fwhm_nm(60.0, depletion)) for depletion in (0.0, 0.2, 1.0)]
            [240, 120, 60]
        """
        saturation = (self.confocal_fwhm_nm / fwhm_nm) ** 2 - 1.0
        return float(self.confocal_fwhm_nm / np.sqrt(1.0 + depletion * saturation))


def class_id(structure: str) -> int:
    """Return the number of a structure in masks, from 1.

    Args:
        structure: Name of the structure.

    Example:
        >>> class_id("rings"), class_id("puncta")
        (1, 4)
    """
    return 1 + list(STRUCTURES).index(structure)


def check_structures(names: Sequence[str]) -> None:
    """Check the names of structures.

    Args:
        names: Names to check.

    Raises:
        UserError: A name is not in `STRUCTURES`.
    """
    for name in names:
        if name not in STRUCTURES:
            raise UserError(f"unknown structure {name!r}; choose from {', '.join(STRUCTURES)}")


def sort_structures(structures: str | Sequence[str]) -> list[str]:
    """Return the names without duplicates, in the order of `STRUCTURES`.

    Args:
        structures: One name, or a sequence of names.

    Raises:
        UserError: A structure is unknown, or none is given.

    Example:
        >>> sort_structures(["puncta", "rings", "puncta"])
        ['rings', 'puncta']
    """
    names = [structures] if isinstance(structures, str) else list(structures)
    check_structures(names)
    if not names:
        raise UserError(f"no structure to simulate; give one or more of {', '.join(STRUCTURES)}")
    return [name for name in STRUCTURES if name in names]
