"""Figures of every task."""

from __future__ import annotations

import numpy as np
import pytest

from stedfm_hf.training.classification.objective import score


def test_metrics_of_every_task() -> None:
    logits = np.array([[2.0, -1.0], [0.0, 3.0], [1.0, 0.5]])
    found = score(logits, np.array([0, 1, 1]), "classes")
    assert found["confusion_matrix"] == [[1, 0], [1, 1]] and found["balanced_accuracy"] == pytest.approx(0.75)
    several = score(logits, np.array([[1, 0], [0, 1], [1, 1]]), "multilabel")
    assert several["micro_f1"] == pytest.approx(8 / 9)  # a logit of 0 is a probability of a half: a yes
    numbers = score(np.array([[50.0], [70.0]]), np.array([52.0, 70.0]), "regression")
    assert numbers["mae"] == pytest.approx(1.0) and numbers["pearson_r"] == pytest.approx(1.0)
