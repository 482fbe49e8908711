"""Optics of a simulated STED microscope: what one molecule emits, and how fast it bleaches, around the beams.

Kernels come from pySTED, or from Gaussians without it. They describe the scan of any sample at once. pySTED itself
moves the beams over the sample pixel by pixel and samples single molecules, which takes minutes for a small field.

Source:
    Microscope, dye and ranges of the reference protocol: excitation at 635 nm, depletion at 775 nm, a dye that emits
    at 690 nm. The bleaching rate of pySTED follows Oracz et al., "Photobleaching in STED nanoscopy and its dependence
    on the photon flux applied for reversible silencing of the fluorophore", 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from stedfm_hf.data.simulation.physics import SIGMA_PER_FWHM
from stedfm_hf.data.simulation.pysted_engine import check_pysted

FWHM_NM = 220.0
"""Full width at half maximum without depletion, in nm. This and the next constants resemble pySTED."""
SATURATION_MW = 20.0
"""Depletion power that makes the area of the point spread function half as large, in milliwatts."""
COUNTS_PER_S = 12_500.0
"""Counts per second of one molecule in the focus, for each microwatt of excitation."""
BLEACHING_PER_S = 50.0
"""Bleaching rate in the focus, per second, for each microwatt of excitation and 100 mW of depletion."""


@dataclass(frozen=True)
class Scan:
    """Beams of a scan, and how long they stay in a pixel.

    Attributes:
        excitation_uw: Power of the excitation beam, in microwatts.
        depletion_mw: Power of the depletion beam, in milliwatts; 0 is a confocal scan.
        dwell_us: Dwell time, in microseconds.
    """

    excitation_uw: float
    depletion_mw: float
    dwell_us: float

    @property
    def power_w(self) -> float:
        """Power of both beams, in watts."""
        return self.excitation_uw * 1e-6 + self.depletion_mw * 1e-3


@dataclass(frozen=True, eq=False)
class Kernels:
    """Effect of one position of the beams on the molecules around it.

    Attributes:
        counts: Expected counts of a molecule (h, w); the centre, at h // 2 and w // 2, is in the focus.
        bleaching: Negative logarithm of the probability that a molecule survives (h, w).
    """

    counts: np.ndarray
    bleaching: np.ndarray


def default_engine() -> str:
    """Return `pysted` if it is installed, otherwise `builtin`."""
    return "pysted" if find_spec("pysted") is not None else "builtin"


@lru_cache(maxsize=16)
def kernels(engine: str, pixel_size_nm: float, scan: Scan) -> Kernels:
    """Compute the kernels of a scan.

    Args:
        engine: `pysted`, or `builtin` for Gaussian beams.
        pixel_size_nm: Size of the pixels of the kernels, in nm.
        scan: Beams and dwell time.

    Raises:
        UserError: If pySTED is needed and not installed.

    Example:
        >>> confocal, sted = (kernels("builtin", 20.0, Scan(3, power, 40)) for power in (0, 100))
        >>> middle = confocal.counts.shape[0] // 2
        >>> bool(sted.counts[middle].sum() < 0.5 * confocal.counts[middle].sum())
        True
        >>> float(confocal.bleaching.max()), bool(sted.bleaching.max() > 0)
        (0.0, True)
    """
    if engine == "builtin":
        return _builtin(pixel_size_nm, scan)
    check_pysted()
    return _pysted(pixel_size_nm, scan)


def _builtin(pixel_size_nm: float, scan: Scan) -> Kernels:
    """Compute kernels of Gaussian beams; as with pySTED, only depletion bleaches."""
    half = int(np.ceil(1.5 * FWHM_NM / pixel_size_nm))
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * pixel_size_nm

    def beam(fwhm_nm: float) -> np.ndarray:
        return np.asarray(np.exp(-(y**2 + x**2) / (2 * (fwhm_nm * SIGMA_PER_FWHM) ** 2)))

    seconds = scan.dwell_us * 1e-6
    counts = COUNTS_PER_S * scan.excitation_uw * seconds
    bleaching = BLEACHING_PER_S * scan.excitation_uw * scan.depletion_mw / 100 * seconds
    narrow = FWHM_NM / np.sqrt(1 + scan.depletion_mw / SATURATION_MW)
    return Kernels(counts * beam(narrow), bleaching * beam(FWHM_NM))


def _pysted(pixel_size_nm: float, scan: Scan) -> Kernels:
    """Compute kernels with the beams, the dye and the detector of pySTED."""
    microscope, pixel_m = pysted_microscope(), pixel_size_nm * 1e-9
    excitation, sted, fluo = microscope.excitation, microscope.sted, microscope.fluo
    i_ex, i_sted, _ = microscope.cache(pixel_m)
    p_ex, p_sted, seconds = scan.excitation_uw * 1e-6, scan.depletion_mw * 1e-3, scan.dwell_us * 1e-6
    emitted = fluo.get_photons(microscope.get_effective(pixel_m, p_ex, p_sted))
    detected = microscope.detector.pcef * microscope.detector.pdef
    rate = fluo.get_k_bleach(
        excitation.lambda_,
        sted.lambda_,
        fluo.get_photons(i_ex * p_ex, excitation.lambda_),
        fluo.get_photons(i_sted * p_sted * sted.tau * sted.rate, sted.lambda_),
        sted.tau,
        1 / sted.rate,
        seconds,
    )
    return Kernels(np.asarray(emitted * detected * seconds), np.asarray(rate * seconds))


@lru_cache(maxsize=1)
def pysted_microscope() -> Any:
    """Create the microscope of the reference protocol with pySTED; its detector adds no background."""
    from pysted import base

    return base.Microscope(
        base.GaussianBeam(635e-9),
        base.DonutBeam(775e-9, zero_residual=0.01, rate=40e6, tau=400e-12),
        base.Detector(noise=True, background=0, det_delay=750e-12, det_width=8e-9),
        base.Objective(transmission={635: 0.84, 690: 0.85, 775: 0.8}),
        base.Fluorescence(
            lambda_=690e-9,
            qy=0.65,
            sigma_abs={635: 2.14e-20, 775: 3.5e-25},
            sigma_ste={775: 3.0e-22},
            tau=3.5e-9,
            tau_vib=1e-12,
            tau_tri=5e-6,
            k0=0,
            k1=1.3e-15,
            b=1.6,
        ),
        load_cache=False,
    )
