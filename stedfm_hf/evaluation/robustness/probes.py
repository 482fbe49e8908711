"""Classifiers that are trained on the features of unchanged images and applied to those of changed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import Ridge

from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.evaluation.features import SplitFeatures, prepare_for_probe, prepare_for_search
from stedfm_hf.evaluation.probe import fit_predict, select_C
from stedfm_hf.evaluation.robustness.heads import HeadExtractor
from stedfm_hf.evaluation.robustness.images import LevelFeatures
from stedfm_hf.labels.labelled import LabelledImages
from stedfm_hf.labels.splits import Splits
from stedfm_hf.metrics.neighbours import KnnVote, nearest

LEFT_OUT = 5
"""One of this number of source images of each class is left out of each training, at random."""

Predictions = dict[tuple[str, float, int], np.ndarray]
"""Predictions (n, ...) of the test images by family, level and seed, as in `Run`."""


def training_sample(train: LabelledImages, seed: int) -> np.ndarray:
    """Return the numbers of the training images of one repetition.

    One in five source images of each class is left out; nothing is left out of classes with fewer than five.

    Args:
        train: Training images.
        seed: Random seed.

    Returns:
        Numbers of the images, sorted.

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)] * 14, list("a" * 10 + "b" * 4))
        >>> len(training_sample(data, 0))
        12
    """
    rng = np.random.default_rng(seed)
    strata = train.labels if train.task == "classes" else np.zeros(len(train), np.int64)
    kept = np.ones(len(train), dtype=bool)
    for stratum in np.unique(strata):
        sources = np.unique(train.sources[strata == stratum])
        left_out = rng.permutation(sources)[: len(sources) // LEFT_OUT]
        kept &= ~((strata == stratum) & np.isin(train.sources, left_out))
    return np.flatnonzero(kept)


def predict_levels(
    splits: Splits[LabelledImages],
    features: SplitFeatures,
    changed: LevelFeatures,
    extractor: Extractor,
    *,
    classifier: str = "probe",
    k: int = 5,
    reference: bool = False,
    device: str = "cpu",
) -> Predictions:
    """Predict the labels of the test images at all levels, by classifiers trained on unchanged images.

    Each seed has one training sample and one realisation of the noise.

    Args:
        splits: Images.
        features: Features of the unchanged images, by split.
        changed: Features of the test images at all levels.
        extractor: Model or baseline; a `HeadExtractor` predicts without training.
        classifier: "probe" (logistic or ridge regression) or "knn".
        k: Number of neighbours that vote.
        reference: Whether a regression is that of the reference protocol: ridge, alpha 1, features not standardised.
        device: Device of the search for neighbours.
    """
    if isinstance(extractor, HeadExtractor):
        return {key: extractor.predictions(values, splits.test) for key, values in changed.items()}
    found: Predictions = {}
    for seed in dict.fromkeys(seed for _, _, seed in changed):
        keys = [key for key in changed if key[2] == seed]
        sample = training_sample(splits.train, seed)
        queries = _unique([changed[key] for key in keys])
        stacked = np.concatenate(queries)
        if classifier == "knn":
            predicted = _neighbours(splits, features, sample, stacked, extractor, k, device)
        elif reference and splits.train.task == "regression":
            ridge = Ridge(alpha=1.0).fit(features["train"][sample], splits.train.labels[sample])
            predicted = ridge.predict(stacked)
        else:
            predicted = _probe(splits, features, sample, stacked, extractor)
        parts = np.split(predicted, np.cumsum([len(query) for query in queries])[:-1])
        by_identity = {id(query): part for query, part in zip(queries, parts, strict=True)}
        found |= {key: by_identity[id(changed[key])] for key in keys}
    return found


def _unique(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the different arrays: the unchanged images occur in every family, and are predicted once."""
    return list({id(array): array for array in arrays}.values())


def _probe(
    splits: Splits[LabelledImages],
    features: SplitFeatures,
    sample: np.ndarray,
    query: np.ndarray,
    extractor: Extractor,
) -> np.ndarray:
    """Fit a probe and predict."""
    train, validation = splits.train, splits.validation
    others = [query, *([features["validation"]] if len(validation) else [])]
    scaled, query, *held_out = prepare_for_probe(features["train"][sample], extractor, *others)
    labels, classes = train.labels[sample], len(train.classes)
    selected = select_C(
        scaled,
        labels,
        train.sources[sample],
        task=train.task,
        classes=classes,
        validation=(held_out[0], validation.labels) if len(validation) else None,
    )
    outputs = fit_predict(scaled, labels, query, task=train.task, classes=classes, C=selected.C)
    if train.task == "regression":
        return outputs
    return (outputs >= 0.5).astype(np.int64) if train.task == "multilabel" else outputs.argmax(axis=1)


def _neighbours(
    splits: Splits[LabelledImages],
    features: Mapping[str, np.ndarray],
    sample: np.ndarray,
    query: np.ndarray,
    extractor: Extractor,
    k: int,
    device: str,
) -> np.ndarray:
    """Predict by a vote of the nearest training images."""
    gallery, query = prepare_for_search(features["train"][sample], extractor, query, zscore=False)
    rows, similarity = nearest(gallery, query, k=min(k, len(gallery)), device=device)
    return KnnVote(k).predict(splits.train.labels[sample][rows], similarity)


def constant_predictions(splits: Splits[LabelledImages], changed: LevelFeatures) -> Predictions:
    """Predict the most frequent class of the training images, each frequent label, or the mean, for all images.

    Args:
        splits: Images.
        changed: Features of any method, for the families, levels and seeds.
    """
    train, count = splits.train, len(splits.test)
    if train.task == "classes":
        constant = np.full(count, np.bincount(train.labels, minlength=len(train.classes)).argmax())
    elif train.task == "multilabel":
        constant = np.tile((train.labels.mean(axis=0) >= 0.5).astype(np.int64), (count, 1))
    else:
        constant = np.full(count, float(train.labels.mean()))
    return dict.fromkeys(changed, constant)
