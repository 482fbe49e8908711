"""Fréchet distance between two sets of features, such as those of real and of generated images."""

from __future__ import annotations

import numpy as np


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the Fréchet distance between Gaussians fitted to two sets of features.

    The distance of two finite samples of the same distribution is above 0, and depends on their number: compare it
    with the distance of two samples of real images.

    Args:
        first: Features (n, d), at least 2 rows.
        second: Features (m, d), at least 2 rows.

    Returns:
        Squared distance |mean1 - mean2|² + trace(C1 + C2 - 2 (C1 C2)^½), at least 0.

    Raises:
        ValueError: The features have different lengths, fewer than 2 rows or values that are not finite.

    Source:
        Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017.

    Example:
        >>> features = np.random.default_rng(0).normal(size=(100, 3))
        >>> round(frechet_distance(features, features + [1.0, 0.0, 0.0]), 3)
        1.0
    """
    sets = [np.asarray(each, np.float64) for each in (first, second)]
    if any(each.ndim != 2 or len(each) < 2 for each in sets) or sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"two sets of features (n, d) with n >= 2 are needed, not {sets[0].shape}, {sets[1].shape}")
    if not all(np.isfinite(each).all() for each in sets):
        raise ValueError("the features are not finite")
    means, covariances = zip(
        *((each.mean(axis=0), np.atleast_2d(np.cov(each, rowvar=False))) for each in sets), strict=True
    )
    # The eigenvalues of C1 C2 are those of the symmetric matrix R C2 R with R = C1^½, which are real.
    values, basis = np.linalg.eigh(covariances[0])
    root = (basis * np.sqrt(values.clip(min=0.0))) @ basis.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(min=0.0)).sum()
    distance = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * shared
    return float(max(distance, 0.0))
