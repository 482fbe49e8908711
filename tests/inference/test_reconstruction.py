"""Reconstruction of images of any size: only hidden patches are predicted, from a mask that a seed decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stedfm_hf.data import simulate_image
from stedfm_hf.images import StedImage
from stedfm_hf.inference.reconstruction import Autoencoder, hidden_errors, load_autoencoder, reconstruct_image
from stedfm_hf.runs import UserError


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    return load_autoencoder("demo", device="cpu")


def image_of(pixels: np.ndarray) -> StedImage:
    return StedImage(pixels, (20.0, 20.0), tuple(map(str, range(len(pixels)))), {}, "cell.tif", "image")


def test_visible_pixels_are_kept_and_hidden_ones_predicted(autoencoder: Autoencoder) -> None:
    image = image_of(simulate_image("fibres", seed=11, index=0)[None, :150, :101])
    made = reconstruct_image(autoencoder, image, seed=1, mask_ratio=0.5)
    hidden = np.ma.getmaskarray(made.seen)
    assert made.original.shape == made.predicted.shape == hidden.shape == (150, 101)
    assert np.array_equal(made.original, autoencoder.processor.prepare(image)[0])
    assert np.array_equal(made.predicted[~hidden], made.original[~hidden])
    assert (made.predicted[hidden] != made.original[hidden]).any()
    patches = hidden[:144, :96].reshape(18, 8, 12, 8)
    assert ((patches.sum(axis=(1, 3)) == 0) | (patches.sum(axis=(1, 3)) == 64)).all()
    assert 0.4 < hidden.mean() < 0.6 and made.pixel_size_nm == 20.0


def test_the_seed_decides_the_mask(autoencoder: Autoencoder) -> None:
    image = image_of(simulate_image("rings", seed=11, index=0)[None, :70, :70])
    first, again, other = (reconstruct_image(autoencoder, image, seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(first.predicted, again.predicted) and np.array_equal(first.seen.mask, again.seen.mask)
    assert not np.array_equal(first.seen.mask, other.seen.mask)
    whole = np.ma.getmaskarray(first.seen)[:64, :64]
    assert whole.mean() == 0.75


def test_a_tile_is_that_of_the_model(autoencoder: Autoencoder) -> None:
    image = image_of(simulate_image("rings", seed=12, index=0)[None, :64, :64])
    made = reconstruct_image(autoencoder, image, seed=2)
    mask = torch.from_numpy(np.ma.getmaskarray(made.seen)[::8, ::8].reshape(1, -1).copy())
    pixels = torch.from_numpy(made.original[None, None])
    with torch.inference_mode():
        output = autoencoder.model(pixels, bool_masked_pos=mask)
        expected = autoencoder.model.reconstruct(pixels, output)[0, 0].numpy()
    assert np.abs(made.predicted - expected).max() < 1e-6


def test_the_packaged_model_predicts_better_than_a_constant(autoencoder: Autoencoder) -> None:
    errors = [
        hidden_errors(reconstruct_image(autoencoder, image_of(simulate_image(name, seed=13, index=0)[None])))
        for name in ("rings", "fibres", "mitochondria")
    ]
    assert all(error < 0.9 * constant for error, constant in errors), errors


def test_masks_and_images_that_do_not_fit_are_refused(autoencoder: Autoencoder) -> None:
    image = image_of(np.ones((1, 64, 64), np.uint16))
    with pytest.raises(ValueError, match="a mask ratio of 0.001 keeps 63 of 64 patches|hide some, but not all"):
        reconstruct_image(autoencoder, image, mask_ratio=0.999)
    two = replace(image, array=np.ones((2, 64, 64)), channel_names=("a", "b"))
    with pytest.raises(ValueError, match="reconstructions need one channel"):
        reconstruct_image(autoencoder, two)
    with pytest.raises(UserError, match="no such folder"):
        load_autoencoder("nowhere")
