"""How sure a figure is, and whether two differ: the independent units are source images, not the crops of them.

Everything is resampling with a fixed seed. A p-value of n random draws is (1 + how many are as extreme) / (1 + n): the
data themselves are one of the possible outcomes, so that it is never 0 and the test keeps its level (Phipson and Smyth
2010). Few sources make intervals too narrow: below ten or so they are a hint, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

_Z95 = 1.959964
_AT_ONCE = 2**22
"""Random numbers drawn at a time."""

Sources = Sequence[str] | np.ndarray
"""Source image of each item; None in its place: each item is a source of its own."""


def bootstrap_interval(
    per_item: np.ndarray,
    sources: Sources | None = None,
    *,
    statistic: Callable[[np.ndarray], float] = np.mean,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of a figure by a bootstrap over source images: percentiles over draws of sources with replacement.

    Args:
        per_item: what the figure is computed of, one row per item (n, ...), as right or wrong (n,), or true and
            predicted class (n, 2).
        sources: source image of each item; None: each is a source of its own.
        statistic: from rows to the figure; it gets all rows of the drawn sources. Draws for which it is NaN (no row of
            the class it is about) are left out.
        n_resamples: how often sources are drawn.
        seed: of the draws.
        level: share of the draws inside the interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: there is nothing, lengths differ, values are not finite, or the figure is undefined for every draw.

    Example:
        >>> right = np.repeat([1.0, 0.0], 50)
        >>> low, high = bootstrap_interval(right, np.repeat(["s", "t", "u", "v"], 25))
        >>> low, high
        (0.0, 1.0)
    """
    per_item = np.asarray(per_item)
    source, count = _numbered(per_item, sources)
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")
    ends = [50.0 - 50.0 * level, 50.0 + 50.0 * level]
    rng = np.random.default_rng(seed)
    figures = []
    if statistic is np.mean and per_item.ndim == 1:
        total, size = np.bincount(source, weights=per_item), np.bincount(source)
        for some in _blocks(n_resamples, count):
            drawn = rng.integers(0, count, (some, count))
            figures.append(total[drawn].sum(axis=1) / size[drawn].sum(axis=1))
    else:
        rows = np.split(np.argsort(source, kind="stable"), np.cumsum(np.bincount(source))[:-1])
        for _ in range(n_resamples):
            drawn = rng.integers(0, count, count)
            figures.append(np.array([statistic(per_item[np.concatenate([rows[number] for number in drawn])])]))
    values = np.concatenate(figures)
    if np.isnan(values).all():
        raise ValueError("the figure is undefined for every draw of sources")
    low, high = np.nanpercentile(values, ends)
    return float(low), float(high)


def accuracy_interval(correct: np.ndarray, sources: Sources | None = None) -> tuple[float, float]:
    """95 % interval of an accuracy whose independent units are source images.

    One query per source: the Wilson interval, which stays honest near 0 and 1. Several: a bootstrap over sources
    (2000 draws, fixed seed), because crops of one image succeed and fail together.

    Args:
        correct: right or wrong, (n,) bool.
        sources: source image of each entry; None: each is a source of its own.

    Returns:
        Lower and upper end.

    Example:
        >>> low, high = accuracy_interval(np.array([True] * 80 + [False] * 20))
        >>> round(low, 3), round(high, 3)
        (0.711, 0.867)
    """
    n = len(correct)
    if sources is None or len(set(sources)) == n:
        p, z2 = float(np.mean(correct)), _Z95**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z95 * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2)) / (1 + z2 / n)
        return max(0.0, float(middle - half)), min(1.0, float(middle + half))
    return bootstrap_interval(np.asarray(correct, dtype=float), sources)


def permutation_test(
    one: np.ndarray,
    other: np.ndarray,
    sources: Sources | None = None,
    *,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value that two methods are alike, from their scores of the same items.

    If they are, swapping their scores on a source image changes nothing: the mean difference is compared with those
    after random swaps, of all items of a source together.

    Args:
        one: score of a method for every item (n,), as right or wrong.
        other: those of the other method, for the same items in the same order.
        sources: source image of each item; None: each is a source of its own.
        n_resamples: random swaps.
        seed: of the swaps.

    Returns:
        The p-value, at least 1 / (draws + 1); with few sources it cannot become small, 2 / 2^sources at best.

    Raises:
        ValueError: there is nothing, lengths differ, or values are not finite.

    Example:
        >>> better = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
        >>> permutation_test(better, 1 - better) < 0.01, permutation_test(better, better)
        (True, 1.0)
    """
    if np.shape(one) != np.shape(other):
        raise ValueError(f"scores {np.shape(one)} and {np.shape(other)} are not of the same items")
    difference = np.asarray(one, float) - np.asarray(other, float)
    source, count = _numbered(difference, sources)
    by_source = np.bincount(source, weights=difference)
    rng = np.random.default_rng(seed)
    found = [np.abs((1 - 2 * rng.integers(0, 2, (some, count))) @ by_source) for some in _blocks(n_resamples, count)]
    return _p_value(np.concatenate(found), abs(by_source.sum()), np.abs(by_source).sum())


def compare_paired(one: np.ndarray, other: np.ndarray, sources: Sources | None = None) -> dict[str, float]:
    """Compare two methods by their scores of the same items: difference, its 95 % interval, and p-value."""
    low, high = bootstrap_interval(one - other, sources)
    p = permutation_test(one, other, sources)
    return {"difference": float((one - other).mean()), "low": low, "high": high, "p": p}


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values corrected for how many tests there are, by Holm's method.

    The chance that any true null hypothesis of the family is below a level stays below that level.

    Args:
        p_values: of a family of tests (n,).

    Returns:
        Corrected ones (n,) in the same order.

    Raises:
        ValueError: a p-value is not between 0 and 1.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, float)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise ValueError("p-values are a list of numbers between 0 and 1")
    order = np.argsort(given, kind="stable")
    steps = given[order] * (len(given) - np.arange(len(given)))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def _numbered(values: np.ndarray, sources: Sources | None) -> tuple[np.ndarray, int]:
    """Number of the source of each item, and how many sources there are."""
    if not len(values):
        raise ValueError("there are no items")
    if not np.isfinite(np.asarray(values, float)).all():
        raise ValueError("values of items must be finite numbers")
    if sources is None:
        return np.arange(len(values)), len(values)
    if len(sources) != len(values):
        raise ValueError(f"there are {len(values)} items and {len(sources)} sources of items")
    names, numbers = np.unique(np.asarray(sources), return_inverse=True)
    return numbers, len(names)


def _blocks(n_resamples: int, width: int) -> Iterator[int]:
    """Sizes of blocks of draws that fit in memory."""
    if n_resamples < 1:
        raise ValueError(f"there must be at least one draw, not {n_resamples}")
    step = max(1, _AT_ONCE // width)
    yield from (min(step, n_resamples - start) for start in range(0, n_resamples, step))


def _p_value(drawn: np.ndarray, observed: float, scale: float) -> float:
    """Share of the draws, and of the data among them, that are as extreme; equal but for rounding is as extreme."""
    extreme = int((drawn >= observed - 1e-12 * scale).sum())
    return (1 + extreme) / (1 + len(drawn))
