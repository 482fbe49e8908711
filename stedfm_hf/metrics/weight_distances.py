"""Distances between the weights of two models, tensor by tensor."""

from __future__ import annotations

import re

import numpy as np

METRICS = ("wasserstein", "cosine")
"""Distances between tensors."""
_NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


def wasserstein_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the 1-D Wasserstein distance between the distributions of the values of two tensors.

    The distance ignores positions: it is 0 for any permutation of the values, and small for different networks that
    were initialised in the same way. It is in units of the weights.

    Args:
        first: Values of a tensor (n,). Sorting is fast if they are sorted already.
        second: Values of a tensor of the same shape (n,).

    Raises:
        ValueError: If the numbers of values differ, or there are none.

    Example:
        >>> wasserstein_distance(np.array([0.0, 1.0]), np.array([1.0, 0.0]))
        0.0
        >>> wasserstein_distance(np.array([0.0, 1.0]), np.array([0.5, 1.5]))
        0.5
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"tensors must be flat and have the same number of values, not {first.shape}, {second.shape}")
    ordered = (np.sort(values, kind="stable").astype(np.float64) for values in (first, second))
    return float(np.abs(np.subtract(*ordered)).mean())


def cosine_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Compute 1 - the cosine similarity of the values of two tensors, in [0, 2].

    Two tensors of zeros have distance 0; a tensor of zeros and another one have distance 1. (The reference counts both
    as 0.)

    Args:
        first: Values of a tensor (n,).
        second: Values of a tensor of the same shape, in the same order (n,).

    Raises:
        ValueError: If the numbers of values differ.

    Example:
        >>> cosine_distance(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
        0.0
        >>> [cosine_distance(np.zeros(2), other) for other in (np.zeros(2), np.ones(2))]
        [0.0, 1.0]
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"tensors must be flat and have the same number of values, not {first.shape}, {second.shape}")
    left, right = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(left), np.linalg.norm(right)
    if not all(norms):
        return float(norms[0] != norms[1])
    # Half of the squared distance of the unit vectors: the same, without cancellation for small distances.
    return float(((left / norms[0] - right / norms[1]) ** 2).sum() / 2)


def area_below_curve(distances: np.ndarray) -> float:
    """Compute the area below the cumulative curve of distances, from 0 to 1; 1 means that all distances are 0.

    The curve is the fraction of tensors whose distance is at most x. Its area up to x = 1 is the mean of
    1 - min(distance, 1).

    Args:
        distances: Distance of each tensor (n,), at least 0.

    Example:
        >>> area_below_curve(np.array([0.0, 0.5, 3.0]))
        0.5
    """
    return float(np.mean(1 - np.minimum(distances, 1)))


def layer_of(tensor: str) -> str:
    """Return the layer of a tensor: `embeddings`, the number of the block, or `end` for what follows the blocks.

    Args:
        tensor: Name of the tensor.

    Example:
        >>> [layer_of(name) for name in ("embeddings.cls_token", "encoder.layers.3.mlp.fc1.bias", "norm.weight")]
        ['embeddings', '3', 'end']
    """
    if (found := _NUMBER.search(tensor)) is not None:
        return found[1]
    return "embeddings" if "embed" in tensor or "patch" in tensor else "end"


def depth(tensor: str) -> tuple[float, str]:
    """Return a key that sorts tensors by depth: embeddings, blocks by number, end.

    Args:
        tensor: Name of the tensor.

    Example:
        >>> sorted(["norm.bias", "layers.10.bias", "layers.2.bias", "embeddings.bias"], key=depth)
        ['embeddings.bias', 'layers.2.bias', 'layers.10.bias', 'norm.bias']
    """
    layer = layer_of(tensor)
    outside = {"embeddings": -1.0, "end": float("inf")}
    return outside[layer] if layer in outside else float(layer), tensor
