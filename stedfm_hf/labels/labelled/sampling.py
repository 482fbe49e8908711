"""Samples of labelled images: some per class, or a fraction of all."""

from __future__ import annotations

import numpy as np

from stedfm_hf.labels.labelled.images import LabelledImages
from stedfm_hf.runs import UserError


def sample_per_class(data: LabelledImages, n: int, seed: int) -> LabelledImages:
    """Sample n images of every class without replacement; with multilabel targets, until each class has n.

    With the same seed, a smaller sample is a subset of a larger one, so that learning curves add images.

    Args:
        data: Images to sample from.
        n: Number of images per class; for a regression, number of images.
        seed: Random seed of the sample.

    Raises:
        UserError: A class has fewer than n images.

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)] * 6, list("aaabbb"))
        >>> sample_per_class(data, 2, seed=0).counts()
        {'a': 2, 'b': 2}
    """
    if n < 1:
        raise UserError(f"images per class: {n} is too small; choose at least 1")
    order = np.random.default_rng([seed, 1]).permutation(len(data))
    if data.task == "regression":
        if len(data) < n:
            raise UserError(f"{data.name}: cannot sample {n} images from {len(data)}; choose a smaller number")
        return data.take(np.sort(order[:n]))
    few = {name: count for name, count in data.counts().items() if count < n}
    if few:
        listed = ", ".join(f"{name} has {count}" for name, count in few.items())
        raise UserError(f"{data.name}: cannot sample {n} images per class, because {listed}; choose a smaller number")
    table = data.labels if data.task == "multilabel" else np.eye(len(data.classes), dtype=np.int64)[data.labels]
    got, chosen = np.zeros(len(data.classes), np.int64), []
    for number in order:
        if ((table[number] > 0) & (got < n)).any():
            chosen.append(number)
            got += table[number]
    return data.take(np.sort(chosen))


def sample_fraction(data: LabelledImages, fraction: float, seed: int) -> LabelledImages:
    """Sample a fraction of the images of every class, at least one per class.

    Args:
        data: Images to sample from.
        fraction: Fraction of the images, in (0, 1].
        seed: Random seed of the sample; with the same seed, a smaller sample is a subset of a larger one.

    Raises:
        UserError: The fraction is not in (0, 1].

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)] * 6, list("aaaabb"))
        >>> sample_fraction(data, 0.5, seed=0).counts()
        {'a': 2, 'b': 1}
    """
    if not 0 < fraction <= 1:
        raise UserError(f"the fraction of the images is {fraction}; it must be above 0 and at most 1")
    order = np.random.default_rng([seed, 1]).permutation(len(data))
    strata = data.strata[order]
    kept = [order[strata == stratum] for stratum in np.unique(strata)]
    parts = [numbers[: max(1, round(fraction * len(numbers)))] for numbers in kept]
    return data.take(np.sort(np.concatenate(parts)))
