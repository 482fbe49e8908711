"""What the scores of images come to: means over images, how many were undefined, and how sure the means are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from stedfm_hf.metrics.mask_scores import ImageScores
from stedfm_hf.metrics.objects import ObjectScores
from stedfm_hf.metrics.statistics import Sources, bootstrap_interval
from stedfm_hf.runs import UserError

ALL = "mean over classes"
"""In the place of a class, the row of all of them."""
N_RESAMPLES = 2000
_AT_ONCE = 2**22
"""Drawn sources at a time."""


def summarise(
    scores: Sequence[ImageScores] | Sequence[ObjectScores],
    classes: Sequence[str],
    sources: Sources | None = None,
    *,
    exclude: Collection[str] = (),
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Means over images of every score, for each class and over the classes.

    Undefined scores are counted and not averaged in. The mean over classes is that of the means of the classes: a rare
    class weighs as much as a frequent one. A class without any defined image is left out of it. Intervals are
    95 % percentiles of a bootstrap over source images; there is none where fewer than two sources have a value. Draws
    of sources in which a class has no defined image are left out of the interval of the mean over classes.

    Args:
        scores: of every image, all by the same rules.
        classes: names (L,).
        sources: source image of each image; None: each is a source of its own.
        exclude: classes that the mean over classes leaves out, as the background, whose IoU is high for nothing.
        n_resamples: of sources, for an interval; 0: no intervals.
        seed: of the draws.

    Returns:
        One row for each score and class, then one for the mean over classes: `score, class, mean, median, sd` (over
        images; by the reference's rules with n, else with n - 1), `low, high, images` (with a value), `undefined`
        (without), `sources` (with a value). What cannot be said is None. In the row of all classes `images` and
        `undefined` count pairs of image and class; it has no median and no sd.

    Raises:
        UserError: there are no images, they differ in rules or classes, or a class left out is none of them.

    Example:
        >>> from stedfm_hf.metrics.mask_scores import score_image
        >>> empty, full = np.zeros((1, 2, 2)), np.ones((1, 2, 2))
        >>> rows = summarise([score_image(full, full), score_image(full, empty), score_image(empty, empty)], ["ring"])
        >>> {name: rows[0][name] for name in ("score", "class", "mean", "images", "undefined")}
        {'score': 'iou', 'class': 'ring', 'mean': 0.5, 'images': 2, 'undefined': 1}
    """
    if not len(scores):
        raise UserError("there are no scores of images to summarise")
    if sources is not None and len(sources) != len(scores):
        raise UserError(f"there are {len(scores)} images and {len(sources)} sources of images")
    if len({getattr(each, "protocol", "default") for each in scores}) > 1:
        raise UserError("the scores follow different protocols; summarise each protocol on its own")
    of_images = [each.values for each in scores]
    if any(len(values) != len(classes) for each in of_images for values in each.values()):
        raise UserError(f"the scores are not of the {len(classes)} classes {', '.join(classes)}")
    if unknown := set(exclude) - set(classes):
        raise UserError(f"the class {sorted(unknown)[0]!r} to be left out is none of {', '.join(classes)}")
    population = getattr(scores[0], "protocol", "default") == "reference"
    origin = np.arange(len(scores)) if sources is None else np.unique(np.asarray(sources), return_inverse=True)[1]
    rows = []
    for name in of_images[0]:
        values = np.stack([each[name] for each in of_images])
        defined = ~np.stack([each.undefined(name) for each in scores])
        for number, each_class in enumerate(classes):
            there = defined[:, number]
            row = {"metric": name, "class": each_class}
            rows.append(row | _class_row(values[there, number], origin[there], population, n_resamples, seed))
            rows[-1]["undefined"] = int((~there).sum())
        kept = [number for number, each_class in enumerate(classes) if each_class not in exclude]
        row = {"metric": name, "class": ALL}
        rows.append(row | _all_row(values[:, kept], defined[:, kept], origin, n_resamples, seed))
    return rows


def flatten(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows of :func:`summarise` by name: of a score `s`, `s` itself is the mean over classes.

    Returns:
        `s`, `s_interval` ([low, high] or None), and in the order of the classes `s_per_class` and `undefined_s`.

    Example:
        >>> from stedfm_hf.metrics.mask_scores import score_image
        >>> full = np.ones((1, 2, 2))
        >>> flatten(summarise([score_image(full, full)], ["ring"]))["iou_per_class"]
        [1.0]
    """
    found: dict[str, Any] = {}
    for row in rows:
        name = row["metric"]
        if row["class"] == ALL:
            found[name] = row["mean"]
            found[f"{name}_interval"] = None if row["low"] is None else [row["low"], row["high"]]
        else:
            found.setdefault(f"{name}_per_class", []).append(row["mean"])
            found.setdefault(f"undefined_{name}", []).append(row["undefined"])
    return found


def pool_objects(
    scores: Sequence[ObjectScores],
    classes: Sequence[str],
    sources: Sources | None = None,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Scores of the objects of all images together, as the panoptic quality was defined: all objects count alike.

    Args:
        scores: of every image.
        classes: names (L,).
        sources: source image of each image; None: each is a source of its own.
        n_resamples: of sources, for an interval; 0: no intervals.
        seed: of the draws.

    Returns:
        One row for each score and class: `score, class, mean, low, high, matched, spurious, missed`.

    Raises:
        UserError: there are no images.

    Example:
        >>> image = ObjectScores(*(np.array([n]) for n in (1, 0, 1, 0.75)))
        >>> [(row["metric"], round(row["mean"], 3)) for row in pool_objects([image, image], ["spot"], n_resamples=0)]
        [('f1', 0.667), ('pq', 0.5), ('sq', 0.75)]
    """
    if not len(scores):
        raise UserError("there are no scores of images to summarise")
    names = ("true_positives", "false_positives", "false_negatives", "iou_sum")
    counts = np.stack([[getattr(each, name) for name in names] for each in scores]).astype(float)
    if sources is not None and len(sources) != len(scores):
        raise UserError(f"there are {len(scores)} images and {len(sources)} sources of images")
    origin = np.arange(len(scores)) if sources is None else np.unique(np.asarray(sources), return_inverse=True)[1]
    rows = []
    for number, each_class in enumerate(classes):
        own = counts[..., number]
        by_source = np.zeros((int(origin.max()) + 1, len(names)))
        np.add.at(by_source, origin, own)
        drawn = ObjectScores(*_drawn_sums(by_source, n_resamples, seed).T).values
        for score, values in ObjectScores(*own.sum(axis=0, keepdims=True).T).values.items():
            figure = float(values[0])
            ends = (None, None) if np.isnan(figure) else _ends(drawn[score])
            row: dict[str, Any] = {"metric": score, "class": each_class, "mean": None if np.isnan(figure) else figure}
            row["low"], row["high"] = ends
            rows.append(row | {name: int(own[:, place].sum()) for place, name in enumerate(names[:3])})
    return rows


def _class_row(
    values: np.ndarray, origin: np.ndarray, population: bool, n_resamples: int, seed: int
) -> dict[str, Any]:
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
    known = defined.any(axis=0)
    # Sums over the images of a source are all that a draw needs.
    count = int(origin.max()) + 1
    sums, sizes = np.zeros((2, count, int(known.sum())))
    np.add.at(sums, origin, np.where(defined, values, 0.0)[:, known])
    np.add.at(sizes, origin, defined[:, known])
    figure: float | None = None
    low, high = None, None
    if known.any():
        both = np.stack([sums, sizes], axis=1)
        figure = float(_mean_of_means(both.sum(axis=0, keepdims=True))[0])
        drawn = _drawn_sums(both, n_resamples, seed)
        low, high = _ends(_mean_of_means(drawn))
    return {
        "mean": figure,
        "median": None,
        "sd": None,
        "low": low,
        "high": high,
        "images": int(defined.sum()),
        "undefined": int((~defined).sum()),
        "sources": int((sizes > 0).any(axis=1).sum()),
    }


def _mean_of_means(totals: np.ndarray) -> np.ndarray:
    """Of sums and sizes (draws, 2, classes), for each draw; NaN where a class has no image."""
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (totals[:, 0] / totals[:, 1]).mean(axis=1)
    return means


def _drawn_sums(by_source: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Sums (draws, ...) over sources drawn with replacement, of their sums (sources, ...); none of fewer than two.

    What `bootstrap_interval` does for any figure, for figures of sums alone: thousands of draws at once.
    """
    count = len(by_source)
    if count < 2:
        return np.zeros((0, *by_source.shape[1:]))
    rng, found = np.random.default_rng(seed), []
    step = max(1, _AT_ONCE // count)
    for first in range(0, n_resamples, step):
        drawn = rng.integers(0, count, (min(step, n_resamples - first), count))
        times = np.zeros(drawn.shape)
        np.add.at(times, (np.arange(len(drawn))[:, None], drawn), 1)
        found.append(np.tensordot(times, by_source, axes=1))
    return np.concatenate(found) if found else np.zeros((0, *by_source.shape[1:]))


def _ends(figures: np.ndarray) -> tuple[float | None, float | None]:
    """The middle 95 % of the figures of draws; none where no draw has a figure."""
    if np.isnan(figures).all():
        return None, None
    low, high = np.nanpercentile(figures, [2.5, 97.5])
    return float(low), float(high)


def _interval(
    values: np.ndarray, sources: np.ndarray, n_resamples: int, seed: int
) -> tuple[float | None, float | None]:
    """95 % interval of a mean over sources; none of fewer than two, of which a bootstrap would say it is certain."""
    if not n_resamples or len(np.unique(sources)) < 2:
        return None, None
    return bootstrap_interval(values, sources, n_resamples=n_resamples, seed=seed)
