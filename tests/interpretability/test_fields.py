from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf import StedFmImageProcessor, StedFmModel
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.interpretability.explainers import patch_tokens
from stedfm_hf.interpretability.fields import Tiles, tiles_of
from stedfm_hf.modeling.blending_stedfm import tile_starts
from stedfm_hf.modeling.image_processing_stedfm import pad_to_multiple
from stedfm_hf.runs import UserError
from tests.models import tiny_config


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(StedFmModel(tiny_config()).eval(), StedFmImageProcessor(), "tiny", "0")


def field(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((1, height, width), np.float32)


def mean_of_patches(batch: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(batch, 8)


@given(height=st.integers(1, 90), width=st.integers(1, 90), overlap=st.sampled_from([0, 8, 16, 24]))
def test_what_does_not_depend_on_the_tile_is_not_changed_by_tiles(height: int, width: int, overlap: int) -> None:
    pixels = field(height, width)
    found = Tiles(8, 32, overlap, 3).blend(mean_of_patches, pixels)
    expected = mean_of_patches(torch.from_numpy(pad_to_multiple(pixels, 8)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_image_that_fits_into_a_tile_is_computed_whole() -> None:
    loaded, pixels = encoder(), field(30, 27)
    with torch.no_grad():
        tokens = loaded.model(torch.from_numpy(pad_to_multiple(pixels, 8))[None]).last_hidden_state[0, 1:]
    for size in (32, None):
        found = patch_tokens(loaded, Tiles(8, size, 16), pixels)
        np.testing.assert_allclose(found.reshape(32, -1).T, tokens, atol=1e-6)


def test_where_one_tile_counts_the_field_has_the_values_of_that_tile() -> None:
    loaded, pixels, tiles = encoder(), field(80, 56), Tiles(8, 32, 8)
    found = patch_tokens(loaded, tiles, pixels)
    for top in tile_starts(10, 4, 1):
        for left in tile_starts(7, 4, 1):
            tile = np.ascontiguousarray(pixels[:, top * 8 : top * 8 + 32, left * 8 : left * 8 + 32])
            alone = patch_tokens(loaded, tiles, tile)
            # The second and third patch in each direction lie in no other tile where tiles overlap by one patch.
            inside = np.s_[:, 1:3, 1:3]
            if top in (0, 3, 6) and left in (0, 3):
                np.testing.assert_allclose(
                    found[:, top + 1 : top + 3, left + 1 : left + 3], alone[inside], atol=1e-5, err_msg=f"{top} {left}"
                )


def test_the_batch_size_does_not_matter() -> None:
    loaded, pixels = encoder(), field(60, 100)
    one, many = (patch_tokens(loaded, Tiles(8, 32, 16, size), pixels) for size in (1, 5))
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_the_tile_around_a_patch_lies_in_the_image() -> None:
    tiles, pixels = Tiles(8, 32, 16), field(70, 30)
    for row, top in ((0, 0), (2, 0), (4, 2), (8, 5)):
        tile, at, left = tiles.around(pixels, row, 3)
        assert (at, left, tuple(tile.shape)) == (top, 0, (1, 1, 32, 32))
    whole = pad_to_multiple(pixels, 8)[:, 40:72]
    np.testing.assert_array_equal(tile[0], whole)


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [(30, None, "tile size 30"), ("auto", 12, "tile overlap 12"), (32, 32, "overlap 32"), (None, 8, "--tile-overlap")],
)
def test_tiles_that_do_not_fit_the_patches_are_refused(size: Any, overlap: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiles_of(encoder(), size, overlap, 8)
