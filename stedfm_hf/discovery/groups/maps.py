"""Maps of items in two dimensions, the same in every run. Groups are never looked for in a map."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from stedfm_hf.runs import UserError

INSTALL = 'pip install "stedfm-hf[umap]"'


def pca_map(X: np.ndarray) -> np.ndarray:
    """Project items on their first two principal components.

    Args:
        X: Features (n, d).

    Returns:
        Coordinates (n, 2) float64; columns without variance are 0.

    Example:
        >>> pca_map(np.array([[0.0, 0.0], [2.0, 0.0]])).round(3).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    found = np.zeros((len(X), 2))
    count = min(2, *X.shape)
    if len(X) > 1 and np.ptp(X, axis=0).any():
        with threadpool_limits(1):
            coordinates = PCA(count, svd_solver="full").fit_transform(np.asarray(X, np.float64))
        # The sign of a component is arbitrary: the item farthest from 0 is on the positive side.
        farthest = coordinates[np.abs(coordinates).argmax(axis=0), range(count)]
        found[:, :count] = coordinates * np.where(farthest < 0, -1, 1)
    return found


def umap_map(X: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Compute a UMAP of items by cosine distance, with one thread, so that it is the same in every run.

    Args:
        X: Features (n, d).
        seed: Random seed.

    Returns:
        Coordinates (n, 2) float64.

    Raises:
        UserError: If umap-learn is not installed.

    Source:
        McInnes et al., 2018, arXiv:1802.03426.
    """
    try:
        import umap
    except ImportError as error:
        raise UserError(f"--map umap needs umap-learn: {INSTALL}") from error
    if len(X) < 4:  # too few for the spectral start
        return pca_map(X)
    neighbours = min(15, len(X) - 1)
    made = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
    return np.asarray(made.fit_transform(np.asarray(X, np.float32)), np.float64)
