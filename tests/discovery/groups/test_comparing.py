"""Comparison of two trees: equal to a plain implementation, and defined for trees with one leaf."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

from stedfm_hf.discovery.cluster import cluster
from stedfm_hf.discovery.clustering import Tree, cluster_tree, partition
from stedfm_hf.discovery.groups.comparing import compare_trees
from stedfm_hf.discovery.groups.other_result import describe_features
from stedfm_hf.runs import UserError
from stedfm_hf.weights.models import find_model
from tests.discovery.helpers import table_index

ITEMS = 45


def three_groups(seed: int = 0, dim: int = 5) -> np.ndarray:
    """Return items (45, dim) in three overlapping groups."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ITEMS, dim)) + 2.5 * np.eye(dim)[np.arange(ITEMS) % 3]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(1 - a @ b / np.sqrt((a @ a) * (b @ b)))


def leaf_means(tree: Tree, X: np.ndarray) -> list[np.ndarray]:
    return [X[leaf.items].mean(axis=0) for leaf in tree.leaves]


def plain_recovery(tree: Tree, X: np.ndarray, k: int = 9) -> float:
    """Return the fraction of items whose leaf has most votes of their neighbours; the nearest one decides ties."""
    correct = 0
    for item in range(len(X)):
        others = sorted((cosine(X[item], X[other]), other) for other in range(len(X)) if other != item)
        leaves = [int(tree.labels[other]) for _, other in others[:k]]
        most = max(Counter(leaves).values())
        correct += next(leaf for leaf in leaves if leaves.count(leaf) == most) == tree.labels[item]
    return correct / len(X)


def test_all_metrics_equal_a_plain_implementation() -> None:
    X, Y = three_groups(), three_groups(1, dim=3)
    first, second = partition(X, 3), partition(Y, 2)
    found = compare_trees(first, second, X, Y)
    for space, features in ((found.first_space, X), (found.second_space, Y)):
        means = {"first": leaf_means(first, features), "second": leaf_means(second, features)}
        for name, tree, leaves in (("first", first, space.first), ("second", second, space.second)):
            other = "second" if name == "first" else "first"
            assert leaves.recovery.value == pytest.approx(plain_recovery(tree, features))
            own = means[name]
            within = [min(cosine(a, b) for b in own if b is not a) for a in own]
            assert leaves.within == pytest.approx(within)
            assert leaves.between == pytest.approx([min(cosine(a, b) for b in means[other]) for a in own])
            for to in ("first", "second"):
                shares = np.zeros((len(own), len(means[to])))
                for row, leaf in enumerate(tree.leaves):
                    for item in leaf.items:
                        shares[row, np.argmin([cosine(features[item], b) for b in means[to]])] += 1 / len(leaf.items)
                mapping = space.mappings[f"{name} to {to}"]
                assert mapping.shares == pytest.approx(shares)
                assert mapping.mapped.tolist() == (shares.max(axis=1) > 0.497).tolist()
    assert found.ari.value == adjusted_rand_score(first.labels, second.labels)


def test_chance_is_the_recovery_of_random_leaves() -> None:
    X = np.random.default_rng(0).normal(size=(300, 4))
    found = compare_trees(partition(X, 2), partition(X, 2), X, X).first_space.first
    assert found.chance.value == pytest.approx(0.5, abs=0.05)
    assert found.recovery.value is not None and found.recovery.value > 0.8


def test_neighbours_of_the_same_source_do_not_vote() -> None:
    # Each group is the crops of one source: without them, every neighbour is of the other group.
    X = np.repeat([[1.0, 0.1], [0.1, 1.0]], 12, axis=0) + np.random.default_rng(0).normal(0, 0.01, (24, 2))
    tree = partition(X, 2)
    sources = np.repeat(["a", "b"], 12)
    assert compare_trees(tree, tree, X, X).first_space.first.recovery.value == 1.0
    assert compare_trees(tree, tree, X, X, sources=sources).first_space.first.recovery.value == 0.0
    alone = compare_trees(tree, tree, X, X, sources=["a"] * 24).first_space.first.recovery
    assert alone.value is None and alone.reason == "no item has a neighbour of another source image"


def test_a_tree_with_one_leaf_has_reasons_instead_of_zeros() -> None:
    X = three_groups()
    X -= X.mean(axis=0)
    found = compare_trees(cluster_tree(X[:, :1] * 0 + 1), partition(X, 3), X, X)
    assert found.ari.value is None and found.ari.reason == "the first tree has one leaf"
    space = found.first_space
    for metric in (space.first.recovery, space.first.chance, space.first.silhouette):
        assert metric.value is None and metric.reason == "the tree has one leaf"
    assert np.isnan(space.first.within).all() and np.isfinite(space.second.within).all()
    # The mean of all centred items is 0: nothing is near to it.
    assert np.isnan(space.first.between).all() and np.isnan(space.second.between).all()
    assert space.mappings["second to first"].fraction.value is None
    assert space.mappings["first to second"].fraction.value is not None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["first_space"]["first"]["within"] == [None]


def test_purity_counts_known_labels() -> None:
    X = np.array([[0.0, 1], [0.1, 1], [0.2, 1], [9, -1], [9.1, -1], [9.2, -1]])
    tree = partition(X, 2)
    found = compare_trees(tree, tree, X, X, labels=["a", "a", "b", "b", "", ""]).first_purity
    assert found is not None and sorted(each or 0 for each in found.leaves) == [2 / 3, 1.0]
    assert (found.mean.value, found.chance.value) == (0.75, 0.5)
    assert compare_trees(tree, tree, X, X).first_purity is None
    unknown = compare_trees(tree, tree, X, X, labels=[""] * 6).first_purity
    assert unknown is not None and unknown.mean.reason == "no label is known"


def test_trees_of_other_items_are_refused() -> None:
    X = three_groups()
    with pytest.raises(ValueError, match="must be of the same items"):
        compare_trees(partition(X, 2), partition(X[:40], 2), X, X)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two indexes of the same images in another order, `a` and `b`, and a result of `b`."""
    folder = tmp_path_factory.mktemp("compared")
    group = np.repeat([0, 1], 30)
    embeddings = (np.random.default_rng(0).normal(size=(60, 6)) + 6 * group[:, None]).astype(np.float32)
    paths = [f"{'drug' if each else 'control'}/{number:02}.tif" for number, each in enumerate(group)]
    table_index(folder / "a", embeddings, paths)
    order = np.random.default_rng(1).permutation(60)
    table_index(folder / "b", embeddings[order] ** 3, [paths[each] for each in order])
    cluster(folder / "b", output=folder / "other", partition=3)
    return folder


def test_another_result_is_matched_by_path(results: Path, tmp_path: Path) -> None:
    tree = cluster(results / "a", output=tmp_path / "groups", compare=results / "other").tree
    found = json.loads((tmp_path / "groups/comparison.json").read_text(encoding="utf-8"))
    members = pq.read_table(results / "other/memberships.parquet").to_pandas().set_index("path")
    mine = pq.read_table(tmp_path / "groups/memberships.parquet").to_pandas()
    theirs = members.loc[mine.path, "leaf"].tolist()
    labels = np.array([found["second"].index(each) for each in theirs])
    assert found["ari"]["value"] == pytest.approx(adjusted_rand_score(tree.labels, labels))
    assert found["first_space"]["first"]["recovery"]["value"] == 1.0
    assert found["first_purity"]["mean"]["value"] == 1.0 and found["names"]["second"] == "other (not significant)"
    page = (tmp_path / "groups/report.html").read_text(encoding="utf-8")
    section = page[page.index('aria-label="Comparison"') : page.index("<footer>")]
    assert "Comparison with other" in section and section.count("data:image/png") == 2
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    for name in ("comparison-mapping", "comparison-distances"):
        assert (tmp_path / f"groups/figures/{name}.svg").is_file()


def test_other_results_that_do_not_fit_are_explained(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a: is not a result of `stedfm cluster`"):
        cluster(results / "a", output=tmp_path / "groups", compare=results / "a")
    table_index(tmp_path / "few", np.eye(4, dtype=np.float32), ["drug/30.tif", "x.tif", "y.tif", "z.tif"])
    words = r"is of other images: 3 images only here, 59 only there \(such as x.tif"
    with pytest.raises(UserError, match=words):
        cluster(tmp_path / "few", output=tmp_path / "groups", compare=results / "other")
    with pytest.raises(UserError, match="is the output"):
        cluster(results / "a", output=results / "other", compare=results / "other", overwrite=True)


def test_a_packaged_model_is_named_without_its_note() -> None:
    assert describe_features("embedding", find_model("demo").name) == "embedding of demo"
