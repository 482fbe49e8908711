from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf import StedFmForPreTraining, StedFmModel
from stedfm_hf.modeling.image_processing_stedfm import pad_to_multiple
from stedfm_hf.modeling.tiling_stedfm import encode_images, patch_coverage, plan_tiles
from tests.models import tiny_config


@pytest.fixture(scope="module")
def model() -> StedFmModel:
    torch.manual_seed(0)
    return StedFmModel(tiny_config()).eval()


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, height, width), dtype=np.float32)


def tokens(model: StedFmModel, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(pixels)[None]).last_hidden_state[0].numpy()


@given(st.integers(1, 30), st.integers(1, 30), st.one_of(st.none(), st.integers(1, 9)))
def test_every_patch_is_new_exactly_once(rows: int, cols: int, side: int | None) -> None:
    seen = np.zeros((rows, cols), dtype=int)
    for tile in plan_tiles(rows, cols, side):
        assert (tile.rows, tile.cols) == (min(side or rows, rows), min(side or cols, cols))
        seen[tile.row + tile.new_row : tile.row + tile.rows, tile.col + tile.new_col : tile.col + tile.cols] += 1
    assert (seen == 1).all()


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 20))
def test_coverage_counts_every_pixel_of_the_image_and_no_other(height: int, width: int, patch: int) -> None:
    coverage = patch_coverage(height, width, patch)
    assert coverage.shape == (-(-height // patch), -(-width // patch))
    assert coverage.sum() * patch * patch == pytest.approx(height * width, rel=1e-5)
    assert (coverage > 0).all() and (coverage <= 1).all()


def test_a_crop_gives_what_the_model_gives(model: StedFmModel) -> None:
    pixels = image(32, 32)
    expected = tokens(model, pixels)
    (avg,), (token,), (patch,) = (list(encode_images(model, [pixels], pooling=p)) for p in ("avg", "token", "patch"))
    np.testing.assert_allclose(avg, expected[1:].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(token, expected[0], atol=1e-6)
    np.testing.assert_allclose(patch.reshape(16, 32), expected[1:], atol=1e-6)


def test_large_images_are_the_mean_of_their_patches(model: StedFmModel) -> None:
    pixels = image(50, 75)
    (patches,) = encode_images(model, [pixels], pooling="patch")
    (vector,) = encode_images(model, [pixels])
    coverage = patch_coverage(50, 75, 8)
    assert patches.shape == (*coverage.shape, 32) == (7, 10, 32)
    np.testing.assert_allclose(
        vector, np.average(patches.reshape(70, 32), axis=0, weights=coverage.ravel()), atol=1e-6
    )
    corner = tokens(model, pixels[:, :32, :32])[1:].reshape(4, 4, 32)
    np.testing.assert_allclose(patches[:4, :4], corner, atol=1e-6)
    last = tokens(model, pad_to_multiple(pixels, 8)[:, -32:, -32:])[1:].reshape(4, 4, 32)
    np.testing.assert_allclose(patches[4:, 8:], last[1:, 2:], atol=1e-6)


def test_padding_weighs_nothing(model: StedFmModel) -> None:
    pixels = image(1, 1)
    (vector,) = encode_images(model, [pixels])
    np.testing.assert_allclose(vector, tokens(model, pad_to_multiple(pixels, 8))[1], atol=1e-6)


def test_whole_images_without_tiles(model: StedFmModel) -> None:
    pixels = image(64, 48)
    (vector,) = encode_images(model, [pixels], tile_size=None)
    np.testing.assert_allclose(vector, tokens(model, pixels)[1:].mean(axis=0), atol=1e-6)


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), max_size=8), st.integers(1, 5))
def test_batching_changes_neither_order_nor_vectors(
    model: StedFmModel, sizes: list[tuple[int, int]], batch_size: int
) -> None:
    images = [image(*size, seed=index) for index, size in enumerate(sizes)]
    together = list(encode_images(model, images, batch_size=batch_size))
    assert len(together) == len(images)
    for pixels, vector in zip(images, together, strict=True):
        (alone,) = encode_images(model, [pixels], batch_size=64)
        np.testing.assert_allclose(vector, alone, atol=1e-5)


def test_images_are_taken_as_they_come(model: StedFmModel) -> None:
    """A folder of a million images must not be read before the first vector is out."""
    taken = []

    def source() -> Iterator[np.ndarray]:
        for index in range(100):
            taken.append(index)
            yield image(32, 32, index)

    next(encode_images(model, source(), batch_size=4))
    assert len(taken) == 4


def test_a_task_model_lends_its_encoder(model: StedFmModel) -> None:
    autoencoder = StedFmForPreTraining(tiny_config()).eval()
    autoencoder.stedfm.load_state_dict(model.state_dict())
    pixels = image(40, 40)
    first, second = (next(encode_images(m, [pixels])) for m in (model, autoencoder))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"pooling": "max"}, "pooling"), ({"tile_size": 12}, "multiple"), ({"tile_size": 0}, "multiple")],
)
def test_mistakes_are_named(model: StedFmModel, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(encode_images(model, [image(8, 8)], **kwargs))  # type: ignore[arg-type]
