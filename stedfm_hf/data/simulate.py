"""STED-like images with known labels, for demos, tests and benchmarks (ours).

An image is a cloud of emitters (:mod:`stedfm_hf.data.structures`), blurred by the effective STED point spread
function, turned into expected photon counts, and drawn with Poisson noise. Photon budget, background, blur and density
come from the same ranges for every structure, and by default the noise-free field takes over the sorted intensities of
a field of a random structure: what is left to tell the structures apart is their shape, not their brightness.

Example:
    >>> image = simulate_image("rings", seed=0, index=3)
    >>> image.shape, image.dtype
    ((224, 224), dtype('uint16'))
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from stedfm_hf.data.structures import STRUCTURES, Emitters, Scene
from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.files import atomic_path

_FWHM_TO_SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))
_HAZE_NM = 400.0
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class SimulationSettings:
    """Physical parameters of a simulation; a pair is a range an image draws from evenly.

    Args:
        height: rows of an image, in pixels.
        width: columns of an image, in pixels.
        pixel_size_nm: side of a pixel, in nm.
        fwhm_nm: full width at half maximum of the effective point spread function, in nm.
        photons: expected counts at the brightest places (99.9th percentile) above the background.
        background: expected counts of the background in every pixel.
        coverage: share of the pixels a structure should touch.
        match_with: structures whose intensities an image may take over; empty: every image keeps its own.

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
    match_with: tuple[str, ...] = ("rings", "fibres", "microtubules", "puncta")

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 8:
            raise UserError(
                f"an image of {self.height} x {self.width} pixels is too small to simulate; use 8 x 8 or more"
            )
        if self.pixel_size_nm <= 0:
            raise UserError(f"pixel_size_nm must be above 0, not {self.pixel_size_nm}")
        for name in ("fwhm_nm", "photons", "background", "coverage"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise UserError(f"{name} must be a range (low, high) with 0 <= low <= high, not {(low, high)}")
        for name in self.match_with:
            _check_structure(name)


def _check_structure(name: str) -> None:
    if name not in STRUCTURES:
        raise UserError(f"unknown structure {name!r}; known are {', '.join(STRUCTURES)}")


def _generator(seed: int, structure: str, index: int) -> np.random.Generator:
    # The structure's name, not its place in a list: adding one later leaves all others as they were.
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(structure.encode()), index]))


def _deposit(emitters: Emitters, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Sums the brightness of the emitters in every pixel, (H, W) float32; emitters outside the field are dropped."""
    # Rounding up with a chance equal to the fraction keeps mean positions exact at a quarter of the cost of sharing
    # each emitter among four pixels.
    pixel = np.floor(emitters.position + rng.random(emitters.position.shape)).astype(np.intp)
    y, x = pixel[:, 0], pixel[:, 1]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    places = y[inside] * width + x[inside]
    sums = np.bincount(places, weights=emitters.brightness[inside], minlength=height * width)
    return sums.reshape(height, width).astype(np.float32)


def _blurred_field(structure: str, rng: np.random.Generator, settings: SimulationSettings) -> np.ndarray:
    """Noise-free intensities (H, W) float32 in arbitrary units."""
    scene = Scene(settings.height, settings.width, settings.pixel_size_nm, rng.uniform(*settings.coverage))
    sharp = _deposit(STRUCTURES[structure](rng, scene), rng, settings.height, settings.width)
    sigma = rng.uniform(*settings.fwhm_nm) * _FWHM_TO_SIGMA / settings.pixel_size_nm
    return ndimage.gaussian_filter(sharp, sigma, truncate=3.5, mode="constant")


def _take_intensities(
    field: np.ndarray, donor: np.ndarray, rng: np.random.Generator, settings: SimulationSettings
) -> np.ndarray:
    """Gives the n-th darkest pixel of `field` the n-th smallest value of `donor`: its shape, the donor's histogram."""
    # Where the donor covers more than the field, light must go to empty pixels. A haze around the structure says to
    # which ones, as out-of-focus light would; a whiff of noise orders the rest, else they would be lit row by row.
    side = 1 + 2 * int(_HAZE_NM / settings.pixel_size_nm / 2)
    haze = ndimage.uniform_filter(ndimage.uniform_filter(field, side, mode="constant"), side, mode="constant")
    ranked = field + 0.05 * np.maximum(haze, 0.0)  # the running sums of the filter can end a hair below 0
    ranked += np.float32(1e-4 * ranked.max()) * rng.random(field.shape, dtype=np.float32)
    # 16-bit keys are sorted by radix, several times faster than floats; the root spends the levels on the dim pixels.
    keys = (np.sqrt(ranked / max(ranked.max(), _TINY)) * 65535.0).astype(np.uint16)
    order = np.argsort(keys, axis=None, kind="stable")
    values = np.sort(donor[::2, ::2], axis=None)
    matched = np.empty(field.size, dtype=np.float32)
    matched[order] = values[np.arange(field.size) * values.size // field.size]
    return matched.reshape(field.shape)


def simulate_image(structure: str, *, seed: int, index: int, settings: SimulationSettings | None = None) -> np.ndarray:
    """Simulates one image; the same (structure, seed, index, settings) always gives the same pixels.

    Args:
        structure: a key of :data:`stedfm_hf.data.structures.STRUCTURES`.
        seed: names the data set, 0 or above.
        index: number of the image within the structure and seed, 0 or above.
        settings: physical parameters; None takes the defaults.

    Returns:
        Photon counts, uint16 (H, W).

    Raises:
        UserError: the structure is unknown.

    Example:
        >>> bool((simulate_image("puncta", seed=1, index=0) == simulate_image("puncta", seed=1, index=0)).all())
        True
    """
    _check_structure(structure)
    settings = settings or SimulationSettings()
    rng = _generator(seed, structure, index)
    field = _blurred_field(structure, rng, settings)
    if settings.match_with:
        donor = settings.match_with[rng.integers(len(settings.match_with))]
        field = _take_intensities(field, _blurred_field(donor, rng, settings), rng, settings)
    bright = max(float(np.percentile(field, 99.9)), _TINY)
    expected = rng.uniform(*settings.photons) / bright * field + rng.uniform(*settings.background)
    return rng.poisson(expected).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)


def write_images(
    folder: str | Path,
    *,
    per_structure: int,
    seed: int,
    structures: Sequence[str] = tuple(STRUCTURES),
    first_index: int = 0,
    settings: SimulationSettings | None = None,
) -> list[Path]:
    """Writes labelled 16-bit TIFF files, `FOLDER/STRUCTURE/STRUCTURE_NNNNN.tif`: the folder's name is the label.

    The pixel size stands in the files as ImageJ reads it, so `stedfm info` and Fiji show it.

    Args:
        folder: where the folders of the structures go; made if missing.
        per_structure: images of each structure.
        seed: names the data set.
        structures: names of the structures to write.
        first_index: number of the first image; disjoint ranges of indices are disjoint data sets.
        settings: physical parameters; None takes the defaults.

    Returns:
        The files, ordered by structure and index.

    Raises:
        UserError: a structure is unknown.

    Example:
        >>> files = write_images("simulated", per_structure=100, seed=0)  # doctest: +SKIP
    """
    for structure in structures:
        _check_structure(structure)
    settings = settings or SimulationSettings()
    pixels_per_um = 1000.0 / settings.pixel_size_nm
    files = []
    for structure in structures:
        for index in range(first_index, first_index + per_structure):
            path = Path(folder) / structure / f"{structure}_{index:05d}.tif"
            image = simulate_image(structure, seed=seed, index=index, settings=settings)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                tifffile.imwrite(
                    temporary,
                    image,
                    imagej=True,
                    resolution=(pixels_per_um, pixels_per_um),
                    metadata={
                        "axes": "YX",
                        "unit": "um",
                        "Info": f"simulated {structure}, seed {seed}, index {index}",
                    },
                )
            files.append(path)
    return files
