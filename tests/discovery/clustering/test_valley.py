"""The test of a pair of pieces, and the evidence of a level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from stedfm_hf.discovery.clustering.continuity import continuity_p
from stedfm_hf.discovery.clustering.coordinates import Counts, count_held_out, fold_of_sources
from stedfm_hf.discovery.clustering.kmeans import assign, fit_centres, refine_centres
from stedfm_hf.discovery.clustering.spaces import principal_components, spaces
from stedfm_hf.discovery.clustering.valley import _weakest_link, valley_p
from tests.discovery import generators

ONE_PAIR = np.array([[0, 1]])


def counts(valley: float, left: float, right: float, total: float = 100, gap: float | None = None) -> Counts:
    gap = 1000 if gap is None else gap
    folds, *each = (np.array([value], float) for value in (5, total, valley, gap, left, right, 1))
    return Counts(folds, each[0], each[1], each[2], each[3], each[4], each[5], np.zeros((1, 30)))


def test_the_p_value_is_the_larger_of_two_binomial_tests() -> None:
    expected = max(binom.cdf(3, 3 + 20, 0.6 / 1.6), binom.cdf(3, 3 + 12, 0.6 / 1.6))
    assert valley_p(counts(3, 20, 12), 0.6, 8)[0] == pytest.approx(2 * expected)


def test_an_empty_gap_shows_a_small_group_that_is_far_away() -> None:
    expected = binom.cdf(1, 1 + 10, 1.8 / 2.8)
    assert valley_p(counts(0, 300, 10, gap=1), 0.6, 8)[0] == pytest.approx(2 * expected)
    # In the valley alone there are too few items to expect.
    assert valley_p(counts(0, 300, 10), 0.6, 8)[0] == pytest.approx(2 * binom.cdf(0, 10, 0.6 / 1.6))


def test_fractional_counts_are_rounded_against_a_split() -> None:
    assert valley_p(counts(2.1, 20.9, 12.9), 0.6, 8) == pytest.approx(valley_p(counts(3, 20, 12), 0.6, 8))
    # Sums of float32 weights, such as 20 times 1/20, are not rounded away.
    assert valley_p(counts(3.0000001, 19.9999999, 12), 0.6, 8) == pytest.approx(valley_p(counts(3, 20, 12), 0.6, 8))


def test_few_coordinates_say_nothing() -> None:
    assert valley_p(counts(0, 3, 4, total=7), 0.6, 8).tolist() == [1.0]
    assert valley_p(counts(0, 0, 0, total=0), 0.6, 8).tolist() == [1.0]


def test_continuity_is_tested_against_the_thinner_shoulder() -> None:
    expected = binom.sf(19, 20 + 10, 0.6 / 1.6)
    assert continuity_p(counts(20, 30, 10), 0.6)[0] == pytest.approx(expected)
    assert continuity_p(counts(0, 30, 10), 0.6)[0] == 1


def held_out(X: np.ndarray, weights: np.ndarray | None = None) -> Counts:
    Y, rng = X.astype(np.float32), np.random.default_rng(0)
    weights = np.ones(len(Y), np.float32) if weights is None else weights
    fold = fold_of_sources(np.arange(len(Y)), 5, rng)
    pieces = assign(Y, fit_centres(Y, weights, 2, rng, starts=5, max_items=10**6))
    return count_held_out(Y, weights, fold, pieces, ONE_PAIR, rng)


def test_held_out_items_show_a_valley_between_groups_and_none_in_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((4000, 10))
    apart = noise + 8 * (np.arange(4000) % 2)[:, None] * np.eye(10)[0]
    groups, none = held_out(apart), held_out(noise)
    # 4,000 items, of which 0.13 % are 3 standard deviations or more from their centre, on the inner side.
    assert groups.valley[0] < 20 and groups.left[0] > 1000 and groups.right[0] > 1000
    # Two equal Gaussians, 8 standard deviations apart.
    assert groups.d_prime[0] == pytest.approx(8, rel=0.05)
    # A cut through a Gaussian: the valley is 1.4 times as dense as the shoulders (calculated).
    assert none.valley[0] / ((none.left[0] + none.right[0]) / 2) == pytest.approx(1.4, abs=0.15)


def test_every_held_out_item_is_counted_once() -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((500, 5)) + 6 * (np.arange(500) % 2)[:, None]
    found = held_out(X)
    assert found.folds.tolist() == [5] and found.total[0] == pytest.approx(500)
    assert found.profile.sum() <= 500 + 1e-6
    half = held_out(X, np.full(500, 0.5, np.float32))
    assert half.total[0] == pytest.approx(250) and half.left[0] == pytest.approx(found.left[0] / 2, abs=2)


def test_folds_hold_whole_sources() -> None:
    sources = np.repeat(np.arange(20), 3)
    fold = fold_of_sources(sources, 5, np.random.default_rng(0))
    assert all(len(set(fold[sources == each])) == 1 for each in range(20))
    assert np.bincount(fold).tolist() == [12] * 5


def test_components_equal_a_singular_value_decomposition() -> None:
    X = generators.gaussian(80, 0).X
    scores, deviations = principal_components(X, np.ones(80), 50)
    _, values, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    assert scores.shape == (80, 40)
    assert deviations == pytest.approx(values[:40] / np.sqrt(80), rel=1e-3)
    assert scores.std(axis=0) == pytest.approx(deviations, rel=1e-3)
    assert spaces(X, np.ones(80), 50)["half"].std(axis=0) == pytest.approx(np.sqrt(deviations), rel=1e-3)
    assert spaces(np.ones((30, 4), np.float32), np.ones(30), 50) == {}


def test_refined_centres_are_those_of_scikit_learn() -> None:
    from sklearn.cluster import KMeans

    Y = generators.blobs(200, 0, k=3, dimensions=10).X
    rng = np.random.default_rng(0)
    found = refine_centres(Y, np.ones(200, np.float32), Y[:3], rng, max_items=200)
    expected = KMeans(3, init=Y[:3], n_init=1, tol=0).fit(Y).cluster_centers_
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_weakest_link_would_divide_the_pieces_into_two() -> None:
    """Pieces 0 - 1 - 2 - 3 in a row: ends without items between them are far apart in any cloud."""
    pairs = np.stack(np.triu_indices(4, 1), axis=1)
    p = np.array([0.9, 1e-9, 1e-9, 0.3, 1e-9, 0.8])
    assert pairs[_weakest_link(pairs, p, 4)].tolist() == [1, 2]
    assert _weakest_link(np.array([[0, 1]]), np.array([1.0]), 2) == 0
