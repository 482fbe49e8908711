"""Windows over a field: every pixel counts once, no seam is left, and memory depends on the width alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stedfm_hf import StedFmForSemanticSegmentation
from stedfm_hf.modeling.blending_stedfm import blend_tiles, segment_image, tile_starts, tile_weights
from tests.models import tiny_config

Predict = Callable[[torch.Tensor], torch.Tensor]


def whole(predict: Predict, field: np.ndarray, **changes: int) -> np.ndarray:
    arguments: dict[str, Any] = {"tile_size": 32, "tile_overlap": 16, "multiple": 8, "batch_size": 3, **changes}
    bands = list(blend_tiles(predict, lambda top, bottom: field[:, top:bottom], field.shape[1:], **arguments))
    assert [top for top, _ in bands] == list(np.cumsum([0, *(band.shape[1] for _, band in bands[:-1])]))
    return np.concatenate([band for _, band in bands], axis=1)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, height, width), dtype=np.float32)


@given(length=st.integers(1, 400), tile_size=st.integers(2, 64), tile_overlap=st.integers(0, 63))
def test_weights_sum_to_one_at_every_pixel(length: int, tile_size: int, tile_overlap: int) -> None:
    tile_overlap = min(tile_overlap, tile_size - 1)
    starts, weights = tile_starts(length, tile_size, tile_overlap), tile_weights(length, tile_size, tile_overlap)
    total = np.zeros(max(length, tile_size))
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile_size] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert starts == sorted(set(starts)) and starts[-1] + tile_size >= length and (weights >= 0).all()


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 120), width=st.integers(1, 120), batch_size=st.integers(1, 9))
def test_a_constant_model_gives_a_constant_field(height: int, width: int, batch_size: int) -> None:
    found = whole(lambda x: torch.full((len(x), 2, *x.shape[2:]), 0.7), noise(height, width), batch_size=batch_size)
    assert found.shape == (2, height, width) and found.dtype == np.float32
    np.testing.assert_allclose(found, 0.7, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(height=st.integers(3, 120), width=st.integers(3, 120), seed=st.integers(0, 99))
def test_a_model_that_moves_with_the_image_gives_the_same_in_tiles(height: int, width: int, seed: int) -> None:
    """Three 3 x 3 convolutions see 3 pixels far: the discarded quarter of the overlap, 4 pixels, hides the borders."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)))
    field = noise(height, width, seed)
    with torch.no_grad():
        expected = network(torch.from_numpy(field)[None])[0].numpy()
    inner = np.s_[:, 3:-3, 3:-3]
    np.testing.assert_allclose(whole(network, field)[inner], expected[inner], atol=1e-5)


def test_batches_do_not_change_the_maps() -> None:
    torch.manual_seed(0)
    model = StedFmForSemanticSegmentation(tiny_config(num_labels=2)).eval()
    field = noise(75, 101)
    one, many = (segment_image(model, field, batch_size=size) for size in (1, 7))
    assert one.shape == (2, 75, 101)
    np.testing.assert_allclose(one, many, atol=1e-5)
    np.testing.assert_allclose(one.sum(axis=0), 1, atol=1e-5)


def test_a_field_as_large_as_a_window_is_the_model_itself() -> None:
    torch.manual_seed(0)
    model = StedFmForSemanticSegmentation(tiny_config(num_labels=2)).eval()
    field = noise(32, 32)
    with torch.no_grad():
        expected = model.probabilities(model(torch.from_numpy(field)[None]).logits)[0].numpy()
    np.testing.assert_allclose(segment_image(model, field), expected, atol=1e-6)


def test_only_the_rows_of_a_window_are_asked_for() -> None:
    asked = []

    def rows(top: int, bottom: int) -> np.ndarray:
        asked.append((top, bottom))
        return np.zeros((1, bottom - top, 50), np.float32)

    list(blend_tiles(lambda x: x, rows, (1000, 50), tile_size=32, tile_overlap=16, multiple=8))
    assert len(asked) == 62 and all(bottom - top == 32 for top, bottom in asked)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tile_size": 20}, "multiple of the patch size 8"),
        ({"tile_overlap": 32}, "smaller than tile_size 32"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_windows_that_cannot_be_are_refused(changes: dict[str, int], match: str) -> None:
    model = StedFmForSemanticSegmentation(tiny_config()).eval()
    with pytest.raises(ValueError, match=match):
        segment_image(model, noise(40, 40), **changes)
