"""How well the pixels of one image are told apart: overlap at a threshold, and areas under curves, for each class.

A score that has no value is NaN and stays NaN: the summary counts it and never averages it in. The reference's own
rules are in `reference.py`.
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
"""A pixel above this probability is predicted."""
IGNORED = 255
"""Number of the pixels of a single-label mask that are left out."""
PIXEL_METRICS = ("iou", "dice", "aupr", "auroc")
"""Names of our scores, in the order of the tables."""


@dataclass(frozen=True, eq=False)
class ImageScores:
    """Scores of one image.

    Args:
        values: for each score its value for every class (L,) float64; undefined ones are NaN, by the reference's rules
            -1.
        protocol: "default" or "reference".
        threshold: of a predicted pixel.
    """

    values: dict[str, np.ndarray]
    protocol: ScoringProtocol
    threshold: float

    def undefined(self, name: str) -> np.ndarray:
        """Which classes a score has no value for, (L,) bool."""
        values = self.values[name]
        return np.isnan(values) if self.protocol == "default" else values == reference.UNDEFINED

    def plain(self) -> dict[str, list[float | None]]:
        """The scores as plain data, undefined ones as None."""
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
    """Scores of the maps of one image, for each class, of the pixels inside a region.

    Ours, where P are predicted pixels and T true ones (a soft target is true above 0.5):

    - `iou`: |P and T| / |P or T|, and `dice`: 2 |P and T| / (|P| + |T|); undefined where both are empty. A class that
      is predicted where there is none has 0.
    - `aupr`: average precision, and `auroc`, as scikit-learn defines them; undefined where all pixels or none are
      true, because then there is nothing to tell apart.

    `protocol="reference"` gives `iou`, `aupr`, `auroc`, `auap` and `weak_aupr` as the reference's evaluation computes
    them, and -1 where one is undefined: see :func:`stedfm_hf.metrics.reference.reference_scores`.

    Args:
        probabilities: maps of all classes (L, H, W).
        target: planes of all classes (L, H, W), bool or numbers in [0, 1]; :func:`planes_of` makes them of a mask of
            class numbers.
        region: true where pixels count (H, W) bool; None: everywhere.
        threshold: a pixel above this probability is predicted; None: 0.5, by the reference's rules 0.25.
        exclusive: a pixel is of its most probable class, whatever the threshold: for single-label models.
        protocol: "default" or "reference".

    Returns:
        The scores.

    Raises:
        UserError: shapes differ, maps are not finite, or a target is outside [0, 1].

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
            raise UserError("the reference's rules know no classes that exclude each other; leave out exclusive")
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
    """Predicted pixels of all classes (L, H, W) bool.

    Args:
        probabilities: maps (L, H, W).
        threshold: a pixel above this probability is predicted.
        exclusive: a pixel is of its most probable class instead; of several the first.

    Example:
        >>> maps = np.array([[[0.4]], [[0.3]], [[0.3]]])
        >>> predicted_pixels(maps).ravel().tolist(), predicted_pixels(maps, exclusive=True).ravel().tolist()
        ([False, False, False], [True, False, False])
    """
    if exclusive:
        return np.arange(len(probabilities))[:, None, None] == probabilities.argmax(axis=0)
    return probabilities > threshold


def overlap(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union and Dice coefficient of each class; NaN where both are empty.

    Args:
        predicted: (L, ...) bool.
        truth: (L, ...) bool.

    Returns:
        Both (L,) float64.

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
    """Planes of a target of any type, and which of its pixels count.

    Args:
        target: class numbers (H, W), 255 = left out, for `target_type="single_label"`; else planes (L, H, W).
        target_type: "single_label", "multi_label" or "soft", as in the model's configuration.
        classes: how many there are (L).

    Returns:
        Planes (L, H, W) float32, and true where pixels count (H, W) bool.

    Raises:
        UserError: the shape does not fit the type, or a mask holds a number of no class.

    Example:
        >>> planes, counted = planes_of(np.array([[0, 1, 255]]), "single_label", 2)
        >>> planes.tolist(), counted.tolist()
        ([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]], [[True, True, False]])
    """
    if target_type != "single_label":
        if target.ndim != 3 or len(target) != classes:
            raise UserError(f"a {target_type} target of {classes} classes is ({classes}, H, W), not {target.shape}")
        return np.asarray(target, np.float32), np.ones(target.shape[1:], bool)
    if target.ndim != 2:
        raise UserError(f"a single_label target is (H, W), not {target.shape}")
    counted = target != IGNORED
    unknown = np.setdiff1d(target[counted], np.arange(classes))
    if unknown.size:
        raise UserError(f"a mask of {classes} classes holds the number {unknown[0]}; 0 to {classes - 1} are known")
    return (np.arange(classes)[:, None, None] == target).astype(np.float32), counted


def checked(
    probabilities: np.ndarray, target: np.ndarray, region: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps, planes and region that fit each other.

    Raises:
        UserError: they do not, maps are not finite, or a target is outside [0, 1].
    """
    maps, planes = np.asarray(probabilities), np.asarray(target)
    if maps.ndim != 3 or maps.shape != planes.shape:
        raise UserError(f"maps {maps.shape} and target {planes.shape} must both be (classes, height, width)")
    if region is not None and np.shape(region) != maps.shape[1:]:
        raise UserError(f"a region {np.shape(region)} does not fit maps of {maps.shape[1]} x {maps.shape[2]} pixels")
    bad = maps.size - int(np.isfinite(maps).sum())
    if bad:
        raise UserError(f"{bad} of {maps.size} values of the maps are not finite numbers; nothing can be said of them")
    if planes.dtype != bool and not ((planes >= 0) & (planes <= 1)).all():
        raise UserError(
            f"a target holds 0 and 1, or numbers between; this one holds {planes.min():g} to {planes.max():g} "
            "(divide an 8-bit mask by 255; leave pixels out by the region)"
        )
    return maps, planes, np.ones(maps.shape[1:], bool) if region is None else np.asarray(region, bool)


def _areas(values: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Average precision and area under the ROC curve; NaN where all pixels or none are true."""
    if truth.all() or not truth.any():
        return np.nan, np.nan
    return float(average_precision_score(truth, values)), float(roc_auc_score(truth, values))
