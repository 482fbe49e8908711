"""Samples of annotated crops: a fraction of all, or some per class.

Crops are sampled regardless of their source image, so split the data before you sample.
"""

from __future__ import annotations

import math

import numpy as np

from stedfm_hf.labels.annotated.images import AnnotatedImages
from stedfm_hf.runs.errors import UserError


def sample_fraction(images: AnnotatedImages, fraction: float, seed: int) -> AnnotatedImages:
    """Sample a fraction of the crops: the first floor(fraction * N) of a shuffled order, at least one.

    Args:
        images: Crops to sample from.
        fraction: Fraction of the crops, in (0, 1].
        seed: Random seed of the shuffle; with the same seed, a smaller sample is a subset of a larger one.

    Raises:
        UserError: The fraction is not in (0, 1].

    Source:
        Reference protocol, which samples no crop where floor(fraction * N) is 0.

    Example:
        >>> from stedfm_hf.labels.annotated.images import from_arrays
        >>> data = from_arrays("cells", [np.eye(4)] * 9, [np.eye(4, dtype=np.uint8)] * 9)
        >>> len(sample_fraction(data, 0.25, seed=0)), len(sample_fraction(data, 0.01, seed=0))
        (2, 1)
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction of the crops: {fraction} is not in (0, 1]; choose a number above 0 and at most 1")
    # 0.29 * 100 is a little less than 29 in floating point.
    number = math.floor(fraction * len(images) + 1e-9)
    return images.take(np.sort(shuffled(images, seed)[: max(1, number)]))


def sample_per_class(images: AnnotatedImages, n: int, seed: int, *, min_fraction: float = 0.0) -> AnnotatedImages:
    """Sample up to n crops of every class except the background; a crop of two classes counts for both.

    By default, a crop belongs to every class that has a pixel in it, so that crops of thin structures and spots can be
    sampled. No crop is sampled twice.

    Args:
        images: Crops to sample from.
        n: Number of crops per class; all crops of a class that has fewer.
        seed: Random seed of the sample; with the same seed, a smaller sample is a subset of a larger one.
        min_fraction: Fraction of a crop that a class must exceed, in [0, 1).

    Raises:
        UserError: n is below 1, or no class exceeds `min_fraction` in any crop.

    Source:
        Reference protocol: the union of n crops of each class that covers more than 10 % of them.

    Example:
        >>> from stedfm_hf.labels.annotated.images import from_arrays
        >>> masks = [np.full((4, 4), 1 + number % 2, np.uint8) for number in range(6)]
        >>> sample_per_class(from_arrays("cells", [np.eye(4)] * 6, masks), 2, seed=0).counts()
        {'background': 0, 'class 1': 32, 'class 2': 32}
    """
    if n < 1:
        raise UserError(f"crops per class: {n} is too small; choose at least 1")
    # Avoid a division by zero for images without pixels.
    fraction = images.pixels / np.maximum(images.sizes, 1)[:, None]
    shows = fraction > min_fraction
    if images.background is not None:
        shows[:, images.background] = False
    if not shows.any():
        raise UserError(
            f"{images.name}: no class covers more than {100 * min_fraction:g} % of any crop; choose a smaller fraction"
        )
    order = shuffled(images, seed)
    chosen = {int(each) for column in shows.T for each in order[column[order]][:n]}
    return images.take(sorted(chosen))


def shuffled(images: AnnotatedImages, seed: int) -> np.ndarray:
    """Return the indices of the images in random order, (n,) int64; samples take the first of them.

    Args:
        images: Images to shuffle.
        seed: Random seed of the shuffle.
    """
    order = np.arange(len(images))
    np.random.default_rng(seed).shuffle(order)
    return order
