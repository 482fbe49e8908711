"""Of several labels per image."""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np
from sklearn.metrics import average_precision_score

from stedfm_hf.metrics.offline import NUMBERS, OfflineMetric, check_finite, or_none


class MultiLabelMetrics(OfflineMetric):
    """Macro and micro F1, and mean average precision.

    A class without a positive has no average precision; one that moreover was never predicted has no F1. Both are left
    out of the means, and counted.

    `compute(predictions=, references=, threshold=0.5)` takes scores (n, C), as probabilities, and 0 or 1 (n, C), and
    returns

    - `macro_f1`, `micro_f1`: F1 of scores of the threshold or more; None where no class has one;
    - `mean_average_precision`: None where no class has a positive;
    - `f1_per_class`, `average_precision_per_class`: lists of floats or None;
    - `undefined_f1`, `undefined_average_precision`: classes left out.

    Example:
        >>> found = MultiLabelMetrics().compute(predictions=[[0.9, 0.1], [0.2, 0.4]], references=[[1, 0], [0, 0]])
        >>> found["macro_f1"], found["mean_average_precision"], found["undefined_f1"]
        (1.0, 1.0, 1)
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Macro F1, micro F1, mean average precision.",
            "predictions: scores of every class; references: 0 or 1 for every class; threshold: of a positive.",
            {"predictions": NUMBERS, "references": NUMBERS},
        )

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
        scores, truth = np.asarray(predictions, float), np.asarray(references)
        if scores.ndim != 2 or not scores.size or scores.shape != truth.shape:
            raise ValueError("there must be one score and one reference of every image for every class")
        if not np.isin(truth, (0, 1)).all():
            raise ValueError("references of several labels are 0 or 1 for every class")
        check_finite("scores", scores)
        guessed, truth = scores >= threshold, truth == 1
        right, either = (guessed & truth).sum(axis=0), guessed.sum(axis=0) + truth.sum(axis=0)
        f1 = np.divide(2 * right, either, out=np.full(len(right), np.nan), where=either > 0)
        precision = np.full(len(right), np.nan)
        for number in np.flatnonzero(truth.any(axis=0)):
            precision[number] = average_precision_score(truth[:, number], scores[:, number])
        return {
            "macro_f1": _mean(f1),
            "micro_f1": float(2 * right.sum() / either.sum()) if either.any() else None,
            "mean_average_precision": _mean(precision),
            "f1_per_class": or_none(f1),
            "average_precision_per_class": or_none(precision),
            "undefined_f1": int(np.isnan(f1).sum()),
            "undefined_average_precision": int(np.isnan(precision).sum()),
        }


def _mean(values: np.ndarray) -> float | None:
    """Mean of what is defined."""
    return None if np.isnan(values).all() else float(np.nanmean(values))
