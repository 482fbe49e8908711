"""What the images say about their acquisition, and the families of changes that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stedfm_hf.evaluation.robustness.counts import PEAK_COUNTS, Calibration
from stedfm_hf.evaluation.robustness.families import NOMINAL_PIXEL_NM, Family, default_families
from stedfm_hf.evaluation.robustness.reference import reference_families
from stedfm_hf.evaluation.settings import RobustnessSettings
from stedfm_hf.images import StedImage
from stedfm_hf.labels.labelled import LabelledImages

_DISPLAY = 0.95
"""Fraction of the largest value of a pixel type, above which the brightest pixels look scaled for display."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What is known about the acquisition of the images.

    Attributes:
        calibration: Facts that the changes use.
        families: Families of changes.
        notes: Sentences on what was assumed.
    """

    calibration: Calibration
    families: Sequence[Family]
    notes: Sequence[str]

    def examples(self, test: LabelledImages) -> dict[str, list[StedImage]]:
        """Return one test image at all levels of each family.

        Args:
            test: Test images; the first is shown.
        """
        image, image_id = test.stored(0), str(test.image_ids[0])
        return {
            family.name: [
                family.apply(image, level, calibration=self.calibration, image_id=image_id) for level in family.levels
            ]
            for family in self.families
        }


@dataclass(frozen=True)
class _Facts:
    """Facts about one image.

    Attributes:
        pixel_size: Mean pixel size in nm, or None.
        bright: Value of the brightest pixels (99.9 percentile).
        largest: Largest value of the type; None for floats.
        scaled: Whether the pixels are stored scaled to their type.
    """

    pixel_size: float | None
    bright: float
    largest: float | None
    scaled: bool


def read_acquisition(settings: RobustnessSettings, test: LabelledImages) -> Acquisition:
    """Find pixel sizes and brightness of the test images, and choose the levels of the changes.

    Args:
        settings: Settings of the command.
        test: Test images.
    """
    facts = _read_facts(test)
    sizes = [each.pixel_size or settings.pixel_size_nm for each in facts]
    known = [size for size in sizes if size is not None]
    unit = "nm" if facts and len(known) == len(facts) else "px"
    fwhm = settings.psf_fwhm_nm / (1.0 if unit == "nm" else NOMINAL_PIXEL_NM)
    reason = _not_counts(facts)
    peak = settings.peak_counts if settings.peak_counts is not None or reason is None else PEAK_COUNTS
    calibration = Calibration(peak, fwhm, unit, settings.pixel_size_nm)
    if settings.families == ["none"]:
        return Acquisition(calibration, [], [])
    if settings.protocol == "reference":
        note = (
            "Changes of the reference protocol act on scaled images, not on photon counts; their levels have no unit "
            "of the microscope."
        )
        return Acquisition(calibration, reference_families(settings.families), [note])
    pixel_size = float(np.median(known)) if unit == "nm" else NOMINAL_PIXEL_NM
    families = default_families(calibration, pixel_size=pixel_size, names=settings.families)
    notes = [*_length_notes(calibration, pixel_size), _count_note(settings, facts, reason)]
    return Acquisition(calibration, families, notes)


def _read_facts(test: LabelledImages) -> list[_Facts]:
    """Read the facts of the readable images; the others are reported when features are computed."""
    found = []
    for number in range(len(test)):
        try:
            image = test.stored(number)
        except (ValueError, OSError):
            continue
        dtype, size = image.array.dtype, image.pixel_size_nm
        largest = float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else None
        found.append(
            _Facts(
                None if size is None else float(np.mean(size)),
                float(np.nanpercentile(image.array, 99.9)),
                largest,
                image.intensity_range is not None and image.intensity_range == (0.0, largest),
            )
        )
    return found


def _not_counts(facts: Sequence[_Facts]) -> str | None:
    """Return why pixel values are not photon counts; None if they may be."""
    if not facts or any(each.largest is None for each in facts):
        return "Pixel values are not whole numbers"
    if all(each.scaled for each in facts):
        return "The data set stores scaled pixels (`stedfm data build --pixels raw` keeps counts)"
    if float(np.median([each.bright / (each.largest or 1.0) for each in facts])) > _DISPLAY:
        return "The brightest pixels have the largest value of their type, as in images scaled for display"
    return None


def _length_notes(calibration: Calibration, pixel_size: float) -> list[str]:
    """Return sentences on pixel size and point spread function."""
    if calibration.unit == "px":
        first = (
            "The pixel size of some images is unknown: lengths are in pixels (px) of the unchanged images. "
            f"{NOMINAL_PIXEL_NM:g} nm became 1 px. Set --pixel-size-nm for levels in nm."
        )
    else:
        first = f"The median pixel size is {pixel_size:g} nm."
    return [
        first,
        "The point spread function (PSF) of the unchanged images is assumed to have a full width at half maximum of "
        f"{calibration.psf_fwhm:g} {calibration.unit} (--psf-fwhm-nm).",
    ]


def _count_note(settings: RobustnessSettings, facts: Sequence[_Facts], not_counts: str | None) -> str:
    """Return a sentence on photon counts."""
    if settings.peak_counts is not None:
        return f"The brightest pixels are taken as {settings.peak_counts:g} photon counts."
    if not_counts is not None:
        return f"{not_counts}: {PEAK_COUNTS:g} photon counts at the brightest pixels are assumed (--peak-counts)."
    bright = [each.bright for each in facts]
    return (
        f"Pixel values are taken as photon counts: the brightest pixels have {np.median(bright):.3g} counts "
        f"(median; {min(bright):.3g} to {max(bright):.3g}). If pixel values are not counts, set --peak-counts."
    )
