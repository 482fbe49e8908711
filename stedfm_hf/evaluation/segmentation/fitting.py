"""Baselines that learn from annotated images, which are read when they are looked at: memory holds one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

import numpy as np

from stedfm_hf.evaluation.segmentation.baselines import Baseline, Constant, Otsu
from stedfm_hf.evaluation.segmentation.chance import Chance
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

    Args:
        count: how many.
        get: makes one, of its number.

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
