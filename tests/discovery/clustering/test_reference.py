"""The published rule, compared with a plain dense implementation."""

from __future__ import annotations

import numpy as np
import pytest

from stedfm_hf.discovery.clustering import ReferenceEvidence, reference_tree
from stedfm_hf.discovery.clustering.reference import best_number, consensus_area, reference_counts
from tests.discovery import generators


def small(n: int = 40, k: int = 2, separation: float = 12) -> np.ndarray:
    return generators.blobs(n, 0, k=k, dimensions=5, separation=separation).X


def test_the_area_equals_the_dense_histogram() -> None:
    X = small(k=3, separation=3)
    together, both = reference_counts(X, 4, 42, np.random.default_rng(0))
    dense = together.astype(np.float64) / (both.astype(np.float64) + 1e-8)
    np.fill_diagonal(dense, 1)
    density, edges = np.histogram(dense.ravel(), density=True)
    assert consensus_area(together, both) == pytest.approx((np.cumsum(density) * np.diff(edges)).sum())
    assert both.max() <= 30 and (np.diag(together) == np.diag(both)).all()
    assert np.diag(both).sum() == 30 * 32


def test_one_value_has_an_area_as_in_numpy() -> None:
    ones = np.ones((3, 3), np.float32)
    density, edges = np.histogram(ones.ravel(), density=True)
    # All pairs were always together: the consensus is 1 up to the 1e-8 of the published code.
    assert consensus_area(ones * 1e9, ones * 1e9) == pytest.approx((np.cumsum(density) * np.diff(edges)).sum())


def test_relative_gains_never_beat_the_first_area() -> None:
    assert best_number([5.0, 6, 9, 9.5, 9.6, 9.7, 9.8, 9.9]) == 2
    assert best_number([1.0, 1.0, 3.0, 3, 3, 3, 3, 3]) == 3


def test_it_chooses_two_for_two_groups_and_stops_at_twelve_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stedfm_hf.discovery.clustering.reference.RESAMPLES", 8)
    tree = reference_tree(small(20))
    evidence = tree.root.evidence
    assert isinstance(evidence, ReferenceEvidence) and evidence.k == 2 and len(evidence.areas) == 8
    assert tree.root.shape == "2" and sorted(len(leaf.items) for leaf in tree.leaves) == [10, 10]
    assert not tree.significant and tree.method == "reference"
    assert reference_tree(small(12)).root.evidence.result == "not tested: too few items"


@pytest.mark.slow
def test_it_chooses_two_for_three_groups() -> None:
    tree = reference_tree(small(60, k=3))
    assert isinstance(tree.root.evidence, ReferenceEvidence) and tree.root.evidence.k == 2
    assert tree.to_json() == reference_tree(small(60, k=3)).to_json()


def test_it_refuses_more_items_than_fit_into_memory() -> None:
    with pytest.raises(ValueError, match=r"needs 37\.3 GiB for 50000 items: cluster at most 16384 items"):
        reference_tree(np.zeros((50_000, 1), np.float32))
