"""Fields imaged by pySTED instead of by a Gaussian: its point spread functions, depletion and detector.

The samples are those of :mod:`stedfm_hf.data.simulation.fields`; what an image of them looks like is computed by
pySTED (Turcotte, Bilodeau, Lavoie-Cardinal and Durand, CC BY 4.0), an optional package:
`pip install "stedfm-hf[sim]"`.
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
    generator,
    make_sample,
    to_uint16,
)
from stedfm_hf.data.simulation.physics import SimulationSettings, in_order
from stedfm_hf.runs.errors import UserError

FULL_POWER_W = 100e-3
"""Power of the depletion beam at depletion 1, in watts."""
EXCITATION_W = 10e-6
DWELL_S = 10e-6
_MANY = 10_000_000


def check_pysted() -> None:
    """Raises UserError where pySTED cannot be imported."""
    try:
        importlib.import_module("pysted")
    except ImportError as error:
        raise UserError('the engine pysted is not installed; pip install "stedfm-hf[sim]"') from error


def simulate_field_with_pysted(
    structures: str | Sequence[str],
    *,
    seed: int,
    index: int,
    settings: SimulationSettings | None = None,
    confocal: bool = False,
) -> SimulatedField:
    """Images one field with pySTED; deterministic per (structures, seed, index, settings), about 1 s for 224 x 224.

    `photons`, `background`, `coverage`, `depletion` and `pixel_size_nm` mean what they mean elsewhere. The width of
    the point spread function follows from pySTED's optics, not from `fwhm_nm`, and intensities are not matched across
    structures. Nothing bleaches.

    Raises:
        UserError: pySTED is not installed, or a structure is unknown.
    """
    check_pysted()
    names = in_order(structures)
    settings = settings or SimulationSettings()
    rng = generator("+".join(names), seed, index)
    sample = make_sample(names, rng, settings)
    photons, background = rng.uniform(*settings.photons), rng.uniform(*settings.background)
    sharp = sum(sample.sharp[1:], sample.sharp[0])
    pixel_m = settings.pixel_size_nm * 1e-9
    per_count = bright_level(_imaged(sharp, pixel_m, 1.0))
    molecules = rng.poisson(photons / per_count * sharp)
    noise = [int(child.integers(2**32)) for child in rng.spawn(2)]
    image = _acquire(molecules, pixel_m, settings.depletion, background, noise[0])
    partner = _acquire(molecules, pixel_m, 0.0, background, noise[1]) if confocal else None
    return SimulatedField(
        image=to_uint16(image),
        expected=(_imaged(molecules, pixel_m, settings.depletion) + background).astype(np.float32),
        mask=class_mask(names, sample.sharp, settings),
        confocal=None if partner is None else to_uint16(partner),
        facts={
            "structures": names,
            "engine": "pysted",
            "photons": round(photons, 3),
            "background": round(background, 3),
            "coverage": round(sample.coverage, 4),
        },
    )


def _imaged(sample: np.ndarray, pixel_m: float, depletion: float) -> np.ndarray:
    """Expected counts of a map of molecules, without background."""
    spread = _point_spread(pixel_m, depletion)
    return np.maximum(signal.fftconvolve(sample.astype(np.float64), spread, mode="same"), 0.0)


@lru_cache(maxsize=8)
def _point_spread(pixel_m: float, depletion: float) -> np.ndarray:
    """Expected counts of one molecule around its place: measured on very many, so that noise does not matter."""
    side = _microscope(pixel_m)[1].shape[0]
    point = np.zeros((side, side), dtype=np.int64)
    point[side // 2, side // 2] = _MANY
    return _acquire(point, pixel_m, depletion, 0.0, seed=0) / _MANY


def _acquire(molecules: np.ndarray, pixel_m: float, depletion: float, background: float, seed: int) -> np.ndarray:
    """Counts, int64 (H, W)."""
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
        # The detector's own background is a setting of the microscope, which is made once for all images.
        return counts + np.random.poisson(background, counts.shape)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """PySTED draws from NumPy's global state; it is left as it was found."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


@lru_cache(maxsize=4)
def _microscope(pixel_m: float) -> tuple[Any, np.ndarray]:
    """A confocal and STED microscope with a green dye, and the profile of its excitation beam."""
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
