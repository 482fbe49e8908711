"""Of one label per image: accuracy and what it hides when classes differ in size."""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix

from stedfm_hf.metrics.offline import NUMBER, OfflineMetric, class_numbers, or_none


class ClassificationMetrics(OfflineMetric):
    """Accuracy, balanced accuracy, macro F1, recall of each class and confusion matrix, as scikit-learn defines them.

    A class without references has no recall (None) and is left out of the balanced accuracy; one that was predicted
    nevertheless counts in the macro F1, with 0. Classes with neither are left out of both.

    `compute(predictions=, references=, num_classes=None)` takes class numbers and returns

    - `accuracy`, `balanced_accuracy` (mean recall), `macro_f1`: floats in [0, 1];
    - `recall_per_class`: list of floats or None, by class number;
    - `confusion_matrix`: list of rows of counts, rows are references, columns predictions;
    - `absent_classes`: numbers of the classes without references.

    Without `num_classes` there are as many classes as the highest number says.

    Example:
        >>> found = ClassificationMetrics().compute(predictions=[0, 1, 1, 0], references=[0, 1, 1, 1], num_classes=3)
        >>> found["accuracy"], round(found["balanced_accuracy"], 3), found["absent_classes"]
        (0.75, 0.833, [2])
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Accuracy, balanced accuracy, macro F1, recall per class, confusion matrix.",
            "predictions, references: class numbers; num_classes: how many classes there are.",
            {"predictions": NUMBER, "references": NUMBER},
        )

    def _compute(
        self, *, predictions: np.ndarray, references: np.ndarray, num_classes: int | None = None
    ) -> dict[str, Any]:
        true, guessed = (
            class_numbers(name, values, num_classes)
            for name, values in (("references", references), ("predictions", predictions))
        )
        count = num_classes or int(max(true.max(), guessed.max())) + 1
        matrix = confusion_matrix(true, guessed, labels=np.arange(count))
        right, there, given = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        with np.errstate(invalid="ignore"):
            recall, f1 = right / there, 2 * right / (there + given)
        return {
            "accuracy": float(right.sum() / matrix.sum()),
            "balanced_accuracy": float(np.nanmean(recall)),
            "macro_f1": float(np.nanmean(f1)),
            "recall_per_class": or_none(recall),
            "confusion_matrix": matrix.tolist(),
            "absent_classes": np.flatnonzero(there == 0).tolist(),
        }
