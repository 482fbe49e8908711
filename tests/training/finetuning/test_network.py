"""Standardisation of the input of a new encoder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from stedfm_hf import StedFmModel
from stedfm_hf.training.finetuning.network import standardise_by
from tests.models import tiny_config


def test_pixels_are_standardised_with_images_that_are_read_one_at_a_time() -> None:
    rng = np.random.default_rng(0)
    images = [rng.random((1, 8, 8 + number), np.float32) for number in range(3)]
    encoder = StedFmModel(tiny_config())
    before = encoder.embeddings.patch_embeddings.weight.detach().clone()

    def read() -> Iterator[np.ndarray]:
        yield from images

    standardise_by(encoder, read())
    std = np.concatenate([image.ravel() for image in images]).std()
    ratio = before / encoder.embeddings.patch_embeddings.weight.detach()
    assert ratio.median().item() == pytest.approx(std, rel=1e-4) and torch.isfinite(ratio).all()
