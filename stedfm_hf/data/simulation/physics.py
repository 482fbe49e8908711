"""Physical parameters of a simulation, and the names and numbers of its structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stedfm_hf.data.simulation.structures import STRUCTURES
from stedfm_hf.runs.errors import UserError

_FWHM_TO_SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))


@dataclass(frozen=True)
class SimulationSettings:
    """Physical parameters of a simulation; a pair is a range an image draws from evenly.

    Args:
        height: rows of an image, in pixels.
        width: columns of an image, in pixels.
        pixel_size_nm: side of a pixel, in nm.
        fwhm_nm: full width at half maximum of the effective point spread function at full depletion, in nm.
        photons: expected counts at the brightest places (99.9th percentile) at full depletion, above the background:
            brightness of the label times dwell time.
        background: expected counts of the background in every pixel.
        coverage: share of the pixels a structure should touch.
        match_with: structures whose intensities an image may take over; empty: every image keeps its own.
        depletion: share of the depletion power, 0 (confocal) to 1. The point spread function widens as
            `confocal_fwhm_nm / sqrt(1 + depletion * saturation)`, where the saturation is such that `fwhm_nm` is
            reached at 1; its peak stays as it is, so that less depletion gives more photons.
        confocal_fwhm_nm: full width at half maximum without depletion, in nm.
        occupied: least share of the pixels of a noise-free field above 0.2 of its bright ones; emptier fields are
            drawn again.

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
        """Standard deviation in pixels of a Gaussian of some width in nm."""
        return float(fwhm_nm * _FWHM_TO_SIGMA / self.pixel_size_nm)

    def effective_fwhm_nm(self, fwhm_nm: float, depletion: float) -> float:
        """Width of the point spread function at some depletion, in nm, where it is `fwhm_nm` at full depletion.

        Example:
            >>> settings = SimulationSettings(confocal_fwhm_nm=240.0)
            >>> [round(settings.effective_fwhm_nm(60.0, depletion)) for depletion in (0.0, 0.2, 1.0)]
            [240, 120, 60]
        """
        saturation = (self.confocal_fwhm_nm / fwhm_nm) ** 2 - 1.0
        return float(self.confocal_fwhm_nm / np.sqrt(1.0 + depletion * saturation))


def class_id(structure: str) -> int:
    """Number of a structure in masks, from 1.

    >>> class_id("rings"), class_id("puncta")
    (1, 4)
    """
    return 1 + list(STRUCTURES).index(structure)


def check_structures(names: Sequence[str]) -> None:
    """Raises UserError where a name is no structure."""
    for name in names:
        if name not in STRUCTURES:
            raise UserError(f"unknown structure {name!r}; known are {', '.join(STRUCTURES)}")


def in_order(structures: str | Sequence[str]) -> list[str]:
    """The names, each once, in the order of `STRUCTURES`."""
    asked = [structures] if isinstance(structures, str) else list(structures)
    check_structures(asked)
    if not asked:
        raise UserError("no structure to simulate; name one or more")
    return [name for name in STRUCTURES if name in asked]
