"""Distances between tensors, compared with SciPy, and areas below cumulative curves."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cosine

from stedfm_hf.metrics.weight_distances import area_below_curve, cosine_distance, depth, layer_of, wasserstein_distance

VALUES = arrays(np.float32, 12, elements=st.floats(-8, 8, width=16))


@given(first=VALUES, second=VALUES)
def test_the_wasserstein_distance_is_that_of_scipy(first: np.ndarray, second: np.ndarray) -> None:
    found = wasserstein_distance(first, second)
    assert found == pytest.approx(scipy.stats.wasserstein_distance(first, second), abs=1e-9)
    assert wasserstein_distance(np.sort(first), second[::-1]) == pytest.approx(found, abs=1e-9)


def test_the_cosine_distance_is_that_of_scipy() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 50))
    assert cosine_distance(first, second) == pytest.approx(cosine(first, second))
    assert cosine_distance(first, first) == pytest.approx(0, abs=1e-12)
    assert cosine_distance(first, -first) == pytest.approx(2)
    tiny = 1e-30 * first.astype(np.float32)
    assert cosine_distance(tiny, tiny) == pytest.approx(0, abs=1e-12)


def test_the_area_is_the_integral_of_the_cumulative_curve() -> None:
    distances = np.random.default_rng(0).exponential(0.7, size=40)
    x = np.linspace(0, 1, 100_001)
    curve = np.mean(distances[:, None] <= x[None, ::10], axis=0)
    assert area_below_curve(distances) == pytest.approx(np.trapezoid(curve, x[::10]), abs=1e-3)
    assert area_below_curve(np.zeros(3)) == 1
    assert area_below_curve(np.full(3, 2.0)) == 0


def test_tensors_are_sorted_by_depth() -> None:
    names = ["norm.weight", "blocks.10.attn.qkv.weight", "blocks.2.mlp.fc1.bias", "patch_embed.proj.weight"]
    assert sorted(names, key=depth) == names[::-1]
    assert [layer_of(name) for name in names] == ["end", "10", "2", "embeddings"]


def test_tensors_of_different_sizes_are_refused() -> None:
    for function in (wasserstein_distance, cosine_distance):
        with pytest.raises(ValueError, match="same number of values"):
            function(np.zeros(2), np.zeros(3))
