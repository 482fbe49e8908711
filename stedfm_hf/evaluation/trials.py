"""The runs of an evaluation: every model by every draw of labels, or by every vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from stedfm_hf.evaluation.extractors import Extractor
from stedfm_hf.evaluation.features import Vectors, prepare_for_probe
from stedfm_hf.evaluation.knn import REFERENCE_KS, zscore_by
from stedfm_hf.evaluation.probe import fit_predict, select_C
from stedfm_hf.evaluation.scoring import Run, measure
from stedfm_hf.labels.labelled import LabelledImages, sample_per_class
from stedfm_hf.labels.splits import Splits
from stedfm_hf.metrics.neighbours import TEMPERATURE, KnnVote, nearest, reference_predict
from stedfm_hf.runs import UserError

ALL = "all"
"""The setting of a probe that learns from all labels."""


def probe_runs(
    splits: Splits[LabelledImages],
    vectors: Mapping[str, Vectors],
    extractors: Sequence[Extractor],
    counts: Sequence[int | str],
    seeds: int,
    *,
    chance: bool,
) -> list[Run]:
    """Probes of every model, with every number of labels and every draw."""
    train, test, validation = splits.train, splits.test, splits.validation
    task, classes = train.task, len(train.classes)
    draws: dict[tuple[int | str, int], np.ndarray] = {
        (count, seed): np.searchsorted(train.rows, sample_per_class(train, count, seed).rows)
        for count in counts
        if isinstance(count, int)
        for seed in range(seeds)
    }
    draws |= {(count, 0): np.arange(len(train)) for count in counts if count == ALL}
    runs = []
    for extractor in extractors:
        own = vectors[extractor.key]
        rest = [own["test"], *([own["validation"]] if len(validation) else [])]
        scaled, query, *chosen_on = prepare_for_probe(own["train"], extractor, *rest)
        held = (chosen_on[0], validation.labels) if len(validation) else None
        for (count, seed), numbers in draws.items():
            some, labels = scaled[numbers], train.labels[numbers]
            selected = select_C(some, labels, train.sources[numbers], task=task, classes=classes, validation=held)
            found = fit_predict(some, labels, query, task=task, classes=classes, C=selected.C)
            runs.append(
                _run(test, extractor.key, str(count), seed, found, len(numbers), selected.C, selected.selected_on)
            )
    if chance:
        for (count, seed), numbers in draws.items():
            constant = _constant(train, numbers, len(test))
            runs.append(_run(test, "chance", str(count), seed, constant, len(numbers), None, None))
    return runs


def _run(
    test: LabelledImages,
    method: str,
    setting: str,
    seed: int,
    found: np.ndarray,
    images: int,
    C: float | None,
    selected_on: str | None,
) -> Run:
    """A run of probabilities, or of predicted numbers."""
    if test.task == "regression":
        predicted, probabilities = found, None
    elif test.task == "multilabel":
        predicted, probabilities = (found >= 0.5).astype(np.int64), found
    else:
        predicted, probabilities = found.argmax(axis=1), found
    metrics = measure(test, predicted, probabilities)
    return Run(method, setting, seed, predicted, probabilities, images, C, selected_on, metrics)


def _constant(train: LabelledImages, numbers: np.ndarray, count: int) -> np.ndarray:
    """The same answer for all: how often each class was in the draw (of equals: in train), or the mean."""
    if train.task == "regression":
        return np.full(count, train.labels[numbers].mean())
    if train.task == "multilabel":
        return np.tile(train.labels[numbers].mean(axis=0), (count, 1))
    shares, whole = (
        np.bincount(labels, minlength=len(train.classes)) / len(labels)
        for labels in (train.labels[numbers], train.labels)
    )
    leaning = shares + 1e-6 * whole
    return np.tile(leaning / leaning.sum(), (count, 1))


def knn_runs(
    splits: Splits[LabelledImages],
    vectors: Mapping[str, Vectors],
    extractors: Sequence[Extractor],
    ks: Sequence[int],
    *,
    reference: bool,
    zscore: bool,
    chance: bool,
    device: torch.device | str = "cpu",
) -> list[Run]:
    """Votes of the nearest neighbours of every model: plain ones of `ks`, and the largest by similarity as well."""
    test = splits.test
    gallery_split = "validation" if reference else "train"
    asked = splits.named()[gallery_split]
    most = max(REFERENCE_KS) if reference else max(ks)
    votes = [KnnVote(each) for each in ks] + [KnnVote(max(ks), TEMPERATURE)]
    runs = []
    for extractor in extractors:
        own = vectors[extractor.key]
        gallery, query = own[gallery_split], own["test"]
        if extractor.components is not None:
            gallery, query = prepare_for_probe(gallery, extractor, query)
        elif (zscore or extractor.key == "texture") and not reference:
            gallery, query = zscore_by(gallery, query)
        rows, similarity = nearest(
            gallery, query, k=most, gallery_sources=asked.sources, query_sources=test.sources, device=device
        )
        if not np.isfinite(similarity[:, 0]).all():
            raise UserError(f"{test.name}: all images are of one source image; neighbours must be of another")
        numbers = asked.labels[rows]
        if reference:
            for k in REFERENCE_KS:
                predicted, counts = reference_predict(numbers, k)
                predicted = np.where(counts, predicted, -1)
                name = f"k = {REFERENCE_KS[0]} to {REFERENCE_KS[-1]} (reference)"
                metrics = {"accuracy": float((predicted == test.labels).mean())}
                runs.append(Run(extractor.key, name, k, predicted, None, len(asked), metrics=metrics))
            continue
        for vote in votes:
            predicted = vote.predict(numbers, similarity)
            metrics = measure(test, predicted, None)
            runs.append(Run(extractor.key, vote.name, 0, predicted, None, len(asked), metrics=metrics))
    if chance:
        predicted = _constant(asked, np.arange(len(asked)), len(test)).argmax(axis=1)
        for setting in dict.fromkeys(run.setting for run in runs):
            metrics = measure(test, predicted, None)
            runs.append(Run("chance", setting, 0, predicted, None, len(asked), metrics=metrics))
    return runs
