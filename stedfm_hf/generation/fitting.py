"""Fits of the direction of an attribute to embeddings: boundary, difference, regression or principal component."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.svm import SVC

from stedfm_hf.evaluation.probe import select_C
from stedfm_hf.generation.direction import PERCENTILES, Direction, Score
from stedfm_hf.metrics.statistics import bootstrap_interval
from stedfm_hf.runs import UserError, counted

FOLDS = 5
"""Number of cross-validation folds over source images."""
_ALPHAS = tuple(10.0**power for power in range(-2, 6))
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Direction]
"""Function from embeddings (n, d), targets (n,) and source images (n,) to a direction."""


@dataclass(frozen=True, eq=False)
class Standardisation:
    """Mean and standard deviation of each column of embeddings."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray, standardise: bool = True) -> Standardisation:
        """Measure embeddings (n, d); without `standardise`, mean 0 and scale 1. Constant columns have scale 1."""
        values = np.asarray(embeddings, np.float64)
        if not standardise:
            return cls(np.zeros(values.shape[1]), np.ones(values.shape[1]))
        scale = values.std(axis=0)
        return cls(values.mean(axis=0), np.where(scale > 1e-12, scale, 1.0))

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Standardise embeddings (n, d)."""
        standardised: np.ndarray = (np.asarray(embeddings, np.float64) - self.mean) / self.scale
        return standardised

    def direction(self, weights: np.ndarray, intercept: float, method: str) -> Direction:
        """Return the direction of a linear function of standardised embeddings: weights (d,) and intercept."""
        length = float(np.linalg.norm(weights))
        if length == 0:
            raise UserError("the embeddings say nothing about the attribute: all weights of the fit are 0")
        return Direction(weights / length, float(intercept) / length, self.mean, self.scale, method=method)


def fit_boundary(
    embeddings: np.ndarray,
    positive: np.ndarray,
    sources: np.ndarray,
    *,
    standardise: bool = True,
    reference: bool = False,
) -> Direction:
    """Fit the linear boundary between two classes.

    By default a logistic regression with balanced classes, whose penalty is selected by cross-validation over source
    images. The reference protocol uses a linear support vector machine with C = 1 on raw embeddings.

    Args:
        embeddings: Embeddings (n, d).
        positive: Whether each image is of the second class (n,) bool.
        sources: Source image of each image (n,).
        standardise: Whether to standardise the columns first.
        reference: Whether to follow the reference protocol.

    Returns:
        Direction from the first class to the second.

    Raises:
        UserError: One of the classes has no image.

    Example:
        >>> embeddings = np.array([[0.0, 0.0], [0.0, 1.0], [2.0, 0.0], [2.0, 1.0]])
        >>> positive, sources = np.array([False, False, True, True]), np.array(list("abcd"))
        >>> direction = fit_boundary(embeddings, positive, sources, standardise=False)
        >>> direction.signed_distance(embeddings).round(2).tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    labels = _two_classes(positive)
    scaler = Standardisation.of(embeddings, standardise and not reference)
    X = scaler(embeddings)
    if reference:
        model = SVC(kernel="linear", C=1.0, class_weight="balanced").fit(X, labels)
    else:
        C = select_C(X, labels, sources, task="classes", classes=2).C
        model = LogisticRegression(C=C, class_weight="balanced", max_iter=2000).fit(X, labels)
    return scaler.direction(model.coef_[0], float(model.intercept_[0]), "boundary")


def difference_of_groups(
    embeddings: np.ndarray, positive: np.ndarray, sources: np.ndarray, *, standardise: bool = True
) -> Direction:
    """Return the direction from the mean of one group to that of another; the boundary is half way.

    It changes all that differs between the groups, where `fit_boundary` changes what tells them apart.

    Args:
        embeddings: Embeddings (n, d).
        positive: Whether each image is of the second group (n,) bool.
        sources: Source image of each image (n,); every source image counts once.
        standardise: Whether to standardise the columns first.

    Raises:
        UserError: One of the groups has no image.
    """
    labels = _two_classes(positive)
    scaler = Standardisation.of(embeddings, standardise)
    X = scaler(embeddings)
    first, second = (_mean_of_sources(X[labels == each], sources[labels == each]) for each in (0, 1))
    weights = second - first
    return scaler.direction(weights, float(-weights @ (first + second) / 2), "difference")


def fit_regression(
    embeddings: np.ndarray, values: np.ndarray, sources: np.ndarray, *, standardise: bool = True
) -> Direction:
    """Fit the direction along which a number increases, by ridge regression; the boundary is at its mean.

    Args:
        embeddings: Embeddings (n, d).
        values: Number of each image (n,).
        sources: Source image of each image (n,).
        standardise: Whether to standardise the columns first.

    Raises:
        UserError: All numbers are equal.
    """
    target = np.asarray(values, np.float64)
    if np.ptp(target) == 0:
        raise UserError("all images have the same number; a direction needs different ones")
    scaler = Standardisation.of(embeddings, standardise)
    X = scaler(embeddings)
    folds = _folds(target, sources, stratify=False)
    model = RidgeCV(_ALPHAS, cv=folds).fit(X, target) if folds else RidgeCV(_ALPHAS).fit(X, target)
    return scaler.direction(model.coef_, float(model.intercept_ - target.mean()), "regression")


def principal_direction(embeddings: np.ndarray, number: int, *, standardise: bool = True) -> Direction:
    """Return a principal component of embeddings; the boundary is at their mean.

    Its sign is such that the largest weight is positive.

    Args:
        embeddings: Embeddings (n, d).
        number: Number of the component, from 1.
        standardise: Whether to standardise the columns first.

    Raises:
        UserError: There are fewer components.
    """
    scaler = Standardisation.of(embeddings, standardise)
    X = scaler(embeddings)
    most = min(len(X) - 1, X.shape[1])
    if not 1 <= number <= most:
        raise UserError(f"component {number} does not exist: {counted(len(X), 'image')} have {most}")
    fitted = PCA(number, random_state=0).fit(X)
    weights = fitted.components_[number - 1]
    weights = weights * np.sign(weights[np.abs(weights).argmax()])
    return scaler.direction(weights, float(-weights @ fitted.mean_), f"principal component {number}")


def orthogonal_to(direction: Direction, nuisances: Sequence[Direction]) -> Direction:
    """Remove the components along other directions, so that a walk does not change their distances.

    Args:
        direction: Direction.
        nuisances: Directions of the attributes to keep; they may have other standardisations.

    Returns:
        Direction; its boundary goes through the same point of the line through the mean.

    Raises:
        UserError: Nothing of the direction is left.

    Example:
        >>> both = Direction(np.array([1.0, 1.0]), name="activity")
        >>> orthogonal_to(both, [Direction(np.array([0.0, 1.0]), name="brightness")]).normal.tolist()
        [1.0, 0.0]
    """
    if not nuisances:
        return direction
    normal = _without(direction, nuisances, direction.normal)
    length = float(np.linalg.norm(normal))
    if length < 1e-6:
        names = ", ".join(each.name for each in nuisances)
        raise UserError(
            f"direction {direction.name}: is a combination of {names}, so that nothing is left; name fewer attributes"
        )
    return direction.with_facts(
        normal=normal / length,
        offset=direction.offset / length,
        path=np.zeros(0),
        orthogonal_to=(*direction.orthogonal_to, *(each.name for each in nuisances)),
        percentiles={},
        score=None,
    )


def along_pattern(direction: Direction, embeddings: np.ndarray, nuisances: Sequence[Direction] = ()) -> Direction:
    """Set the path of walks to how images differ, instead of the shortest way.

    The normal of a boundary tells classes apart; it is not how they differ. Its weights also cancel what is common to
    several columns, so the shortest way leads to embeddings that no image has, and that a network has never seen. The
    pattern of a direction is the mean change of the embeddings for one unit of distance.

    Args:
        direction: Direction.
        embeddings: Embeddings (n, d) that it was fitted to.
        nuisances: Directions that the path is orthogonal to, as `direction` itself.

    Returns:
        Direction with the same distances and another path.

    Source:
        Haufe et al., "On the interpretation of weight vectors of linear models in multivariate neuroimaging", 2014.

    Example:
        >>> embeddings = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
        >>> along_pattern(Direction(np.array([1.0, 0.0])), embeddings).path.tolist()
        [1.0, 2.0]
    """
    u = (np.asarray(embeddings, np.float64) - direction.mean) / direction.scale
    distances = u @ direction.normal
    pattern = (u - u.mean(axis=0)).T @ (distances - distances.mean())
    if not pattern @ direction.normal > 0:
        return direction  # all images are at one distance
    return direction.with_facts(path=_without(direction, nuisances, pattern))


def with_spread(direction: Direction, embeddings: np.ndarray) -> Direction:
    """Add to a direction how embeddings vary, for random directions to compare it with.

    Args:
        direction: Direction.
        embeddings: Embeddings (n, d) that it was fitted to.
    """
    u = (np.asarray(embeddings, np.float64) - direction.mean) / direction.scale
    _, values, vectors = np.linalg.svd((u - u.mean(axis=0)) / np.sqrt(len(u)), full_matrices=False)
    return direction.with_facts(spread=(vectors.T * values).astype(np.float32))


def _without(direction: Direction, nuisances: Sequence[Direction], vector: np.ndarray) -> np.ndarray:
    """Remove from a vector (d,) what changes the distances of other directions."""
    if not nuisances:
        return vector
    # A step s along the vector changes u' of a nuisance by s * scale / scale' · normal'.
    rows = np.stack([each.normal / each.scale * direction.scale for each in nuisances])
    basis = np.linalg.svd(rows, full_matrices=False)
    kept = basis[2][basis[1] > 1e-9 * basis[1].max()]
    left: np.ndarray = vector - kept.T @ (kept @ vector)
    return left


def cross_validate(
    fit: Fit, embeddings: np.ndarray, target: np.ndarray, sources: np.ndarray, *, is_class: bool
) -> Score | None:
    """Score a fit on source images that it has not seen.

    The score is the area under the ROC curve for classes, and Spearman's rank correlation for numbers. Distances of
    different folds are compared directly.

    Args:
        fit: Function that fits a direction.
        embeddings: Embeddings (n, d).
        target: Classes 0 and 1, or numbers (n,).
        sources: Source image of each image (n,).
        is_class: Whether the target is a class.

    Returns:
        Score, or None if there are too few source images of each class.
    """
    folds = _folds(target, sources, stratify=is_class)
    if not folds:
        return None
    distances = np.full(len(target), np.nan)
    for train, test in folds:
        distances[test] = fit(embeddings[train], target[train], sources[train]).signed_distance(embeddings[test])
    pairs = np.stack([np.asarray(target, np.float64), distances], axis=1)
    statistic = _auroc if is_class else _spearman
    low, high = bootstrap_interval(pairs, sources, statistic=statistic, n_resamples=500)
    return Score("AUROC" if is_class else "Spearman", statistic(pairs), low, high, 0.5 if is_class else 0.0)


def percentiles_of(distances: np.ndarray, groups: np.ndarray | None = None) -> dict[str, list[float]]:
    """Return the distances at `PERCENTILES`, of all images and of each group.

    Args:
        distances: Signed distances (n,).
        groups: Group of each image (n,) str, or None.
    """
    found = {"all": np.percentile(distances, PERCENTILES).tolist()}
    for group in () if groups is None else np.unique(groups).tolist():
        found[group] = np.percentile(distances[groups == group], PERCENTILES).tolist()
    return found


def _two_classes(positive: np.ndarray) -> np.ndarray:
    labels = np.asarray(positive).astype(np.int64)
    if len(np.unique(labels)) < 2:
        raise UserError("all images are of one class; a boundary needs images of two classes")
    return labels


def _mean_of_sources(X: np.ndarray, sources: np.ndarray) -> np.ndarray:
    means: np.ndarray = np.stack([X[sources == each].mean(axis=0) for each in np.unique(sources)]).mean(axis=0)
    return means


def _folds(target: np.ndarray, sources: np.ndarray, *, stratify: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return folds that share no source image; none if there are fewer than two source images (of each class)."""
    if stratify:
        count = min(len(np.unique(sources[target == each])) for each in np.unique(target))
        splitter = StratifiedGroupKFold(min(FOLDS, count), shuffle=True, random_state=0) if count > 1 else None
    else:
        count = len(np.unique(sources))
        splitter = GroupKFold(min(FOLDS, count), shuffle=True, random_state=0) if count > 1 else None
    if splitter is None:
        return []
    folds = list(splitter.split(target, target, sources))
    # Of few, unequal source images, a fold may lack a class.
    return [] if stratify and any(len(np.unique(target[train])) < 2 for train, _ in folds) else folds


# Both are computed from ranks, because scikit-learn and SciPy check their inputs for longer than a resample takes.


def _auroc(pairs: np.ndarray) -> float:
    positive, ranks = pairs[:, 0] > 0, rankdata(pairs[:, 1])
    count = int(positive.sum())
    least, all_pairs = count * (count + 1) / 2, count * (len(pairs) - count)
    return float((ranks[positive].sum() - least) / all_pairs) if all_pairs else float("nan")


def _spearman(pairs: np.ndarray) -> float:
    ranks = rankdata(pairs, axis=0)
    return float(np.corrcoef(ranks, rowvar=False)[0, 1]) if np.ptp(ranks, axis=0).all() else float("nan")
