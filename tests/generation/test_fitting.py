from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from stedfm_hf.generation.direction import Direction
from stedfm_hf.generation.fitting import (
    along_pattern,
    cross_validate,
    difference_of_groups,
    fit_boundary,
    fit_regression,
    orthogonal_to,
    principal_direction,
    with_spread,
)
from stedfm_hf.runs import UserError

N, D = 240, 8


def planted(seed: int, *, effect: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings with a known attribute along a random direction, columns of different scales, 3 crops per source."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=D)
    true /= np.linalg.norm(true)
    of_source = rng.uniform(-1, 1, N // 3)
    values = np.repeat(of_source, 3)
    scale = rng.uniform(0.1, 10, D)
    X = (effect * values[:, None] * true + rng.normal(size=(N, D))) * scale
    return X, values, np.repeat(np.arange(N // 3).astype(str), 3), true


@pytest.mark.parametrize("fit", [fit_boundary, difference_of_groups])
def test_the_planted_direction_is_found_by_classes(fit: object) -> None:
    X, values, sources, true = planted(0)
    direction = fit(X, values > 0, sources)  # type: ignore[operator]  # either function
    assert abs(direction.normal @ true) > 0.9
    assert np.corrcoef(direction.signed_distance(X), values)[0, 1] > 0.8
    assert (direction.signed_distance(X)[values > 0.5] > 0).mean() > 0.9


def test_the_planted_direction_is_found_by_numbers() -> None:
    X, values, sources, true = planted(1)
    direction = fit_regression(X, values, sources)
    assert direction.normal @ true > 0.9
    assert abs(direction.signed_distance(X).mean()) < 0.5


def test_distances_are_those_of_the_classifier_in_standardised_units() -> None:
    X, values, sources, _ = planted(2)
    direction = fit_boundary(X, values > 0, sources)
    standardised = (X - X.mean(axis=0)) / X.std(axis=0)
    expected = standardised @ direction.normal + direction.offset
    np.testing.assert_allclose(direction.signed_distance(X), expected, atol=1e-9)
    reference = fit_boundary(X, values > 0, sources, reference=True)
    assert (reference.mean == 0).all() and (reference.scale == 1).all()


def test_a_principal_component_is_that_of_the_data() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(N, D)) * [1, 1, 9, 1, 1, 4, 1, 1]
    first = principal_direction(X, 1, standardise=False)
    assert first.normal[2] > 0.95
    assert principal_direction(X, 2, standardise=False).normal[5] > 0.95
    assert abs(first.signed_distance(X).mean()) < 1e-9
    with pytest.raises(UserError, match="component 9 does not exist"):
        principal_direction(X, 9)


def test_a_walk_does_not_change_the_nuisances() -> None:
    X, values, sources, _ = planted(4)
    brightness = fit_regression(X, X[:, 0] + X[:, 1], sources).with_facts(name="brightness")
    raw = fit_regression(X, X[:, 2], sources, standardise=False).with_facts(name="density")
    direction = orthogonal_to(fit_boundary(X, values > 0, sources), [brightness, raw])
    moved = direction.move(X, direction.signed_distance(X) + 5)
    for each in (brightness, raw):
        np.testing.assert_allclose(each.signed_distance(moved), each.signed_distance(X), atol=1e-6)
    assert direction.orthogonal_to == ("brightness", "density")
    with pytest.raises(UserError, match="is a combination of brightness"):
        orthogonal_to(brightness, [brightness])


def test_held_out_scores_tell_an_attribute_from_chance() -> None:
    X, values, sources, _ = planted(5)
    score = cross_validate(fit_regression, X, values, sources, is_class=False)
    assert score is not None and score.name == "Spearman" and score.value > 0.6 and score.above_chance
    known = cross_validate(fit_boundary, X, (values > 0).astype(int), sources, is_class=True)
    assert known is not None and known.name == "AUROC" and known.value > 0.8 and known.above_chance
    of_source = np.random.default_rng(0).permutation(N // 3) % 2
    noise = cross_validate(fit_boundary, X, np.repeat(of_source, 3), sources, is_class=True)
    assert noise is not None and not noise.above_chance


def test_scores_equal_those_of_scikit_learn_and_scipy() -> None:
    distances, values = np.random.default_rng(0).integers(0, 9, (2, 40)).astype(float)  # with ties
    classes, sources = (values > 4).astype(int), np.arange(40)

    def fit(*_: np.ndarray) -> Direction:
        return Direction(np.ones(1))

    score = cross_validate(fit, distances[:, None], values, sources, is_class=False)
    assert score is not None and score.value == pytest.approx(spearmanr(values, distances).statistic)
    score = cross_validate(fit, distances[:, None], classes, sources, is_class=True)
    assert score is not None and score.value == pytest.approx(roc_auc_score(classes, distances))


def test_scores_are_of_other_source_images() -> None:
    """Labels of sources that embeddings cannot predict, but that crops of one source share, must not look good."""
    rng = np.random.default_rng(6)
    of_source = rng.normal(size=(20, D)) * 10
    X = np.repeat(of_source, 12, axis=0) + rng.normal(size=(240, D)) * 0.01
    labels = np.repeat(rng.permutation(20) % 2, 12)
    score = cross_validate(partial(fit_boundary), X, labels, np.repeat(np.arange(20).astype(str), 12), is_class=True)
    assert score is not None and score.value < 0.8


def test_impossible_fits_are_named() -> None:
    X, values, sources, _ = planted(7)
    for fit in (fit_boundary, difference_of_groups):
        with pytest.raises(UserError, match="all images are of one class"):
            fit(X, np.ones(N, bool), sources)
    with pytest.raises(UserError, match="same number"):
        fit_regression(X, np.ones(N), sources)
    one = np.zeros(N).astype(str)
    assert cross_validate(fit_regression, X, values, one, is_class=False) is None
    constant = fit_boundary(np.hstack([X, np.ones((N, 1))]), values > 0, sources)
    assert isinstance(constant, Direction) and np.isfinite(constant.normal).all()


def test_a_walk_changes_embeddings_as_images_differ() -> None:
    """The second column only cancels noise of the first: it tells the attribute, but does not change with it."""
    rng = np.random.default_rng(8)
    values, noise = rng.uniform(-1, 1, N), rng.normal(size=N)
    X = np.stack([values + noise, noise + 0.01 * rng.normal(size=N)], axis=1)
    shortest = fit_regression(X, values, np.arange(N).astype(str), standardise=False)
    assert abs(shortest.path[1]) > 0.6
    direction = along_pattern(shortest, X)
    np.testing.assert_allclose(direction.path / direction.path[0], [1, 0], atol=0.1)
    distances = np.linspace(-1, 1, N)
    np.testing.assert_allclose(direction.signed_distance(direction.move(X, distances)), distances, atol=1e-9)
    nuisance = Direction(np.array([0.0, 1.0]), name="noise")
    kept = along_pattern(orthogonal_to(shortest, [nuisance]), X, [nuisance])
    np.testing.assert_allclose(kept.move(X, distances)[:, 1], X[:, 1], atol=1e-9)


def test_the_spread_is_that_of_the_standardised_embeddings() -> None:
    X, values, sources, _ = planted(9)
    direction = with_spread(fit_regression(X, values, sources), X)
    standardised = (X - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_allclose(direction.spread @ direction.spread.T, np.cov(standardised.T, bias=True), atol=1e-5)
