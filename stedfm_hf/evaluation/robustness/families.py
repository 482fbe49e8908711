"""Families of acquisition changes: levels with units, and their application to images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stedfm_hf.evaluation.robustness import changes
from stedfm_hf.evaluation.robustness.counts import Calibration, Counts, generator, moved_range, to_counts
from stedfm_hf.images import StedImage
from stedfm_hf.runs import UserError

NOMINAL_PIXEL_NM = 20.0
"""Pixel size for which levels in nm are converted to pixels, where pixel sizes are unknown."""
_PIXEL_STEPS = (1.25, 1.5, 2.0, 3.0, 4.0)
_PSF_NM = (80.0, 100.0, 140.0, 200.0, 260.0)
_DRIFT_NM = (50.0, 100.0, 200.0, 400.0, 800.0)


def _no_gain(counts: Counts, level: float) -> float:
    """Return 1: the change does not scale intensities."""
    return 1.0


@dataclass(frozen=True)
class Family:
    """Changes of one setting of the acquisition, from none to strong.

    Attributes:
        name: Name in commands and tables.
        title: Name in reports.
        setting: What to keep constant at the microscope.
        unit: Unit of the levels.
        levels: Levels; the first changes nothing.
        definition: Description of the change, in a sentence.
        change: Function from counts and a level to changed counts.
        random: Whether the change depends on the random seed.
        names: Names of levels without an order; empty if levels are numbers.
        decreasing: Whether smaller levels are stronger changes. Their scale is then 1 / sqrt(level), the relative shot
            noise.
        expected_gain: Function from counts and a level to the expected factor of the intensities.
    """

    name: str
    title: str
    setting: str
    unit: str
    levels: tuple[float, ...]
    definition: str
    change: Callable[[Counts, float], np.ndarray]
    random: bool = False
    names: tuple[str, ...] = ()
    decreasing: bool = False
    expected_gain: Callable[[Counts, float], float] = _no_gain

    @property
    def ordered(self) -> bool:
        """Whether the levels have an order, so that a tolerance exists."""
        return not self.names

    @property
    def identity(self) -> float:
        """Level that changes nothing."""
        return self.levels[0]

    def position(self, level: float) -> float:
        """Return the position of a level on the scale in which tolerances are interpolated.

        Args:
            level: Level.
        """
        return (0.0 if math.isinf(level) else 1 / math.sqrt(level)) if self.decreasing else level

    def level_at(self, position: float) -> float:
        """Return the level at a position, the inverse of `position`.

        Args:
            position: Position.
        """
        if not self.decreasing:
            return position
        return math.inf if position <= 0 else 1 / position**2

    def label(self, level: float) -> str:
        """Return the text of a level with its unit.

        Args:
            level: One of the levels, or a level between them.

        Example:
            >>> family = default_families(Calibration())[0]
            >>> [family.label(level) for level in family.levels[:2]]
            ['unchanged', '50 counts']
        """
        if level == self.identity and (self.decreasing or self.names):
            return "unchanged"
        if self.names:
            return self.names[self.levels.index(level)]
        return f"{level:.3g} {self.unit}"

    def apply(
        self, image: StedImage, level: float, *, calibration: Calibration, seed: int = 0, image_id: str = ""
    ) -> StedImage:
        """Change an image.

        Args:
            image: Unscaled image.
            level: Level.
            calibration: Facts about the acquisition.
            seed: Random seed; changes that are not random ignore it.
            image_id: Id of the image; the result depends on it, the seed, the family and the level only.

        Returns:
            The image with changed pixels, float32, in the same grey values. The first level returns the image itself.

        Example:
            >>> image = StedImage(np.full((1, 4, 4), 100), None, ("0",), {}, "a.tif", "image")
            >>> family = default_families(Calibration(unit="px"))[0]
            >>> changed = family.apply(image, 5.0, calibration=Calibration(unit="px"))
            >>> changed.array.dtype.name, bool(changed.array.max() < 20)
            ('float32', True)
        """
        if level == self.identity:
            return image
        rng = generator(seed if self.random else 0, image_id, self.name, level)
        counts, per_grey_value = to_counts(image, calibration, rng)
        changed = np.ascontiguousarray(self.change(counts, level) / per_grey_value, dtype=np.float32)
        moved = moved_range(image, changed, self.expected_gain(counts, level))
        size = image.pixel_size_nm
        if size is not None and self.change is changes.larger_pixels:
            kept = (before / after for before, after in zip(image.array.shape[1:], changed.shape[1:], strict=True))
            size = (size[0] * next(kept), size[1] * next(kept))
        elif size is not None and self.change is changes.rotation and level % 180:
            size = size[::-1]
        return replace(image, array=changed, pixel_size_nm=size, intensity_range=moved)


def default_families(
    calibration: Calibration, *, pixel_size: float = NOMINAL_PIXEL_NM, names: Sequence[str] | None = None
) -> list[Family]:
    """Return the families of acquisition changes.

    Args:
        calibration: Facts about the acquisition.
        pixel_size: Typical pixel size of the unchanged images in nm, if the unit of the calibration is nm.
        names: Names of the families to return, in this order; None returns all.

    Raises:
        UserError: If a name is unknown.

    Example:
        >>> [family.unit for family in default_families(Calibration(), names=["photons", "psf"])]
        ['counts', 'nm']
    """
    unit, per_nm = calibration.unit, 1.0
    if unit == "px":
        pixel_size, per_nm = 1.0, 1 / NOMINAL_PIXEL_NM
    fwhm = calibration.psf_fwhm
    widths = tuple(each * per_nm for each in _PSF_NM if each * per_nm > fwhm) or tuple(
        fwhm * step for step in _PIXEL_STEPS
    )
    steps = tuple(round(pixel_size * step, 3) for step in (1.0, *_PIXEL_STEPS))
    families = [
        Family(
            "photons",
            "Photon budget",
            "excitation power and dwell time",
            "counts",
            (math.inf, 50.0, 20.0, 10.0, 5.0, 2.0),
            "Photons are removed at random until the brightest pixels (99.9 percentile) have this number of counts. "
            "An image with fewer counts is not changed.",
            changes.photon_budget,
            random=True,
            decreasing=True,
            expected_gain=lambda counts, level: float(changes.photon_fraction(counts, level).mean()),
        ),
        Family(
            "background",
            "Background",
            "labelling, filters and stray light",
            "counts",
            (0.0, 1.0, 3.0, 10.0, 30.0, 100.0),
            "Poisson-distributed counts with this mean are added to each pixel.",
            changes.background,
            random=True,
        ),
        Family(
            "offset",
            "Detector offset",
            "offset of the detector",
            "counts",
            (0.0, 10.0, 100.0),
            "A constant is added to each pixel.",
            changes.detector_offset,
        ),
        Family(
            "psf",
            "Width of the PSF",
            "depletion power and alignment",
            unit,
            (fwhm, *widths),
            "The image is blurred until the full width at half maximum of the PSF has this value (widths add in "
            "quadrature), and photons are counted again, with Poisson noise.",
            changes.depletion,
            random=True,
        ),
        Family(
            "drift",
            "Drift",
            "stage drift and duration of a frame",
            unit,
            (0.0, *(each * per_nm for each in _DRIFT_NM)),
            "Rows move to the left or to the right by whole pixels: from none at the top to this distance at the "
            "bottom.",
            changes.drift,
            random=True,
        ),
        Family(
            "pixel-size",
            "Pixel size",
            "pixel size",
            unit,
            steps,
            "Fewer of the measured pixels are kept, as by a scan with larger steps and the same dwell time.",
            changes.larger_pixels,
        ),
        Family(
            "gain",
            "Gain",
            "gain of the detector",
            "%",
            (0.0, 50.0, 200.0),
            "Pixels are multiplied; 50 % is a factor of 1.5.",
            changes.gain,
            expected_gain=lambda counts, level: 1 + level / 100,
        ),
        Family(
            "gamma",
            "Contrast (gamma)",
            "linearity of the detector, and export without contrast curves",
            "%",
            (0.0, 25.0, 50.0, 100.0, 200.0),
            "Intensities relative to the brightest pixels are raised to a power; 50 % is an exponent of 1.5.",
            changes.gamma,
        ),
        Family(
            "saturation",
            "Saturated pixels",
            "gain and excitation power below saturation",
            "%",
            (0.0, 0.3, 1.0, 3.0, 10.0),
            "The brightest pixels, of this fraction of all, are clipped.",
            changes.saturation,
        ),
        Family(
            "bleaching",
            "Bleaching",
            "bleaching: dose and line order of a frame",
            "%",
            (0.0, 25.0, 50.0, 75.0, 90.0),
            "Photons are removed at random: none in the first row, exponentially more in each row, and this fraction "
            "in the last row.",
            changes.bleaching,
            random=True,
        ),
        Family(
            "rotation",
            "Rotation",
            "orientation of the sample",
            "degrees",
            (0.0, 90.0, 180.0, 270.0),
            "The image is rotated.",
            changes.rotation,
            names=("unchanged", "90°", "180°", "270°"),
        ),
        Family(
            "flip",
            "Flip",
            "orientation of the scan axes",
            "",
            (0.0, 1.0, 2.0),
            "The image is mirrored.",
            changes.flip,
            names=("unchanged", "left and right", "top and bottom"),
        ),
    ]
    return select_families(families, names)


def select_families(families: Sequence[Family], names: Sequence[str] | None) -> list[Family]:
    """Select families by name.

    Args:
        families: All families.
        names: Names, in the order to return; None selects all.

    Raises:
        UserError: If a name is unknown.
    """
    by_name = {family.name: family for family in families}
    if unknown := [name for name in names or () if name not in by_name]:
        raise UserError(f"family {unknown[0]!r} is unknown; choose from {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(by_name if names is None else names)]
