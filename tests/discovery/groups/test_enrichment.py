from __future__ import annotations

import numpy as np
import pytest

from stedfm_hf.discovery.clustering import Tree, partition
from stedfm_hf.discovery.groups.differences import differences
from stedfm_hf.discovery.groups.enrichment import enrichments

CROPS = 4


def tree_of(group: np.ndarray) -> Tree:
    """Return a tree whose leaves are some groups of items (n,)."""
    return partition(10.0 * group[:, None], int(group.max()) + 1)


def crops(per_source: np.ndarray) -> np.ndarray:
    """Repeat a value of each source image for all of its crops."""
    return np.repeat(per_source, CROPS)


def test_a_condition_of_the_sources_in_a_node_is_found() -> None:
    sources = np.arange(40).astype(str)
    condition = np.where(np.arange(40) < 20, "drug", "control")
    group = np.where(np.arange(40) < 12, 1, 0)
    tests = enrichments(tree_of(crops(group)), crops(condition), crops(sources))
    small = next(each for each in tests if each.node == "0.1")
    assert (small.condition, small.fraction, small.other_fraction) == ("control", 0.0, 0.6)
    assert (small.sources, small.other_sources) == (20, 20) and small.p_corrected < 0.01


def test_crops_of_one_source_are_one_observation() -> None:
    # All crops of one condition are in one node, but they are of two source images each.
    condition = np.repeat(["drug", "control"], 2 * 50)
    sources = np.repeat(["a", "b", "c", "d"], 50)
    tests = enrichments(tree_of((condition == "drug").astype(int)), condition, sources)
    assert all(each.p > 0.3 for each in tests)


def test_no_enrichment_where_conditions_are_random() -> None:
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        condition = rng.permutation(np.repeat(["a", "b", "c"], 20))
        tree, sources = tree_of(crops(rng.integers(0, 3, 60))), crops(np.arange(60).astype(str))
        tests = enrichments(tree, crops(condition), sources, resamples=999)
        found += any(each.p_corrected < 0.05 for each in tests)
    assert found <= 3


def test_items_without_a_condition_are_left_out() -> None:
    condition = np.array(["a"] * 10 + ["b"] * 10 + [""] * 20)
    tests = enrichments(tree_of(np.repeat([0, 1, 0, 1], 10)), condition, np.arange(40).astype(str))
    assert {each.sources + each.other_sources for each in tests} == {20}


def test_a_source_with_two_conditions_is_refused() -> None:
    with pytest.raises(ValueError, match="source image s has two conditions"):
        enrichments(tree_of(np.array([0, 1])), ["a", "b"], ["s", "s"])


def test_one_condition_or_one_leaf_has_no_test() -> None:
    assert enrichments(tree_of(np.array([0, 0, 1, 1])), ["a"] * 4, list("wxyz")) == []


def test_differences_are_those_of_the_source_means() -> None:
    group = crops(np.repeat([0, 1], 10))
    sources = crops(np.arange(20).astype(str))
    rng = np.random.default_rng(0)
    area = np.where(group == 1, 3.0, 0.0) + crops(rng.normal(size=20))
    features = {"area": area, "constant": np.ones(80), "unknown": np.full(80, np.nan)}
    found = {(each.node, each.feature): each for each in differences(tree_of(group), features, sources)}
    means = area.reshape(20, CROPS).mean(axis=1)
    sd = np.sqrt((means[:10].var() + means[10:].var()) / 2)
    rising = [each for (_, name), each in found.items() if name == "area" and each.effect_size > 0]
    assert rising[0].effect_size == pytest.approx((means[10:].mean() - means[:10].mean()) / sd)
    assert rising[0].p_corrected < 0.01
    assert all(np.isnan(found["0.0", name].effect_size) for name in ("constant", "unknown"))
