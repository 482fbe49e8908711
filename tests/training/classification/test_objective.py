"""The loss: independent of the number of processes, and numbers in their original unit at the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stedfm_hf import StedFmForImageClassification
from stedfm_hf.labels.labelled import LabelledImages, from_arrays
from stedfm_hf.training.classification.objective import objective_for
from tests.models import pixels, tiny_config


def data(labels: list[object]) -> LabelledImages:
    return from_arrays("d", [np.eye(8)] * len(labels), labels)


def test_balanced_classes_have_equal_weight() -> None:
    part = data([*"aaaaaabb"])
    objective = objective_for(part, balanced=True)
    logits, targets = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), objective.targets(part.labels)
    each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    wanted = (each[targets == 0].mean() + each[targets == 1].mean()) / 2
    assert objective.loss(logits, targets) == pytest.approx(float(wanted))
    halves = [objective.loss(logits[part], targets[part]) for part in (slice(0, 4), slice(4, 8))]
    assert sum(map(float, halves)) / 2 == pytest.approx(float(wanted))
    assert objective.loss(logits, targets, weighted=False) == pytest.approx(float(each.mean()))


def test_balanced_multilabel_positives_weigh_as_much_as_negatives() -> None:
    objective = objective_for(data([["a"], ["a", "b"], ["a"], ["b"], ["a"]]), balanced=True)
    assert objective.weights is not None and objective.weights.tolist() == pytest.approx([1 / 4, 3 / 2])


def test_numbers_are_standardised_for_training_and_predicted_in_their_unit() -> None:
    part = data([50.0, 60.5, 90.0, 120.0])
    objective = objective_for(part, balanced=False)
    targets = objective.targets(part.labels)
    assert float(targets.mean()) == pytest.approx(0.0, abs=1e-6) and float(targets.std(correction=0)) == pytest.approx(
        1
    )
    network = StedFmForImageClassification(tiny_config(num_labels=1, target_type="regression")).eval()
    with torch.no_grad():
        before = network(pixels()).logits.numpy()
        objective.fold(network)
        assert network(pixels()).logits.numpy() == pytest.approx(objective.in_units(before), rel=1e-4)
    assert objective_for(data([3.5, 3.5]), balanced=False).std == 1.0
