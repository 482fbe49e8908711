"""Sizes of planted batch effects, false alarms without an effect, and the definition of the size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from itertools import combinations
from typing import TypedDict

import numpy as np
import pytest

from stedfm_hf.metrics.batch_effects import BatchEffect, batch_effect, call_effects, paired_batch_effect

DIMENSION = 384
SOURCES = 40
"""Source images of each batch."""
CLASSES = 4


def embeddings(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Simulated embeddings, with class means 2 standard deviations apart; variances differ between dimensions."""
    centres = np.random.default_rng(7).normal(size=(CLASSES, DIMENSION)) * np.sqrt(2 / DIMENSION)
    scales = np.exp(-np.arange(DIMENSION) / 80)
    return centres[labels] + rng.normal(size=(len(labels), DIMENSION)) * scales / np.sqrt((scales**2).sum())


def displacement(rng: np.random.Generator, size: float) -> np.ndarray:
    """A vector of a given length in a random direction; the within-class standard deviation is 1."""
    direction = rng.normal(size=DIMENSION)
    return size * direction / np.linalg.norm(direction)


def batches(rng: np.random.Generator, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Batches of the same number of sources, with different mixes of classes."""
    mixes = [rng.dirichlet(np.full(CLASSES, 3.0)) for _ in range(count)]
    labels = np.concatenate([rng.choice(CLASSES, SOURCES, p=mix) for mix in mixes])
    return labels, np.repeat(np.arange(count), SOURCES)


def unpaired(seed: int, size: float, n_permutations: int = 99, n_resamples: int = 200) -> BatchEffect:
    """Effect of one of two batches, whose embeddings are displaced."""
    rng = np.random.default_rng(seed)
    labels, batch = batches(rng)
    values = embeddings(rng, labels) + batch[:, None] * displacement(rng, size)
    return batch_effect(values, batch, labels=labels, n_permutations=n_permutations, n_resamples=n_resamples)


def paired(seed: int, size: float, n_permutations: int = 99, n_resamples: int = 200) -> BatchEffect:
    """Effect of a change that displaces all embeddings, each a little differently."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, SOURCES)
    unchanged = embeddings(rng, labels)
    noise = 0.3 * (embeddings(rng, labels) - embeddings(rng, labels))
    changed = unchanged + noise + displacement(rng, size)
    return paired_batch_effect(
        unchanged, changed, labels=labels, n_permutations=n_permutations, n_resamples=n_resamples
    )


Design = Callable[..., BatchEffect]


class Quick(TypedDict):
    """Fewer permutations and resamples than by default."""

    n_permutations: int
    n_resamples: int


QUICK: Quick = {"n_permutations": 99, "n_resamples": 200}


@pytest.mark.parametrize("design", [unpaired, paired])
@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_a_planted_displacement_is_measured_within_10_percent(design: Design, size: float) -> None:
    """40 sources in each batch: 2 % for the mean of 12 seeds; for each seed 10 %, or 20 % for size 0.5."""
    found = [design(seed, size) for seed in range(12)]
    assert np.sqrt(np.mean([each.squared_size for each in found])) == pytest.approx(size, rel=0.02)
    assert [each.size for each in found] == pytest.approx([size] * 12, rel=0.1 if size >= 1 else 0.2)
    assert np.mean([each.low <= size <= each.high for each in found]) >= 0.75
    assert all(each.standard_deviation == pytest.approx(1.0, rel=0.05) for each in found)


@pytest.mark.parametrize("design", [unpaired, paired])
def test_without_an_effect_no_family_is_called_in_95_percent_of_40_runs(design: Design) -> None:
    """Four families in each run; batches have different mixes of classes."""
    calls, squared = [], []
    for run in range(40):
        effects = {
            str(family): design(100 * run + family, 0.0, n_permutations=499, n_resamples=50) for family in range(4)
        }
        calls.append(any(effect.called for effect in call_effects(effects).values()))
        squared += [effect.squared_size for effect in effects.values()]
    assert np.mean(calls) <= 0.05
    # Without bias: half of the estimates are below 0.
    assert abs(np.mean(squared)) < 3 * np.std(squared) / np.sqrt(len(squared))
    assert 0.3 < np.mean(np.array(squared) < 0) < 0.7


@pytest.mark.parametrize("design", [unpaired, paired])
def test_a_planted_effect_is_called_among_families_without_one(design: Design) -> None:
    effects = {
        str(family): design(family, 0.0 if family else 0.5, n_permutations=499, n_resamples=50) for family in range(4)
    }
    assert [name for name, effect in call_effects(effects).items() if effect.called] == ["0"]


def test_the_unpaired_size_is_the_mean_product_of_different_sources() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1
    pairs = [(i, j) for i in range(5) for j in range(4)]
    products = [
        (second[j] - first[i]) @ (second[n] - first[m]) for i, j in pairs for m, n in pairs if i != m and j != n
    ]
    variance = (5 * first.var(axis=0, ddof=1).sum() + 4 * second.var(axis=0, ddof=1).sum()) / 9
    found = batch_effect(np.concatenate([first, second]), np.repeat([0, 1], [5, 4]), **QUICK)
    assert found.squared_size == pytest.approx(np.mean(products) / variance)
    assert found.standard_deviation == pytest.approx(np.sqrt(variance))
    assert found.size == pytest.approx(np.sqrt(found.squared_size))


def test_the_paired_size_is_the_mean_product_of_different_sources() -> None:
    rng = np.random.default_rng(0)
    unchanged = rng.normal(size=(6, 3))
    moved = rng.normal(size=(6, 3)) + 1
    products = [moved[i] @ moved[j] for i in range(6) for j in range(6) if i != j]
    labels = np.array([0, 0, 0, 0, 1, 1])
    variance = (4 * unchanged[:4].var(axis=0, ddof=1).sum() + 2 * unchanged[4:].var(axis=0, ddof=1).sum()) / 6
    found = paired_batch_effect(unchanged, unchanged + moved, labels=labels, **QUICK)
    assert found.squared_size == pytest.approx(np.mean(products) / variance)


def test_more_batches_have_the_root_mean_square_of_their_pairs() -> None:
    rng = np.random.default_rng(0)
    labels, batch = batches(rng, 4)
    values = embeddings(rng, labels) + np.stack([displacement(rng, size) for size in (0.0, 0.5, 1.0, 2.0)])[batch]
    found = batch_effect(values, batch, labels=labels, **QUICK)
    squared = []
    for pair in combinations(range(4), 2):
        rows = np.isin(batch, pair)
        one = batch_effect(values[rows], batch[rows], labels=labels[rows], **QUICK)
        squared.append(one.squared_size * one.standard_deviation**2)
    assert found.squared_size * found.standard_deviation**2 == pytest.approx(np.mean(squared), rel=0.02)
    assert found.p_value == 0.01
    assert found.low < found.size < found.high


def test_different_classes_in_the_batches_are_not_an_effect() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 0, 1], [30, 10, 10, 30])
    values, batch = embeddings(rng, labels), np.repeat([0, 1], 40)
    ignored = batch_effect(values, batch, n_permutations=999)
    assert ignored.size > 0.5
    assert ignored.p_value < 0.01
    within = batch_effect(values, batch, labels=labels, n_permutations=999)
    assert within.size < 0.2
    assert within.p_value > 0.05


def test_different_variances_are_not_a_displacement() -> None:
    rng = np.random.default_rng(0)
    squared = [
        batch_effect(
            np.concatenate([rng.normal(size=(40, 20)), 3 * rng.normal(size=(8, 20))]),
            np.repeat([0, 1], [40, 8]),
            **QUICK,
        ).squared_size
        for _ in range(60)
    ]
    assert abs(np.mean(squared)) < 3 * np.std(squared) / np.sqrt(60)


def test_sources_are_the_units_not_crops() -> None:
    rng = np.random.default_rng(0)
    values, batch = rng.normal(size=(20, 8)), np.repeat(["a", "b"], 10)
    sources = np.array([f"source {number}" for number in range(20)])
    copies = rng.integers(1, 9, 20)
    repeated = batch_effect(
        values.repeat(copies, axis=0), batch.repeat(copies), sources=sources.repeat(copies), **QUICK
    )
    single = batch_effect(values[sources.argsort()], batch[sources.argsort()], **QUICK)
    assert repeated.size == pytest.approx(single.size)
    assert repeated.sources == 20
    paired_once = paired_batch_effect(values, values[::-1], **QUICK)
    paired_copies = paired_batch_effect(
        values.repeat(3, axis=0), values[::-1].repeat(3, axis=0), sources=np.arange(20).repeat(3), **QUICK
    )
    assert astuple(paired_copies)[:7] == pytest.approx(astuple(paired_once)[:7])


def test_the_size_has_no_unit_and_does_not_depend_on_rotation_or_origin() -> None:
    rng = np.random.default_rng(0)
    labels, batch = batches(rng)
    values = embeddings(rng, labels)
    rotation = np.linalg.qr(rng.normal(size=(DIMENSION, DIMENSION)))[0]
    found = batch_effect(values, batch, labels=labels, **QUICK)
    moved = batch_effect(1e-3 * values @ rotation + 50, batch, labels=labels, **QUICK)
    assert moved.size == pytest.approx(found.size, abs=1e-4)
    assert (moved.p_value, moved.low) == pytest.approx((found.p_value, found.low), abs=1e-4)


def test_an_effect_that_cannot_be_estimated_is_missing_with_a_reason() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 8))
    batch = np.repeat(["a", "b"], 10)
    confounded = batch_effect(values, batch, labels=batch)
    assert np.isnan([confounded.size, confounded.p_value, confounded.low]).all()
    assert confounded.reason is not None
    assert "cannot be separated" in confounded.reason
    assert batch_effect(values, ["a"] * 20).reason is not None
    assert batch_effect(np.ones((20, 8)), batch).reason == "no class has two sources with different embeddings"
    assert paired_batch_effect(np.ones((20, 8)), values).reason is not None
    assert paired_batch_effect(values[:1], values[:1]).reason is not None
    assert paired_batch_effect(values, values, labels=np.arange(20)).reason is not None
    called = call_effects({"confounded": confounded})
    assert not called["confounded"].called


def test_notes_name_what_was_left_out() -> None:
    rng = np.random.default_rng(0)
    batch = np.array(["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["d"])
    labels = np.array([0] * 10 + [1] * 6)
    notes = batch_effect(rng.normal(size=(16, 4)), batch, labels=labels, **QUICK).notes
    assert notes[0] == "1 sources left out, alone in their batch and class"
    assert (
        notes[1]
        == "not compared, without a class of which both have two sources: a and c, a and d, b and c and 2 other pairs"
    )
    few = paired_batch_effect(rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), **QUICK)
    assert few.notes == ("too few sources to call an effect: the p-value cannot be below 0.062",)
    assert few.p_value > 0.01


def test_an_unchanged_image_has_no_effect() -> None:
    values = np.random.default_rng(0).normal(size=(20, 8))
    same = paired_batch_effect(values, values)
    assert (same.size, same.squared_size, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_wrong_input_is_refused() -> None:
    values = np.zeros((4, 2))
    with pytest.raises(ValueError, match="more than one batch, such as a and b; measure images"):
        batch_effect(values, ["a", "b", "a", "b"], sources=["s", "s", "t", "t"])
    with pytest.raises(ValueError, match="more than one class, such as x and y"):
        batch_effect(values, ["a", "a", "b", "b"], sources=["s", "s", "t", "t"], labels=["x", "y", "x", "x"])
    with pytest.raises(ValueError, match="before and after"):
        paired_batch_effect(values, values[:3])
    with pytest.raises(ValueError, match="4 embeddings but 3 names of their batch"):
        batch_effect(values, ["a", "b", "a"])
    with pytest.raises(ValueError, match="4 embeddings but 2 sources"):
        batch_effect(values, ["a", "b", "a", "b"], sources=["s", "t"])
    with pytest.raises(ValueError, match="finite"):
        paired_batch_effect(values, np.full((4, 2), np.nan))
