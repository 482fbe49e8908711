"""Size of a batch effect: how far a change of the acquisition moves embeddings, in standard deviations of a class.

The size is the length of the displacement of the mean embedding, divided by the within-class standard deviation of
source images (the root of the trace of their covariance: the root mean squared distance from the mean of the class).
With size 1, a change moves embeddings as far as the images of one class are from their mean. The square of the length
is estimated without bias: of the squared length of a mean difference, the part that is expected from the sampling of
sources is subtracted. This equals the mean of the products of the displacements of different sources. Without an
effect, the estimate is therefore about 0 for any number of sources and dimensions.

Source images, not crops, are the units: embeddings of the same source (in the same batch) are averaged first.
Displacements are compared within classes, so that batches of other classes are not mistaken for an effect.

Source:
    Olejnik and Algina, Generalized eta and omega squared statistics, 2003 (subtracting the expected noise).
    Winkler et al., Permutation inference for the general linear model, 2014 (permutations within strata, sign flips).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import lgamma, log, nan

import numpy as np
from scipy.sparse import csr_array

from stedfm_hf.metrics.statistics import holm, permutation_p_value, resample_chunks

LEVEL = 0.01
"""Corrected p-value below which a family is called an effect."""
_EQUAL = "no class has two sources with different embeddings"

Names = Sequence[str] | np.ndarray
"""Batch, class or source of each embedding."""


@dataclass(frozen=True)
class BatchEffect:
    """Size of a batch effect, with interval and test.

    Attributes:
        size: Displacement of the mean embedding in within-class standard deviations, at least 0; for more than two
            batches the root mean square over their pairs. NaN if it cannot be estimated; `reason` then says why.
        low, high: 95 % bootstrap interval of the size over sources.
        p_value: Permutation test of "there is no effect". NaN if the size is missing.
        squared_size: Unbiased estimate of the squared size, which is below 0 for about half of the data sets without
            an effect. Average this value, not `size`, over data sets.
        standard_deviation: Within-class standard deviation, in units of the embeddings.
        sources: Number of source images.
        notes: Facts that limit the interpretation, such as batches without a common class.
        reason: Reason of a missing size.
        corrected_p: P-value corrected for all families that were tested together; see `call_effects`.
    """

    size: float
    low: float
    high: float
    p_value: float
    squared_size: float
    standard_deviation: float
    sources: int
    notes: tuple[str, ...] = ()
    reason: str | None = None
    corrected_p: float = nan

    @property
    def called(self) -> bool:
        """Whether the family is called an effect: the corrected p-value is below `LEVEL`."""
        return self.corrected_p < LEVEL


def call_effects(effects: Mapping[str, BatchEffect]) -> dict[str, BatchEffect]:
    """Correct the p-values of families that are tested together by Holm's method.

    Args:
        effects: Effect of each family. Missing effects are not counted.

    Returns:
        The same effects with `corrected_p`.

    Example:
        >>> found = BatchEffect(1.2, 1.0, 1.4, 0.004, 1.44, 3.0, 40)
        >>> families = {"blur": found, "noise": replace(found, p_value=0.3), "day": replace(found, p_value=nan)}
        >>> called = call_effects(families)
        >>> {name: (effect.corrected_p, effect.called) for name, effect in called.items()}
        {'blur': (0.008, True), 'noise': (0.3, False), 'day': (nan, False)}
    """
    tested = [name for name, effect in effects.items() if np.isfinite(effect.p_value)]
    corrected = dict(zip(tested, holm([effects[name].p_value for name in tested]).tolist(), strict=True))
    return {name: replace(effect, corrected_p=corrected.get(name, nan)) for name, effect in effects.items()}


def batch_effect(
    embeddings: np.ndarray,
    batches: Names,
    *,
    sources: Names | None = None,
    labels: Names | None = None,
    n_permutations: int = 9999,
    n_resamples: int = 2000,
    seed: int = 0,
) -> BatchEffect:
    """Measure the effect of a column of the data, such as day, microscope or operator (unpaired design).

    Two batches are compared within each class of which both have at least two sources; the differences of the class
    means are averaged with weights n m / (n + m) for n and m sources. The squared size of more than two batches is the
    mean over their pairs. The test permutes the batches of the sources within classes.

    Args:
        embeddings: Embeddings (n, d).
        batches: Batch of each embedding (n,). A source has one batch.
        sources: Source image of each embedding (n,); None treats every embedding as a separate source.
        labels: Class of each embedding (n,); None compares all sources with each other. A source has one class.
        n_permutations: Number of random permutations; the p-value is at least 1 / (n_permutations + 1).
        n_resamples: Number of bootstrap resamples of sources, within batches and classes.
        seed: Random seed of permutations and resamples.

    Returns:
        The effect; missing, with a reason, if no class has two sources in two batches.

    Raises:
        ValueError: If lengths differ, a value is not finite, or a source has several batches or classes.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> days = np.repeat(["Monday", "Tuesday"], 40)
        >>> effect = batch_effect(rng.normal(size=(80, 50)) + (days == "Tuesday")[:, None], days)
        >>> round(effect.size, 1), effect.p_value < 0.01
        (1.0, True)
    """
    numbers = _source_numbers(embeddings, sources)
    means = _means(embeddings, numbers)
    design = _Design.of(means, _one_each(labels, numbers, "class"), _one_each(batches, numbers, "batch"))
    if design.reason is not None:
        return _missing(design.reason, len(means))
    found, noise = design.squared_sizes(design.values, np.arange(len(design.values))[None])
    rng = np.random.default_rng(seed)
    permuted = np.concatenate(
        [design.squared_sizes(design.values, rows)[0] for rows in design.permutations(n_permutations, rng)]
    )
    residuals = design.residuals()
    resampled = np.concatenate(
        [design.squared_sizes(residuals, rows, design.means)[0] for rows in design.resamples(n_resamples, rng)]
    )
    return _effect(
        float(found[0]),
        # A resample adds the noise of its sources to the squared length, which has that of the data already.
        resampled - noise[0],
        permutation_p_value(permuted, float(found[0]), float(np.abs(permuted).max())),
        design.standard_deviation,
        len(means),
        (*design.notes, *_too_few(design.log_arrangements)),
    )


def paired_batch_effect(
    unchanged: np.ndarray,
    changed: np.ndarray,
    *,
    sources: Names | None = None,
    labels: Names | None = None,
    n_permutations: int = 9999,
    n_resamples: int = 2000,
    seed: int = 0,
) -> BatchEffect:
    """Measure the effect of a change of the same images, such as added noise (paired design).

    The displacement is the mean over sources of changed - unchanged. The test flips the signs of the displacements of
    whole sources.

    Args:
        unchanged: Embeddings of the unchanged images (n, d).
        changed: Embeddings of the same images in the same order after the change (n, d).
        sources: Source image of each row (n,); None treats every row as a separate source.
        labels: Class of each row (n,), for the within-class standard deviation of the unchanged images; None treats
            all as one class. A source has one class.
        n_permutations: Number of random sign flips; the p-value is at least 1 / (n_permutations + 1).
        n_resamples: Number of bootstrap resamples of sources.
        seed: Random seed of sign flips and resamples.

    Returns:
        The effect; missing, with a reason, if there are fewer than two sources, or none that differ within a class.

    Raises:
        ValueError: If shapes differ, a value is not finite, or a source has several classes.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = rng.normal(size=(30, 50))
        >>> effect = paired_batch_effect(images, images + 0.5 + 0.1 * rng.normal(size=(30, 50)))
        >>> round(effect.size, 1), effect.p_value < 0.01
        (0.5, True)
    """
    if np.shape(unchanged) != np.shape(changed):
        raise ValueError(
            f"each image needs an embedding before and after the change, not {np.shape(unchanged)} and "
            f"{np.shape(changed)}"
        )
    numbers = _source_numbers(unchanged, sources)
    _source_numbers(changed, sources)
    before = _means(unchanged, numbers)
    displacement = _coordinates(_means(changed, numbers) - before)
    n = len(before)
    deviations, kept = _squared_deviations(before, _one_each(labels, numbers, "class"))
    if n < 2 or not kept.any() or not deviations[kept].sum() > 0:
        return _missing(_EQUAL, n)
    variance = float(deviations[kept].mean())
    mean = displacement.mean(axis=0)
    residuals = displacement - mean
    noise = float((residuals**2).sum() / (n - 1) / n)
    squared = (float(mean @ mean) - noise) / variance
    rng = np.random.default_rng(seed)
    flipped, resampled = [], []
    for count in resample_chunks(n_permutations, n):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (count, n))
        flipped.append(((signs @ displacement / n) ** 2).sum(axis=1))
    for count in resample_chunks(n_resamples, n):
        rows = rng.integers(0, n, (count, n))
        weights = np.zeros((count, n))
        np.add.at(weights, (np.arange(count)[:, None], rows), 1.0)
        # Residuals are enlarged, so that the mean of a resample has the variance of the mean of the data.
        means = mean + np.sqrt(n / (n - 1)) * weights @ residuals / n
        within = (weights @ np.where(kept, deviations, 0.0)) / np.maximum(weights @ kept, 1)
        resampled.append(((means**2).sum(axis=1) - 2 * noise) / np.where(within > 0, within, variance))
    return _effect(
        squared,
        np.concatenate(resampled),
        permutation_p_value(np.concatenate(flipped), float(mean @ mean), float((displacement**2).sum() / n)),
        np.sqrt(variance),
        n,
        _too_few((n - 1) * log(2)),
    )


@dataclass(frozen=True, eq=False)
class _Design:
    """Sources in the order of their cells; a cell holds the sources of one class in one batch.

    Attributes:
        values: Coordinates of the sources (n, k); rotated embeddings, with the same distances.
        starts: Position of the first source of each cell, and n (cells + 1,).
        classes: Class number of each cell (cells,).
        contrasts: Weight of each cell in the displacement between the batches of each pair (pairs, cells).
        notes: Batches that cannot be compared.
    """

    values: np.ndarray
    starts: np.ndarray
    classes: np.ndarray
    contrasts: np.ndarray
    notes: tuple[str, ...]

    @classmethod
    def of(cls, means: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> _Design:
        """Sort sources into cells; leave out cells of one source, which show no variance."""
        class_names, class_numbers = np.unique(labels, return_inverse=True)
        batch_names, batch_numbers = np.unique(batches, return_inverse=True)
        cell = class_numbers * len(batch_names) + batch_numbers
        counts = np.bincount(cell, minlength=len(class_names) * len(batch_names))
        kept = np.flatnonzero(counts[cell] >= 2)
        order = kept[np.argsort(cell[kept], kind="stable")]
        cells, counts = np.unique(cell[order], return_counts=True)
        classes, batch_of_cell = np.divmod(cells, len(batch_names))
        contrasts, apart = [], []
        for pair in combinations(range(len(batch_names)), 2):
            weights = _contrast(classes, batch_of_cell, counts, *pair)
            if weights.any():
                contrasts.append(weights)
            else:
                apart.append(" and ".join(str(batch_names[number]) for number in pair))
        notes = []
        if len(order) < len(means):
            notes.append(f"{len(means) - len(order)} sources left out, alone in their batch and class")
        if apart:
            shown = ", ".join(apart[:3]) + (f" and {len(apart) - 3} other pairs" if len(apart) > 3 else "")
            notes.append(f"not compared, without a class of which both have two sources: {shown}")
        return cls(
            # Centred, because variances are differences of squares.
            _coordinates(means[order] - means.mean(axis=0)),
            np.concatenate([[0], np.cumsum(counts)]),
            classes,
            np.array(contrasts).reshape(len(contrasts), len(cells)),
            tuple(notes),
        )

    @property
    def counts(self) -> np.ndarray:
        """Number of sources of each cell."""
        return np.diff(self.starts)

    @property
    def reason(self) -> str | None:
        """Reason why there is no size, if there is one."""
        if not len(self.contrasts):
            return "no class has two sources in each of two batches, so that batches and classes cannot be separated"
        return None if self.standard_deviation > 0 else _EQUAL

    @property
    def means(self) -> np.ndarray:
        """Mean of each cell (cells, k)."""
        return np.add.reduceat(self.values, self.starts[:-1]) / self.counts[:, None]

    @property
    def standard_deviation(self) -> float:
        """Within-class standard deviation: the mean variance of the cells, weighted by their sources."""
        return float(np.sqrt((self.residuals() ** 2).sum(axis=1).mean()))

    @property
    def log_arrangements(self) -> float:
        """Logarithm of the number of ways to assign sources to batches within classes."""
        within = {number: self.counts[self.classes == number] for number in self.classes.tolist()}
        return sum(lgamma(each.sum() + 1) - sum(lgamma(count + 1) for count in each) for each in within.values())

    def residuals(self) -> np.ndarray:
        """Return deviations from the means of the cells, enlarged to the variance of the population (n, k)."""
        counts = np.repeat(self.counts, self.counts)[:, None]
        return (self.values - np.repeat(self.means, self.counts, axis=0)) * np.sqrt(counts / (counts - 1))

    def squared_sizes(
        self, values: np.ndarray, rows: np.ndarray, means: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Estimate the squared size for sources that take the positions of others.

        Args:
            values: Coordinates of the sources (n, k).
            rows: Number of the source at each position, for each arrangement (r, n).
            means: Added to the mean of each cell, (cells, k) or a number.

        Returns:
            Unbiased squared sizes (r,), and the noise that was subtracted (r,).
        """
        cells = len(self.counts)
        indptr = np.concatenate([[0], (self.starts[1:] + len(self.values) * np.arange(len(rows))[:, None]).ravel()])
        chosen = csr_array((np.ones(rows.size), rows.ravel(), indptr), shape=(len(rows) * cells, len(self.values)))
        cell_means = (chosen @ values).reshape(len(rows), cells, -1) / self.counts[:, None]
        squares = (chosen @ (values**2).sum(axis=1)).reshape(len(rows), cells)
        variances = (squares - self.counts * (cell_means**2).sum(axis=2)) / (self.counts - 1)
        within = np.maximum(variances @ self.counts / self.counts.sum(), np.finfo(float).tiny)
        displacement = ((self.contrasts @ (cell_means + means)) ** 2).sum(axis=2)
        noise = variances @ (self.contrasts**2 / self.counts).T
        return (displacement - noise).mean(axis=1) / within, noise.mean(axis=1) / within

    def permutations(self, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield random arrangements (r, n) of sources within classes."""
        edges = [self.starts[0], *self.starts[1:-1][np.diff(self.classes) > 0], self.starts[-1]]
        for size in resample_chunks(count, self.values.size):
            rows = np.tile(np.arange(len(self.values)), (size, 1))
            for start, end in zip(edges[:-1], edges[1:], strict=True):
                rows[:, start:end] = rng.permuted(rows[:, start:end], axis=1)
            yield rows

    def resamples(self, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield samples (r, n) of sources with replacement within cells."""
        low, high = (np.repeat(edge, self.counts) for edge in (self.starts[:-1], self.starts[1:]))
        for size in resample_chunks(count, self.values.size):
            yield rng.integers(low, high, (size, len(self.values)))


def _contrast(classes: np.ndarray, batches: np.ndarray, counts: np.ndarray, first: int, second: int) -> np.ndarray:
    """Return the weight of each cell in the displacement between two batches (cells,); 0 without a common class."""
    weights = np.zeros(len(counts))
    for number in np.unique(classes):
        one = np.flatnonzero((classes == number) & (batches == first))
        other = np.flatnonzero((classes == number) & (batches == second))
        if len(one) and len(other):
            precision = counts[one] * counts[other] / (counts[one] + counts[other])
            weights[one], weights[other] = -precision, precision
    total = weights[weights > 0].sum()
    return weights / total if total else weights


def _effect(
    squared: float,
    resampled: np.ndarray,
    p_value: float,
    standard_deviation: float,
    sources: int,
    notes: tuple[str, ...],
) -> BatchEffect:
    """Return an effect with the interval of its size from squared sizes of resamples."""
    size, low, high = np.sqrt(np.maximum([squared, *np.percentile(resampled, [2.5, 97.5])], 0.0)).tolist()
    return BatchEffect(size, low, high, p_value, squared, float(standard_deviation), sources, notes)


def _missing(reason: str, sources: int) -> BatchEffect:
    """Return a missing effect."""
    return BatchEffect(nan, nan, nan, nan, nan, nan, sources, reason=reason)


def _too_few(log_arrangements: float) -> tuple[str, ...]:
    """Return a note if no arrangement of the sources has a p-value below the level."""
    if log_arrangements > -log(LEVEL):
        return ()
    return (f"too few sources to call an effect: the p-value cannot be below {np.exp(-log_arrangements):.2g}",)


def _source_numbers(embeddings: np.ndarray, sources: Names | None) -> np.ndarray:
    """Check embeddings (n, d), and return the number of the source of each (n,)."""
    if np.ndim(embeddings) != 2 or not np.size(embeddings) or not np.isfinite(embeddings).all():
        raise ValueError(f"embeddings must be finite numbers of shape (n, d), not of shape {np.shape(embeddings)}")
    if sources is None:
        return np.arange(len(embeddings))
    if len(sources) != len(embeddings):
        raise ValueError(f"there are {len(embeddings)} embeddings but {len(sources)} sources")
    return np.unique(np.asarray(sources), return_inverse=True)[1]


def _means(embeddings: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the mean embedding of each source (s, d) in double precision."""
    total = np.zeros((numbers.max() + 1, embeddings.shape[1]))
    np.add.at(total, numbers, np.asarray(embeddings, np.float64))
    return total / np.bincount(numbers)[:, None]


def _one_each(names: Names | None, numbers: np.ndarray, what: str) -> np.ndarray:
    """Return the class or batch of each source (s,).

    Raises:
        ValueError: If lengths differ, or a source has several.
    """
    if names is None:
        return np.zeros(numbers.max() + 1, int)
    if len(names) != len(numbers):
        raise ValueError(f"there are {len(numbers)} embeddings but {len(names)} names of their {what}")
    given = np.asarray(names)
    first = given[np.unique(numbers, return_index=True)[1]]
    if (different := np.flatnonzero(first[numbers] != given)).size:
        row = int(different[0])
        advice = "; measure images that were acquired in several batches with paired_batch_effect"
        raise ValueError(
            f"a source has more than one {what}, such as {first[numbers[row]]} and {given[row]}"
            + (advice if what == "batch" else "")
        )
    return first


def _squared_deviations(means: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return squared distances from the class mean (s,), without bias, and whether the class has two sources (s,)."""
    numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    count = counts[numbers]
    squares = ((means - _means(means, numbers)[numbers]) ** 2).sum(axis=1)
    return squares * count / np.maximum(count - 1, 1), count >= 2


def _coordinates(values: np.ndarray) -> np.ndarray:
    """Return the rows (n, d) in min(n, d) coordinates, with the same inner products."""
    return np.asarray(np.linalg.qr(values.T, mode="r")).T if len(values) < values.shape[1] else values
