"""Summaries of the scores of images: means, numbers of undefined values, and confidence intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from stedfm_hf.metrics.objects import ObjectScores
from stedfm_hf.metrics.statistics import Sources, bootstrap_interval
from stedfm_hf.runs import UserError

ALL = "mean over classes"
"""Value of `class` in the rows of means over classes."""
N_RESAMPLES = 2000
"""Default number of bootstrap resamples."""
_CHUNK_NUMBERS = 2**22
"""Random numbers generated at once."""


class ClassScores(Protocol):
    """Scores of the classes of an image."""

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Metrics of each class (L,), by name."""
        ...

    def undefined(self, name: str) -> np.ndarray:
        """Return whether a metric is undefined for each class, (L,) bool."""
        ...


def summarise(
    scores: Sequence[ClassScores],
    classes: Sequence[str],
    sources: Sources | None = None,
    *,
    exclude: Collection[str] = (),
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Average the scores of images, for each class and over classes.

    Undefined scores are counted and excluded from means. The mean over classes is the mean of the class means, so that
    rare and frequent classes have equal weight; classes without a defined score are excluded. Confidence intervals are
    95 % percentile bootstrap intervals over source images. They need at least two sources with a defined score. For
    the mean over classes, resamples in which a class has no defined score are ignored.

    Args:
        scores: Scores of each image, all computed with the same protocol.
        classes: Names of the classes (L,).
        sources: Source image of each image; None treats every image as a separate source.
        exclude: Names of classes to exclude from the mean over classes, such as the background.
        n_resamples: Number of bootstrap resamples; 0 computes no intervals.
        seed: Random seed of the resamples.

    Returns:
        One row for each metric and class, then one row for the mean over classes, with these keys:

        - `metric`, `class`;
        - `mean`, `median`, `sd`: mean, median and standard deviation over images (with n - 1; with n for the reference
          protocol);
        - `low`, `high`: bounds of the 95 % confidence interval of the mean;
        - `images`, `undefined`: numbers of images with and without a defined score;
        - `sources`: number of source images with a defined score.

        Values that do not exist are None. In rows of means over classes, `images` and `undefined` count pairs of image
        and class, and `median` and `sd` are None.

    Raises:
        UserError: If there are no images, they differ in protocol or classes, or an excluded class does not exist.

    Example:
        >>> from stedfm_hf.metrics.mask_scores import score_image
        >>> empty, full = np.zeros((1, 2, 2)), np.ones((1, 2, 2))
        >>> rows = summarise([score_image(full, full), score_image(full, empty), score_image(empty, empty)], ["ring"])
        >>> {name: rows[0][name] for name in ("metric", "class", "mean", "images", "undefined")}
        {'metric': 'iou', 'class': 'ring', 'mean': 0.5, 'images': 2, 'undefined': 1}
    """
    if not len(scores):
        raise UserError("there are no scores to summarise; score at least one image")
    if sources is not None and len(sources) != len(scores):
        raise UserError(f"there are {len(scores)} images but {len(sources)} sources; give one source for each image")
    if len({getattr(each, "protocol", "default") for each in scores}) > 1:
        raise UserError("the scores follow different protocols; summarise each protocol on its own")
    of_images = [each.values for each in scores]
    if any(len(values) != len(classes) for each in of_images for values in each.values()):
        raise UserError(f"the scores do not match the {len(classes)} classes: {', '.join(classes)}")
    if unknown := set(exclude) - set(classes):
        raise UserError(f"cannot exclude {sorted(unknown)[0]!r}: the classes are {', '.join(classes)}")
    population = getattr(scores[0], "protocol", "default") == "reference"
    origin = np.arange(len(scores)) if sources is None else np.unique(np.asarray(sources), return_inverse=True)[1]
    rows = []
    for name in of_images[0]:
        values = np.stack([each[name] for each in of_images])
        defined = ~np.stack([each.undefined(name) for each in scores])
        for number, each_class in enumerate(classes):
            has_score = defined[:, number]
            row = {"metric": name, "class": each_class}
            rows.append(row | _class_row(values[has_score, number], origin[has_score], population, n_resamples, seed))
            rows[-1]["undefined"] = int((~has_score).sum())
        kept = [number for number, each_class in enumerate(classes) if each_class not in exclude]
        row = {"metric": name, "class": ALL}
        rows.append(row | _all_row(values[:, kept], defined[:, kept], origin, n_resamples, seed))
    return rows


def flatten(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the rows of `summarise` as a flat dictionary.

    Args:
        rows: Rows of `summarise`.

    Returns:
        For each metric `m`: `m` (mean over classes), `m_interval` ([low, high] or None), and the lists `m_per_class`
        (means) and `undefined_m` (numbers of images), in the order of the classes.

    Example:
        >>> from stedfm_hf.metrics.mask_scores import score_image
        >>> full = np.ones((1, 2, 2))
        >>> flatten(summarise([score_image(full, full)], ["ring"]))["iou_per_class"]
        [1.0]
    """
    flat: dict[str, Any] = {}
    for row in rows:
        name = row["metric"]
        if row["class"] == ALL:
            flat[name] = row["mean"]
            flat[f"{name}_interval"] = None if row["low"] is None else [row["low"], row["high"]]
        else:
            flat.setdefault(f"{name}_per_class", []).append(row["mean"])
            flat.setdefault(f"undefined_{name}", []).append(row["undefined"])
    return flat


def pool_objects(
    scores: Sequence[ObjectScores],
    classes: Sequence[str],
    sources: Sources | None = None,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compute object metrics over the objects of all images, so that all objects have equal weight.

    Args:
        scores: Object scores of each image.
        classes: Names of the classes (L,).
        sources: Source image of each image; None treats every image as a separate source.
        n_resamples: Number of bootstrap resamples; 0 computes no intervals.
        seed: Random seed of the resamples.

    Returns:
        One row for each metric and class: `metric`, `class`, `value`, `low` and `high` (bounds of
        its 95 % confidence interval), `true_positives`, `false_positives`, `false_negatives` (numbers of objects).

    Raises:
        UserError: If there are no images.

    Source:
        Kirillov et al., Panoptic Segmentation, CVPR 2019.

    Example:
        >>> image = ObjectScores(*(np.array([n]) for n in (1, 0, 1, 0.75)))
        >>> [(row["metric"], round(row["value"], 3)) for row in pool_objects([image, image], ["spot"], n_resamples=0)]
        [('f1', 0.667), ('pq', 0.5), ('sq', 0.75)]
    """
    if not len(scores):
        raise UserError("there are no scores to pool; score at least one image")
    names = ("true_positives", "false_positives", "false_negatives", "iou_sum")
    counts = np.stack([[getattr(each, name) for name in names] for each in scores]).astype(float)
    if sources is not None and len(sources) != len(scores):
        raise UserError(f"there are {len(scores)} images but {len(sources)} sources; give one source for each image")
    origin = np.arange(len(scores)) if sources is None else np.unique(np.asarray(sources), return_inverse=True)[1]
    rows = []
    for number, each_class in enumerate(classes):
        class_counts = counts[..., number]
        by_source = np.zeros((int(origin.max()) + 1, len(names)))
        np.add.at(by_source, origin, class_counts)
        resampled = ObjectScores(*_resampled_sums(by_source, n_resamples, seed).T).values
        for metric, values in ObjectScores(*class_counts.sum(axis=0, keepdims=True).T).values.items():
            value = None if np.isnan(values[0]) else float(values[0])
            row: dict[str, Any] = {"metric": metric, "class": each_class, "value": value}
            row["low"], row["high"] = (None, None) if value is None else _percentile_interval(resampled[metric])
            rows.append(row | {name: int(class_counts[:, column].sum()) for column, name in enumerate(names[:3])})
    return rows


def _class_row(
    values: np.ndarray, origin: np.ndarray, population: bool, n_resamples: int, seed: int
) -> dict[str, Any]:
    """Summarise the defined scores of one class; None for what too few scores do not define.

    Args:
        values: Scores of the images in which the class is defined, (n,).
        origin: Number of the source image of each score, (n,).
        population: Whether the standard deviation divides by n, not by n - 1.
        n_resamples: Number of bootstrap resamples.
        seed: Random seed of the resamples.
    """
    few = len(values) < (1 if population else 2)
    low, high = _interval(values, origin, n_resamples, seed)
    return {
        "mean": float(values.mean()) if len(values) else None,
        "median": float(np.median(values)) if len(values) else None,
        "sd": None if few else float(values.std(ddof=0 if population else 1)),
        "low": low,
        "high": high,
        "images": len(values),
        "undefined": 0,
        "sources": len(np.unique(origin)),
    }


def _all_row(
    values: np.ndarray, defined: np.ndarray, origin: np.ndarray, n_resamples: int, seed: int
) -> dict[str, Any]:
    """Summarise the mean over classes: the mean of the class means, with its interval over source images.

    Args:
        values: Scores (images, classes).
        defined: Whether each score is defined, (images, classes) bool.
        origin: Number of the source image of each image, (images,).
        n_resamples: Number of bootstrap resamples.
        seed: Random seed of the resamples.
    """
    has_scores = defined.any(axis=0)
    # Sums over the images of each source are sufficient to compute the means of a resample.
    count = int(origin.max()) + 1
    sums, sizes = np.zeros((2, count, int(has_scores.sum())))
    np.add.at(sums, origin, np.where(defined, values, 0.0)[:, has_scores])
    np.add.at(sizes, origin, defined[:, has_scores])
    mean: float | None = None
    low, high = None, None
    if has_scores.any():
        sums_and_sizes = np.stack([sums, sizes], axis=1)
        mean = float(_mean_of_means(sums_and_sizes.sum(axis=0, keepdims=True))[0])
        low, high = _percentile_interval(_mean_of_means(_resampled_sums(sums_and_sizes, n_resamples, seed)))
    return {
        "mean": mean,
        "median": None,
        "sd": None,
        "low": low,
        "high": high,
        "images": int(defined.sum()),
        "undefined": int((~defined).sum()),
        "sources": int((sizes > 0).any(axis=1).sum()),
    }


def _mean_of_means(totals: np.ndarray) -> np.ndarray:
    """Return the mean over classes of each resample, from sums and counts (resamples, 2, classes).

    The mean is NaN where a class has no image.
    """
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (totals[:, 0] / totals[:, 1]).mean(axis=1)
    return means


def _resampled_sums(by_source: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Sum the values of each source (sources, ...) over bootstrap resamples of the sources.

    This is the vectorised form of `bootstrap_interval` for statistics of sums.

    Returns:
        Sums (n_resamples, ...); (0, ...) for fewer than two sources.
    """
    count = len(by_source)
    if count < 2:
        return np.zeros((0, *by_source.shape[1:]))
    rng, sums = np.random.default_rng(seed), []
    step = max(1, _CHUNK_NUMBERS // count)
    for first in range(0, n_resamples, step):
        sample = rng.integers(0, count, (min(step, n_resamples - first), count))
        times = np.zeros(sample.shape)
        np.add.at(times, (np.arange(len(sample))[:, None], sample), 1)
        sums.append(np.tensordot(times, by_source, axes=1))
    return np.concatenate(sums) if sums else np.zeros((0, *by_source.shape[1:]))


def _percentile_interval(resampled: np.ndarray) -> tuple[float | None, float | None]:
    """Return the 2.5 and 97.5 percentiles of resampled values, or None where all are undefined."""
    if np.isnan(resampled).all():
        return None, None
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def _interval(
    values: np.ndarray, sources: np.ndarray, n_resamples: int, seed: int
) -> tuple[float | None, float | None]:
    """Return the 95 % confidence interval of a mean, or None for fewer than two sources."""
    if not n_resamples or len(np.unique(sources)) < 2:
        return None, None
    return bootstrap_interval(values, sources, n_resamples=n_resamples, seed=seed)
