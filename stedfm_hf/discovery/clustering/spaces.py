"""Spaces that a node is cut in: its principal components, and the same with a flatter spectrum."""

from __future__ import annotations

import numpy as np
import scipy.linalg

SPACES = {"raw": 0.0, "half": 0.5}
"""Name of a space to the power of the standard deviation that its components are divided by."""


def principal_components(X: np.ndarray, weights: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute weighted principal components.

    Args:
        X: Features (n, d), float32.
        weights: Weights of the items (n,).
        dimensions: Largest number of components.

    Returns:
        Scores (n, p), float32, and their standard deviations (p,). Components without variance are left out.
    """
    n, d = X.shape
    weights = (weights / weights.sum()).astype(np.float32)
    centred = X - weights @ X
    # The first mean is rounded to the precision of X, which may be far from 0.
    centred -= weights @ centred
    covariance = (centred * weights[:, None]).T @ centred
    count = min(dimensions, max(2, min(n, d) // 2), d)
    variances, axes = scipy.linalg.eigh(covariance.astype(np.float64), subset_by_index=(d - count, d - 1))
    variances, axes = variances[::-1], axes[:, ::-1]
    kept = variances > max(1e-6 * variances[0], 1e-12 * float(np.vdot(X, X)) / X.size)
    # The sign of an eigenvector is arbitrary: the largest entry is made positive.
    axes = axes[:, kept]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return np.ascontiguousarray(centred @ axes.astype(np.float32)), np.sqrt(variances[kept])


def spaces(X: np.ndarray, weights: np.ndarray, dimensions: int) -> dict[str, np.ndarray]:
    """Return the coordinates (n, p) of the items in each space; empty if all items are equal."""
    scores, deviations = principal_components(X, weights, dimensions)
    if not scores.shape[1]:
        return {}
    return {name: scores / (deviations**power).astype(np.float32) for name, power in SPACES.items()}
