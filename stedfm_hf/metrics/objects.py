"""How well objects are found: connected components of masks, matched where they overlap by more than half."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.measure import label
from skimage.metrics import contingency_table

from stedfm_hf.metrics.mask_scores import checked
from stedfm_hf.runs import UserError

OVERLAP = 0.5
"""Two objects match above this IoU. From 0.5 on no object can match two: they would share more than all of it."""
OBJECT_METRICS = ("f1", "pq", "sq")
"""Names of the scores, in the order of the tables; RQ is the F1."""


@dataclass(frozen=True, eq=False)
class ObjectScores:
    """Objects of one image, or of several together, for each class (L,).

    Args:
        matched: objects that were found.
        spurious: predicted objects that match no true one.
        missed: true objects that match no predicted one.
        shared: sum of the IoUs of the matches.
    """

    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray
    iou_sum: np.ndarray

    @property
    def values(self) -> dict[str, np.ndarray]:
        """`f1`, `pq` and `sq` of each class (L,) float64.

        - `f1`: matched / (matched + half of the spurious and missed), which is the recognition quality RQ.
        - `sq`: mean IoU of the matches, the segmentation quality; NaN where nothing matches.
        - `pq`: SQ times RQ, the panoptic quality (Kirillov et al. 2019); 0 where nothing matches.

        All are NaN where there is neither a true object nor a predicted one.
        """
        with np.errstate(invalid="ignore"):
            size = self.true_positives + (self.false_positives + self.false_negatives) / 2
            return {
                "f1": self.true_positives / size,
                "pq": self.iou_sum / size,
                "sq": self.iou_sum / self.true_positives,
            }

    def undefined(self, name: str) -> np.ndarray:
        """Which classes a score has no value for, (L,) bool."""
        return np.isnan(self.values[name])

    def plain(self) -> dict[str, list[float | None]]:
        """Scores and counts as plain data, undefined ones as None."""
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
    """Objects of one image, for each class: connected components, diagonal neighbours included.

    What lies outside the region is cut off before components are looked for, as if the image ended there.

    Args:
        predicted: predicted pixels (L, H, W) bool, as `predicted_pixels` gives them.
        target: planes (L, H, W), true above 0.5.
        region: true where pixels count (H, W) bool; None: everywhere.
        overlap: IoU above which two objects match, 0.5 or more.
        min_area_px: components of fewer pixels are no objects, neither in the prediction nor in the target.

    Returns:
        The counts and scores.

    Raises:
        UserError: shapes differ, the target is outside [0, 1], or `overlap` is outside 0.5 to 1.

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
        raise UserError("objects are made of predicted pixels (bool); take `predicted_pixels` of the maps first")
    return together(
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
    """Numbers of the connected components of a mask (H, W), diagonal neighbours included; 0 is none.

    Args:
        mask: (H, W) bool.
        min_area_px: smaller components are dropped.

    Example:
        >>> components(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], bool), 2)[:, 0].tolist()
        [1, 0, 0, 0]
    """
    numbers = label(mask, connectivity=2)
    if min_area_px > 1:
        numbers[np.bincount(numbers.ravel())[numbers] < min_area_px] = 0
    return numbers


def match_objects(predicted: np.ndarray, truth: np.ndarray, *, overlap: float = OVERLAP) -> ObjectScores:
    """Matches of the objects of two label images: pairs whose IoU is above a half or more, unique by that alone.

    Args:
        predicted: numbers of objects (H, W), 0 = none; an instance segmentation, or `components` of a mask.
        truth: the same of the true objects.
        overlap: IoU above which two objects match, 0.5 or more.

    Returns:
        Counts of the one class (1,).

    Raises:
        UserError: shapes differ, or `overlap` is outside 0.5 to 1.

    Example:
        >>> found = match_objects(np.array([[7, 7, 7, 0]]), np.array([[3, 3, 0, 9]]))
        >>> found.true_positives.tolist(), found.false_negatives.tolist(), found.iou_sum.round(3).tolist()
        ([1], [1], [0.667])
    """
    if np.shape(predicted) != np.shape(truth):
        raise UserError(f"label images {np.shape(predicted)} and {np.shape(truth)} are not of the same size")
    if not 0.5 <= overlap < 1:
        raise UserError(f"objects match above an IoU of 0.5 or more, not {overlap:g}: below, matches are not unique")
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


def together(classes: list[ObjectScores]) -> ObjectScores:
    """The scores of several classes as one."""
    names = ("true_positives", "false_positives", "false_negatives", "iou_sum")
    return ObjectScores(*(np.concatenate([getattr(each, name) for each in classes]) for name in names))
