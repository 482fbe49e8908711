"""The time limit stops the forward passes of models."""

from __future__ import annotations

import numpy as np
import pytest

from stedfm_hf.inference.limits import StoppedError, time_limit, watch
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.modeling.tiling_stedfm import encode_images
from tests.models import pixels, tiny_config


def test_a_computation_that_takes_too_long_is_stopped() -> None:
    model, image = StedFmModel(tiny_config()).eval(), np.zeros((1, 32, 32), np.float32)
    watch(model.base_model.encoder)
    assert len(list(encode_images(model, [image]))) == 1  # without a limit
    with time_limit(60.0):
        assert len(list(encode_images(model, [image]))) == 1
    with time_limit(-1.0), pytest.raises(StoppedError, match="took more than -1 s and was stopped"):
        list(encode_images(model, [image]))
    with time_limit(60.0, lambda: True), pytest.raises(StoppedError, match="the visit has ended"):
        list(encode_images(model, [image]))


def test_a_masked_autoencoder_is_stopped_too() -> None:
    model = StedFmForPreTraining(tiny_config()).eval()
    watch(model.base_model.encoder)
    with time_limit(-1.0), pytest.raises(StoppedError):
        model(pixels(1))
