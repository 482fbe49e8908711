"""Partitions and flat clusterings."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from stedfm_hf.discovery.clustering import PartitionEvidence, flat_labels, partition
from tests.discovery import generators


def test_a_partition_is_not_significant_even_where_there_are_groups() -> None:
    cloud = generators.blobs(150, 0, k=3, dimensions=20)
    tree = partition(cloud.X, 3)
    assert adjusted_rand_score(cloud.labels, tree.labels) == 1
    assert not tree.significant and tree.method == "partition"
    assert isinstance(tree.root.evidence, PartitionEvidence) and min(tree.root.evidence.stability) > 0.9


def test_noise_is_divided_into_as_many_groups_as_asked_for() -> None:
    tree = partition(generators.gaussian(200, 0).X, 4, seed=1)
    assert len(tree.leaves) == 4 and tree.to_json() == partition(generators.gaussian(200, 0).X, 4, seed=1).to_json()


def test_constant_items_are_one_group() -> None:
    assert len(partition(np.ones((10, 3)), 3).leaves) == 1


@pytest.mark.parametrize("k", [1, 11])
def test_impossible_numbers_of_groups_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="between 2 and the number of items, 10"):
        partition(np.arange(10.0)[:, None], k)


def test_as_many_groups_as_items_are_possible() -> None:
    assert 2 <= len(partition(np.arange(10.0)[:, None], 10).leaves) <= 10


def test_flat_methods_find_separate_groups() -> None:
    cloud = generators.blobs(150, 0, k=3, dimensions=5, separation=12)
    for method in ("kmeans", "ward", "hdbscan"):
        assert adjusted_rand_score(cloud.labels, flat_labels(cloud.X, method, k=3)) == 1
    ward = AgglomerativeClustering(4).fit_predict(cloud.X)
    assert adjusted_rand_score(ward, flat_labels(cloud.X, "ward", k=4, standardise=False)) == 1


def test_flat_methods_refuse_wrong_arguments() -> None:
    X = np.arange(5.0)[:, None]
    with pytest.raises(ValueError, match="'spectral' is unknown"):
        flat_labels(X, "spectral", k=2)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="needs k between 1 and the number of items, 5; not None"):
        flat_labels(X, "ward")
    assert flat_labels(X, "hdbscan").tolist() == [-1] * 5
    assert flat_labels(X[:1], "ward", k=1).tolist() == [0]
