"""Run of `evaluate robustness`: probes trained on unchanged images, applied to changed images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.evaluation.features import features_folder
from stedfm_hf.evaluation.protocol import ComparedFeatures, compare_features, methods_of, read_splits
from stedfm_hf.evaluation.report.content import CHANCE
from stedfm_hf.evaluation.report.robustness import FILES, Robustness, write_robustness_report
from stedfm_hf.evaluation.report.robustness.evaluation import Measured
from stedfm_hf.evaluation.results import RobustnessResult
from stedfm_hf.evaluation.robustness.acquisition import Acquisition, read_acquisition
from stedfm_hf.evaluation.robustness.batches import (
    Pooled,
    batch_accuracy,
    leave_one_batch_out,
    pool_splits,
    read_batches,
)
from stedfm_hf.evaluation.robustness.curves import score_curve
from stedfm_hf.evaluation.robustness.effects import (
    ChangedImages,
    called_rows,
    change_effects,
    change_scores,
    column_effect,
    comparable,
    readout,
    score_row,
)
from stedfm_hf.evaluation.robustness.heads import HeadExtractor, load_heads
from stedfm_hf.evaluation.robustness.images import UNCHANGED, LevelFeatures, changed_features
from stedfm_hf.evaluation.robustness.probes import Predictions, constant_predictions, predict_levels
from stedfm_hf.evaluation.settings import RobustnessSettings
from stedfm_hf.inference.loading import choose_device
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.splits import Splits
from stedfm_hf.labels.training_sources import read_training_sources
from stedfm_hf.metrics import BatchEffect
from stedfm_hf.runs import UserError, print_note
from stedfm_hf.weights.models import ModelSource


def run_robustness(settings: RobustnessSettings, models: Sequence[ModelSource]) -> RobustnessResult:
    """Run `evaluate robustness`; see `stedfm_hf.evaluation.evaluate_robustness`.

    Args:
        settings: Settings of the command.
        models: Models to evaluate.
    """
    splits = read_splits(settings)
    if settings.classifier == "knn" and splits.test.task != "classes":
        raise UserError(f"{splits.test.name}: --classifier knn needs one class for each image; leave it out")
    columns = {column: read_batches(settings, splits, column) for column in settings.family_column}
    acquisition = read_acquisition(settings, splits.test)

    def write(compared: ComparedFeatures, folder: Path) -> str:
        """Evaluate the features and write the report."""
        report = evaluate(compared, settings, models, acquisition, columns)
        write_robustness_report(report, folder)
        tested = [*(family.name for family in acquisition.families), *columns]
        return f"{', '.join(tested)}: {len(report.methods)} models and baselines"

    resolved = {
        "families": {family.name: [family.label(level) for level in family.levels] for family in acquisition.families},
        "peak_counts": acquisition.calibration.peak_counts,
        "unit_of_lengths": acquisition.calibration.unit,
        "batches": {column: sorted(set(batches.values())) for column, batches in columns.items()},
    }
    output, record = compare_features("evaluate robustness", settings, models, splits, resolved, write, FILES)
    result = RobustnessResult(output.path, output.manifest, record)
    result.print_notes()
    return result


@dataclass(frozen=True, eq=False)
class _Evaluated:
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
    columns: Mapping[str, Mapping[str, str]],
) -> Robustness:
    """Compute features of changed images, predict, and collect the results.

    Args:
        compared: Features of the unchanged images.
        settings: Settings of the command.
        models: Models.
        acquisition: Families of changes.
        columns: Batch by image id, for each column of real batches.
    """
    began = time.monotonic()
    splits, families, seeds = compared.splits, acquisition.families, list(range(settings.repeats))
    heads = load_heads(
        models, splits.train, device=settings.device, precision=settings.precision, batch_size=settings.batch_size
    )
    extractors = [
        *(each for each in compared.extractors if each.kind == "model"),
        *heads,
        *(each for each in compared.extractors if each.kind == "baseline"),
    ]
    found = {each.key: _predict(each, compared, settings, acquisition, seeds) for each in extractors}
    methods = methods_of(extractors, [each.key for each in compared.methods])
    if CHANCE in methods:
        first = next(iter(found.values())).changed
        found[CHANCE.key] = _Evaluated({}, constant_predictions(splits, first))
    metric = primary_metric(splits, settings.protocol)
    measured = Measured()
    print_note("measuring effects on embeddings")
    for extractor in extractors:
        if not isinstance(extractor, HeadExtractor):
            _measure_changes(measured, extractor, compared, found[extractor.key].changed, settings, acquisition)
    _measure_batches(measured, columns, models, compared, extractors, found, seeds)
    return Robustness(
        command=compared.command,
        splits=splits,
        data_notes=[*compared.training, *acquisition.notes],
        methods=methods,
        families=families,
        metric=metric,
        curves=[
            score_curve(key, family, each.predictions, splits.test, seeds, metric)
            for key, each in found.items()
            for family in families
        ],
        chance=chance_level(splits, metric),
        measured=measured,
        examples=acquisition.examples(splits.test),
        settings=compared.settings,
        failed=compared.failed,
        seconds={"feature_extraction": compared.seconds, "evaluation": time.monotonic() - began},
    )


def _predict(
    extractor: Extractor,
    compared: ComparedFeatures,
    settings: RobustnessSettings,
    acquisition: Acquisition,
    seeds: Sequence[int],
) -> _Evaluated:
    """Compute the features of changed images, and predict their labels."""
    features: Mapping[str, np.ndarray] = compared.features.get(extractor.key, {})
    cache = features_folder() if settings.cache == "auto" else settings.cache
    changed = changed_features(
        compared.splits.test,
        extractor,
        acquisition.families,
        unchanged=features.get("test"),
        calibration=acquisition.calibration,
        seeds=seeds,
        cache=None if cache is None else Path(cache),
        cluster=compared.cluster,
    )
    predictions = predict_levels(
        compared.splits,
        features,
        changed,
        extractor,
        classifier=settings.classifier,
        k=settings.k,
        reference=settings.protocol == "reference",
        # The search needs double precision, which Apple GPUs do not support.
        device="cuda" if choose_device(settings.device).type == "cuda" else "cpu",
    )
    return _Evaluated(changed, predictions)


def _measure_changes(
    measured: Measured,
    extractor: Extractor,
    compared: ComparedFeatures,
    changed: LevelFeatures,
    settings: RobustnessSettings,
    acquisition: Acquisition,
) -> None:
    """Add effect sizes, scores and readout of the changes on the embeddings of one method."""
    test, train = compared.splits.test, compared.features[extractor.key]["train"]
    images = ChangedImages(extractor, train, changed, acquisition.families, test, seed=0)
    measured.effects += change_effects(images)
    measured.readout += readout(images)
    if test.task == "classes":
        measured.scores += change_scores(images, reference=settings.protocol == "reference")


def _measure_batches(
    measured: Measured,
    columns: Mapping[str, Mapping[str, str]],
    models: Sequence[ModelSource],
    compared: ComparedFeatures,
    extractors: Sequence[Extractor],
    found: Mapping[str, _Evaluated],
    seeds: Sequence[int],
) -> None:
    """Add effects, scores and accuracies of real batches."""
    splits = compared.splits
    used = [record for model in models if (record := read_training_sources(model.location)) is not None]
    pools: dict[str, Pooled] = {column: pool_splits(splits, batches, used) for column, batches in columns.items()}
    for extractor in extractors:
        effects: dict[str, BatchEffect] = {}
        for column, pooled in pools.items():
            batch_of = columns[column]
            batches = np.array([batch_of.get(image_id, "") for image_id in splits.test.image_ids.tolist()])
            predictions = [found[extractor.key].predictions[*UNCHANGED, seed] for seed in seeds]
            measured.batches += batch_accuracy(extractor.key, column, splits.test, batches, predictions)
            if isinstance(extractor, HeadExtractor):
                continue
            features = compared.features[extractor.key]
            values = pooled.features(features)
            (distances,) = comparable(features["train"], extractor, values)
            effects[column], scores = column_effect(distances, pooled.data, pooled.batches)
            if scores is not None:
                measured.column_scores.append(score_row(extractor.key, column, scores))
            measured.new_batches += leave_one_batch_out(extractor.key, column, pooled, values, extractor)
        measured.column_effects += called_rows(extractor.key, effects)


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
