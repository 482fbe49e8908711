"""The Fréchet distance is that of Gaussians, symmetric, and refuses features that it cannot compare."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from stedfm_hf.metrics import frechet_distance

RNG = np.random.default_rng(0)


def test_it_is_the_formula_with_a_matrix_root() -> None:
    first = RNG.normal(size=(300, 6)) @ RNG.normal(size=(6, 6))
    second = RNG.normal(size=(200, 6)) @ RNG.normal(size=(6, 6)) + 0.5
    covariances = [np.cov(each, rowvar=False) for each in (first, second)]
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(
        covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real
    )
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance(second, first) == pytest.approx(float(expected), rel=1e-6)


def test_the_same_features_have_no_distance_even_if_their_covariance_is_singular() -> None:
    features = RNG.normal(size=(5, 20))
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(features[:, :1], features[:, :1]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "n >= 2"),
        (np.zeros((5, 3)), np.zeros((5, 2)), "two sets"),
        (np.zeros(5), np.zeros(5), "two sets"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "not finite"),
    ],
)
def test_other_features_are_refused(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(first, second)
