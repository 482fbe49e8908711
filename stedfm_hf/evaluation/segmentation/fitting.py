"""Baselines that learn from annotated images, which are read when they are looked at: memory holds one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

import numpy as np
from sklearn.model_selection import GroupKFold

from stedfm_hf.evaluation.segmentation.baselines import Baseline, Chance, Constant, Otsu
from stedfm_hf.evaluation.segmentation.forest import PixelForest
from stedfm_hf.evaluation.segmentation.scored import annotated_planes
from stedfm_hf.evaluation.segmentation.wavelets import WaveletSpots
from stedfm_hf.evaluation.settings import MASK_BASELINES
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.runs import UserError

MOST_IMAGES = 200
"""A baseline is fitted on so many images at most, drawn at random: more change nothing but the time it takes."""

T = TypeVar("T")


def make_baselines(
    data: AnnotatedImages, names: Sequence[str] = MASK_BASELINES, *, seed: int = 0
) -> dict[str, Baseline]:
    """Baselines for the classes of these images, not fitted yet.

    Args:
        data: says whether classes exclude each other.
        names: of :data:`~stedfm_hf.evaluation.settings.MASK_BASELINES`.
        seed: of the forest and of chance.

    Raises:
        UserError: there is no such baseline.

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
        raise UserError(f"baseline {unknown[0]!r} is unknown; choose {', '.join(MASK_BASELINES)}")
    return {name: known[name]() for name in dict.fromkeys(names)}


def fit_on(baselines: Sequence[Baseline], train: AnnotatedImages, *, seed: int = 0) -> None:
    """Fits baselines on annotated images, at most :data:`MOST_IMAGES` of them.

    Args:
        baselines: which; each begins anew.
        train: what to learn from.
        seed: of the draw, where there are more.

    Raises:
        UserError: no pixel of them counts.
    """
    if len(train) > MOST_IMAGES:
        train = train.take(np.sort(np.random.default_rng([seed, 2]).permutation(len(train))[:MOST_IMAGES]))
    images = Lazily(len(train), train.image)
    targets = Lazily(len(train), lambda number: annotated_planes(train, number)[0])
    regions = Lazily(len(train), lambda number: annotated_planes(train, number)[1])
    for baseline in baselines:
        baseline.fit(images, targets, regions)


def without_training(data: AnnotatedImages, names: Sequence[str]) -> dict[str, Baseline]:
    """Baselines that need nothing to learn from: Otsu, and wavelet spots of scales 2 and 3 at 3 deviations.

    Of several classes that exclude each other nobody says which the bright pixels are of: then there are none.

    Example:
        >>> from stedfm_hf.labels.annotated import from_arrays
        >>> data = from_arrays("cells", [np.eye(8)], [np.eye(8, dtype=np.uint8)])
        >>> list(without_training(data, ["otsu", "forest"]))
        ['otsu']
    """
    exclusive, count = data.target_type == "single_label", len(data.classes)
    if exclusive and (data.background is None or count != 2):
        return {}
    found: dict[str, Baseline] = make_baselines(data, [name for name in names if name == "otsu"])
    if "wavelets" in names:
        found["wavelets"] = WaveletSpots(
            exclusive=exclusive, background=data.background or 0, scales=[(2, 3)], times=[3.0]
        )
    # They learn how many classes there are: from an image of nothing that shows each of them.
    image, target = np.zeros((1, 2, 2)), np.ones((count, 2, 2))
    if exclusive:
        target[0, 0] = target[1, 1] = 0
    for baseline in found.values():
        baseline.fit([image], [target])
    return found


class Lazily(Sequence[T]):
    """A sequence whose elements are made when they are asked for, and not kept.

    Example:
        >>> list(Lazily(3, lambda number: number**2)), len(Lazily(3, str)[1:])
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
