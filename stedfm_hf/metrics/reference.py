"""The reference's rules for the pixels of one image, so that published numbers can be computed again.

They differ from ours: the threshold is 0.25, the areas are trapezoids, undefined scores are -1, and the weak score of
soft masks averages the -1 of single boxes in. Where the reference leaves a choice open, the text says which we made.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import label
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score

UNDEFINED = -1.0
THRESHOLD = 0.25
"""A pixel above it is predicted."""
MARGIN = 10
"""Pixels around the bounding box of an object, for the weak score."""
REFERENCE_METRICS = ("iou", "aupr", "auroc", "auap", "weak_aupr")


def reference_scores(
    probabilities: np.ndarray, truth: np.ndarray, region: np.ndarray, *, threshold: float = THRESHOLD
) -> dict[str, np.ndarray]:
    """Scores of each class (L,) by the reference's rules, -1 where undefined.

    - `iou`: of pixels above the threshold; -1 where neither predicted nor true pixels are there.
    - `aupr`: trapezoidal area under the precision-recall curve; `auroc`; `auap`: as `aupr`, with the precision
      replaced by its running maximum towards lower recall. -1 where all pixels or none are true.
    - `weak_aupr`: see :func:`weak_aupr`.

    The reference's script for label percentages asks besides that a tenth of the pixels be true; here it is not asked.

    Example:
        >>> maps, truth = np.array([[[0.3, 0.2, 0.1]]]), np.array([[[True, True, False]]])
        >>> found = reference_scores(maps, truth, np.ones((1, 3), bool))
        >>> {name: values.tolist() for name, values in found.items()}
        {'iou': [0.5], 'aupr': [1.0], 'auroc': [1.0], 'auap': [1.0], 'weak_aupr': [1.0]}
    """
    found: dict[str, list[float]] = {name: [] for name in REFERENCE_METRICS}
    for values, true in zip(probabilities, truth, strict=True):
        flat, true_flat = values[region], true[region]
        predicted = flat > threshold
        either = np.count_nonzero(predicted | true_flat)
        found["iou"].append(np.count_nonzero(predicted & true_flat) / either if either else UNDEFINED)
        for name, value in _areas(flat, true_flat).items():
            found[name].append(value)
        found["weak_aupr"].append(weak_aupr(values, true, region))
    return {name: np.array(values) for name, values in found.items()}


def weak_aupr(probabilities: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Mean over true objects of the trapezoidal AUPR inside their bounding boxes, widened by 10 pixels.

    For masks that mark the place of a structure better than its outline. Objects are connected components, diagonal
    neighbours included. A box whose pixels are all true counts with -1, in the mean too; one whose prediction is the
    same everywhere with 0 (ours: the first is asked before the second). Without objects the score is -1.

    Example:
        >>> truth = np.zeros((30, 30))
        >>> truth[10:14, 10:14] = 0.8
        >>> weak_aupr(truth, truth), weak_aupr(np.ones((30, 30)), truth), weak_aupr(truth, np.zeros((30, 30)))
        (1.0, 0.0, -1.0)
    """
    inside = np.ones(truth.shape, bool) if region is None else region
    true = (truth > 0.5) & inside
    scores = []
    for rows, columns in ndimage.find_objects(label(true)):
        box = tuple(slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in (rows, columns))
        values, true_values = probabilities[box][inside[box]], true[box][inside[box]]
        constant = np.ptp(values) == 0 and not true_values.all()
        scores.append(0.0 if constant else _areas(values, true_values)["aupr"])
    return float(np.mean(scores)) if scores else UNDEFINED


def _areas(values: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    if truth.all() or not truth.any():
        return dict.fromkeys(("aupr", "auroc", "auap"), UNDEFINED)
    # From low thresholds to high ones, hence from high recall to low: what is accumulated is the best precision that
    # any recall at least as high has.
    precision, recall, _ = precision_recall_curve(truth, values)
    return {
        "aupr": float(auc(recall, precision)),
        "auroc": float(roc_auc_score(truth, values)),
        "auap": float(auc(recall, np.maximum.accumulate(precision))),
    }
