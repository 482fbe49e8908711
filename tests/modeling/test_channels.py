from __future__ import annotations

from typing import Any

import pytest
import torch

from stedfm_hf import StedFmForPreTraining, StedFmModel, adapt_channels
from tests.models import pixels, tiny_config


def test_equal_channels_give_the_old_result_with_mean() -> None:
    torch.manual_seed(0)
    model, image = StedFmModel(tiny_config()).eval(), pixels()
    before = model(image).last_hidden_state
    after = adapt_channels(model, 3)(image.expand(-1, 3, -1, -1)).last_hidden_state
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_one_channel_among_dark_ones_gives_the_old_result_with_sum() -> None:
    torch.manual_seed(0)
    model, image = StedFmModel(tiny_config()).eval(), pixels()
    before = model(image).last_hidden_state
    wide = torch.zeros(2, 4, 32, 32)
    wide[:, 2:3] = image
    torch.testing.assert_close(adapt_channels(model, 4, "sum")(wide).last_hidden_state, before, rtol=1e-4, atol=1e-5)


def test_two_channels_repeated_make_one_after_the_other() -> None:
    model = StedFmModel(tiny_config(num_channels=2))
    old = model.embeddings.patch_embeddings.weight.unflatten(1, (-1, 2)).clone()
    new = adapt_channels(model, 3, "repeat").embeddings.patch_embeddings.weight.unflatten(1, (-1, 3))
    assert torch.equal(new, old[:, :, [0, 1, 0]])


def test_the_autoencoder_predicts_every_channel() -> None:
    torch.manual_seed(0)
    model, image, noise = StedFmForPreTraining(tiny_config()).eval(), pixels(), torch.rand(2, 16)
    before = model.reconstruct(image, model(image, noise=noise))
    wide = image.expand(-1, 2, -1, -1)
    adapt_channels(model, 2)
    after = model.reconstruct(wide, model(wide, noise=noise))
    torch.testing.assert_close(after, before.expand(-1, 2, -1, -1), rtol=1e-4, atol=1e-5)
    assert model.config.num_channels == 2


@pytest.mark.parametrize(("channels", "how"), [(0, "mean"), (2, "median")])
def test_mistakes_are_named(channels: int, how: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        adapt_channels(StedFmModel(tiny_config()), channels, how)
