"""Fitting of segmentation baselines on annotated images, which are read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

import numpy as np
from sklearn.model_selection import GroupKFold

from stedfm_hf.evaluation.segmentation.baselines import Baseline, Chance, Constant, Otsu
from stedfm_hf.evaluation.segmentation.forest import PixelForest
from stedfm_hf.evaluation.segmentation.scores import target_masks
from stedfm_hf.evaluation.segmentation.wavelets import WaveletSpots
from stedfm_hf.evaluation.settings import MASK_BASELINES
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.labels.sourced import first_failure
from stedfm_hf.runs import UserError, counted

MAX_TRAIN_IMAGES = 200
"""Largest number of images to fit a baseline on, sampled at random."""

T = TypeVar("T")


def make_baselines(
    data: AnnotatedImages, names: Sequence[str] = MASK_BASELINES, *, seed: int = 0
) -> dict[str, Baseline]:
    """Create baselines, without fitting them.

    Args:
        data: Annotated images, which define the classes.
        names: Names from `MASK_BASELINES`.
        seed: Random seed of the forest and of chance.

    Returns:
        Baselines by name.

    Raises:
        UserError: If a baseline is unknown.

    Example:
        >>> from stedfm_hf.labels.annotated import from_arrays
        >>> data = from_arrays("cells", [np.eye(8)], [np.eye(8, dtype=np.uint8)])
        >>> [each.name for each in make_baselines(data, ["otsu", "chance"]).values()]
        ['Otsu', 'chance']
    """
    exclusive, background = data.target_type == "single_label", data.background or 0
    known: dict[str, Callable[[], Baseline]] = {
        "otsu": lambda: Otsu(exclusive=exclusive, background=background),
        "wavelets": lambda: WaveletSpots(exclusive=exclusive, background=background),
        "forest": lambda: PixelForest(exclusive=exclusive, seed=seed),
        "constant": lambda: Constant(exclusive=exclusive),
        "chance": lambda: Chance(exclusive=exclusive, seed=seed),
    }
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"baseline {unknown[0]!r} is unknown; choose from {', '.join(MASK_BASELINES)}")
    return {name: known[name]() for name in dict.fromkeys(names)}


def fit_baselines(baselines: Sequence[Baseline], train: AnnotatedImages, *, seed: int = 0) -> None:
    """Fit baselines on at most `MAX_TRAIN_IMAGES` annotated images.

    Args:
        baselines: Baselines to fit; previous fits are replaced.
        train: Training images.
        seed: Random seed of the sample of training images.

    Raises:
        UserError: If no pixel is annotated.
    """
    if len(train) > MAX_TRAIN_IMAGES:
        train = train.take(np.sort(np.random.default_rng([seed, 2]).permutation(len(train))[:MAX_TRAIN_IMAGES]))
    images = LazySequence(len(train), train.image)
    targets = LazySequence(len(train), lambda number: target_masks(train, number)[0])
    regions = LazySequence(len(train), lambda number: target_masks(train, number)[1])
    for baseline in baselines:
        baseline.fit(images, targets, regions)


def untrained_baselines(data: AnnotatedImages, names: Sequence[str]) -> dict[str, Baseline]:
    """Return baselines that need no training images: Otsu, and wavelet spots with fixed settings.

    Wavelet spots use the scales 2 and 3 and a threshold of 3 standard deviations. With several exclusive foreground
    classes there is no such baseline, because the class of bright pixels is unknown.

    Args:
        data: Annotated images, which define the classes.
        names: Names of the requested baselines.

    Returns:
        Baselines by name.

    Example:
        >>> from stedfm_hf.labels.annotated import from_arrays
        >>> data = from_arrays("cells", [np.eye(8)], [np.eye(8, dtype=np.uint8)])
        >>> list(untrained_baselines(data, ["otsu", "forest"]))
        ['otsu']
    """
    exclusive, count = data.target_type == "single_label", len(data.classes)
    if exclusive and (data.background is None or count != 2):
        return {}
    found: dict[str, Baseline] = make_baselines(data, [name for name in names if name == "otsu"])
    if "wavelets" in names:
        found["wavelets"] = WaveletSpots(
            exclusive=exclusive, background=data.background or 0, scales=[(2, 3)], thresholds=[3.0]
        )
    # An empty image with all classes defines the number of classes.
    image, target = np.zeros((1, 2, 2)), np.ones((count, 2, 2))
    if exclusive:
        target[0, 0] = target[1, 1] = 0
    for baseline in found.values():
        baseline.fit([image], [target])
    return found


class LazySequence(Sequence[T]):
    """Sequence whose elements are computed on access and not stored.

    Args:
        count: Number of elements.
        get: Function from the index to the element.

    Example:
        >>> list(LazySequence(3, lambda number: number**2)), len(LazySequence(3, str)[1:])
        ([0, 1, 4], 2)
    """

    def __init__(self, count: int, get: Callable[[int], T]) -> None:
        self._numbers, self._get = range(count), get

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, number: int) -> T: ...
    @overload
    def __getitem__(self, number: slice) -> list[T]: ...
    def __getitem__(self, number: int | slice) -> T | list[T]:
        if isinstance(number, slice):
            return [self._get(each) for each in self._numbers[number]]
        return self._get(self._numbers[number])


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
    if count < 2:
        raise UserError(
            f"{data.name}: only {counted(count, 'source image')} to score; folds need at least 2{first_failure(data)}"
        )
    if not 2 <= folds <= count:
        raise UserError(f"{data.name}: {folds} folds are not possible with {count} source images; choose 2 to {count}")
    assigned = np.empty(len(data), np.int64)
    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    for number, (_, members) in enumerate(splitter.split(data.sources, groups=data.sources)):
        assigned[members] = number
    return assigned


class CrossValidatedBaseline:
    """Baseline that predicts each image of a data set after fitting on the other folds.

    It is fitted again when the fold changes: process images in the order of `order`.

    Args:
        baseline: Baseline to fit.
        data: Annotated images.
        fold: Number of the fold of each image (n,).
        seed: Random seed of the sample of training images.
    """

    def __init__(self, baseline: Baseline, data: AnnotatedImages, fold: np.ndarray, seed: int = 0) -> None:
        self.baseline, self.data, self.fold, self.seed = baseline, data, fold, seed
        self.order: list[int] = np.argsort(fold, kind="stable").tolist()
        self._fitted: int | None = None

    def predict(self, number: int) -> np.ndarray:
        """Predict the maps (L, H, W) of an image of the data set.

        Args:
            number: Number of the image.
        """
        fold = int(self.fold[number])
        if self._fitted != fold:
            fit_baselines([self.baseline], self.data.take(self.fold != fold), seed=self.seed)
            self._fitted = fold
        return self.baseline.predict(self.data.image(number))
