"""Accuracy over the levels of a family, its bootstrap over source images, and the tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.evaluation.robustness.families import Family
from stedfm_hf.evaluation.robustness.probes import Predictions
from stedfm_hf.evaluation.scoring import image_scores
from stedfm_hf.labels.labelled import LabelledImages

LOSS = 0.05
"""Loss of accuracy (or of R²) that is tolerated."""
RESAMPLES = 2000
"""Number of bootstrap resamples of the source images."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Score of one method over the levels of one family.

    Attributes:
        method: Key of the method.
        family: Family of changes.
        values: Score at each level and seed, (levels, seeds): accuracy, fraction of correct labels, R² or Pearson r.
        resampled: Mean score over seeds for each bootstrap resample of the source images, (resamples, levels). NaN
            where it is undefined.
    """

    method: str
    family: Family
    values: np.ndarray
    resampled: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Mean score over seeds at each level, (levels,)."""
        return self.values.mean(axis=1)

    def interval(self, values: np.ndarray) -> tuple[float, float] | None:
        """Return the 95 % interval of a statistic of the resamples; None if it is undefined.

        Args:
            values: Statistic of each resample (resamples,); infinite values are allowed.
        """
        known = values[~np.isnan(values)]
        if not len(known):
            return None
        # Order statistics, because infinite values cannot be interpolated.
        low = float(np.quantile(known, 0.025, method="lower"))
        return low, float(np.quantile(known, 0.975, method="higher"))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each level: `mean`, `sd` over seeds, `low`, `high`, and the loss with its interval."""
        rows: list[dict[str, Any]] = []
        for number, level in enumerate(self.family.levels):
            ends = self.interval(self.resampled[:, number])
            loss = self.interval(self.resampled[:, 0] - self.resampled[:, number])
            each = self.values[number]
            rows.append(
                {
                    "method": self.method,
                    "family": self.family.name,
                    "level": None if math.isinf(level) else level,
                    "label": self.family.label(level),
                    "unit": self.family.unit,
                    "seeds": len(each),
                    "mean": float(each.mean()),
                    "sd": float(each.std(ddof=1)) if len(each) > 1 else None,
                    "low": None if ends is None else ends[0],
                    "high": None if ends is None else ends[1],
                    "loss": float(self.means[0] - self.means[number]),
                    "loss_low": None if loss is None else loss[0],
                    "loss_high": None if loss is None else loss[1],
                }
            )
        return rows

    def mean_loss(self) -> tuple[float, tuple[float, float] | None]:
        """Return the mean loss over all changed levels, and its interval over source images."""
        loss = float((self.means[0] - self.means[1:]).mean())
        return loss, self.interval((self.resampled[:, :1] - self.resampled[:, 1:]).mean(axis=1))


def score_curve(
    method: str, family: Family, predictions: Predictions, test: LabelledImages, seeds: Sequence[int], metric: str
) -> Curve:
    """Score the predictions of a method at all levels of a family.

    Args:
        method: Key of the method.
        family: Family of changes.
        predictions: Predictions of the method.
        test: Test images.
        seeds: Random seeds.
        metric: "accuracy", "label_accuracy", "r2" or "pearson_r".
    """
    names, numbers = np.unique(test.sources, return_inverse=True)
    sums = np.stack(
        [
            np.stack([_source_sums(test, predictions[family.name, level, seed], numbers, metric) for seed in seeds], 1)
            for level in family.levels
        ],
        axis=1,
    )  # (sources, levels, seeds, moments)
    rng = np.random.default_rng(0)  # the same resamples for all methods and families
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    resampled = np.einsum("bs,slrm->blrm", weights.astype(np.float64), sums, optimize=True)
    return Curve(method, family, statistic(sums.sum(axis=0), metric), statistic(resampled, metric).mean(axis=-1))


def _source_sums(test: LabelledImages, predicted: np.ndarray, numbers: np.ndarray, metric: str) -> np.ndarray:
    """Return sums over the images of each source image (sources, moments), from which the metric follows."""
    if metric in ("r2", "pearson_r"):
        # Centred, so that the differences of sums are exact enough.
        labels = test.labels - test.labels.mean()
        values = predicted - test.labels.mean()
        moments = [np.ones(len(labels)), labels, labels**2, values, values**2, labels * values]
    else:
        moments = [np.ones(len(test)), image_scores(test.task, test.labels, predicted)]
    return np.stack([np.bincount(numbers, weights=moment) for moment in moments], axis=1)


def statistic(sums: np.ndarray, metric: str) -> np.ndarray:
    """Compute a metric from sums over images.

    Args:
        sums: Sums (..., moments) of 1 and the scores; or of 1, y, y², p, p² and yp for labels y and predictions p.
        metric: "accuracy", "label_accuracy", "r2" or "pearson_r".

    Returns:
        Metric (...); NaN where it is undefined.

    Example:
        >>> statistic(np.array([4.0, 3.0]), "accuracy").item()
        0.75
    """
    if metric not in ("r2", "pearson_r"):
        return np.asarray(sums[..., 1] / sums[..., 0])
    n, y, yy, p, pp, yp = np.moveaxis(sums, -1, 0)
    total = yy - y**2 / n
    with np.errstate(divide="ignore", invalid="ignore"):
        if metric == "r2":
            return np.where(total > 1e-12 * n, 1 - (yy - 2 * yp + pp) / total, np.nan)
        explained = pp - p**2 / n
        covariance = yp - y * p / n
        return np.where((total > 0) & (explained > 1e-12 * n), covariance / np.sqrt(total * explained), np.nan)


def crossing(positions: Sequence[float], values: np.ndarray, loss: float = LOSS) -> np.ndarray:
    """Find the position up to which a score stays within `loss` of its first value.

    Between two levels, the score is interpolated linearly. Scores are never extrapolated.

    Args:
        positions: Position of each level (levels,); increasing.
        values: Scores (..., levels).
        loss: Tolerated loss.

    Returns:
        Positions (...) of the first crossing; infinite if the score stays within `loss` at all levels, NaN if a score
        before the crossing is undefined.

    Example:
        >>> crossing([0, 10, 20], np.array([[0.9, 0.9, 0.8], [0.9, 0.88, 0.87]])).round(3).tolist()
        [15.0, inf]
    """
    places = np.asarray(positions, float)
    values = np.asarray(values, float)
    limit = values[..., :1] - loss
    lost = (values < limit - 1e-9) | np.isnan(values)
    last = np.maximum(lost.argmax(axis=-1), 1)
    before, after = (np.take_along_axis(values, at[..., None], -1)[..., 0] for at in (last - 1, last))
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (before - limit[..., 0]) / (before - after)
    found = places[last - 1] + part * (places[last] - places[last - 1])
    return np.where(np.isnan(values[..., 0]), np.nan, np.where(lost.any(axis=-1), found, np.inf))


def tolerance(curve: Curve, chance: float | None) -> dict[str, Any]:
    """Find the level up to which a score stays within 5 points, with its interval over source images.

    Args:
        curve: Score over the levels of a family.
        chance: Score of a constant prediction; None if there is none.

    Returns:
        `method`, `family`, `unit`; `tolerance`, `low` and `high` in this unit, from the weaker to the stronger change,
        None if it is beyond the last level or undefined, and the first level if it is lost between infinity and
        this level; `beyond`, `low_beyond` and `high_beyond`: whether it is
        beyond; `last`, the last level; and `reason`, why it is undefined, or None.
    """
    family = curve.family
    row: dict[str, Any] = {
        "method": curve.method,
        "family": family.name,
        "unit": family.unit,
        "last": family.levels[-1],
        "tolerance": None,
        "low": None,
        "high": None,
        "beyond": False,
        "low_beyond": False,
        "high_beyond": False,
        "reason": None,
    }
    if not family.ordered:
        return row | {"reason": "the levels have no order"}
    start = float(curve.means[0])
    if not math.isfinite(start):
        return row | {"reason": "the score of the unchanged images is undefined"}
    if chance is not None:
        above = curve.interval(curve.resampled[:, 0])
        if start - LOSS <= chance or above is None or above[0] <= chance:
            return row | {"reason": "the score of the unchanged images is not clearly above chance"}
    positions = [family.position(level) for level in family.levels]
    ends = curve.interval(crossing(positions, curve.resampled)) or (math.nan, math.nan)
    found = float(crossing(positions, curve.means))
    for name, position in (("tolerance", found), ("low", ends[0]), ("high", ends[1])):
        beyond = "beyond" if name == "tolerance" else f"{name}_beyond"
        row[beyond] = position == math.inf
        if math.isfinite(position):
            level = family.level_at(position)
            # Between infinity and the first level, an interpolated level would say nothing.
            row[name] = min(level, family.levels[1]) if family.decreasing else level
    return row
