"""Representation scores of batch effects: are batches mixed, and are classes kept apart?

Four scores measure how well batches mix, five how well classes (the biology) are separated. All are between 0 (worst)
and 1 (best); ARI may be slightly below 0. A score that is undefined for the data is missing (NaN) with a reason, and
every mean that includes it is missing too.

The scores are those of scib, on exact neighbours by cosine similarity, with two exceptions: kBET uses the nearest
neighbours within a class instead of diffusion distances, and clusters come from k-means instead of Leiden.

Source:
    Luecken et al., Benchmarking atlas-level data integration in single-cell genomics, 2022 (scib).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples
from sklearn.preprocessing import normalize

from stedfm_hf.metrics.neighbour_scores import (
    UndefinedScoreError,
    graph_connectivity,
    kbet_per_label,
    lisi_batch,
    lisi_label,
    need_two,
    neighbour_graph,
)
from stedfm_hf.metrics.ranking import retrieval_scores

BATCH_SCORES = ("graph_connectivity", "kbet", "lisi_batch", "silhouette_batch")
"""Scores of the mixing of batches; their mean is the batch score."""
BIOLOGY_SCORES = ("lisi_label", "ari", "nmi", "silhouette_label", "map")
"""Scores of the separation of classes; their mean is the biology score."""
BATCH_WEIGHT = 0.4
"""Weight of the batch score in the overall score; the biology score has the rest."""

Names = Sequence[str] | np.ndarray
"""Batch, class or source of each embedding."""


@dataclass(frozen=True)
class RepresentationScores:
    """Scores of the embeddings of several batches.

    Attributes:
        values: Scores by name, those of `BATCH_SCORES` and `BIOLOGY_SCORES`; NaN if missing.
        reasons: Reasons of the missing scores, by name.
    """

    values: dict[str, float]
    reasons: dict[str, str]

    @property
    def batch(self) -> float:
        """Mean of the scores of the mixing of batches; NaN if one is missing."""
        return float(np.mean([self.values[name] for name in BATCH_SCORES]))

    @property
    def biology(self) -> float:
        """Mean of the scores of the separation of classes; NaN if one is missing."""
        return float(np.mean([self.values[name] for name in BIOLOGY_SCORES]))

    @property
    def overall(self) -> float:
        """0.4 times the batch score plus 0.6 times the biology score; NaN if one is missing."""
        return BATCH_WEIGHT * self.batch + (1 - BATCH_WEIGHT) * self.biology


def representation_scores(
    embeddings: np.ndarray,
    labels: Names,
    batches: Names,
    *,
    sources: Names | None = None,
    k: int = 25,
    seeds: Sequence[int] = (0, 1, 2),
    reference: bool = False,
    device: str | torch.device = "cpu",
) -> RepresentationScores:
    """Compute all scores of the embeddings of several batches.

    Args:
        embeddings: Embeddings (n, d).
        labels: Class of each embedding (n,).
        batches: Batch of each embedding (n,), such as the day, or the change that was applied to the images.
        sources: Source image of each embedding (n,), to leave out images of the query's source from `map`.
        k: Number of neighbours in the graph, with the row itself.
        seeds: Random seeds of k-means; ARI and NMI are means over the seeds.
        reference: Whether `map` is computed as in the reference protocol.
        device: Device of the neighbour search.

    Returns:
        Scores, and reasons of missing scores.

    Raises:
        ValueError: If lengths differ, or a value is not finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels, days = np.repeat([0, 1], 60), np.tile([0, 1], 60)
        >>> scores = representation_scores(rng.normal(size=(120, 8)) + 3 * labels[:, None], labels, days)
        >>> scores.batch > 0.8, scores.biology > 0.7, scores.reasons
        (True, True, {})
        >>> alone = representation_scores(rng.normal(size=(120, 8)) + 3 * labels[:, None], labels, np.zeros(120))
        >>> alone.values["lisi_batch"], alone.reasons["lisi_batch"], alone.overall
        (nan, 'there is only one batch', nan)
    """
    labels, batches = np.asarray(labels), np.asarray(batches)
    if not len(embeddings) == len(labels) == len(batches):
        raise ValueError(f"there are {len(embeddings)} embeddings, {len(labels)} labels and {len(batches)} batches")
    if len(embeddings) < 2 or not np.ptp(embeddings, axis=0).any():
        reason = "there is only one embedding, or all are equal"
        names = (*BATCH_SCORES, *BIOLOGY_SCORES)
        return RepresentationScores(dict.fromkeys(names, np.nan), dict.fromkeys(names, reason))
    rows, distances = neighbour_graph(embeddings, k, device=device)
    agreements: list[tuple[float, float]] = []

    def agreement(position: int) -> float:
        agreements[:] = agreements or [cluster_agreement(embeddings, labels, seeds)]
        return agreements[0][position]

    computations: dict[str, Callable[[], float]] = {
        "graph_connectivity": lambda: graph_connectivity(rows, labels),
        "kbet": lambda: kbet_per_label(embeddings, labels, batches, device=device),
        "lisi_batch": lambda: lisi_batch(rows, distances, batches),
        "silhouette_batch": lambda: silhouette_batch(embeddings, labels, batches),
        "lisi_label": lambda: lisi_label(rows, distances, labels),
        "ari": lambda: agreement(0),
        "nmi": lambda: agreement(1),
        "silhouette_label": lambda: silhouette_label(embeddings, labels),
        "map": lambda: map_without_replicates(embeddings, labels, batches, sources=sources, reference=reference),
    }
    values, reasons = {}, {}
    for name, compute in computations.items():
        try:
            values[name] = compute()
        except UndefinedScoreError as error:
            values[name], reasons[name] = np.nan, str(error)
    return RepresentationScores(values, reasons)


def silhouette_label(embeddings: np.ndarray, labels: np.ndarray, *, metric: str = "cosine") -> float:
    """Compute the mean silhouette of the classes, scaled from [-1, 1] to [0, 1]; 1 means separate classes.

    Args:
        embeddings: Embeddings (n, d).
        labels: Class of each embedding (n,).
        metric: Distance, as in scikit-learn.

    Raises:
        UndefinedScoreError: If there is only one class, or every image has a separate class.

    Example:
        >>> round(silhouette_label(np.array([[1, 0], [1, 0], [0, 1], [0, 1]]), np.array([0, 0, 1, 1])), 3)
        1.0
    """
    need_two(np.unique(labels), "class")
    if len(np.unique(labels)) == len(labels):
        raise UndefinedScoreError("every class has only one image")
    return float((silhouette_samples(embeddings, labels, metric=metric).mean() + 1) / 2)


def silhouette_batch(
    embeddings: np.ndarray, labels: np.ndarray, batches: np.ndarray, *, metric: str = "cosine"
) -> float:
    """Compute 1 - |silhouette| of the batches within each class; 1 means that batches mix.

    Classes in one batch only, and classes with one image in each batch, are left out.

    Args:
        embeddings: Embeddings (n, d).
        labels: Class of each embedding (n,).
        batches: Batch of each embedding (n,).
        metric: Distance, as in scikit-learn.

    Returns:
        Mean over images, then over classes, in [0, 1].

    Raises:
        UndefinedScoreError: If all classes are left out.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> silhouette_batch(rng.normal(size=(100, 4)), np.zeros(100), np.arange(100) % 2) > 0.9
        True
    """
    means = []
    for label in np.unique(labels):
        members = labels == label
        if 1 < len(np.unique(batches[members])) < members.sum():
            values = silhouette_samples(embeddings[members], batches[members], metric=metric)
            means.append(1 - np.abs(values).mean())
    if not means:
        raise UndefinedScoreError("no class has two batches, of which one has two images")
    return float(np.mean(means))


def cluster_agreement(
    embeddings: np.ndarray, labels: np.ndarray, seeds: Sequence[int] = (0, 1, 2)
) -> tuple[float, float]:
    """Compare clusters with the classes, by the adjusted Rand index and the normalised mutual information.

    Clusters come from k-means with the number of classes, on embeddings of unit length. The reference uses Leiden
    clusters, whose number does not depend on the classes.

    Args:
        embeddings: Embeddings (n, d).
        labels: Class of each embedding (n,).
        seeds: Random seeds of k-means, each with 10 initialisations.

    Returns:
        Means of ARI and NMI over the seeds.

    Raises:
        UndefinedScoreError: If there is only one class.

    Example:
        >>> cluster_agreement(np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]]), np.array([0, 0, 1, 1]))
        (1.0, 1.0)
    """
    classes = len(np.unique(labels))
    need_two(np.unique(labels), "class")
    unit = normalize(np.asarray(embeddings, np.float64))
    found = [KMeans(classes, n_init=10, random_state=seed).fit_predict(unit) for seed in seeds]
    return (
        float(np.mean([adjusted_rand_score(labels, clusters) for clusters in found])),
        float(np.mean([normalized_mutual_info_score(labels, clusters) for clusters in found])),
    )


def map_without_replicates(
    embeddings: np.ndarray,
    labels: np.ndarray,
    batches: np.ndarray,
    *,
    sources: Names | None = None,
    reference: bool = False,
) -> float:
    """Compute the mean average precision of finding images of the same class within each batch.

    Args:
        embeddings: Embeddings (n, d).
        labels: Class of each embedding (n,).
        batches: Batch of each embedding (n,).
        sources: Source image of each embedding (n,); images of the query's source are not ranked. None ranks all
            images except the query.
        reference: Whether to compute the score of the reference protocol, which is lower: the first rank is not
            counted, and recall is relative to the size of the class with the query.

    Returns:
        Mean over queries, then over batches, in [0, 1].

    Raises:
        UndefinedScoreError: If there is only one class, or no image has another of its class in its batch.

    Example:
        >>> embeddings, labels = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]]), np.array([0, 0, 1, 1])
        >>> map_without_replicates(embeddings, labels, np.zeros(4))
        1.0
    """
    need_two(np.unique(labels), "class")
    own = np.arange(len(labels)) if sources is None else np.unique(np.asarray(sources), return_inverse=True)[1]
    means = []
    for batch in np.unique(batches):
        members = np.flatnonzero(batches == batch)
        precision = _average_precision(embeddings[members], labels[members], own[members], reference)
        if np.isfinite(precision).any():
            means.append(np.nanmean(precision))
    if not means:
        raise UndefinedScoreError("no image has another image of its class in its batch")
    return float(np.mean(means))


def _average_precision(embeddings: np.ndarray, labels: np.ndarray, own: np.ndarray, reference: bool) -> np.ndarray:
    """Return the average precision of each query of one batch (n,); NaN where it has no image to find."""
    ranking = retrieval_scores(
        embeddings,
        embeddings,
        relevant=lambda numbers: labels[numbers][:, None] == labels,
        candidates=lambda numbers: own[numbers][:, None] != own,
        ks=[1],
    )
    precision = ranking.values["aupr"]
    if not reference:
        return precision
    return (precision * ranking.relevant - ranking.values["precision_at_1"]) / (ranking.relevant + 1)
