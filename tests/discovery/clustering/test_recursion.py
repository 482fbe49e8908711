"""The valley rule on simulated groups and noise; tests/benchmarks/clustering.py has the whole table."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from stedfm_hf.discovery.clustering import NodeEvidence, Tree, ValleyRule, cluster_tree
from stedfm_hf.discovery.clustering.items import prepare
from stedfm_hf.discovery.clustering.recursion import _grow
from tests.discovery import generators
from tests.discovery.generators import Cloud, Made

GROUPS: dict[str, tuple[Made, int]] = {
    "3 blobs": (partial(generators.blobs, k=3), 200),
    "nested": (partial(generators.nested, counts=(2, 2), dimensions=40), 240),
    "planted": (generators.planted, 600),
}
MORE_GROUPS: dict[str, tuple[Made, int]] = {
    "2 blobs": (partial(generators.blobs, k=2), 600),
    "8 blobs": (partial(generators.blobs, k=8, dimensions=30), 600),
    "scattered": (partial(generators.scattered, k=4), 600),
    "unbalanced": (generators.unbalanced, 600),
    "anisotropic": (generators.anisotropic, 600),
    "nested 2 x 3": (partial(generators.nested, counts=(2, 3)), 600),
    "close": (partial(generators.blobs, k=3, separation=2.5), 600),
    "two cigars": (generators.cigars, 600),
}


FAST = ValleyRule(k_max=4, resamples=10)


def check_groups(made: Made, n: int, rule: ValleyRule | None = None) -> None:
    cloud = made(n, 0)
    tree = cluster_tree(cloud.X, rule=rule)
    assert adjusted_rand_score(cloud.labels, tree.labels) >= 0.95
    if cloud.tree:
        assert tree.root.shape == cloud.tree


@pytest.mark.parametrize(("made", "n"), GROUPS.values(), ids=GROUPS)
def test_groups_are_found_with_the_right_tree(made: Made, n: int) -> None:
    check_groups(made, n, FAST)


@pytest.mark.slow
@pytest.mark.parametrize(("made", "n"), MORE_GROUPS.values(), ids=MORE_GROUPS)
def test_more_groups_are_found_with_the_right_tree(made: Made, n: int) -> None:
    check_groups(made, n)


@pytest.mark.parametrize("made", generators.NOISE.values(), ids=generators.NOISE)
def test_noise_is_one_leaf_with_evidence(made: Made) -> None:
    tree = cluster_tree(made(120, 0).X)
    assert tree.root.shape == "1" and not tree.significant
    evidence = tree.root.evidence
    assert isinstance(evidence, NodeEvidence) and evidence.result == "no significant groups"
    assert {level.k for level in evidence.levels} == set(range(2, 11))
    assert {level.space for level in evidence.levels} == {"raw", "half"}
    assert evidence.accepted is None and evidence.clearest is not None
    # The pair that decides keeps the node together, unless a proposal was rejected later.
    for level in evidence.levels:
        assert (level.clearest.p >= level.threshold) == (level.result == "no valley")
        assert level.p is None or level.p == level.clearest.p
    assert all(len(level.pairs) == level.k * (level.k - 1) / 2 for level in evidence.levels)


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [60, 90])
def test_a_bent_curve_is_one_leaf_because_its_parts_meet(degrees: float) -> None:
    results = set()
    for seed in range(4):
        evidence = cluster_tree(generators.s_curve(600, seed, degrees=degrees).X).root.evidence
        assert isinstance(evidence, NodeEvidence) and evidence.accepted is None
        results |= {level.result for level in evidence.levels}
    assert "groups are continuous where they meet" in results


def test_the_evidence_of_a_split_says_why() -> None:
    evidence = cluster_tree(generators.blobs(120, 0, k=2).X, rule=FAST).root.evidence
    assert isinstance(evidence, NodeEvidence) and evidence.result == "split"
    level = evidence.accepted
    assert level is not None and level == evidence.clearest
    assert level.p is not None and level.p < level.threshold
    assert level.stability is not None and level.stability > 0.99
    assert level.clearest.ratio == 0 and level.clearest.d_prime > 10
    assert {each.result for each in evidence.levels} >= {"accepted", "not chosen"}


@pytest.mark.parametrize("n", range(13))
def test_a_few_items_are_one_leaf(n: int) -> None:
    X = np.random.default_rng(0).standard_normal((n, 4)) + 100 * (np.arange(n) % 2)[:, None]
    tree = cluster_tree(X)
    assert tree.root.shape == "1" and tree.labels.tolist() == [0] * n
    assert tree.root.evidence.result.startswith("not tested")
    assert tree.memberships().leaf.tolist() == ["0"] * n


def test_constant_features_are_one_leaf() -> None:
    tree = cluster_tree(np.full((100, 5), 7.3))
    assert tree.root.shape == "1"


def test_constant_columns_change_nothing() -> None:
    X = generators.blobs(100, 0, k=2, dimensions=10).X
    more = np.column_stack([X, np.full((100, 3), 5.0)])
    assert cluster_tree(more, rule=FAST).root.shape == "2"


@pytest.mark.parametrize("times", [2, 5, 40])
def test_copies_make_no_group(times: int) -> None:
    cloud = generators.gaussian(300, 0)
    some, _ = generators.repeated(Cloud(cloud.X[:40], cloud.labels[:40]), times, 0, 0)
    assert cluster_tree(np.concatenate([cloud.X, some.X]), rule=FAST).root.shape == "1"
    every, _ = generators.repeated(Cloud(cloud.X[:60], cloud.labels[:60]), times, 0, 0)
    assert cluster_tree(every.X, rule=FAST).root.shape == "1"


@pytest.mark.parametrize("times", [5, 20])
def test_many_crops_per_source_make_no_group(times: int) -> None:
    crops, sources = generators.repeated(generators.gaussian(60, 0), times, 0.1, 0)
    assert cluster_tree(crops.X, sources=sources, rule=FAST).root.shape == "1"
    few = sources < 12
    assert cluster_tree(crops.X[few], sources=sources[few], rule=FAST).root.shape == "1"


def test_groups_of_sources_are_found_in_their_crops() -> None:
    crops, sources = generators.repeated(generators.blobs(90, 0, k=3), 6, 0.1, 0)
    tree = cluster_tree(crops.X, sources=[f"image {each}" for each in sources], rule=FAST)
    assert tree.root.shape == "3" and adjusted_rand_score(crops.labels, tree.labels) == 1
    assert isinstance(tree.root.evidence, NodeEvidence) and tree.root.evidence.n_sources == 90


def test_a_few_displaced_sources_are_found() -> None:
    """Ten of 200 sources, with three crops of each."""
    moved, sources = generators.repeated(generators.planted(200, 0), 3, 0.2, 0)
    tree = cluster_tree(moved.X, sources=sources)
    assert tree.root.shape == "2" and adjusted_rand_score(moved.labels, tree.labels) == 1


def test_one_seed_gives_one_tree_for_any_number_of_threads() -> None:
    X = generators.blobs(90, 1, k=3, dimensions=40).X
    texts = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            texts.append(cluster_tree(X, seed=4, rule=FAST).to_json())
    assert texts[0] == texts[1] == cluster_tree(X, seed=4, rule=FAST).to_json()
    assert texts[0] != cluster_tree(X, seed=5, rule=FAST).to_json()


def test_a_subtree_does_not_depend_on_its_siblings() -> None:
    X = generators.nested(120, 1, counts=(2, 2), dimensions=12).X
    tree = cluster_tree(X, seed=4, standardise=False, rule=FAST)
    second = tree.root.children[1]
    alone = _grow(prepare(X, standardise=False), second.items, second.stability, (1,), 4, FAST)
    made = [Tree(node, "valley", 4, {}).to_json() for node in (second, alone)]
    assert made[0] == made[1]


def test_large_nodes_are_tested_on_a_sample_and_labelled_as_a_whole() -> None:
    cloud = generators.blobs(600, 0, k=3, dimensions=20)
    tree = cluster_tree(cloud.X, rule=ValleyRule(k_max=4, max_items=200))
    assert tree.root.shape == "3" and adjusted_rand_score(cloud.labels, tree.labels) == 1


@pytest.mark.parametrize("wrong", [{"k_max": 1}, {"alpha": 0}, {"ratio": 1}, {"folds": 1}, {"resamples": 0}], ids=str)
def test_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ValleyRule(**wrong)  # type: ignore[arg-type]  # wrong on purpose
