"""Samples of annotated crops: fractions, crops per class, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.labels.annotated import AnnotatedImages, from_arrays, sample_fraction, sample_per_class
from stedfm_hf.runs import UserError
from tests.labels.annotated.annotated_data import label_mask, sample_image


def crops(values: list[int], rows: int = 2) -> AnnotatedImages:
    """Return crops that show one class each, two per source image."""
    masks = [label_mask(*[value] * rows) for value in values]
    images = [sample_image(number) for number in range(len(values))]
    return from_arrays("cells", images, masks, sources=[f"s{number // 2}" for number in range(len(values))])


@given(count=st.integers(1, 40), percent=st.integers(1, 100), seed=st.integers(0, 3))
def test_a_fraction_is_the_start_of_a_shuffled_order(count: int, percent: int, seed: int) -> None:
    data = crops([1] * count)
    sample = sample_fraction(data, percent / 100, seed)
    assert len(sample) == max(1, percent * count // 100)
    assert set(sample.rows.tolist()) <= set(sample_fraction(data, 1.0, seed).rows.tolist())
    order = np.arange(count)
    np.random.default_rng(seed).shuffle(order)
    assert set(sample.rows.tolist()) == set(order[: len(sample)].tolist())


def test_samples_per_class() -> None:
    data = crops([1, 1, 1, 1, 2, 2, 0, 0])
    sample = sample_per_class(data, 3, seed=1)
    assert sample.counts()["class 1"] == 3 * 2 * 16 and sample.counts()["class 2"] == 2 * 2 * 16
    small = sample_per_class(data, 1, seed=1)
    assert set(small.rows.tolist()) <= set(sample.rows.tolist()) and len(small) == 2
    assert sample_per_class(data, 3, seed=1).fingerprint == sample.fingerprint
    with pytest.raises(UserError, match="no class covers more than 50 % of any crop"):
        sample_per_class(data, 1, seed=0, min_fraction=0.5)
    with pytest.raises(UserError, match="choose at least 1"):
        sample_per_class(data, 0, seed=0)
    with pytest.raises(UserError, match=r"not in \(0, 1\]"):
        sample_fraction(data, 0.0, seed=0)
