"""Nearest patches between two images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stedfm_hf.inference.one_image import unit_patches
from stedfm_hf.metrics.neighbours import nearest
from stedfm_hf.runs import UserError


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Nearest patch in an image B of each patch of an image A.

    Attributes:
        nearest: Index of the patch of B (n,) int64.
        similarity: Cosine similarity to it (n,) float64 in [-1, 1].
        mutual: Whether the patch of A is also the nearest of that patch of B (n,) bool.
    """

    nearest: np.ndarray
    similarity: np.ndarray
    mutual: np.ndarray


def correspondence(tokens_a: np.ndarray, tokens_b: np.ndarray) -> Correspondence:
    """Find the patch of an image B that is most similar to each patch of an image A.

    Features are first standardised over the patches of both images, because raw tokens share a large mean. The search
    is exact, in bounded memory.

    Args:
        tokens_a: Patch tokens of A (n, D).
        tokens_b: Patch tokens of B (m, D), of the same encoder.

    Returns:
        Nearest patches, in the order of A. Ties go to the first patch of B.

    Raises:
        UserError: If one of them has no patches, or the lengths of tokens differ.

    Example:
        >>> tokens = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> found = correspondence(tokens, tokens[[2, 0]])
        >>> found.nearest.tolist(), found.mutual.tolist()
        ([1, 0, 0], [True, False, True])
    """
    if not len(tokens_a) or not len(tokens_b):
        raise UserError("an image without patches has no corresponding patches; give at least one patch of each")
    if tokens_a.shape[1:] != tokens_b.shape[1:]:
        raise UserError(
            f"tokens have the lengths {tokens_a.shape[-1]} and {tokens_b.shape[-1]}; embed both images with one model"
        )
    unit = unit_patches(np.concatenate([tokens_a, tokens_b]))
    unit_a, unit_b = unit[: len(tokens_a)], unit[len(tokens_a) :]
    rows, similarity = nearest(unit_b, unit_a, k=1)
    back, _ = nearest(unit_a, unit_b, k=1)
    found = rows[:, 0]
    return Correspondence(found, similarity[:, 0].clip(-1, 1), back[found, 0] == np.arange(len(tokens_a)))
