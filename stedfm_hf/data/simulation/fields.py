"""One simulated field of view: emitters, blur, photons, noise, and the truth about them.

A field is a cloud of emitters (:mod:`stedfm_hf.data.simulation.structures`), blurred by the effective point spread
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
from typing import Any

import numpy as np
from scipy import ndimage

from stedfm_hf.data.simulation.physics import SimulationSettings, class_id, in_order
from stedfm_hf.data.simulation.scene import Emitters, Scene
from stedfm_hf.data.simulation.structures import STRUCTURES

_HAZE_NM = 400.0
_TINY = 1e-20
MASK_FWHM_NM = 60.0
MASK_LEVEL = 0.3
"""A pixel is part of a structure where its emitters, blurred to 60 nm, give more than this share of what they give at
their own places (median)."""
OCCUPIED_LEVEL = 0.2
_DRAWS = 20


@dataclass(frozen=True, eq=False)
class SimulatedField:
    """A simulated field of view and the truth about it.

    Args:
        image: photon counts, uint16 (H, W).
        expected: the counts before noise, float32 (H, W), background included.
        mask: class of every pixel, uint8 (H, W): 0 is background, n the n-th structure of `STRUCTURES`.
        confocal: counts of the same emitters without depletion, uint16 (H, W), or None where not asked for.
        facts: what was drawn for it: structures, donor, fwhm_nm, photons, background, coverage.
    """

    image: np.ndarray
    expected: np.ndarray
    mask: np.ndarray
    confocal: np.ndarray | None
    facts: dict[str, Any]

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Where each structure of the field is, bool (H, W)."""
        return {name: self.mask == class_id(name) for name in self.facts["structures"]}


def simulate_field(
    structures: str | Sequence[str],
    *,
    seed: int,
    index: int,
    settings: SimulationSettings | None = None,
    confocal: bool = False,
) -> SimulatedField:
    """Simulates one field; the same (structures, seed, index, settings) always gives the same pixels.

    Nothing depends on what was simulated before, nor does the image on whether its confocal partner is asked for.

    Args:
        structures: a key of :data:`stedfm_hf.data.simulation.structures.STRUCTURES`; or several, each of which gets a
            territory of the field for itself.
        seed: names the data set, 0 or above.
        index: number of the field within structures and seed, 0 or above.
        settings: physical parameters; None takes the defaults.
        confocal: also image the same emitters without depletion.

    Returns:
        The counts and the truth. A pixel where the blurred masks of two structures meet belongs to the one whose
        emitters are brighter there, of equal ones to the first in `STRUCTURES`.

    Raises:
        UserError: a structure is unknown, or there is none.

    Example:
        >>> field = simulate_field(["puncta", "microtubules"], seed=0, index=0, confocal=True)
        >>> sorted(set(field.mask.ravel().tolist())), field.confocal.dtype
        ([0, 3, 4], dtype('uint16'))
    """
    names = in_order(structures)
    settings = settings or SimulationSettings()
    rng = generator("+".join(names), seed, index)
    sample = make_sample(names, rng, settings)
    clear, donor = sample.clear, None
    if settings.match_with:
        donor = settings.match_with[rng.integers(len(settings.match_with))]
        clear = _take_intensities(clear, make_sample([donor], rng, settings).clear, rng, settings)
    photons, background = rng.uniform(*settings.photons), rng.uniform(*settings.background)
    clear *= np.float32(photons / bright_level(clear))

    def seen(depletion: float) -> np.ndarray:
        if depletion == 1.0:
            return clear + np.float32(background)
        # Gaussians add in squares; a wider one with the same peak lets through more light.
        wide = settings.effective_fwhm_nm(sample.fwhm_nm, depletion)
        further = np.sqrt(max(wide**2 - sample.fwhm_nm**2, 0.0))
        light = blur(clear, settings.sigma(further)) * np.float32((wide / sample.fwhm_nm) ** 2)
        return light + np.float32(background)

    expected = seen(settings.depletion)
    noise, noise_of_partner = rng.spawn(2)
    return SimulatedField(
        image=to_uint16(noise.poisson(expected)),
        expected=expected,
        mask=class_mask(names, sample.sharp, settings),
        confocal=to_uint16(noise_of_partner.poisson(seen(0.0))) if confocal else None,
        facts={
            "structures": names,
            "intensities_of": donor,
            "fwhm_nm": round(settings.effective_fwhm_nm(sample.fwhm_nm, settings.depletion), 2),
            "photons": round(photons, 3),
            "background": round(background, 3),
            "coverage": round(sample.coverage, 4),
        },
    )


def simulate_image(structure: str, *, seed: int, index: int, settings: SimulationSettings | None = None) -> np.ndarray:
    """Simulates the image of one structure: `simulate_field(...).image`.

    Args:
        structure: a key of :data:`stedfm_hf.data.simulation.structures.STRUCTURES`.
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
    return simulate_field(structure, seed=seed, index=index, settings=settings).image


def generator(name: str, seed: int, index: int) -> np.random.Generator:
    """The source of randomness of one field, whatever was drawn before."""
    # The structure's name, not its place in a list: adding one later leaves all others as they were.
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode()), index]))


def bright_level(field: np.ndarray) -> float:
    """The 99.9th percentile of a field, above 0; of every fourth pixel, which is as good and faster."""
    flat = field[::2, ::2].ravel()
    place = int(0.999 * (flat.size - 1))
    # In a tiny field the percentile may miss all that is bright.
    return max(float(np.partition(flat, place)[place]), 0.05 * float(field.max()), _TINY)


@dataclass(frozen=True, eq=False)
class Sample:
    """What is under the microscope.

    Args:
        sharp: emitters of each structure, (H, W) float32.
        clear: all of them, blurred by the point spread function at full depletion.
        fwhm_nm: its width.
        coverage: of the structures, as it was asked for.
    """

    sharp: list[np.ndarray]
    clear: np.ndarray
    fwhm_nm: float
    coverage: float


def make_sample(names: Sequence[str], rng: np.random.Generator, settings: SimulationSettings) -> Sample:
    """Draws structures until the field is not nearly empty; at most `_DRAWS` times, for the sake of tiny fields."""
    for _ in range(_DRAWS):
        coverage, fwhm = rng.uniform(*settings.coverage), rng.uniform(*settings.fwhm_nm)
        scene = Scene(settings.height, settings.width, settings.pixel_size_nm, coverage)
        sharp = [_deposit(STRUCTURES[name](rng, scene), rng, scene) for name in names]
        if len(names) > 1:
            owner = _territories(rng, scene, len(names))
            sharp = [each * (owner == number) for number, each in enumerate(sharp)]
            sharp = [each / bright_level(blur(each, settings.sigma(MASK_FWHM_NM))) for each in sharp]
        clear = blur(sum(sharp[1:], sharp[0]), settings.sigma(fwhm))
        lit = np.count_nonzero(clear > OCCUPIED_LEVEL * bright_level(clear))
        if lit > settings.occupied * clear.size and all(each.any() for each in sharp):
            break
    return Sample(sharp, clear, fwhm, coverage)


def _deposit(emitters: Emitters, rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Sums the brightness of the emitters in every pixel, (H, W) float32; emitters outside the field are dropped."""
    # Rounding up with a chance equal to the fraction keeps mean positions exact at a quarter of the cost of sharing
    # each emitter among four pixels.
    pixel = np.floor(emitters.position + rng.random(emitters.position.shape)).astype(np.intp)
    y, x = pixel[:, 0], pixel[:, 1]
    inside = (y >= 0) & (y < scene.height) & (x >= 0) & (x < scene.width)
    places = y[inside] * scene.width + x[inside]
    sums = np.bincount(places, weights=emitters.brightness[inside], minlength=scene.height * scene.width)
    return sums.reshape(scene.height, scene.width).astype(np.float32)


def _territories(rng: np.random.Generator, scene: Scene, count: int) -> np.ndarray:
    """Deals the field out to `count` structures, (H, W): the number of the owner, -1 in the gaps between them.

    Cells around points far from each other, with wavy borders: as neighbouring neurites or cells share a field.
    """
    size = np.array([scene.height, scene.width], dtype=np.float64)
    tries = rng.random((16, count, 2)) * 0.8 + 0.1
    apart = np.linalg.norm(tries[:, :, None] - tries[:, None], axis=-1) + 2.0 * np.eye(count)
    centres = tries[apart.min(axis=(1, 2)).argmax()] * size
    y, x = np.mgrid[: scene.height, : scene.width].astype(np.float64)
    wave, phase = rng.uniform(900.0, 1_800.0, 2), rng.uniform(0.0, 2.0 * np.pi, 2)
    swing = scene.pixels(120.0)
    bent_y = y + swing * np.sin(2.0 * np.pi * x / scene.pixels(wave[0]) + phase[0])
    bent_x = x + swing * np.sin(2.0 * np.pi * y / scene.pixels(wave[1]) + phase[1])
    distance = np.hypot(bent_y - centres[:, 0, None, None], bent_x - centres[:, 1, None, None])
    first, second = np.partition(distance, 1, axis=0)[:2]
    return np.where(second - first > scene.pixels(160.0), distance.argmin(axis=0), -1)


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur into a dark surrounding; sigma in pixels."""
    return ndimage.gaussian_filter(field, sigma, truncate=3.5, mode="constant")


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


def to_uint16(counts: np.ndarray) -> np.ndarray:
    """Counts as uint16; what is more than that holds is saturated."""
    return counts.clip(0, np.iinfo(np.uint16).max).astype(np.uint16)


def class_mask(names: Sequence[str], sharp: Sequence[np.ndarray], settings: SimulationSettings) -> np.ndarray:
    """Classes of the pixels, (H, W) uint8, as :class:`SimulatedField` has them."""
    mask = np.zeros(sharp[0].shape, dtype=np.uint8)
    strongest = np.full(mask.shape, MASK_LEVEL, dtype=np.float32)
    for name, each in zip(names, sharp, strict=True):
        if each.any():
            density = blur(each, settings.sigma(MASK_FWHM_NM))
            strength = density / np.median(density[each > 0])
            mask[strength > strongest] = class_id(name)
            np.maximum(strongest, strength, out=strongest)
    return mask
