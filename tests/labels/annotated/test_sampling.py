"""Draws are what was asked for; splits keep sources on one side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.labels.annotated import AnnotatedImages, from_arrays, sample_fraction, sample_per_class
from stedfm_hf.runs import UserError
from tests.labels.annotated.annotated_data import label_mask, picture


def crops(values: list[int], rows: int = 2) -> AnnotatedImages:
    """Crops that show one class each, two of a source."""
    masks = [label_mask(*[value] * rows) for value in values]
    images = [picture(number) for number in range(len(values))]
    return from_arrays("cells", images, masks, sources=[f"s{number // 2}" for number in range(len(values))])


@given(count=st.integers(1, 40), percent=st.integers(1, 100), seed=st.integers(0, 3))
def test_a_share_is_the_first_of_a_shuffled_order(count: int, percent: int, seed: int) -> None:
    data = crops([1] * count)
    drawn = sample_fraction(data, percent / 100, seed)
    assert len(drawn) == max(1, percent * count // 100)
    assert set(drawn.rows.tolist()) <= set(sample_fraction(data, 1.0, seed).rows.tolist())
    order = np.arange(count)
    np.random.default_rng(seed).shuffle(order)
    assert set(drawn.rows.tolist()) == set(order[: len(drawn)].tolist())


def test_a_few_of_every_class() -> None:
    data = crops([1, 1, 1, 1, 2, 2, 0, 0])
    drawn = sample_per_class(data, 3, seed=1)
    assert drawn.counts()["class 1"] == 3 * 2 * 16 and drawn.counts()["class 2"] == 2 * 2 * 16
    small = sample_per_class(data, 1, seed=1)
    assert set(small.rows.tolist()) <= set(drawn.rows.tolist()) and len(small) == 2
    assert sample_per_class(data, 3, seed=1).fingerprint == drawn.fingerprint
    with pytest.raises(UserError, match="no crop shows any class on more than 50 %"):
        sample_per_class(data, 1, seed=0, least=0.5)
    with pytest.raises(UserError, match="too few"):
        sample_per_class(data, 0, seed=0)
    with pytest.raises(UserError, match="no share"):
        sample_fraction(data, 0.0, seed=0)
