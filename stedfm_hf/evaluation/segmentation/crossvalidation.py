"""Cross-validation over source images: with few annotated images, each is scored once by what never saw it (ours)."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import GroupKFold

from stedfm_hf.evaluation.segmentation.baselines import Baseline
from stedfm_hf.evaluation.segmentation.fitting import fit_on
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.runs import UserError


def assign_folds(data: AnnotatedImages, folds: int, seed: int = 0) -> np.ndarray:
    """Assign each image to a fold, at random, the images of a source image to the same one.

    Args:
        data: Images to assign.
        folds: Number of folds.
        seed: Random seed of the assignment.

    Returns:
        Number of the fold of each image (n,).

    Raises:
        UserError: Fewer than two folds, or more than source images.

    Example:
        >>> from stedfm_hf.labels.annotated import from_arrays
        >>> data = from_arrays("cells", [np.eye(8)] * 6, [np.eye(8, dtype=np.uint8)] * 6, sources=list("aabbcc"))
        >>> np.ptp(assign_folds(data, 3).reshape(3, 2), axis=1).tolist()
        [0, 0, 0]
    """
    count = data.source_count
    if not 2 <= folds <= count:
        raise UserError(
            f"{data.name}: {folds} folds were asked for; 2 to {count} can be made of {count} source images"
        )
    assigned = np.empty(len(data), np.int64)
    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    for number, (_, members) in enumerate(splitter.split(data.sources, groups=data.sources)):
        assigned[members] = number
    return assigned


class Folded:
    """A baseline that answers for each image of a data set with what it learned of the other folds.

    It is fitted anew when an image of another fold is asked for: ask in the order of `order`.

    Args:
        baseline: what is fitted.
        data: the images.
        fold: number of the fold of each (n,).
        seed: of the draw of what is fitted on, where there is too much.
    """

    def __init__(self, baseline: Baseline, data: AnnotatedImages, fold: np.ndarray, seed: int = 0) -> None:
        self.baseline, self.data, self.fold, self.seed = baseline, data, fold, seed
        self.order: list[int] = np.argsort(fold, kind="stable").tolist()
        self._fitted: int | None = None

    def predict(self, number: int) -> np.ndarray:
        """Maps (L, H, W) of an image of the data set."""
        fold = int(self.fold[number])
        if self._fitted != fold:
            fit_on([self.baseline], self.data.take(self.fold != fold), seed=self.seed)
            self._fitted = fold
        return self.baseline.predict(self.data.image(number))
