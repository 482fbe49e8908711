"""Of probabilities: whether they can be taken at their word."""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np

from stedfm_hf.metrics.offline import NUMBER, NUMBERS, OfflineMetric, check_finite, class_numbers

BINS = 15


class CalibrationMetrics(OfflineMetric):
    """Expected calibration error, Brier score and the bins of a reliability diagram.

    The confidence is the highest probability of an image. It falls into one of equal bins (low, high]; the expected
    calibration error is the mean over images of how far confidence and accuracy of its bin differ (Guo et al. 2017).
    The Brier score is the mean squared distance of the probabilities from the true class, 0 to 2 (Brier 1950).

    `compute(predictions=, references=, bins=15)` takes probabilities (n, C) and class numbers (n,) and returns

    - `expected_calibration_error`, `brier_score`: floats;
    - `reliability`: a list of `{"low", "high", "count", "confidence", "accuracy"}`, the last two None in an empty bin.

    Example:
        >>> found = CalibrationMetrics().compute(predictions=[[0.8, 0.2], [0.4, 0.6]], references=[0, 0], bins=2)
        >>> round(found["expected_calibration_error"], 3), round(found["brier_score"], 3)
        (0.2, 0.4)
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Expected calibration error, Brier score, reliability bins.",
            "predictions: probabilities of every class; references: class numbers; bins: how many.",
            {"predictions": NUMBERS, "references": NUMBER},
        )

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray, bins: int = BINS) -> dict[str, Any]:
        probabilities = np.asarray(predictions, float)
        if probabilities.ndim != 2 or not probabilities.size:
            raise ValueError("calibration needs at least one image, and a probability of every class for each")
        check_finite("probabilities", probabilities)
        if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
            raise ValueError("the probabilities of an image must be positive and sum to 1; take the softmax of logits")
        numbers = class_numbers("references", references, probabilities.shape[1])
        confidence = probabilities.max(axis=1)
        right = (probabilities.argmax(axis=1) == numbers).astype(float)
        edges = np.linspace(0.0, 1.0, bins + 1)
        place = np.searchsorted(edges[1:-1], confidence)
        count = np.bincount(place, minlength=bins)
        filled = count > 0
        sure, correct = (np.bincount(place, each, bins) / np.maximum(count, 1) for each in (confidence, right))
        gap = np.abs(sure - correct)[filled]
        truth = np.eye(probabilities.shape[1])[numbers]
        return {
            "expected_calibration_error": float(np.average(gap, weights=count[filled])),
            "brier_score": float(((probabilities - truth) ** 2).sum(axis=1).mean()),
            "reliability": [
                {
                    "low": float(edges[number]),
                    "high": float(edges[number + 1]),
                    "count": int(count[number]),
                    "confidence": float(sure[number]) if filled[number] else None,
                    "accuracy": float(correct[number]) if filled[number] else None,
                }
                for number in range(bins)
            ],
        }
