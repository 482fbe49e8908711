"""Pixel metrics of the masks of one image: IoU, Dice, AUPR and AUROC of each class.

Undefined scores are NaN. Summaries count them and exclude them from means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from stedfm_hf.metrics import reference
from stedfm_hf.runs import UserError

ScoringProtocol = Literal["default", "reference"]

THRESHOLD = 0.5
"""Default threshold of the probability: pixels above it are predicted."""
IGNORED = 255
"""Class number of pixels to ignore in single-label masks."""
PIXEL_METRICS = ("iou", "dice", "aupr", "auroc")
"""Metrics of the default protocol, in the order of the tables."""


@dataclass(frozen=True, eq=False)
class ImageScores:
    """Pixel scores of one image.

    Attributes:
        values: Score of each class (L,) float64, by metric. Undefined scores are NaN, or -1 in the reference protocol.
        protocol: Scoring protocol, "default" or "reference".
        threshold: Probability above which a pixel is predicted, in [0, 1].
    """

    values: dict[str, np.ndarray]
    protocol: ScoringProtocol
    threshold: float

    def undefined(self, name: str) -> np.ndarray:
        """Return whether the score of each class is undefined, (L,) bool.

        Args:
            name: Name of the metric.
        """
        values = self.values[name]
        return np.isnan(values) if self.protocol == "default" else values == reference.UNDEFINED

    def plain(self) -> dict[str, list[float | None]]:
        """Return the scores of each class as lists, by metric; undefined scores are None."""
        return {
            name: [None if lacks else float(value) for value, lacks in zip(values, self.undefined(name), strict=True)]
            for name, values in self.values.items()
        }


def score_image(
    probabilities: np.ndarray,
    target: np.ndarray,
    region: np.ndarray | None = None,
    *,
    threshold: float | None = None,
    exclusive: bool = False,
    protocol: ScoringProtocol = "default",
) -> ImageScores:
    """Score the probability maps of one image, for each class.

    The default protocol computes, for predicted pixels P and true pixels T (soft targets are true above 0.5):

    - `iou`: |P and T| / |P or T|, and `dice`: 2 |P and T| / (|P| + |T|). Both are undefined where P and T are empty,
      and 0 where only P is not empty.
    - `aupr` (average precision) and `auroc`, as defined by scikit-learn. Both are undefined where all pixels or none
      are true.

    The reference protocol computes the metrics of `reference_scores`.

    Args:
        probabilities: Probability maps of all classes (L, H, W), in [0, 1].
        target: Masks of all classes (L, H, W), bool or float in [0, 1]. Use `planes_of` to convert a mask of
            class numbers.
        region: Mask of the pixels to score (H, W) bool; None scores all pixels.
        threshold: Probability above which a pixel is predicted; None is 0.5, or 0.25 in the reference protocol.
        exclusive: Whether each pixel belongs to its most probable class, regardless of the threshold (single-label
            models).
        protocol: Scoring protocol, "default" or "reference".

    Returns:
        Scores of each metric and class.

    Raises:
        UserError: If shapes differ, probabilities are not finite, or the target is outside [0, 1].

    Example:
        >>> maps = np.array([[[0.9, 0.8], [0.3, 0.1]]])
        >>> found = score_image(maps, np.array([[[1, 0], [0, 0]]]))
        >>> found.plain()
        {'iou': [0.5], 'dice': [0.666...], 'aupr': [1.0], 'auroc': [1.0]}
        >>> score_image(maps, np.zeros((1, 2, 2))).plain()
        {'iou': [0.0], 'dice': [0.0], 'aupr': [None], 'auroc': [None]}
    """
    maps, planes, inside = checked(probabilities, target, region)
    truth = planes > 0.5
    if protocol == "reference":
        if exclusive:
            raise UserError("the reference protocol does not support exclusive classes; leave out exclusive")
        cut = reference.THRESHOLD if threshold is None else threshold
        return ImageScores(reference.reference_scores(maps, truth, inside, threshold=cut), protocol, cut)
    if protocol != "default":
        raise UserError(f"protocol {protocol!r} is unknown; choose default or reference")
    cut = THRESHOLD if threshold is None else threshold
    predicted = predicted_pixels(maps, threshold=cut, exclusive=exclusive)
    iou, dice = overlap(predicted[:, inside], truth[:, inside])
    areas = np.array([_areas(values[inside], true[inside]) for values, true in zip(maps, truth, strict=True)])
    return ImageScores({"iou": iou, "dice": dice, "aupr": areas[:, 0], "auroc": areas[:, 1]}, protocol, cut)


def predicted_pixels(
    probabilities: np.ndarray, *, threshold: float = THRESHOLD, exclusive: bool = False
) -> np.ndarray:
    """Convert probability maps to predicted pixels.

    Args:
        probabilities: Probability maps of all classes (L, H, W).
        threshold: Probability above which a pixel is predicted, in [0, 1].
        exclusive: Whether each pixel belongs to its most probable class instead; ties go to the first class.

    Returns:
        Predicted pixels of each class (L, H, W) bool.

    Example:
        >>> maps = np.array([[[0.4]], [[0.3]], [[0.3]]])
        >>> predicted_pixels(maps).ravel().tolist(), predicted_pixels(maps, exclusive=True).ravel().tolist()
        ([False, False, False], [True, False, False])
    """
    if exclusive:
        return np.arange(len(probabilities))[:, None, None] == probabilities.argmax(axis=0)
    return probabilities > threshold


def overlap(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute intersection over union and Dice coefficient of each class.

    Args:
        predicted: Predicted pixels of each class (L, ...) bool.
        truth: True pixels of each class (L, ...) bool.

    Returns:
        IoU and Dice (L,) float64; NaN where both masks are empty.

    Example:
        >>> iou, dice = overlap(np.array([[True, True, False]]), np.array([[True, False, False]]))
        >>> iou.tolist(), dice.round(3).tolist()
        ([0.5], [0.667])
    """
    over = tuple(range(1, predicted.ndim))
    both = np.count_nonzero(predicted & truth, axis=over)
    sizes = np.count_nonzero(predicted, axis=over) + np.count_nonzero(truth, axis=over)
    with np.errstate(invalid="ignore"):
        return both / (sizes - both), 2 * both / sizes


def planes_of(target: np.ndarray, target_type: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Convert a target of any type to one mask for each class.

    Args:
        target: Class numbers (H, W) with 255 for ignored pixels if `target_type` is "single_label"; otherwise masks
            of all classes (L, H, W).
        target_type: "single_label", "multi_label" or "soft", as in the model's configuration.
        classes: Number of classes L.

    Returns:
        Masks of all classes (L, H, W) float32, and the mask of the pixels to score (H, W) bool.

    Raises:
        UserError: If the shape does not match the target type, or the target contains an unknown class number.

    Example:
        >>> planes, counted = planes_of(np.array([[0, 1, 255]]), "single_label", 2)
        >>> planes.tolist(), counted.tolist()
        ([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]], [[True, True, False]])
    """
    if target_type != "single_label":
        if target.ndim != 3 or len(target) != classes:
            raise UserError(
                f"a {target_type} target with {classes} classes must have the shape ({classes}, H, W), "
                f"not {target.shape}"
            )
        return np.asarray(target, np.float32), np.ones(target.shape[1:], bool)
    if target.ndim != 2:
        raise UserError(f"a single_label target must have the shape (H, W), not {target.shape}")
    counted = target != IGNORED
    unknown = np.setdiff1d(target[counted], np.arange(classes))
    if unknown.size:
        raise UserError(
            f"a mask contains the class number {unknown[0]}, but there are {classes} classes (0 to {classes - 1})"
        )
    return (np.arange(classes)[:, None, None] == target).astype(np.float32), counted


def checked(
    probabilities: np.ndarray, target: np.ndarray, region: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities, target and region as arrays, after checking that they match.

    Args:
        probabilities: Probability maps (L, H, W).
        target: Masks of all classes (L, H, W).
        region: Mask of the pixels to score (H, W) bool; None scores all pixels.

    Raises:
        UserError: If shapes differ, probabilities are not finite, or the target is outside [0, 1].
    """
    maps, planes = np.asarray(probabilities), np.asarray(target)
    if maps.ndim != 3 or maps.shape != planes.shape:
        raise UserError(
            f"probabilities {maps.shape} and target {planes.shape} must have the same shape (classes, height, width)"
        )
    if region is not None and np.shape(region) != maps.shape[1:]:
        raise UserError(f"region {np.shape(region)} must have the shape {maps.shape[1:]} of the probability maps")
    bad = maps.size - int(np.isfinite(maps).sum())
    if bad:
        raise UserError(f"{bad} of {maps.size} probabilities are not finite; check the weights of the model")
    if planes.dtype != bool and not ((planes >= 0) & (planes <= 1)).all():
        raise UserError(
            f"target values must be between 0 and 1, but range from {planes.min():g} to {planes.max():g}; divide an "
            "8-bit mask by 255, and exclude pixels by the region"
        )
    return maps, planes, np.ones(maps.shape[1:], bool) if region is None else np.asarray(region, bool)


def _areas(values: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return average precision and area under the ROC curve, or NaN where all pixels or none are true."""
    if truth.all() or not truth.any():
        return np.nan, np.nan
    return float(average_precision_score(truth, values)), float(roc_auc_score(truth, values))
