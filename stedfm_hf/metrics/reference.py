"""Pixel metrics of the reference protocol, to reproduce published values.

Differences from the default protocol: the threshold is 0.25, areas under curves use the trapezoidal rule, undefined
scores are -1, and the weak AUPR includes the -1 of single boxes in its mean.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import label
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score

UNDEFINED = -1.0
THRESHOLD = 0.25
"""Default threshold of the probability: pixels above it are predicted."""
MARGIN = 10
"""Margin around the bounding box of an object for the weak AUPR, in pixels."""
REFERENCE_METRICS = ("iou", "aupr", "auroc", "auap", "weak_aupr")


def reference_scores(
    probabilities: np.ndarray, truth: np.ndarray, region: np.ndarray, *, threshold: float = THRESHOLD
) -> dict[str, np.ndarray]:
    """Compute the metrics of the reference protocol for one image.

    - `iou`: IoU of pixels above the threshold; -1 without predicted and true pixels.
    - `aupr`: trapezoidal area under the precision-recall curve; `auroc`: area under the ROC curve; `auap`: as `aupr`,
      with the precision replaced by its running maximum towards lower recall. All are -1 where all pixels or none are
      true.
    - `weak_aupr`: see `weak_aupr`.

    The reference script for label percentages also requires that 10 % of the pixels are true. This function does not.

    Args:
        probabilities: Probability maps of all classes (L, H, W).
        truth: True pixels of each class (L, H, W) bool.
        region: Mask of the pixels to score (H, W) bool.
        threshold: Probability above which a pixel is predicted, in [0, 1].

    Returns:
        Score of each class (L,) float64, by metric; -1 where undefined.

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
    """Compute the mean trapezoidal AUPR inside the bounding boxes of the true objects, widened by 10 pixels.

    Use this metric for masks that mark the position of a structure rather than its outline. Objects are connected
    components, including diagonal neighbours. The mean includes -1 for boxes without false pixels, and 0 for other
    boxes with a constant prediction.

    Args:
        probabilities: Probability map of one class (H, W).
        truth: Target of one class (H, W), true above 0.5.
        region: Mask of the pixels to score (H, W) bool; None scores all pixels.

    Returns:
        The weak AUPR; -1 without objects.

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
        box = tuple(slice(max(0, axis.start - MARGIN), axis.stop + MARGIN) for axis in (rows, columns))
        values, true_values = probabilities[box][inside[box]], true[box][inside[box]]
        constant = np.ptp(values) == 0 and not true_values.all()
        scores.append(0.0 if constant else _areas(values, true_values)["aupr"])
    return float(np.mean(scores)) if scores else UNDEFINED


def _areas(values: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return `aupr`, `auroc` and `auap`, or -1 where all pixels or none are true."""
    if truth.all() or not truth.any():
        return dict.fromkeys(("aupr", "auroc", "auap"), UNDEFINED)
    # The curve runs from high recall to low recall: the running maximum is the best precision at this recall or more.
    precision, recall, _ = precision_recall_curve(truth, values)
    return {
        "aupr": float(auc(recall, precision)),
        "auroc": float(roc_auc_score(truth, values)),
        "auap": float(auc(recall, np.maximum.accumulate(precision))),
    }
