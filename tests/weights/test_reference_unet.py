from __future__ import annotations

import pytest
import torch

from stedfm_hf.runs.errors import UserError
from stedfm_hf.weights.reference_unet import is_unet, translate_unet
from tests import parity

TIMESTEPS = torch.tensor([7, 731])


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in parity.results("unet").items()}


@pytest.mark.parametrize("conditioning", ["latent", "class"])
def test_predictions_equal_those_of_the_reference(conditioning: str, expected: dict[str, torch.Tensor]) -> None:
    translation = translate_unet(parity.unet_state_dict(conditioning), "checkpoint")
    unet = translation.model()
    sample = parity.standard_normal("unet_x", 2, 1, 64, 64)
    if conditioning == "latent":
        condition = {"condition": parity.standard_normal("unet_latent", 2, 384)}
    else:
        condition = {"class_labels": torch.tensor([6, 19])}
    with torch.no_grad():
        conditional = unet(sample, TIMESTEPS, **condition).sample
        unconditional = unet(sample, TIMESTEPS).sample
        masked = unet(sample, TIMESTEPS, **condition, condition_mask=torch.tensor([True, False])).sample
    torch.testing.assert_close(conditional, expected[conditioning], rtol=0, atol=2e-5)
    torch.testing.assert_close(unconditional, expected[f"{conditioning}_unconditional"], rtol=0, atol=2e-5)
    assert (conditional - unconditional).abs().max() > 0.1
    torch.testing.assert_close(masked, torch.stack([conditional[0], unconditional[1]]))


def test_the_unused_conditioning_is_left_out() -> None:
    latent = translate_unet(parity.unet_state_dict(), "checkpoint")
    assert (latent.conditioning, latent.config["condition_dim"]) == ("embedding", 384)
    assert set(latent.dropped) == {"label_embed.weight"}
    by_class = translate_unet(parity.unet_state_dict("class"), "checkpoint")
    assert (by_class.conditioning, by_class.config["num_classes"]) == ("class", 24)
    assert all(key.startswith("cond_mlp.") for key in by_class.dropped) and len(by_class.dropped) == 4


def test_the_size_is_that_of_the_paper() -> None:
    parameters = translate_unet(parity.unet_state_dict(), "checkpoint").model().num_parameters()
    assert parameters == 9_689_473 - 4 * 256


def test_other_widths_are_found_in_the_shapes() -> None:
    from stedfm_hf import StedFmUNet

    translation = translate_unet(parity.unet_state_dict(), "checkpoint")
    assert StedFmUNet(**translation.config).config.channel_multipliers == (1, 2, 4)
    assert StedFmUNet(**translation.config).config.base_channels == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mid_attn.norm.g": None}, "1 missing .*mid_block.attention.norm.weight"),
        ({"extra.weight": torch.zeros(2)}, "1 unexpected .*extra.weight"),
        ({"final_conv.weight": torch.zeros(1, 32, 1, 1)}, "final_conv.weight is .*does not fit"),
        ({"init_conv.bias": torch.full((64,), float("nan"))}, "init_conv.bias holds NaN"),
        ({"mid_attn.mem_kv": torch.zeros(2)}, "not those of a diffusion model"),
    ],
)
def test_wrong_weights_are_refused(changes: dict[str, torch.Tensor | None], message: str) -> None:
    state = {**parity.unet_state_dict(), **changes}
    with pytest.raises(UserError, match=message):
        translate_unet({key: tensor for key, tensor in state.items() if tensor is not None}, "checkpoint")


def test_other_models_are_not_taken_for_one() -> None:
    assert is_unet(parity.unet_state_dict())
    assert not is_unet(parity.classifier_state_dict())
