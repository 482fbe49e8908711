"""Which annotated crops are trained on: a share of them, or a few of each class.

Crops are drawn whatever source image they are of: what is tested must have been split off before.
"""

from __future__ import annotations

import math

import numpy as np

from stedfm_hf.labels.annotated.images import AnnotatedImages
from stedfm_hf.runs.errors import UserError


def sample_fraction(images: AnnotatedImages, fraction: float, seed: int) -> AnnotatedImages:
    """Draws a share of the crops (reference protocol: the first floor(fraction * N) of a shuffled order).

    Args:
        images: what to draw from.
        fraction: share, above 0 and at most 1; at least one crop is drawn, where the reference would draw none.
        seed: of the order; with one seed, a smaller draw is part of a larger one.

    Raises:
        UserError: the fraction is none.

    Example:
        >>> from stedfm_hf.labels.annotated.images import from_arrays
        >>> data = from_arrays("cells", [np.eye(4)] * 9, [np.eye(4, dtype=np.uint8)] * 9)
        >>> len(sample_fraction(data, 0.25, seed=0)), len(sample_fraction(data, 0.01, seed=0))
        (2, 1)
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction {fraction} is no share of the crops; give a number above 0 and at most 1")
    # 0.29 * 100 is a little less than 29 in floating point.
    number = math.floor(fraction * len(images) + 1e-9)
    return images.take(np.sort(shuffled(images, seed)[: max(1, number)]))


def sample_per_class(images: AnnotatedImages, n: int, seed: int, *, least: float = 0.0) -> AnnotatedImages:
    """Draws up to n crops of every class but the background; a crop of two classes counts for both.

    The reference took the union of n crops of each class that covers more than 10 % of them; here a crop of a class
    is any that has a pixel of it, so that thin structures and spots can be drawn, and no crop is drawn twice.

    Args:
        images: what to draw from.
        n: crops of each class; of a class that has fewer, all.
        seed: of the draw; with one seed, a smaller draw is part of a larger one.
        least: share of a crop that a class must cover more of; 0.1 in the reference.

    Raises:
        UserError: n is below 1, or no crop shows any class enough.

    Example:
        >>> from stedfm_hf.labels.annotated.images import from_arrays
        >>> masks = [np.full((4, 4), 1 + number % 2, np.uint8) for number in range(6)]
        >>> sample_per_class(from_arrays("cells", [np.eye(4)] * 6, masks), 2, seed=0).counts()
        {'background': 0, 'class 1': 32, 'class 2': 32}
    """
    if n < 1:
        raise UserError(f"{n} crops per class are too few; the least is 1")
    # A crop of no class has no pixels to divide by.
    share = images.pixels / np.maximum(images.sizes, 1)[:, None]
    shows = share > least
    if images.background is not None:
        shows[:, images.background] = False
    if not shows.any():
        raise UserError(f"{images.name}: no crop shows any class on more than {100 * least:g} %; ask for less")
    order = shuffled(images, seed)
    chosen = {int(each) for column in shows.T for each in order[column[order]][:n]}
    return images.take(sorted(chosen))


def shuffled(images: AnnotatedImages, seed: int) -> np.ndarray:
    """Numbers of the images (n,) int64 in a random order; draws take the first of them."""
    order = np.arange(len(images))
    np.random.default_rng(seed).shuffle(order)
    return order
