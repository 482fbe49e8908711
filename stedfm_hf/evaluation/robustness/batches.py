"""Real batches: the values of a column of a data set, such as the day, the microscope or the operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.evaluation.features import SplitFeatures, prepare_for_probe
from stedfm_hf.evaluation.probe import fit_predict, select_C
from stedfm_hf.evaluation.robustness.effects import FOLDS
from stedfm_hf.evaluation.scoring import image_scores
from stedfm_hf.evaluation.settings import RobustnessSettings
from stedfm_hf.labels.annotations import read_annotations
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.labelled.reading import is_class_folder, read_repository
from stedfm_hf.labels.splits import FEW_PER_CLASS, Splits
from stedfm_hf.metrics.statistics import bootstrap_interval, compare_paired, holm
from stedfm_hf.runs import UserError

MAX_BATCHES = 50
"""Largest number of values of a column."""


def read_batches(settings: RobustnessSettings, splits: Splits[LabelledImages], column: str) -> dict[str, str]:
    """Read the batch of each image from a column.

    Args:
        settings: Settings of the command.
        splits: Images of each split.
        column: Column of the data set, key of its column `metadata`, or column of the table of annotations.

    Returns:
        Batch by image id, without images that have none.

    Raises:
        UserError: If there is no such column, or it has one value, lists, or too many values.
    """
    name = splits.test.name
    values = _annotated(settings, splits, column) if settings.annotations else _stored(settings, column)
    found = {image_id: value for image_id, value in values.items() if value}
    batches = sorted(set(found.values()))
    if len(batches) < 2:
        raise UserError(f"{name}: {column} has the same value for all images; batches need at least two values")
    if len(batches) > MAX_BATCHES:
        raise UserError(f"{name}: {column} has {len(batches)} values; choose a column with at most {MAX_BATCHES}")
    return found


def _annotated(settings: RobustnessSettings, splits: Splits[LabelledImages], column: str) -> dict[str, str]:
    """Read a column of the table of annotations; its paths are those of files, or source image ids of a data set."""
    whole = joined(list(splits.named().values()))
    paths = (whole.image_ids if is_class_folder(settings.dataset) else whole.sources).tolist()
    columns = read_annotations(Path(str(settings.annotations)), paths)
    if column not in columns:
        raise UserError(f"{settings.annotations}: has no column {column!r}; choose from {', '.join(columns)}")
    values = columns[column]
    if values.dtype.kind == "f":
        return {
            image_id: "" if np.isnan(value) else f"{value:g}"
            for image_id, value in zip(whole.image_ids.tolist(), values.tolist(), strict=True)
        }
    return dict(zip(whole.image_ids.tolist(), values.tolist(), strict=True))


def _stored(settings: RobustnessSettings, column: str) -> dict[str, str]:
    """Read a column of a data set."""
    if is_class_folder(settings.dataset):
        raise UserError(
            f"{settings.dataset}: a folder of images, without a column {column}. Give a table with the columns path "
            f"and {column}: --annotations table.csv"
        )
    found: dict[str, str] = {}
    for rows in read_repository(settings.dataset, settings.split, column).values():
        for image_id, entry in zip(rows.image_ids, rows.entries, strict=True):
            if isinstance(entry, list | tuple | dict | np.ndarray):
                raise UserError(f"{settings.dataset}: {image_id} has several values of {column}; a batch is one value")
            if entry is not None:
                found[image_id] = rows.names[entry] if rows.names and isinstance(entry, int) else str(entry)
    return found


@dataclass(frozen=True, eq=False)
class Pooled:
    """Images of all splits that have a batch.

    Attributes:
        data: Images.
        batches: Batch of each image (n,).
        numbers: Number of each image among the images of all splits (n,).
        fresh: Whether no model was trained or selected on the image (n,) bool.
    """

    data: LabelledImages
    batches: np.ndarray
    numbers: np.ndarray
    fresh: np.ndarray

    def features(self, by_split: SplitFeatures) -> np.ndarray:
        """Return the features of the images (n, d).

        Args:
            by_split: Features of each split.
        """
        return np.concatenate(list(by_split.values()))[self.numbers]


def pool_splits(splits: Splits[LabelledImages], batch_of: Mapping[str, str], used: Sequence[Any]) -> Pooled:
    """Join the images of all splits that have a batch.

    Args:
        splits: Images of each split.
        batch_of: Batch by image id.
        used: Records of the images that the models were trained on, with a method `used`.

    Raises:
        UserError: If fewer than two batches remain.
    """
    named = list(splits.named().values())
    whole = joined(named)
    numbers = np.array([n for n, image_id in enumerate(whole.image_ids.tolist()) if image_id in batch_of], np.int64)
    data = whole.take(numbers)
    batches = np.array([batch_of[image_id] for image_id in data.image_ids.tolist()])
    if len(set(batches.tolist())) < 2:
        raise UserError(f"{whole.name}: fewer than two batches have readable images with a label")
    fresh = ~np.any([np.zeros(len(data), dtype=bool), *(record.used(data) for record in used)], axis=0)
    return Pooled(data, batches, numbers, fresh)


def joined(parts: Sequence[LabelledImages]) -> LabelledImages:
    """Join the labels, sources and ids of images; pixels cannot be read from the result.

    Args:
        parts: Images of each split.
    """
    columns = ("labels", "sources", "contents", "image_ids", "rows")
    values: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
    return replace(parts[0], **values)


def batch_accuracy(
    method: str,
    column: str,
    test: LabelledImages,
    batches: np.ndarray,
    predictions: Sequence[np.ndarray],
) -> list[dict[str, Any]]:
    """Score the predictions for the unchanged test images in each batch.

    Args:
        method: Key of the method.
        column: Name of the column.
        test: Test images.
        batches: Batch of each test image (n,); "" for none.
        predictions: Predictions of each repetition.

    Returns:
        A row for each batch with test images: numbers of images and source images, mean score (accuracy, or the
        negative squared error of a regression) and its interval over source images; None with fewer than five.
    """
    scores = np.mean([image_scores(test.task, test.labels, each) for each in predictions], axis=0)
    rows = []
    for name in sorted({*batches.tolist()} - {""}):
        inside = batches == name
        sources = len(set(test.sources[inside].tolist()))
        few = sources < FEW_PER_CLASS  # their resamples are no measure of uncertainty
        low, high = (None, None) if few else bootstrap_interval(scores[inside], test.sources[inside])
        rows.append(
            {
                "method": method,
                "column": column,
                "batch": name,
                "images": int(inside.sum()),
                "sources": sources,
                "score": float(scores[inside].mean()),
                "low": low,
                "high": high,
            }
        )
    return rows


def leave_one_batch_out(
    method: str, column: str, pooled: Pooled, features: np.ndarray, extractor: Extractor
) -> list[dict[str, Any]]:
    """Classify the images of each batch by a probe trained on all other batches, and by one trained on all batches.

    The second probe is cross-validated over source images: it knows other images of the same batch. It has as many
    training images of each class as the first, so that the difference is the loss in a new batch.

    Args:
        method: Key of the method.
        column: Name of the column.
        pooled: Images of all splits.
        features: Features of the images (n, d).
        extractor: Model or baseline.

    Returns:
        A row for each batch: `new_batch` and `known_batch` (mean scores), `difference` with its interval and p-value
        over source images, and `p_holm`, corrected for the batches; None with a `reason` where it cannot be measured.
    """
    rows: list[dict[str, Any]] = []
    for name in sorted(set(pooled.batches.tolist())):
        inside = (pooled.batches == name) & pooled.fresh
        sources = set(pooled.data.sources[pooled.batches == name].tolist())
        others = (pooled.batches != name) & ~np.isin(pooled.data.sources, list(sources))
        row: dict[str, Any] = {"method": method, "column": column, "batch": name, "images": int(inside.sum())}
        reason = None
        if not inside.any():
            reason = "a model was trained on all images of this batch"
        elif len(set(pooled.data.sources[inside].tolist())) < FOLDS:
            reason = f"fewer than {FOLDS} source images"
        elif not others.any():
            reason = "all source images occur in this batch"
        elif pooled.data.task == "classes" and len(set(pooled.data.labels[others].tolist())) < 2:
            reason = "the other batches have fewer than two classes"
        if reason is not None:
            missing = ("new_batch", "known_batch", "difference", "low", "high", "p", "p_holm")
            rows.append(row | dict.fromkeys(missing) | {"reason": reason})
            continue
        train, test = np.flatnonzero(others), np.flatnonzero(inside)
        predicted = _predict(pooled.data, features, extractor, train, test)
        new = image_scores(pooled.data.task, pooled.data.labels[test], predicted)
        known = _known_batch(pooled.data, features, extractor, train, test)
        compared = compare_paired(new, known, pooled.data.sources[test])
        scores = {"new_batch": float(new.mean()), "known_batch": float(known.mean())}
        rows.append(row | scores | compared | {"reason": None})
    measured = [row for row in rows if row["reason"] is None]
    for row, corrected in zip(measured, holm([row["p"] for row in measured]), strict=True):
        row["p_holm"] = float(corrected)
    return rows


def _known_batch(
    data: LabelledImages, features: np.ndarray, extractor: Extractor, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Return the score of each test image, predicted from other sources of all batches, as many images as `train`."""
    scores = np.empty(len(test))
    rng = np.random.default_rng(0)
    for _, fold in GroupKFold(FOLDS).split(test, groups=data.sources[test]):
        rest = test[fold]
        pool = np.flatnonzero(~np.isin(data.sources, data.sources[rest]))
        fit = matching_sample(data, pool, train, rng)
        scores[fold] = image_scores(data.task, data.labels[rest], _predict(data, features, extractor, fit, rest))
    return scores


def matching_sample(data: LabelledImages, pool: np.ndarray, train: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose as many images of each class from a pool as there are in another sample, by whole sources where possible.

    Args:
        data: Images.
        pool: Numbers of the images to choose from.
        train: Numbers of the images of the other sample.
        rng: Random numbers.

    Returns:
        Numbers of the chosen images.
    """
    order = {source: place for place, source in enumerate(rng.permutation(np.unique(data.sources[pool])).tolist())}
    shuffled = np.array(sorted(pool.tolist(), key=lambda row: order[data.sources[row]]))
    if data.task != "classes":
        return shuffled[: len(train)]
    labels = data.labels[shuffled]
    counts = Counter(data.labels[train].tolist())
    return np.concatenate([shuffled[labels == label][:count] for label, count in counts.items()])


def _predict(
    data: LabelledImages, features: np.ndarray, extractor: Extractor, fit: np.ndarray, rest: np.ndarray
) -> np.ndarray:
    """Fit a probe to some images and predict others, as in `Run`."""
    scaled, query = prepare_for_probe(features[fit], extractor, features[rest])
    labels, classes = data.labels[fit], len(data.classes)
    C = select_C(scaled, labels, data.sources[fit], task=data.task, classes=classes).C
    outputs = fit_predict(scaled, labels, query, task=data.task, classes=classes, C=C)
    if data.task == "regression":
        return outputs
    return (outputs >= 0.5).astype(np.int64) if data.task == "multilabel" else outputs.argmax(axis=1)
