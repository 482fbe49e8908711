"""Trees: JSON, memberships, and shapes."""

from __future__ import annotations

import numpy as np
import pytest

from stedfm_hf.discovery.clustering import Tree, ValleyRule, cluster_tree, partition
from tests.discovery import generators

FAST = ValleyRule(k_max=4, resamples=10)


@pytest.fixture(scope="module")
def tree() -> Tree:
    return cluster_tree(generators.nested(240, 0, counts=(2, 2), dimensions=12).X, seed=3, rule=FAST)


def test_nodes_know_their_path_and_share_the_items_of_their_parent(tree: Tree) -> None:
    assert tree.root.shape == "2(2,2)" and tree.significant
    assert [node.id for node in tree.nodes] == ["0", "0.0", "0.0.0", "0.0.1", "0.1", "0.1.0", "0.1.1"]
    for node in tree.nodes:
        assert len(node.stability) == len(node.items)
        if node.children:
            assert np.sort(np.concatenate([child.items for child in node.children])).tolist() == node.items.tolist()


def test_memberships_follow_the_path(tree: Tree) -> None:
    members = tree.memberships()
    assert members.nodes.shape == members.stabilities.shape == (240, 3)
    assert (members.nodes[:, 0] == "0").all() and (members.nodes[:, 2] == members.leaf).all()
    assert members.stability == pytest.approx(np.nanprod(members.stabilities, axis=1))
    assert [int((members.leaf == leaf.id).sum()) for leaf in tree.leaves] == np.bincount(tree.labels).tolist()


def test_a_leaf_above_others_has_no_node_below_it() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [40, 0], [40, 8]])
    tree = cluster_tree(rng.standard_normal((180, 2)) + centres[np.arange(180) % 3], standardise=False, rule=FAST)
    assert tree.root.shape == "2(2,1)"
    members = tree.memberships()
    single = members.leaf == "0.1"
    assert single.sum() == 60 and (members.nodes[single, 2] == "").all()
    assert np.isnan(members.stabilities[single, 2]).all()


def test_json_returns_the_same_tree(tree: Tree) -> None:
    text = tree.to_json()
    again = Tree.from_json(text)
    assert again.to_json() == text
    assert again.root.children[0].evidence == tree.root.children[0].evidence
    assert (again.labels == tree.labels).all() and again.parameters == tree.parameters
    described = partition(np.arange(20.0)[:, None], 2)
    assert not Tree.from_json(described.to_json()).significant


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"root": {"id": "0"}}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a tree|Expecting value"):
        Tree.from_json(text)
