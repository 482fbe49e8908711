"""Object metrics of masks: F1, panoptic quality and segmentation quality of matched connected components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.measure import label
from skimage.metrics import contingency_table

from stedfm_hf.metrics.mask_scores import checked
from stedfm_hf.runs import UserError

OVERLAP = 0.5
"""Default IoU above which two objects match. Matches are unique for any threshold of at least 0.5."""
OBJECT_METRICS = ("f1", "pq", "sq")
"""Metrics, in the order of the tables. F1 equals the recognition quality (RQ)."""


@dataclass(frozen=True, eq=False)
class ObjectScores:
    """Object counts of one image, or of several images together, for each class.

    Attributes:
        true_positives: Number of matched objects (L,).
        false_positives: Number of predicted objects without a matching true object (L,).
        false_negatives: Number of true objects without a matching predicted object (L,).
        iou_sum: Sum of the IoUs of all matches (L,).
    """

    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray
    iou_sum: np.ndarray

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Metrics of each class (L,) float64, by name.

        - `f1`: TP / (TP + FP / 2 + FN / 2), which equals the recognition quality RQ.
        - `sq`: segmentation quality, the mean IoU of the matches; NaN without matches.
        - `pq`: panoptic quality, SQ times RQ; 0 without matches.

        All metrics are NaN where there is neither a true nor a predicted object.

        Source:
            Kirillov et al., Panoptic Segmentation, CVPR 2019.
        """
        with np.errstate(invalid="ignore"):
            size = self.true_positives + (self.false_positives + self.false_negatives) / 2
            return {
                "f1": self.true_positives / size,
                "pq": self.iou_sum / size,
                "sq": self.iou_sum / self.true_positives,
            }

    def undefined(self, name: str) -> np.ndarray:
        """Return whether the metric of each class is undefined, (L,) bool.

        Args:
            name: Name of the metric.
        """
        return np.isnan(self.values[name])

    def plain(self) -> dict[str, list[float | None]]:
        """Return metrics and counts of each class as lists, by name; undefined metrics are None."""
        scores = {
            name: [None if np.isnan(value) else float(value) for value in values]
            for name, values in self.values.items()
        }
        counts = {
            name: getattr(self, name).astype(float).tolist()
            for name in ("true_positives", "false_positives", "false_negatives")
        }
        return scores | counts


def score_objects(
    predicted: np.ndarray,
    target: np.ndarray,
    region: np.ndarray | None = None,
    *,
    overlap: float = OVERLAP,
    min_area_px: int = 1,
) -> ObjectScores:
    """Match predicted and true objects of one image, for each class.

    Objects are connected components, including diagonal neighbours. Pixels outside the region are removed first.

    Args:
        predicted: Predicted pixels of each class (L, H, W) bool, from `predicted_pixels`.
        target: Masks of all classes (L, H, W), true above 0.5.
        region: Mask of the pixels to score (H, W) bool; None scores all pixels.
        overlap: IoU above which two objects match, in [0.5, 1).
        min_area_px: Area of the smallest object, in pixels; smaller components are ignored in prediction and target.

    Returns:
        Counts of each class.

    Raises:
        UserError: If shapes differ, the target is outside [0, 1], or `overlap` is outside [0.5, 1).

    Example:
        >>> truth = np.zeros((1, 8, 8), bool)
        >>> truth[0, :3, :3] = truth[0, 5:, 5:] = True
        >>> guess = truth.copy()
        >>> guess[0, 5:, 5:] = False
        >>> found = score_objects(guess, truth)
        >>> found.true_positives.tolist(), found.false_negatives.tolist(), found.values["f1"].round(3).tolist()
        ([1], [1], [0.667])
    """
    guess, planes, inside = checked(predicted, target, region)
    if guess.dtype != bool:
        raise UserError("predicted must be boolean pixels; apply `predicted_pixels` to the probability maps first")
    return stack_classes(
        [
            match_objects(
                components(each & inside, min_area_px),
                components((true > 0.5) & inside, min_area_px),
                overlap=overlap,
            )
            for each, true in zip(guess, planes, strict=True)
        ]
    )


def components(mask: np.ndarray, min_area_px: int = 1) -> np.ndarray:
    """Label the connected components of a mask, including diagonal neighbours.

    Args:
        mask: Mask (H, W) bool.
        min_area_px: Area of the smallest component to keep, in pixels.

    Returns:
        Number of the component of each pixel (H, W) int; 0 is the background.

    Example:
        >>> components(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], bool), 2)[:, 0].tolist()
        [1, 0, 0, 0]
    """
    numbers = label(mask, connectivity=2)
    if min_area_px > 1:
        numbers[np.bincount(numbers.ravel())[numbers] < min_area_px] = 0
    return numbers


def match_objects(predicted: np.ndarray, truth: np.ndarray, *, overlap: float = OVERLAP) -> ObjectScores:
    """Match the objects of two label images by IoU.

    Args:
        predicted: Label image of the predicted objects (H, W) int, 0 is the background: an instance segmentation, or
            the `components` of a mask.
        truth: Label image of the true objects (H, W) int.
        overlap: IoU above which two objects match, in [0.5, 1).

    Returns:
        Counts of a single class (1,).

    Raises:
        UserError: If shapes differ, or `overlap` is outside [0.5, 1).

    Example:
        >>> found = match_objects(np.array([[7, 7, 7, 0]]), np.array([[3, 3, 0, 9]]))
        >>> found.true_positives.tolist(), found.false_negatives.tolist(), found.iou_sum.round(3).tolist()
        ([1], [1], [0.667])
    """
    if np.shape(predicted) != np.shape(truth):
        raise UserError(f"label images must have the same shape, not {np.shape(predicted)} and {np.shape(truth)}")
    if not 0.5 <= overlap < 1:
        raise UserError(f"overlap must be in [0.5, 1), not {overlap:g}: below 0.5, matches are not unique")
    table = contingency_table(truth, predicted, sparse_type="array")
    true_sizes, guessed_sizes = table.sum(axis=1), table.sum(axis=0)
    pairs = table.tocoo()
    row, column = pairs.coords
    shared = pairs.data / (true_sizes[row] + guessed_sizes[column] - pairs.data)
    ious = shared[(row > 0) & (column > 0) & (shared > overlap)]
    true_count, guessed_count = (np.count_nonzero(sizes[1:]) for sizes in (true_sizes, guessed_sizes))
    matched = len(ious)
    return ObjectScores(
        *(np.array([value]) for value in (matched, guessed_count - matched, true_count - matched, float(ious.sum())))
    )


def stack_classes(classes: list[ObjectScores]) -> ObjectScores:
    """Concatenate the counts of single classes."""
    names = ("true_positives", "false_positives", "false_negatives", "iou_sum")
    return ObjectScores(*(np.concatenate([getattr(each, name) for each in classes]) for name in names))
