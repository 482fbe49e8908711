"""A microscope that images a simulated sample, bleaches it, and counts the dose."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import fftconvolve

from stedfm_hf.acquisition.microscope import Frame
from stedfm_hf.data.simulation.optics import Kernels, Scan, default_engine, kernels
from stedfm_hf.runs import UserError

OVERVIEW = Scan(excitation_uw=5.0, depletion_mw=0.0, dwell_us=10.0)
"""Confocal scan. Source: reference protocol."""
STED = Scan(excitation_uw=3.0, depletion_mw=100.0, dwell_us=38.0)
"""STED scan. Source: excitation and dwell time of the reference protocol."""
BACKGROUND_PER_S = 6400.0
"""Background counts per second. Source: reference protocol (one per 50 µs, in gates of 8 ns at 40 MHz)."""
SETTLING_S = 0.1
"""Time to move and to start a scan, in seconds."""


@dataclass(frozen=True)
class Dose:
    """What acquisitions did to a sample, and how long they took.

    Attributes:
        energy_mj: Energy of both beams, in millijoules: power times dwell time, summed over the pixels.
        photons: Detected counts, with those of the background.
        bleached: Molecules that were bleached.
        seconds: Time of the scans and of moving, in seconds.
    """

    energy_mj: float = 0.0
    photons: int = 0
    bleached: int = 0
    seconds: float = 0.0

    def __add__(self, other: Dose) -> Dose:
        """Add the doses of two acquisitions."""
        return Dose(*(mine + more for mine, more in zip(astuple(self), astuple(other), strict=True)))


def scan_dose(beams: Scan, pixels: int) -> Dose:
    """Return energy and time of a scan; counts and bleaching depend on the sample.

    Args:
        beams: Beams.
        pixels: Number of pixels.

    Example:
        >>> scan_dose(Scan(excitation_uw=3, depletion_mw=100, dwell_us=40), 100 * 100).seconds
        0.5
    """
    seconds = pixels * beams.dwell_us * 1e-6
    return Dose(energy_mj=1000 * beams.power_w * seconds, seconds=seconds + SETTLING_S)


class SimulatedMicroscope:
    """Microscope with a simulated sample; satisfies the protocol `Microscope`.

    Bleaching persists: every scan removes molecules from the sample, also around the scanned region. The noise of each
    scan is independent of that of the others. Beams that leave the sample see no molecules.

    Args:
        molecules: Number of molecules in every pixel of the sample (H, W) int64; not changed.
        pixel_size_nm: Size of a pixel of the sample and of acquired regions, in nm.
        engine: `pysted` (needs `stedfm-hf[sim]`) or `builtin`; None uses pySTED if it is installed.
        seed: Random seed of noise and bleaching.
        corner_um: x and y of the corner of the sample on the stage, in µm.
        overview_scan: Beams of overviews.
        region_scan: Beams of regions.
        overview_step: Size of the pixels of overviews, in pixels of the sample; the first is on the first pixel.
        background_per_s: Background counts per second.

    Attributes:
        molecules: Molecules that are not bleached (H, W) int64.
        dose: Dose of all acquisitions.

    Example:
        >>> sample = np.random.default_rng(0).poisson(0.2, (80, 80))
        >>> microscope = SimulatedMicroscope(sample, engine="builtin", seed=1, corner_um=(100.0, 0.0))
        >>> overview = microscope.overview()
        >>> overview.pixels.shape, [round(each, 6) for each in overview.centre_um]
        ((40, 40), [100.79, 0.79])
        >>> microscope.move_to(100.8, 0.8)
        >>> microscope.acquire(0.64, 0.32).pixels.shape, microscope.dose.bleached > 0
        ((32, 16), True)
    """

    def __init__(
        self,
        molecules: np.ndarray,
        pixel_size_nm: float = 20.0,
        *,
        engine: str | None = None,
        seed: int = 0,
        corner_um: tuple[float, float] = (0.0, 0.0),
        overview_scan: Scan = OVERVIEW,
        region_scan: Scan = STED,
        overview_step: int = 2,
        background_per_s: float = BACKGROUND_PER_S,
    ) -> None:
        if molecules.ndim != 2 or not np.issubdtype(molecules.dtype, np.integer):
            raise UserError(f"molecules must be whole numbers (H, W), not {molecules.dtype} {molecules.shape}")
        self.molecules = molecules.astype(np.int64)
        self.pixel_size_nm, self.corner_um = pixel_size_nm, corner_um
        self.engine = default_engine() if engine is None else engine
        self.overview_scan, self.region_scan, self.overview_step = overview_scan, region_scan, overview_step
        self.background_per_s = background_per_s
        self.dose = Dose()
        self._rng = np.random.default_rng(seed)
        height, width = molecules.shape
        self._centre = (height - 1) / 2, (width - 1) / 2

    def overview(self) -> Frame:
        """Acquire the whole sample with the beams of overviews."""
        height, width = self.molecules.shape
        return self.scan(0, 0, height, width, self.overview_scan, self.overview_step)

    def move_to(self, x_um: float, y_um: float) -> None:
        """Move the centre of the next region.

        Args:
            x_um: x on the stage, in µm.
            y_um: y on the stage, in µm.

        Raises:
            UserError: If the position is outside of the sample.
        """
        size = self.pixel_size_nm / 1000
        row, col = (y_um - self.corner_um[1]) / size - 0.5, (x_um - self.corner_um[0]) / size - 0.5
        height, width = self.molecules.shape
        if not (-0.5 <= row <= height - 0.5 and -0.5 <= col <= width - 0.5):
            (left, top), (down, across) = self.corner_um, (height * size, width * size)
            raise UserError(
                f"the position x = {x_um:g}, y = {y_um:g} µm is outside of the sample, which reaches from "
                f"{left:g}, {top:g} to {left + across:g}, {top + down:g} µm"
            )
        self._centre = row, col

    def acquire(self, height_um: float, width_um: float) -> Frame:
        """Acquire the region around the current position with the beams of regions.

        Args:
            height_um: Height, in µm.
            width_um: Width, in µm.
        """
        height, width = (max(1, round(1000 * each / self.pixel_size_nm)) for each in (height_um, width_um))
        top, left = (round(at - (size - 1) / 2) for at, size in zip(self._centre, (height, width), strict=True))
        return self.scan(top, left, height, width, self.region_scan)

    def scan(self, top: int, left: int, height: int, width: int, beams: Scan, step: int = 1) -> Frame:
        """Scan a rectangle of the sample line by line.

        Args:
            top: First row, in pixels of the sample.
            left: First column, in pixels of the sample.
            height: Number of rows.
            width: Number of columns.
            beams: Beams.
            step: Size of the pixels of the image, in pixels of the sample.
        """
        found = kernels(self.engine, self.pixel_size_nm, beams)
        rows, cols = np.arange(top, top + height, step), np.arange(left, left + width, step)
        expected, where, survival = _raster(self.molecules, found, rows, cols)
        background = self.background_per_s * beams.dwell_us * 1e-6
        pixels = self._rng.poisson(expected + background)
        before = self.molecules[where].copy()
        after = before if survival is None else self._rng.binomial(before, survival)
        self.molecules[where] = after
        lost = int(before.sum() - after.sum())
        self.dose += scan_dose(beams, pixels.size) + Dose(photons=int(pixels.sum()), bleached=lost)
        size = self.pixel_size_nm / 1000
        centre = (
            self.corner_um[0] + size * float(cols[0] + cols[-1] + 1) / 2,
            self.corner_um[1] + size * float(rows[0] + rows[-1] + 1) / 2,
        )
        return Frame(pixels.clip(0, 65535).astype(np.uint16), (self.pixel_size_nm * step,) * 2, centre)


def _raster(
    molecules: np.ndarray, found: Kernels, rows: np.ndarray, cols: np.ndarray
) -> tuple[np.ndarray, tuple[slice, slice], np.ndarray | None]:
    """Move the beams over rows and columns.

    A line sees the molecules that the lines before it left; bleaching within a line is neglected.

    Args:
        molecules: Molecules (H, W).
        found: Kernels (h, w).
        rows: Rows of the positions of the beams, in pixels, at equal distances.
        cols: Columns of the positions of the beams, in pixels, at equal distances.

    Returns:
        Expected counts (rows, cols), the part of the sample that the beams reach (h, w), and the probability that a
        molecule in it survives (h, w); None if nothing bleaches.
    """
    window = found.counts.shape[0]
    half, (height, width) = window // 2, molecules.shape
    (top, bottom), (left, right) = ((each[0] - half, each[-1] + half + 1) for each in (rows, cols))
    where = slice(max(0, top), max(0, min(height, bottom))), slice(max(0, left), max(0, min(width, right)))
    there = tuple(slice(each.start - start, each.stop - start) for each, start in zip(where, (top, left), strict=True))
    # Everything beyond the sample is empty; a few more empty columns make the transforms fast.
    length = next_fast_len(right - left, real=True)
    reach = np.zeros((bottom - top, length))
    reach[there] = molecules[where]
    rows, cols = rows - rows[0], cols - cols[0]
    if not found.bleaching.any():
        seen = fftconvolve(reach, found.counts[::-1, ::-1], mode="valid")
        return np.maximum(seen[np.ix_(rows, cols)], 0), where, None
    spectrum = np.fft.rfft(found.counts, length, axis=1).conj()
    # Along a line, each molecule meets all positions of the beams.
    beams = np.zeros((window, right - left - window + 1))
    beams[:, cols] = 1
    kept = np.exp(-fftconvolve(beams, found.bleaching, axes=1).clip(0))
    survival, expected = np.ones((len(reach), right - left)), np.empty((len(rows), len(cols)))
    for line, row in enumerate(rows):
        lines = slice(row, row + window)
        seen = np.fft.rfft(reach[lines, : right - left] * survival[lines], length, axis=1)
        expected[line] = np.fft.irfft((seen * spectrum).sum(axis=0), length)[cols]
        survival[lines] *= kept
    return np.maximum(expected, 0), where, survival[there]
