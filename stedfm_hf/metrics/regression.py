"""Of numbers, as a resolution in nanometres or a quality."""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from stedfm_hf.metrics.offline import NUMBER, OfflineMetric, check_finite


class RegressionMetrics(OfflineMetric):
    """Pearson correlation, R², mean absolute and root mean squared error.

    Of references that are all the same there is neither correlation nor R², of such predictions no correlation: they
    are None, and `undefined` counts them. R² is 1 minus the squared error over that of the mean reference: below 0 for
    predictions that are worse than it.

    `compute(predictions=, references=)` takes numbers and returns `pearson_r`, `r2`, `mae`, `rmse`, `undefined`.

    Example:
        >>> found = RegressionMetrics().compute(predictions=[50.0, 60.0, 90.0], references=[50.0, 70.0, 90.0])
        >>> {name: round(value, 3) for name, value in found.items()}
        {'pearson_r': 0.961, 'r2': 0.875, 'mae': 3.333, 'rmse': 5.774, 'undefined': 0}
        >>> RegressionMetrics().compute(predictions=[0.1, 0.3], references=[0.5, 0.5])["r2"] is None
        True
    """

    def _info(self) -> evaluate.MetricInfo:
        return self.info_of(
            "Pearson r, R2, mean absolute error, root mean squared error.",
            "predictions, references: numbers.",
            {"predictions": NUMBER, "references": NUMBER},
        )

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, Any]:
        predictions, references = np.asarray(predictions, float), np.asarray(references, float)
        if not len(references):
            raise ValueError("there is nothing to compare: no references")
        check_finite("predictions", predictions)
        check_finite("references", references)
        varied = np.ptp(references) > 0
        correlated = varied and np.ptp(predictions) > 0
        return {
            "pearson_r": float(pearsonr(references, predictions).statistic) if correlated else None,
            "r2": float(r2_score(references, predictions)) if varied else None,
            "mae": float(mean_absolute_error(references, predictions)),
            "rmse": float(root_mean_squared_error(references, predictions)),
            "undefined": int(not correlated) + int(not varied),
        }
