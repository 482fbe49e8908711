"""Confidence intervals and paired tests whose independent units are source images, not crops.

All methods resample with a fixed seed. The p-value of n permutations is (1 + number at least as extreme) / (1 + n), so
that it is never 0 and the test keeps its level. Intervals from fewer than about ten sources are too narrow: treat them
as a rough guide.

Source:
    Phipson and Smyth, Permutation p-values should never be zero, 2010 (p-values).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_Z95 = 1.959964
_CHUNK_NUMBERS = 2**22
"""Random numbers generated at once."""

Sources = Sequence[str] | np.ndarray
"""Source image of each item. Functions that accept None instead treat every item as a separate source."""


def bootstrap_interval(
    values: np.ndarray,
    sources: Sources | None = None,
    *,
    statistic: Callable[[np.ndarray], float] = np.mean,
    classes: np.ndarray | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence_level: float = 0.95,
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of a statistic over source images.

    Args:
        values: Input of the statistic, one row for each item, (n, ...): for example correct or not (n,), or true and
            predicted class (n, 2).
        sources: Source image of each item (n,); None treats every item as a separate source.
        statistic: Function from rows (m, ...) to a float. It receives all rows of the resampled sources. Resamples for
            which it returns NaN are ignored.
        classes: Class number of each item (n,) int: the mean is then that over the means of the classes. Only for
            the mean of one value for each item.
        n_resamples: Number of bootstrap resamples.
        seed: Random seed of the resamples.
        confidence_level: Fraction of the resamples inside the interval, in (0, 1).

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: If there are no items, lengths differ, values are not finite, or the statistic is undefined for
            every resample.

    Example:
        >>> right = np.repeat([1.0, 0.0], 50)
        >>> low, high = bootstrap_interval(right, np.repeat(["s", "t", "u", "v"], 25))
        >>> low, high
        (0.0, 1.0)
    """
    values = np.asarray(values)
    source, count = _source_numbers(values, sources)
    if not 0.0 < confidence_level < 1.0:
        raise ValueError(f"confidence_level must be between 0 and 1, not {confidence_level}")
    percentiles = [50.0 - 50.0 * confidence_level, 50.0 + 50.0 * confidence_level]
    rng = np.random.default_rng(seed)
    statistics = []
    if statistic is np.mean and values.ndim == 1:
        classes = np.zeros(len(values), int) if classes is None else classes
        width = int(classes.max()) + 1
        cells, each = source * width + classes, np.ones(len(values))
        total, size = (np.bincount(cells, what, count * width).reshape(count, width) for what in (values, each))
        for chunk in resample_chunks(n_resamples, count):
            sample = rng.integers(0, count, (chunk, count)) + count * np.arange(chunk)[:, None]
            times = np.bincount(sample.ravel(), minlength=chunk * count).reshape(chunk, count)
            # A class that is in no resampled source is left out.
            means = times @ total / np.ma.masked_equal(times @ size, 0)
            statistics.append(np.asarray(means.mean(axis=1)))
    else:
        rows = np.split(np.argsort(source, kind="stable"), np.cumsum(np.bincount(source))[:-1])
        for _ in range(n_resamples):
            sample = rng.integers(0, count, count)
            statistics.append(np.array([statistic(values[np.concatenate([rows[number] for number in sample])])]))
    resampled = np.concatenate(statistics)
    if np.isnan(resampled).all():
        raise ValueError("the statistic is undefined for every resample of the sources")
    low, high = np.nanpercentile(resampled, percentiles)
    return float(low), float(high)


def accuracy_interval(correct: np.ndarray, sources: Sources | None = None) -> tuple[float, float]:
    """Compute the 95 % confidence interval of an accuracy over source images.

    With one item per source, the function returns the Wilson interval, which is reliable near 0 and 1. With several
    items per source, it uses a bootstrap over sources (2000 resamples, fixed seed), because the predictions of crops
    of one image are not independent.

    Args:
        correct: Whether each prediction is correct, (n,) bool.
        sources: Source image of each prediction (n,); None treats every prediction as a separate source.

    Returns:
        Lower and upper bound, in [0, 1].

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
    first: np.ndarray,
    second: np.ndarray,
    sources: Sources | None = None,
    *,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """Compute the two-sided p-value of a paired permutation test of two methods.

    Under the null hypothesis, swapping the scores of the two methods does not change the mean difference. Scores of
    all items of a source image are swapped together.

    Args:
        first: Score of the first method for each item (n,), for example correct or not.
        second: Score of the second method for the same items in the same order (n,).
        sources: Source image of each item (n,); None treats every item as a separate source.
        n_resamples: Number of random permutations.
        seed: Random seed of the permutations.

    Returns:
        The p-value, at least 1 / (n_resamples + 1). With few sources it cannot be small: about 2 / 2^sources at least.

    Raises:
        ValueError: If there are no items, lengths differ, or values are not finite.

    Example:
        >>> better = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
        >>> permutation_test(better, 1 - better) < 0.01, permutation_test(better, better)
        (True, 1.0)
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"both methods must score the same items, but the shapes are {np.shape(first)} and {np.shape(second)}"
        )
    difference = np.asarray(first, float) - np.asarray(second, float)
    source, count = _source_numbers(difference, sources)
    by_source = np.bincount(source, weights=difference)
    rng = np.random.default_rng(seed)
    permuted = [
        np.abs((1 - 2 * rng.integers(0, 2, (chunk, count))) @ by_source)
        for chunk in resample_chunks(n_resamples, count)
    ]
    return permutation_p_value(np.concatenate(permuted), abs(by_source.sum()), np.abs(by_source).sum())


def compare_paired(first: np.ndarray, second: np.ndarray, sources: Sources | None = None) -> dict[str, float]:
    """Compare the scores of two methods on the same items.

    Args:
        first: Score of the first method for each item (n,).
        second: Score of the second method for the same items in the same order (n,).
        sources: Source image of each item (n,); None treats every item as a separate source.

    Returns:
        `difference` (mean of first - second), its 95 % confidence interval `low` and `high`, and the p-value `p` of
        `permutation_test`.

    Raises:
        ValueError: If there are no items, lengths differ, or values are not finite.

    Example:
        >>> found = compare_paired(np.ones(8), np.zeros(8))
        >>> found["difference"], found["low"], found["high"], found["p"] < 0.05
        (1.0, 1.0, 1.0, True)
    """
    low, high = bootstrap_interval(first - second, sources)
    p = permutation_test(first, second, sources)
    return {"difference": float((first - second).mean()), "low": low, "high": high, "p": p}


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Correct p-values for multiple testing by Holm's method.

    The probability of at least one false positive among all tests (family-wise error rate) stays below the
    significance level.

    Args:
        p_values: P-values of all tests (n,).

    Returns:
        Corrected p-values in the same order (n,).

    Raises:
        ValueError: If a p-value is not between 0 and 1.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, float)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise ValueError("p_values must be a list of numbers between 0 and 1")
    order = np.argsort(given, kind="stable")
    steps = given[order] * (len(given) - np.arange(len(given)))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def compare_methods(
    means: Mapping[str, np.ndarray], sources: Sequence[str], models: Sequence[str]
) -> list[dict[str, Any]]:
    """Compare each model with the other methods by paired permutation tests, corrected by Holm's method.

    Args:
        means: Score of each image (n,) by key of the method; NaN where undefined.
        sources: Source image of each image (n,).
        models: Keys of the models. Baselines are not compared with each other.

    Returns:
        One row for each pair with at least two common source images: `model`, `other`, `images` and `sources`
        (numbers), `difference` (mean of model minus other), `low` and `high` (its 95 % confidence interval), `p`, and
        `p_holm` (corrected).

    Example:
        >>> found = compare_methods({"a": np.ones(8), "b": np.zeros(8)}, list("stuvwxyz"), ["a"])
        >>> found[0]["other"], found[0]["images"], found[0]["difference"]
        ('b', 8, 1.0)
    """
    rows: list[dict[str, Any]] = []
    for number, model in enumerate(models):
        for other in [key for key in means if key not in models[: number + 1]]:
            both = np.isfinite(means[model]) & np.isfinite(means[other])
            shared = np.array(sources)[both]
            if len(set(shared.tolist())) < 2:
                continue
            row: dict[str, Any] = {"model": model, "other": other, "images": int(both.sum())}
            row["sources"] = len(set(shared.tolist()))
            rows.append(row | compare_paired(means[model][both], means[other][both], shared))
    corrected = holm([row["p"] for row in rows]).tolist() if rows else []
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]


def _source_numbers(values: np.ndarray, sources: Sources | None) -> tuple[np.ndarray, int]:
    """Return the number of the source of each item (n,), and the number of sources."""
    if not len(values):
        raise ValueError("there are no items")
    if not np.isfinite(np.asarray(values, float)).all():
        raise ValueError("values must be finite numbers")
    if sources is None:
        return np.arange(len(values)), len(values)
    if len(sources) != len(values):
        raise ValueError(f"there are {len(values)} items but {len(sources)} sources; give one source for each item")
    names, numbers = np.unique(np.asarray(sources), return_inverse=True)
    return numbers, len(names)


def resample_chunks(n_resamples: int, width: int) -> Iterator[int]:
    """Yield sizes of chunks of resamples that fit in memory.

    Args:
        n_resamples: Number of resamples.
        width: Number of values of one resample.

    Raises:
        ValueError: If `n_resamples` is below 1.

    Example:
        >>> list(resample_chunks(5, 2**21))
        [2, 2, 1]
    """
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be 1 or more, not {n_resamples}")
    step = max(1, _CHUNK_NUMBERS // width)
    yield from (min(step, n_resamples - start) for start in range(0, n_resamples, step))


def permutation_p_value(permuted: np.ndarray, observed: float, scale: float) -> float:
    """Return the fraction of permutations, with the data as one of them, that are at least as extreme as the data.

    Args:
        permuted: Statistic of each permutation (n,).
        observed: Statistic of the data.
        scale: Size of the values, for the rounding error within which statistics are equal.

    Example:
        >>> permutation_p_value(np.array([0.1, 0.5, 0.2]), 0.5, 1.0)
        0.5
    """
    # Values that are equal up to rounding are as extreme.
    extreme = int((permuted >= observed - 1e-12 * scale).sum())
    return (1 + extreme) / (1 + len(permuted))
