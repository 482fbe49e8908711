from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.inference.one_image import best_similarity, unit_patches
from stedfm_hf.interpretability import correspondence
from stedfm_hf.runs import UserError


def tokens(count: int, seed: int, dim: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(loc=5, size=(count, dim)).astype(np.float32)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
def test_the_nearest_patch_has_the_largest_product(first: int, second: int, seed: int) -> None:
    a, b = tokens(first, seed), tokens(second, seed + 10)
    found = correspondence(a, b)
    unit = unit_patches(np.concatenate([a, b]))
    products = unit[:first] @ unit[first:].T
    rows = np.arange(first)
    assert np.allclose(found.similarity, products.max(axis=1)) and np.allclose(
        products[rows, found.nearest], found.similarity
    )
    assert np.array_equal(found.mutual, products.argmax(axis=0)[found.nearest] == rows)


def test_similarities_are_those_of_the_best_patch() -> None:
    a, b = tokens(12, 0), tokens(20, 1)
    best = best_similarity(a.reshape(3, 4, 8), b.reshape(4, 5, 8))
    assert np.allclose(correspondence(a, b).similarity.reshape(3, 4), best, atol=1e-6)


def test_patches_that_moved_are_found_again() -> None:
    a = tokens(50, 0)
    order = np.random.default_rng(1).permutation(50)
    found = correspondence(a, a[order])
    assert np.array_equal(order[found.nearest], np.arange(50))
    assert found.mutual.all() and np.allclose(found.similarity, 1)


def test_equal_patches_have_finite_similarities() -> None:
    found = correspondence(np.ones((3, 4), np.float32), np.ones((2, 4), np.float32))
    assert np.isfinite(found.similarity).all() and found.mutual.tolist() == [True, False, False]


def test_tokens_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(UserError, match="embed both images with one model"):
        correspondence(tokens(2, 0), tokens(2, 0, dim=4))
    with pytest.raises(UserError, match="without patches"):
        correspondence(tokens(2, 0), tokens(0, 0))
