"""Draws of a few labelled images."""

from __future__ import annotations

import numpy as np

from stedfm_hf.labels.labelled.images import LabelledImages
from stedfm_hf.runs import UserError


def sample_per_class(data: LabelledImages, n: int, seed: int) -> LabelledImages:
    """Draws n images of every class without replacement; of images with several classes, until each has n.

    With one seed, a smaller draw is part of a larger one: a learning curve adds images.

    Args:
        data: what to draw from.
        n: images of each class; for a regression, images in all.
        seed: of the draw.

    Raises:
        UserError: a class has fewer than n; the message names it and how many it has.

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)] * 6, list("aaabbb"))
        >>> sample_per_class(data, 2, seed=0).counts()
        {'a': 2, 'b': 2}
    """
    if n < 1:
        raise UserError(f"{n} images per class are too few; the least is 1")
    order = np.random.default_rng([seed, 1]).permutation(len(data))
    if data.task == "regression":
        if len(data) < n:
            raise UserError(f"{data.name}: {n} images were asked for, and there are {len(data)}; ask for fewer")
        return data.take(np.sort(order[:n]))
    few = {name: count for name, count in data.counts().items() if count < n}
    if few:
        listed = ", ".join(f"{name} has {count}" for name, count in few.items())
        raise UserError(f"{data.name}: {n} images of every class were asked for, but {listed}; ask for fewer")
    table = data.labels if data.task == "multilabel" else np.eye(len(data.classes), dtype=np.int64)[data.labels]
    got, chosen = np.zeros(len(data.classes), np.int64), []
    for number in order:
        if ((table[number] > 0) & (got < n)).any():
            chosen.append(number)
            got += table[number]
    return data.take(np.sort(chosen))


def sample_fraction(data: LabelledImages, fraction: float, seed: int) -> LabelledImages:
    """Draws a share of the images, of every class alike, at least one of each.

    Args:
        data: what to draw from.
        fraction: share, above 0 and at most 1.
        seed: of the draw; with one seed, a smaller draw is part of a larger one.

    Raises:
        UserError: the fraction is none.

    Example:
        >>> from stedfm_hf.labels.labelled.images import from_arrays
        >>> data = from_arrays("d", [np.eye(4)] * 6, list("aaaabb"))
        >>> sample_fraction(data, 0.5, seed=0).counts()
        {'a': 2, 'b': 1}
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction {fraction} is no share of the images; give a number above 0 and at most 1")
    order = np.random.default_rng([seed, 1]).permutation(len(data))
    strata = data.strata[order]
    kept = [order[strata == stratum] for stratum in np.unique(strata)]
    parts = [numbers[: max(1, round(fraction * len(numbers)))] for numbers in kept]
    return data.take(np.sort(np.concatenate(parts)))
