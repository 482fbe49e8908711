"""Checks, z-score and weights of items."""

from __future__ import annotations

import numpy as np
import pytest

from stedfm_hf.discovery.clustering.items import prepare


def test_rows_with_nan_are_refused_and_counted() -> None:
    X = np.zeros((5, 3))
    X[1, 2], X[3] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 of 5 rows hold NaN"):
        prepare(X)


@pytest.mark.parametrize("X", [np.zeros(3), np.zeros((3, 0)), np.zeros((2, 2, 2))], ids=str)
def test_other_shapes_are_refused(X: np.ndarray) -> None:
    with pytest.raises(ValueError, match="matrix"):
        prepare(X)


def test_every_item_needs_a_source() -> None:
    with pytest.raises(ValueError, match="2 sources do not match 3 items"):
        prepare(np.zeros((3, 1)), ["a", "b"])


def test_columns_are_standardised_in_float32_and_constant_ones_are_zero() -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(1e4, 3, 200), np.full(200, 0.1), rng.normal(0, 1e-8, 200), np.full(200, 1e9)])
    made = prepare(X).X
    assert made.dtype == np.float32
    assert made[:, [0, 2]].std(axis=0) == pytest.approx(1, abs=1e-3)
    assert made[:, [0, 2]].mean(axis=0) == pytest.approx(0, abs=1e-3)
    assert not made[:, [1, 3]].any()
    assert prepare(X, standardise=False).X == pytest.approx(X.astype(np.float32))


def test_a_source_weighs_one() -> None:
    items = prepare(np.arange(6.0)[:, None], ["a", "b", "b", "c", "c", "c"])
    assert items.n_sources == 3
    assert items.weights() == pytest.approx([1, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])
    assert items.take(np.array([0, 1, 3])).weights() == pytest.approx([1, 1, 1])


def test_copies_weigh_as_one_item_with_and_without_sources() -> None:
    X = np.array([[1.0, 2.0], [5.0, 5.0], [1.0, 2.0], [1.0, 2.0]])
    assert prepare(X).weights() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])
    assert prepare(X, ["a", "b", "c", "d"]).weights() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])
    assert prepare(X, ["a", "b", "a", "a"]).weights() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])
