"""Simulator that images fields with pySTED: physical point spread functions, depletion and detector.

The emitters are those of `fields`. The optional package pySTED computes their images:
`pip install "stedfm-hf[sim]"`.

Source:
    pySTED by Turcotte, Bilodeau, Lavoie-Cardinal and Durand, CC BY 4.0.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import signal

from stedfm_hf.data.simulation.fields import (
    SimulatedField,
    bright_level,
    class_mask,
    make_specimen,
    random_generator,
    to_uint16,
)
from stedfm_hf.data.simulation.physics import SimulationSettings, sort_structures
from stedfm_hf.runs.errors import UserError

FULL_POWER_W = 100e-3
"""Power of the depletion beam at depletion 1, in watts."""
EXCITATION_W = 10e-6
DWELL_S = 10e-6
_PSF_MOLECULES = 10_000_000
"""Molecules in the pixel that the point spread function is measured on: enough to make noise negligible."""


def check_pysted() -> None:
    """Check that pySTED can be imported.

    Raises:
        UserError: pySTED is not installed.
    """
    try:
        importlib.import_module("pysted")
    except ImportError as error:
        raise UserError(
            'the engine pysted needs the package pysted. Install it with pip install "stedfm-hf[sim]"'
        ) from error


def simulate_field_with_pysted(
    structures: str | Sequence[str],
    *,
    seed: int,
    index: int,
    settings: SimulationSettings | None = None,
    confocal: bool = False,
) -> SimulatedField:
    """Simulate one field with pySTED; the same structures, seed, index and settings always give the same pixels.

    The width of the point spread function comes from pySTED's optics instead of `fwhm_nm`, intensities are not matched
    between structures, and there is no bleaching. A field of 224 x 224 pixels takes about 1 s.

    Args:
        structures: One or more keys of `STRUCTURES`.
        seed: Random seed of the data set, at least 0.
        index: Number of the field within the structures and seed, at least 0.
        settings: Physical parameters; None for the defaults. `confocal_fwhm_nm` and `match_with` are ignored.
        confocal: Whether to also image the same emitters without depletion.

    Returns:
        The field with its ground truth.

    Raises:
        UserError: pySTED is not installed, a structure is unknown, or none is given.
    """
    check_pysted()
    names = sort_structures(structures)
    settings = settings or SimulationSettings()
    rng = random_generator("+".join(names), seed, index)
    specimen = make_specimen(names, rng, settings)
    photons, background = rng.uniform(*settings.photons), rng.uniform(*settings.background)
    brightness = sum(specimen.emitter_maps[1:], specimen.emitter_maps[0])
    pixel_m = settings.pixel_size_nm * 1e-9
    level = bright_level(_expected_counts(brightness, pixel_m, 1.0))
    molecules = rng.poisson(photons / level * brightness)
    noise_seeds = [int(child.integers(2**32)) for child in rng.spawn(2)]
    image = _acquire(molecules, pixel_m, settings.depletion, background, noise_seeds[0])
    partner = _acquire(molecules, pixel_m, 0.0, background, noise_seeds[1]) if confocal else None
    return SimulatedField(
        image=to_uint16(image),
        expected=(_expected_counts(molecules, pixel_m, settings.depletion) + background).astype(np.float32),
        mask=class_mask(names, specimen.emitter_maps, settings),
        confocal=None if partner is None else to_uint16(partner),
        parameters={
            "structures": names,
            "engine": "pysted",
            "photons": round(photons, 3),
            "background": round(background, 3),
            "coverage": round(specimen.coverage, 4),
        },
    )


def _expected_counts(molecules: np.ndarray, pixel_m: float, depletion: float) -> np.ndarray:
    """Compute the expected counts of a map of molecules (H, W), without background."""
    psf = _point_spread_function(pixel_m, depletion)
    return np.maximum(signal.fftconvolve(molecules.astype(np.float64), psf, mode="same"), 0.0)


@lru_cache(maxsize=8)
def _point_spread_function(pixel_m: float, depletion: float) -> np.ndarray:
    """Compute the expected counts around one molecule, (size, size), from an image of many molecules in one pixel."""
    size = _microscope(pixel_m)[1].shape[0]
    point = np.zeros((size, size), dtype=np.int64)
    point[size // 2, size // 2] = _PSF_MOLECULES
    return _acquire(point, pixel_m, depletion, 0.0, seed=0) / _PSF_MOLECULES


def _acquire(molecules: np.ndarray, pixel_m: float, depletion: float, background: float, seed: int) -> np.ndarray:
    """Simulate one acquisition of a map of molecules (H, W); return photon counts, int64 (H, W)."""
    from pysted import base

    microscope, excitation = _microscope(pixel_m)
    datamap = base.Datamap(molecules, pixel_m)
    datamap.set_roi(excitation, intervals="max")
    with _seeded(seed):
        counts, _, _ = microscope.get_signal_and_bleach(
            datamap,
            pixel_m,
            pdt=DWELL_S,
            p_ex=EXCITATION_W,
            p_sted=depletion * FULL_POWER_W,
            bleach=False,
            update=False,
        )
        # pySTED sets the background on the detector of the microscope, and all images share one microscope.
        return counts + np.random.poisson(background, counts.shape)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global random state, which pySTED uses, and restore it at the end."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


@lru_cache(maxsize=4)
def _microscope(pixel_m: float) -> tuple[Any, np.ndarray]:
    """Create a STED microscope with a green dye; return it with the intensity profile of its excitation beam."""
    from pysted import base

    microscope = base.Microscope(
        base.GaussianBeam(488e-9),
        base.DonutBeam(575e-9, zero_residual=0.01, rate=40e6, tau=400e-12, anti_stoke=False),
        base.Detector(noise=True, background=0),
        base.Objective(),
        base.Fluorescence(
            lambda_=535e-9,
            qy=0.6,
            sigma_abs={488: 0.08e-21, 575: 0.02e-21},
            sigma_ste={575: 3.0e-22},
            tau=3e-9,
            tau_vib=1e-12,
            tau_tri=1.2e-6,
            k0=0,
            k1=1.3e-15,
            b=1.6,
            triplet_dynamics_frac=0,
        ),
        load_cache=False,
    )
    excitation, _, _ = microscope.cache(pixel_m)
    return microscope, excitation
