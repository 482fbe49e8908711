"""Scores of `evaluate retrieval`: metrics of every query, their means and intervals, and paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.metrics.ranking import Pairs, Ranking, metric_names, retrieval_scores
from stedfm_hf.metrics.statistics import bootstrap_interval, compare_paired, holm

OTHER_SOURCES, ALL_OTHERS, WITH_QUERY = "other sources", "all others", "with the query (reference)"
"""What is ranked: items of other source images, all items except the query, or all items with the query."""
OTHER_IMAGES, NOT_TOUCHING = "other images", "all but 3 x 3 (reference)"
"""What is ranked for patches: those of other images, or all except the query and those that touch it."""
Rankings = Mapping[tuple[str, str], Ranking]
"""Rankings of all queries, by the key of the method and by what is ranked."""


@dataclass(frozen=True, eq=False)
class Queries:
    """Items that others are ranked for.

    Attributes:
        classes: Names of the classes.
        labels: Class of each query (m,) int.
        image_ids: Name of the image of each query (m,) str.
        sources: Source image of each query (m,) str.
        positions: Further columns of the table of queries (m,) each, such as the position in the image.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    image_ids: np.ndarray
    sources: np.ndarray
    positions: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)


def rank_images(
    embeddings: np.ndarray, labels: np.ndarray, sources: np.ndarray, *, ks: Sequence[int], reference: bool = False
) -> dict[str, Ranking]:
    """Rank all images for each image by cosine similarity; images of the same class are relevant.

    Args:
        embeddings: Embeddings (n, d).
        labels: Class of each image (n,).
        sources: Source image of each image (n,).
        ks: Numbers of best images for precision@k and mAP@k.
        reference: Whether to follow the reference protocol: the query is ranked, too, and counts as relevant; a query
            for which all images are relevant scores 1.

    Returns:
        Rankings of all queries, by what is ranked. By default twice: without images of the query's source image, and
        with them, but never with the query.

    Example:
        >>> embeddings, labels = np.array([[1, 0], [1, 0.1], [0, 1], [1, 1]]), np.array([0, 0, 1, 1])
        >>> found = rank_images(embeddings, labels, np.arange(4), ks=[])
        >>> found["all others"].values["aupr"].round(3).tolist()
        [1.0, 1.0, 1.0, 0.333]
    """
    numbers_of = np.unique(sources, return_inverse=True)[1]
    everything = np.arange(len(labels))

    def scores(candidates: Pairs, ks: Sequence[int]) -> Ranking:
        return retrieval_scores(
            embeddings,
            embeddings,
            relevant=lambda numbers: labels[numbers][:, None] == labels,
            candidates=candidates,
            ks=ks,
        )

    if reference:
        return {WITH_QUERY: reference_values(scores(lambda numbers: np.ones((len(numbers), len(labels)), bool), ()))}
    all_others = scores(lambda numbers: numbers[:, None] != everything, ks)
    if numbers_of.max() + 1 == len(labels):  # every image is a separate source image
        return {OTHER_SOURCES: all_others, ALL_OTHERS: all_others}
    return {
        OTHER_SOURCES: scores(lambda numbers: numbers_of[numbers][:, None] != numbers_of, ks),
        ALL_OTHERS: all_others,
    }


def reference_values(ranking: Ranking) -> Ranking:
    """Define undefined metrics as the reference protocol does: 1 if all items are relevant, 0 if none is.

    Args:
        ranking: Rankings of all queries.
    """
    default = np.where(ranking.relevant > 0, 1.0, 0.0)
    values = {name: np.where(np.isnan(each), default, each) for name, each in ranking.values.items()}
    return Ranking(values, ranking.relevant, ranking.candidates)


def names_of(rankings: Rankings, ks: Sequence[int]) -> list[str]:
    """Return the names of the metrics, in the order of the tables.

    Args:
        rankings: Rankings of all methods.
        ks: Numbers of best items.
    """
    present = next(iter(rankings.values())).values
    return [name for name in metric_names(ks) if name in present]


def summarise_rankings(queries: Queries, rankings: Rankings, *, primary: str) -> list[dict[str, Any]]:
    """Average the metrics over queries and over classes.

    Args:
        queries: Queries.
        rankings: Rankings of all methods.
        primary: Metric with means of each class, and with an interval of their mean.

    Returns:
        One row for each method and setting: `method`, `setting`, `queries` (number of those with a relevant item),
        `without_relevant` (number of the others, which have no value) and, for each metric, a dictionary of the
        `mean` over queries, its 95 % confidence interval `low` and `high` over source images, and `macro`, the mean
        over classes. `per_class` holds the means of the primary metric by class (None without a query), and
        `macro_interval` the interval of its mean over classes.
    """
    rows = []
    for (method, setting), ranking in rankings.items():
        row: dict[str, Any] = {"method": method, "setting": setting}
        row["queries"] = int((ranking.relevant > 0).sum())
        row["without_relevant"] = int((ranking.relevant == 0).sum())
        for name, values in ranking.values.items():
            row[name] = _summary(queries, values)
        values = ranking.values[primary]
        row["per_class"] = {
            name: _mean(values[(queries.labels == number) & np.isfinite(values)])
            for number, name in enumerate(queries.classes)
        }
        row["macro_interval"] = _macro_interval(queries, values)
        rows.append(row)
    return rows


def _summary(queries: Queries, values: np.ndarray) -> dict[str, float | None]:
    """Return mean, interval and mean over classes of the values of the queries."""
    defined = np.isfinite(values)
    if not defined.any():
        return dict.fromkeys(("mean", "low", "high", "macro"))
    low, high = bootstrap_interval(values[defined], queries.sources[defined])
    macro = _macro(np.stack([values, queries.labels], axis=1)[defined])
    return {"mean": float(values[defined].mean()), "low": low, "high": high, "macro": macro}


def _macro(rows: np.ndarray) -> float:
    """Return the mean over classes, from the value and the class of each query (m, 2)."""
    numbers = rows[:, 1].astype(np.int64)
    counts = np.bincount(numbers)
    return float((np.bincount(numbers, rows[:, 0])[counts > 0] / counts[counts > 0]).mean())


def _macro_interval(queries: Queries, values: np.ndarray) -> list[float] | None:
    """Return the 95 % confidence interval of the mean over classes."""
    defined = np.isfinite(values)
    if not defined.any():
        return None
    return list(bootstrap_interval(values[defined], queries.sources[defined], classes=queries.labels[defined]))


def _mean(values: np.ndarray) -> float | None:
    """Return the mean, or None of nothing."""
    return float(values.mean()) if len(values) else None


def compare_rankings(
    queries: Queries, rankings: Rankings, models: Sequence[str], *, primary: str
) -> list[dict[str, Any]]:
    """Compare each model with the other methods by paired permutation tests, corrected by Holm's method.

    Values of a source image are swapped together. All tests of an evaluation form one family.

    Args:
        queries: Queries.
        rankings: Rankings of all methods.
        models: Keys of the models. Baselines are not compared with each other.
        primary: Metric to compare.

    Returns:
        One row for each setting and pair: `setting`, `model`, `other`, `difference` (mean of model minus other),
        `low` and `high` (its 95 % confidence interval), `p`, and `p_holm` (corrected).
    """
    methods, settings = (list(dict.fromkeys(key[part] for key in rankings)) for part in (0, 1))
    rows: list[dict[str, Any]] = []
    for setting in settings:
        for number, model in enumerate(models):
            for other in [*models[number + 1 :], *(each for each in methods if each not in models)]:
                first, second = (rankings[key, setting].values[primary] for key in (model, other))
                defined = np.isfinite(first) & np.isfinite(second)
                if defined.any():
                    tested = compare_paired(first[defined], second[defined], queries.sources[defined])
                    rows.append({"setting": setting, "model": model, "other": other} | tested)
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = float(corrected)
    return rows
