"""Simulated fields of view with ground truth: emitters, blur, photon counts and noise.

The simulator blurs the emitters of a field (`structures`) with the effective point
spread function, scales them to expected photon counts, and adds background and Poisson noise. It samples these
parameters and the density from the same ranges for every structure. By default, it also matches the noise-free field
to the sorted intensities of a field of a random structure. Structures therefore differ in shape, not in brightness.

Example:
    >>> image = simulate_image("rings", seed=0, index=3)
    >>> image.shape, image.dtype
    ((224, 224), dtype('uint16'))
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from stedfm_hf.data.simulation.physics import SimulationSettings, class_id, sort_structures
from stedfm_hf.data.simulation.scene import Emitters, Scene
from stedfm_hf.data.simulation.structures import STRUCTURES

_HAZE_NM = 400.0
_TINY = 1e-20
MASK_FWHM_NM = 60.0
MASK_LEVEL = 0.3
"""Density of emitters, blurred to `MASK_FWHM_NM`, above which a pixel is in the mask of a structure; as a fraction of
the median density in pixels with emitters."""
OCCUPIED_LEVEL = 0.2
_MAX_ATTEMPTS = 20


@dataclass(frozen=True, eq=False)
class SimulatedField:
    """Simulated field of view with its ground truth.

    Attributes:
        image: Photon counts, uint16 (H, W).
        expected: Expected counts before noise, with background, float32 (H, W).
        mask: Class of every pixel, uint8 (H, W): 0 is background, n is the n-th structure of `STRUCTURES`.
        confocal: Photon counts of the same emitters without depletion, uint16 (H, W), or None if not requested.
        parameters: Parameters sampled for the field, such as structures, photons, background and coverage.
    """

    image: np.ndarray
    expected: np.ndarray
    mask: np.ndarray
    confocal: np.ndarray | None
    parameters: dict[str, Any]

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Mask of each structure in the field, bool (H, W)."""
        return {name: self.mask == class_id(name) for name in self.parameters["structures"]}


def simulate_field(
    structures: str | Sequence[str],
    *,
    seed: int,
    index: int,
    settings: SimulationSettings | None = None,
    confocal: bool = False,
) -> SimulatedField:
    """Simulate one field; the same structures, seed, index and settings always give the same pixels.

    The image depends neither on earlier calls nor on `confocal`.

    Args:
        structures: One or more keys of `STRUCTURES`; two or more are placed
            in separate regions of the field.
        seed: Random seed of the data set, at least 0.
        index: Number of the field within the structures and seed, at least 0.
        settings: Physical parameters; None for the defaults.
        confocal: Whether to also image the same emitters without depletion.

    Returns:
        The field with its ground truth. Where the masks of two structures overlap, a pixel belongs to the structure
        with the higher emitter density, relative to the median of that structure; the first in `STRUCTURES` wins ties.

    Raises:
        UserError: A structure is unknown, or none is given.

    Example:
        >>> field = simulate_field(["puncta", "microtubules"], seed=0, index=0, confocal=True)
        >>> sorted(set(field.mask.ravel().tolist())), field.confocal.dtype
        ([0, 3, 4], dtype('uint16'))
    """
    names = sort_structures(structures)
    settings = settings or SimulationSettings()
    rng = random_generator("+".join(names), seed, index)
    specimen = make_specimen(names, rng, settings)
    signal, donor = specimen.blurred, None
    if settings.match_with:
        donor = settings.match_with[rng.integers(len(settings.match_with))]
        signal = _match_intensities(signal, make_specimen([donor], rng, settings).blurred, rng, settings)
    photons, background = rng.uniform(*settings.photons), rng.uniform(*settings.background)
    signal *= np.float32(photons / bright_level(signal))

    def expected_counts(depletion: float) -> np.ndarray:
        """Compute the expected counts (H, W) at a depletion power, with background, by further blur of the signal."""
        if depletion == 1.0:
            return signal + np.float32(background)
        # Squared widths of Gaussians add; a wider Gaussian with the same peak collects more light.
        fwhm_nm = settings.effective_fwhm_nm(specimen.fwhm_nm, depletion)
        extra_nm = np.sqrt(max(fwhm_nm**2 - specimen.fwhm_nm**2, 0.0))
        light = blur(signal, settings.sigma(extra_nm)) * np.float32((fwhm_nm / specimen.fwhm_nm) ** 2)
        return light + np.float32(background)

    expected = expected_counts(settings.depletion)
    noise, confocal_noise = rng.spawn(2)
    return SimulatedField(
        image=to_uint16(noise.poisson(expected)),
        expected=expected,
        mask=class_mask(names, specimen.emitter_maps, settings),
        confocal=to_uint16(confocal_noise.poisson(expected_counts(0.0))) if confocal else None,
        parameters={
            "structures": names,
            "intensities_of": donor,
            "fwhm_nm": round(settings.effective_fwhm_nm(specimen.fwhm_nm, settings.depletion), 2),
            "photons": round(photons, 3),
            "background": round(background, 3),
            "coverage": round(specimen.coverage, 4),
        },
    )


def simulate_image(structure: str, *, seed: int, index: int, settings: SimulationSettings | None = None) -> np.ndarray:
    """Simulate the image of one structure; the same as `simulate_field(...).image`.

    Args:
        structure: A key of `STRUCTURES`.
        seed: Random seed of the data set, at least 0.
        index: Number of the image within the structure and seed, at least 0.
        settings: Physical parameters; None for the defaults.

    Returns:
        Photon counts, uint16 (H, W).

    Raises:
        UserError: The structure is unknown.

    Example:
        >>> bool((simulate_image("puncta", seed=1, index=0) == simulate_image("puncta", seed=1, index=0)).all())
        True
    """
    return simulate_field(structure, seed=seed, index=index, settings=settings).image


def random_generator(name: str, seed: int, index: int) -> np.random.Generator:
    """Return the random generator of one field; it depends only on name, seed and index."""
    # The name of the structure, not its index in a list, so that images do not change when structures are added.
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode()), index]))


def bright_level(field: np.ndarray) -> float:
    """Return the 99.9th percentile of a field, above 0; every fourth pixel is used, for speed."""
    flat = field[::2, ::2].ravel()
    rank = int(0.999 * (flat.size - 1))
    # In a tiny field, the percentile may miss all bright pixels.
    return max(float(np.partition(flat, rank)[rank]), 0.05 * float(field.max()), _TINY)


@dataclass(frozen=True, eq=False)
class Specimen:
    """Simulated specimen: emitters before and after blur.

    Attributes:
        emitter_maps: Summed brightness of the emitters of each structure, float32 (H, W).
        blurred: Sum of the maps, blurred by the point spread function at full depletion, float32 (H, W).
        fwhm_nm: Full width at half maximum of that point spread function, in nm.
        coverage: Requested fraction of the pixels that the structures cover.
    """

    emitter_maps: list[np.ndarray]
    blurred: np.ndarray
    fwhm_nm: float
    coverage: float


def make_specimen(names: Sequence[str], rng: np.random.Generator, settings: SimulationSettings) -> Specimen:
    """Simulate the emitters of one or more structures and their blur, again while the field is nearly empty.

    Two or more structures are placed in separate regions and scaled to the same brightness.

    Args:
        names: Names of the structures.
        rng: Random generator of the field.
        settings: Physical parameters; `occupied` decides which fields are nearly empty.

    Returns:
        The specimen. Tiny fields may still be nearly empty after the last of 20 attempts.
    """
    for _ in range(_MAX_ATTEMPTS):
        coverage, fwhm = rng.uniform(*settings.coverage), rng.uniform(*settings.fwhm_nm)
        scene = Scene(settings.height, settings.width, settings.pixel_size_nm, coverage)
        maps = [bin_emitters(STRUCTURES[name](rng, scene), rng, scene) for name in names]
        if len(names) > 1:
            region = _regions(rng, scene, len(names))
            maps = [each * (region == number) for number, each in enumerate(maps)]
            maps = [each / bright_level(blur(each, settings.sigma(MASK_FWHM_NM))) for each in maps]
        blurred = blur(sum(maps[1:], maps[0]), settings.sigma(fwhm))
        bright = np.count_nonzero(blurred > OCCUPIED_LEVEL * bright_level(blurred))
        if bright > settings.occupied * blurred.size and all(each.any() for each in maps):
            break
    return Specimen(maps, blurred, fwhm, coverage)


def bin_emitters(emitters: Emitters, rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Sum the brightness of the emitters in every pixel, float32 (H, W); drop emitters outside the field."""
    # Positions are rounded up with a probability equal to their fractional part: the mean position stays exact, at a
    # quarter of the cost of distributing each emitter over four pixels.
    pixel = np.floor(emitters.position + rng.random(emitters.position.shape)).astype(np.intp)
    y, x = pixel[:, 0], pixel[:, 1]
    inside = (y >= 0) & (y < scene.height) & (x >= 0) & (x < scene.width)
    index = y[inside] * scene.width + x[inside]
    sums = np.bincount(index, weights=emitters.brightness[inside], minlength=scene.height * scene.width)
    return sums.reshape(scene.height, scene.width).astype(np.float32)


def _regions(rng: np.random.Generator, scene: Scene, count: int) -> np.ndarray:
    """Split the field into `count` regions with wavy borders, as between neighbouring cells or neurites.

    Returns:
        Number of the region of every pixel from 0, or -1 in the gaps between regions, (H, W).
    """
    size = np.array([scene.height, scene.width], dtype=np.float64)
    # Of 16 random sets of centres, take the one whose nearest centres are farthest apart.
    candidates = rng.random((16, count, 2)) * 0.8 + 0.1
    apart = np.linalg.norm(candidates[:, :, None] - candidates[:, None], axis=-1)
    apart += 2.0 * np.eye(count)  # the distance of a centre from itself must not be the smallest
    centres = candidates[apart.min(axis=(1, 2)).argmax()] * size
    y, x = np.mgrid[: scene.height, : scene.width].astype(np.float64)
    wavelength_nm, phase = rng.uniform(900.0, 1_800.0, 2), rng.uniform(0.0, 2.0 * np.pi, 2)
    amplitude = scene.pixels(120.0)
    bent_y = y + amplitude * np.sin(2.0 * np.pi * x / scene.pixels(wavelength_nm[0]) + phase[0])
    bent_x = x + amplitude * np.sin(2.0 * np.pi * y / scene.pixels(wavelength_nm[1]) + phase[1])
    distance = np.hypot(bent_y - centres[:, 0, None, None], bent_x - centres[:, 1, None, None])
    first, second = np.partition(distance, 1, axis=0)[:2]
    return np.where(second - first > scene.pixels(160.0), distance.argmin(axis=0), -1)


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a field (H, W) with a Gaussian of standard deviation `sigma` in pixels; the surroundings are dark."""
    return ndimage.gaussian_filter(field, sigma, truncate=3.5, mode="constant")


def _match_intensities(
    field: np.ndarray, donor: np.ndarray, rng: np.random.Generator, settings: SimulationSettings
) -> np.ndarray:
    """Replace the n-th darkest pixel of `field` by the n-th smallest value of `donor`: histogram matching by rank."""
    # If the donor covers more pixels than the field, empty pixels must become brighter: first those near the
    # structure, like out-of-focus light. Weak noise orders the others, which would otherwise be filled row by row.
    size = 1 + 2 * int(_HAZE_NM / settings.pixel_size_nm / 2)
    haze = ndimage.uniform_filter(ndimage.uniform_filter(field, size, mode="constant"), size, mode="constant")
    ranked = field + 0.05 * np.maximum(haze, 0.0)  # the running sums of the filter can be slightly below 0
    ranked += np.float32(1e-4 * ranked.max()) * rng.random(field.shape, dtype=np.float32)
    # Radix sort of 16-bit keys is several times faster than sorting floats; the root gives dim pixels more levels.
    keys = (np.sqrt(ranked / max(ranked.max(), _TINY)) * 65535.0).astype(np.uint16)
    order = np.argsort(keys, axis=None, kind="stable")
    values = np.sort(donor[::2, ::2], axis=None)
    matched = np.empty(field.size, dtype=np.float32)
    matched[order] = values[np.arange(field.size) * values.size // field.size]
    return matched.reshape(field.shape)


def to_uint16(counts: np.ndarray) -> np.ndarray:
    """Return counts as uint16; values above 65535 are clipped."""
    return counts.clip(0, np.iinfo(np.uint16).max).astype(np.uint16)


def class_mask(names: Sequence[str], maps: Sequence[np.ndarray], settings: SimulationSettings) -> np.ndarray:
    """Compute the class of every pixel from the emitters.

    Args:
        names: Names of the structures.
        maps: Summed brightness of the emitters of each structure, (H, W).
        settings: Physical parameters.

    Returns:
        The mask of `SimulatedField`, uint8 (H, W).
    """
    mask = np.zeros(maps[0].shape, dtype=np.uint8)
    highest = np.full(mask.shape, MASK_LEVEL, dtype=np.float32)
    for name, each in zip(names, maps, strict=True):
        if each.any():
            density = blur(each, settings.sigma(MASK_FWHM_NM))
            relative = density / np.median(density[each > 0])
            mask[relative > highest] = class_id(name)
            np.maximum(highest, relative, out=highest)
    return mask
