"""Runs of `evaluate probe` and `evaluate knn`: each method with each sample of labels, or with each vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.evaluation.features import SplitFeatures, prepare_for_probe, prepare_for_search
from stedfm_hf.evaluation.knn import REFERENCE_KS
from stedfm_hf.evaluation.probe import fit_predict, select_C
from stedfm_hf.evaluation.scoring import Run, compute_metrics
from stedfm_hf.labels.labelled import LabelledImages, sample_per_class
from stedfm_hf.labels.splits import Splits
from stedfm_hf.metrics.neighbours import TEMPERATURE, KnnVote, nearest, reference_predict
from stedfm_hf.runs import UserError

ALL = "all"
"""Setting of a probe that uses all labels."""


def probe_runs(
    splits: Splits[LabelledImages],
    features: Mapping[str, SplitFeatures],
    extractors: Sequence[Extractor],
    counts: Sequence[int | str],
    repeats: int,
    *,
    chance: bool,
) -> list[Run]:
    """Fit and evaluate a probe for each method, number of labels and random sample.

    Args:
        splits: Labelled images.
        features: Features of each split, by the key of the method.
        extractors: Models and baselines.
        counts: Numbers of labels per class, or "all".
        repeats: Number of random samples for each number of labels.
        chance: Whether to include the chance baseline.
    """
    train, test, validation = splits.train, splits.test, splits.validation
    task, classes = train.task, len(train.classes)
    samples: dict[tuple[int | str, int], np.ndarray] = {
        (count, seed): np.searchsorted(train.rows, sample_per_class(train, count, seed).rows)
        for count in counts
        if isinstance(count, int)
        for seed in range(repeats)
    }
    samples |= {(count, 0): np.arange(len(train)) for count in counts if count == ALL}
    runs = []
    for extractor in extractors:
        by_split = features[extractor.key]
        others = [by_split["test"], *([by_split["validation"]] if len(validation) else [])]
        scaled, query, *select_on = prepare_for_probe(by_split["train"], extractor, *others)
        held_out = (select_on[0], validation.labels) if len(validation) else None
        for (count, seed), numbers in samples.items():
            sample, labels = scaled[numbers], train.labels[numbers]
            selected = select_C(
                sample, labels, train.sources[numbers], task=task, classes=classes, validation=held_out
            )
            predictions = fit_predict(sample, labels, query, task=task, classes=classes, C=selected.C)
            runs.append(
                _run(
                    test, extractor.key, str(count), seed, predictions, len(numbers), selected.C, selected.selected_on
                )
            )
    if chance:
        for (count, seed), numbers in samples.items():
            constant = _constant(train, numbers, len(test))
            runs.append(_run(test, "chance", str(count), seed, constant, len(numbers), None, None))
    return runs


def _run(
    test: LabelledImages,
    method: str,
    setting: str,
    seed: int,
    predictions: np.ndarray,
    train_images: int,
    C: float | None,
    selected_on: str | None,
) -> Run:
    """Return the run of predicted probabilities, or of predicted numbers."""
    if test.task == "regression":
        predicted, probabilities = predictions, None
    elif test.task == "multilabel":
        predicted, probabilities = (predictions >= 0.5).astype(np.int64), predictions
    else:
        predicted, probabilities = predictions.argmax(axis=1), predictions
    metrics = compute_metrics(test, predicted, probabilities)
    return Run(method, setting, seed, predicted, probabilities, train_images, C, selected_on, metrics)


def _constant(train: LabelledImages, numbers: np.ndarray, count: int) -> np.ndarray:
    """Predict class frequencies of the sample, or the mean, for all images; ties follow the whole train split."""
    if train.task == "regression":
        return np.full(count, train.labels[numbers].mean())
    if train.task == "multilabel":
        return np.tile(train.labels[numbers].mean(axis=0), (count, 1))
    sample, whole = (
        np.bincount(labels, minlength=len(train.classes)) / len(labels)
        for labels in (train.labels[numbers], train.labels)
    )
    frequencies = sample + 1e-6 * whole
    return np.tile(frequencies / frequencies.sum(), (count, 1))


def knn_runs(
    splits: Splits[LabelledImages],
    features: Mapping[str, SplitFeatures],
    extractors: Sequence[Extractor],
    ks: Sequence[int],
    *,
    reference: bool,
    zscore: bool,
    chance: bool,
    device: torch.device | str = "cpu",
) -> list[Run]:
    """Classify the test images by the nearest neighbours of each method.

    Args:
        splits: Labelled images.
        features: Features of each split, by the key of the method.
        extractors: Models and baselines.
        ks: Numbers of neighbours. The largest is evaluated with votes weighted by similarity as well.
        reference: Whether to follow the reference protocol.
        zscore: Whether to standardise each feature over the gallery.
        chance: Whether to include the chance baseline.
        device: Device of the search.

    Raises:
        UserError: If all images are of one source image.
    """
    test = splits.test
    gallery_split = "validation" if reference else "train"
    gallery_images = splits.named()[gallery_split]
    largest = max(REFERENCE_KS) if reference else max(ks)
    votes = [KnnVote(each) for each in ks] + [KnnVote(max(ks), TEMPERATURE)]
    runs = []
    for extractor in extractors:
        by_split = features[extractor.key]
        gallery, query = by_split[gallery_split], by_split["test"]
        if extractor.components is not None or not reference:
            gallery, query = prepare_for_search(gallery, extractor, query, zscore=zscore)
        rows, similarity = nearest(
            gallery,
            query,
            k=largest,
            gallery_sources=gallery_images.sources,
            query_sources=test.sources,
            device=device,
        )
        if not np.isfinite(similarity[:, 0]).all():
            raise UserError(
                f"{test.name}: all images are of one source image, but neighbours must be of another. Add images of "
                "other sources, or set --source-pattern"
            )
        numbers = gallery_images.labels[rows]
        if reference:
            for k in REFERENCE_KS:
                predicted, valid = reference_predict(numbers, k)
                predicted = np.where(valid, predicted, -1)
                name = f"k = {REFERENCE_KS[0]} to {REFERENCE_KS[-1]} (reference)"
                metrics = {"accuracy": float((predicted == test.labels).mean())}
                runs.append(Run(extractor.key, name, k, predicted, None, len(gallery_images), metrics=metrics))
            continue
        for vote in votes:
            predicted = vote.predict(numbers, similarity)
            metrics = compute_metrics(test, predicted, None)
            runs.append(Run(extractor.key, vote.name, 0, predicted, None, len(gallery_images), metrics=metrics))
    if chance:
        predicted = _constant(gallery_images, np.arange(len(gallery_images)), len(test)).argmax(axis=1)
        for setting in dict.fromkeys(run.setting for run in runs):
            metrics = compute_metrics(test, predicted, None)
            runs.append(Run("chance", setting, 0, predicted, None, len(gallery_images), metrics=metrics))
    return runs
