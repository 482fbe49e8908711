"""Run of `evaluate robustness`: probes trained on unchanged images, applied to changed images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.evaluation.features import features_folder
from stedfm_hf.evaluation.protocol import ComparedFeatures, compare_features, read_splits
from stedfm_hf.evaluation.report.robustness import FILES, Robustness, write_robustness_report
from stedfm_hf.evaluation.report.shared import MethodInfo
from stedfm_hf.evaluation.results import RobustnessResult
from stedfm_hf.evaluation.robustness.counts import PEAK_COUNTS, Calibration
from stedfm_hf.evaluation.robustness.curves import Curve, score_curve
from stedfm_hf.evaluation.robustness.families import NOMINAL_PIXEL_NM, Family, default_families
from stedfm_hf.evaluation.robustness.heads import load_heads
from stedfm_hf.evaluation.robustness.images import LevelFeatures, changed_features
from stedfm_hf.evaluation.robustness.probes import Predictions, constant_predictions, predict_levels
from stedfm_hf.evaluation.robustness.reference import reference_families
from stedfm_hf.evaluation.settings import RobustnessSettings
from stedfm_hf.images import StedImage
from stedfm_hf.inference.loading import choose_device
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.splits import Splits
from stedfm_hf.runs import UserError
from stedfm_hf.weights.models import ModelSource


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


def run_robustness(settings: RobustnessSettings, models: Sequence[ModelSource]) -> RobustnessResult:
    """Run `evaluate robustness`; see `stedfm_hf.evaluation.evaluate_robustness`.

    Args:
        settings: Settings of the command.
        models: Models to evaluate.
    """
    splits = read_splits(settings)
    if settings.classifier == "knn" and splits.test.task != "classes":
        raise UserError(f"{splits.test.name}: --classifier knn needs one class for each image; leave it out")
    acquisition = read_acquisition(settings, splits.test)

    def write(compared: ComparedFeatures, folder: Path) -> str:
        """Evaluate the features and write the report."""
        report = evaluate(compared, settings, models, acquisition)
        write_robustness_report(report, folder)
        return f"{len(acquisition.families)} families of changes, {len(report.methods)} models and baselines"

    resolved = {
        "families": {family.name: [family.label(level) for level in family.levels] for family in acquisition.families},
        "unit_of_lengths": acquisition.calibration.unit,
    }
    output, record = compare_features("evaluate robustness", settings, models, splits, resolved, write, FILES)
    result = RobustnessResult(output.path, output.manifest, record)
    result.print_notes()
    return result


def read_acquisition(settings: RobustnessSettings, test: LabelledImages) -> Acquisition:
    """Find pixel sizes and brightness of the test images, and choose the levels of the changes.

    Args:
        settings: Settings of the command.
        test: Test images.
    """
    images = list(_readable(test))
    sizes = [image.pixel_size_nm or settings.pixel_size_nm for image in images]
    known = [float(np.mean(size)) for size in sizes if size is not None]
    unit = "nm" if images and len(known) == len(images) else "px"
    fwhm = settings.psf_fwhm_nm / (1.0 if unit == "nm" else NOMINAL_PIXEL_NM)
    calibration = Calibration(settings.peak_counts, fwhm, unit, settings.pixel_size_nm)
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
    return Acquisition(calibration, families, _notes(settings, images, calibration, pixel_size))


def _readable(test: LabelledImages) -> list[StedImage]:
    """Read the images that can be read; the others are reported when features are computed."""
    found = []
    for number in range(len(test)):
        try:
            image = test.stored(number)
        except (ValueError, OSError):
            continue
        found.append(image)
    return found


def _notes(
    settings: RobustnessSettings, images: Sequence[StedImage], calibration: Calibration, pixel_size: float
) -> list[str]:
    """Return sentences on what the changes assume."""
    if calibration.unit == "px":
        notes = [
            "The pixel size of some images is unknown: lengths are in pixels (px) of the unchanged images. "
            f"{NOMINAL_PIXEL_NM:g} nm became 1 px. Set --pixel-size-nm for levels in nm."
        ]
    else:
        notes = [f"The median pixel size is {pixel_size:g} nm."]
    notes.append(
        f"The point spread function of the unchanged images is assumed to have a full width at half maximum of "
        f"{calibration.psf_fwhm:g} {calibration.unit} (--psf-fwhm-nm)."
    )
    whole = all(np.issubdtype(image.array.dtype, np.integer) for image in images)
    if calibration.peak_counts is not None:
        notes.append(f"The brightest pixels are taken as {calibration.peak_counts:g} photon counts.")
    elif whole and images:
        peaks = [float(np.percentile(image.array, 99.9)) for image in images]
        notes.append(
            f"Pixel values are taken as photon counts: the brightest pixels have {np.median(peaks):.3g} counts "
            f"(median; {min(peaks):.3g} to {max(peaks):.3g}). If pixel values are not counts, set --peak-counts."
        )
    else:
        notes.append(
            f"Pixel values are not whole numbers: {PEAK_COUNTS:g} photon counts at the brightest pixels are assumed "
            "(--peak-counts)."
        )
    return notes


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Features and predictions of one method at all levels.

    Attributes:
        changed: Features of the test images.
        predictions: Predictions for the test images.
    """

    changed: LevelFeatures
    predictions: Predictions


def evaluate(
    compared: ComparedFeatures,
    settings: RobustnessSettings,
    models: Sequence[ModelSource],
    acquisition: Acquisition,
) -> Robustness:
    """Compute features of changed images, predict, and collect the results.

    Args:
        compared: Features of the unchanged images.
        settings: Settings of the command.
        models: Models.
        acquisition: Families of changes.
    """
    began = time.monotonic()
    splits, families = compared.splits, acquisition.families
    heads = load_heads(
        models, splits.train, device=settings.device, precision=settings.precision, batch_size=settings.batch_size
    )
    extractors = [*_models(compared.extractors), *heads, *_baselines(compared.extractors)]
    seeds = list(range(settings.repeats))
    cache = features_folder() if settings.cache == "auto" else settings.cache
    found: dict[str, Evaluated] = {}
    for extractor in extractors:
        features: Mapping[str, np.ndarray] = compared.features.get(extractor.key, {})
        changed = changed_features(
            splits.test,
            extractor,
            families,
            unchanged=features.get("test"),
            calibration=acquisition.calibration,
            seeds=seeds,
            cache=None if cache is None else Path(cache),
        )
        predictions = predict_levels(
            splits,
            features,
            changed,
            extractor,
            classifier=settings.classifier,
            k=settings.k,
            reference=settings.protocol == "reference",
            device="cuda" if choose_device(settings.device).type == "cuda" else "cpu",
        )
        found[extractor.key] = Evaluated(changed, predictions)
    methods = [_method(each) for each in extractors]
    if any(each.key == "chance" for each in compared.methods):
        first = next(iter(found.values())).changed
        found["chance"] = Evaluated({}, constant_predictions(splits, first))
        methods.append(MethodInfo("chance", "Chance", "baseline", None))
    metric = primary_metric(splits, settings.protocol)
    curves = [
        score_curve(key, family, each.predictions, splits.test, seeds, metric)
        for key, each in found.items()
        for family in families
    ]
    return Robustness(
        command=compared.command,
        splits=splits,
        training=compared.training,
        methods=methods,
        families=families,
        metric=metric,
        curves=curves,
        chance=chance_level(splits, metric),
        acquisition=acquisition.notes,
        examples=example_images(splits.test, acquisition),
        settings=compared.settings,
        failed=compared.failed,
        seconds={"feature_extraction": compared.seconds, "evaluation": time.monotonic() - began},
    )


def _models(extractors: Sequence[Extractor]) -> list[Extractor]:
    return [each for each in extractors if each.kind == "model"]


def _baselines(extractors: Sequence[Extractor]) -> list[Extractor]:
    return [each for each in extractors if each.kind == "baseline"]


def _method(extractor: Extractor) -> MethodInfo:
    return MethodInfo(extractor.key, extractor.name, extractor.kind, extractor.identity.get("weights"))


def primary_metric(splits: Splits[LabelledImages], protocol: str) -> str:
    """Return the metric of the curves.

    Args:
        splits: Images.
        protocol: "default" or "reference", which reports Pearson's r of a regression.
    """
    task = splits.test.task
    if task == "regression":
        return "pearson_r" if protocol == "reference" else "r2"
    return "accuracy" if task == "classes" else "label_accuracy"


def chance_level(splits: Splits[LabelledImages], metric: str) -> float:
    """Return the score of a constant prediction, of the most frequent labels or the mean of the training images.

    Args:
        splits: Images.
        metric: Name of the metric.
    """
    if metric in ("r2", "pearson_r"):
        return 0.0
    constant = constant_predictions(splits, {("", 0.0, 0): np.empty(0)})["", 0.0, 0]
    return float((constant == splits.test.labels).mean())


def example_images(test: LabelledImages, acquisition: Acquisition) -> dict[str, list[StedImage]]:
    """Return one test image at all levels of each family.

    Args:
        test: Test images; the first is shown.
        acquisition: Families of changes.
    """
    image, image_id = test.stored(0), str(test.image_ids[0])
    return {
        family.name: [
            family.apply(image, level, calibration=acquisition.calibration, image_id=image_id)
            for level in family.levels
        ]
        for family in acquisition.families
    }


__all__ = ["Curve", "evaluate", "read_acquisition", "run_robustness"]
