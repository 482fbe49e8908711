"""Effects of acquisition changes, and of real batches, on embeddings: sizes, scores, and readout of levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.evaluation.features import prepare_for_probe, prepare_for_search
from stedfm_hf.evaluation.probe import fit_predict, select_C
from stedfm_hf.evaluation.robustness.families import Family
from stedfm_hf.evaluation.robustness.images import LevelFeatures
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.metrics import (
    BatchEffect,
    batch_effect,
    bootstrap_interval,
    call_effects,
    paired_batch_effect,
    representation_scores,
)
from stedfm_hf.metrics.representation_scores import RepresentationScores

FOLDS = 5
"""Number of cross-validation folds over source images."""


def comparable(train: np.ndarray, extractor: Extractor, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return features whose distances can be compared: embeddings unchanged, features of mixed units standardised.

    Args:
        train: Features of the unchanged training images (n, d), from which means and components are computed.
        extractor: Model or baseline.
        *others: Features (m, d).
    """
    return prepare_for_search(train, extractor, *others, zscore=False)[1:]


def one_class_per_source(data: LabelledImages) -> np.ndarray | None:
    """Return the class of each image (n,); None for other labels, or if a source image has several classes.

    Args:
        data: Images.
    """
    if data.task != "classes":
        return None
    pairs = set(zip(data.sources.tolist(), data.labels.tolist(), strict=True))
    return data.labels if len(pairs) == data.source_count else None


@dataclass(frozen=True, eq=False)
class ChangedImages:
    """Embeddings of the same test images at all levels of the changes, by one method.

    Attributes:
        extractor: Model or baseline.
        train: Features of the unchanged training images (n, d).
        features: Features of the test images at all levels.
        families: Families of changes.
        test: Test images.
        seed: Random seed of the changes to use.
    """

    extractor: Extractor
    train: np.ndarray
    features: LevelFeatures
    families: Sequence[Family]
    test: LabelledImages
    seed: int

    def at(self, family: Family, level: float) -> np.ndarray:
        """Return the features (n, d) at a level.

        Args:
            family: Family of changes.
            level: Level of the family.
        """
        return self.features[family.name, level, self.seed]

    def comparable(self, family: Family) -> tuple[np.ndarray, ...]:
        """Return the features at all levels of a family; see `comparable`.

        Args:
            family: Family of changes.
        """
        return comparable(self.train, self.extractor, *(self.at(family, level) for level in family.levels))


def change_effects(changed: ChangedImages) -> list[dict[str, Any]]:
    """Measure how far each change moves the embeddings of the same images.

    P-values of all levels of all families are corrected together by Holm's method.

    Args:
        changed: Embeddings at all levels.

    Returns:
        A row for each changed level; see `effect_row`.
    """
    test, found = changed.test, dict[tuple[str, float], BatchEffect]()
    labels = one_class_per_source(test)
    for family in changed.families:
        arrays = changed.comparable(family)
        for level, values in zip(family.levels[1:], arrays[1:], strict=True):
            found[family.name, level] = paired_batch_effect(arrays[0], values, sources=test.sources, labels=labels)
    called = call_effects({repr(key): effect for key, effect in found.items()})
    by_name = {family.name: family for family in changed.families}
    return [
        effect_row(changed.extractor.key, name, called[repr((name, level))])
        | {"level": level, "label": by_name[name].label(level), "unit": by_name[name].unit}
        for name, level in found
    ]


def effect_row(method: str, family: str, effect: BatchEffect) -> dict[str, Any]:
    """Return an effect as JSON data; missing values are NaN, with a reason.

    Args:
        method: Key of the method.
        family: Name of the family or of the column.
        effect: Effect.
    """
    return {
        "method": method,
        "family": family,
        **asdict(effect),
        "notes": list(effect.notes),
        "called": effect.called,
    }


def change_scores(changed: ChangedImages, *, reference: bool) -> list[dict[str, Any]]:
    """Compute the representation scores of each family: the levels are the batches.

    Args:
        changed: Embeddings at all levels, of test images with one class each.
        reference: Whether mAP is that of the reference protocol.

    Returns:
        A row for each family; see `score_row`.
    """
    rows, test = [], changed.test
    for family in changed.families:
        arrays = changed.comparable(family)
        scores = representation_scores(
            np.concatenate(arrays),
            np.tile(test.labels, len(arrays)),
            np.repeat(np.arange(len(arrays)), len(test)),
            sources=np.tile(test.sources, len(arrays)),
            reference=reference,
        )
        rows.append(score_row(changed.extractor.key, family.name, scores))
    return rows


def score_row(method: str, family: str, scores: RepresentationScores) -> dict[str, Any]:
    """Return representation scores as JSON data; missing scores are NaN, with their reasons.

    Args:
        method: Key of the method.
        family: Name of the family or of the column.
        scores: Scores.
    """
    return {
        "method": method,
        "family": family,
        **{name: float(value) for name, value in scores.values.items()},
        "batch": scores.batch,
        "biology": scores.biology,
        "overall": scores.overall,
        "reasons": [f"{name}: {reason}" for name, reason in scores.reasons.items()],
    }


def readout(changed: ChangedImages) -> list[dict[str, Any]]:
    """Predict the level of each family from the embedding by ridge regression, cross-validated over source images.

    Args:
        changed: Embeddings at all levels.

    Returns:
        A row for each ordered family: Pearson's r, the mean absolute error `mae` in the unit of the family with its
        interval over source images, and `mae_mean`, that of the mean level; NaN with a `reason` if there are too few
        sources.
    """
    rows, test, extractor = [], changed.test, changed.extractor
    for family in changed.families:
        levels = [level for level in family.levels if math.isfinite(level)]
        if not family.ordered:
            continue
        row: dict[str, Any] = {"method": extractor.key, "family": family.name, "unit": family.unit, "reason": None}
        truth = np.repeat(np.array(levels), len(test))
        sources = np.tile(test.sources, len(levels))
        features = np.concatenate([changed.at(family, level) for level in levels])
        if test.source_count < FOLDS:
            missing = dict.fromkeys(("pearson_r", "mae", "mae_low", "mae_high", "mae_mean"), math.nan)
            rows.append(row | missing | {"reason": f"fewer than {FOLDS} source images"})
            continue
        predicted = np.empty(len(truth))
        constant = np.empty(len(truth))
        for fit, rest in GroupKFold(FOLDS).split(features, groups=sources):
            scaled, query = prepare_for_probe(features[fit], extractor, features[rest])
            C = select_C(scaled, truth[fit], sources[fit], task="regression", classes=0).C
            predicted[rest] = fit_predict(scaled, truth[fit], query, task="regression", classes=0, C=C)
            constant[rest] = truth[fit].mean()
        errors = np.abs(predicted - truth)
        low, high = bootstrap_interval(errors, sources)
        varies = np.ptp(predicted) > 0
        rows.append(
            row
            | {
                "pearson_r": float(np.corrcoef(predicted, truth)[0, 1]) if varies else math.nan,
                "mae": float(errors.mean()),
                "mae_low": low,
                "mae_high": high,
                "mae_mean": float(np.abs(constant - truth).mean()),
            }
        )
    return rows


def column_effect(
    values: np.ndarray, data: LabelledImages, batches: np.ndarray
) -> tuple[BatchEffect, RepresentationScores | None]:
    """Measure the effect of real batches on embeddings, and their representation scores.

    Args:
        values: Comparable features of the images (n, d).
        data: Images.
        batches: Batch of each image (n,).

    Returns:
        The effect, and the scores, which are None without classes.
    """
    # Images of one source that were acquired in several batches are separate sources of these batches.
    sources = np.array([f"{source}\n{batch}" for source, batch in zip(data.sources, batches, strict=True)])
    labels = one_class_per_source(data)
    effect = batch_effect(values, batches, sources=sources, labels=labels)
    if data.task != "classes":
        return effect, None
    return effect, representation_scores(values, data.labels, batches, sources=data.sources)


def called_rows(method: str, effects: Mapping[str, BatchEffect]) -> list[dict[str, Any]]:
    """Correct the p-values of all columns together, and return their rows.

    Args:
        method: Key of the method.
        effects: Effect by column.
    """
    return [effect_row(method, name, effect) for name, effect in call_effects(effects).items()]
