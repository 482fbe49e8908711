from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stedfm_hf import StedFmUNet

SMALL: dict[str, Any] = {"sample_size": 32, "base_channels": 8, "condition_dim": 12, "num_classes": 3}


def small_unet(**changes: Any) -> StedFmUNet:
    torch.manual_seed(0)
    return StedFmUNet(**{**SMALL, **changes}).eval()


def noisy(batch: int = 2, size: int = 32, channels: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch_size": 2},
        {"patch_size": 4, "channel_multipliers": (1, 2)},
        {"channel_multipliers": (1,), "memory_tokens": 0},
        {"channel_multipliers": (1, 1, 2, 3), "attention_heads": 2, "attention_head_dim": 5},
        {"in_channels": 2, "out_channels": 4, "patch_size": 2},
    ],
)
def test_every_width_and_patch_size_keeps_the_size_of_images(changes: dict[str, Any]) -> None:
    unet = small_unet(**changes)
    sample = noisy(channels=unet.config.in_channels)
    output = unet(sample, 5, torch.randn(2, 12)).sample
    assert output.shape == (2, unet.config.out_channels, 32, 32)
    assert torch.equal(unet(sample, 5, return_dict=False)[0], unet(sample, torch.tensor([5, 5])).sample)


def test_a_condition_is_standardised_and_can_be_masked() -> None:
    unet, sample = small_unet(), noisy()
    condition, labels = torch.randn(2, 12), torch.tensor([2, -1])
    unet.condition_mean.fill_(3.0)
    unet.condition_std.fill_(0.5)
    moved = unet(sample, 9, condition * 0.5 + 3.0).sample
    unet.condition_mean.zero_()
    unet.condition_std.fill_(1.0)
    torch.testing.assert_close(moved, unet(sample, 9, condition).sample, rtol=0, atol=1e-5)
    nothing = unet(sample, 9).sample
    by_class = unet(sample, 9, class_labels=labels).sample
    assert not torch.allclose(by_class[0], nothing[0])
    torch.testing.assert_close(by_class[1], nothing[1])
    both = unet(sample, 9, condition, labels, condition_mask=torch.tensor([False, False])).sample
    torch.testing.assert_close(both, nothing)


def test_every_weight_gets_a_gradient_even_if_all_conditions_are_masked() -> None:
    unet = small_unet().train()
    mask = torch.zeros(2, dtype=torch.bool)
    unet(noisy(), 3, torch.randn(2, 12), torch.tensor([0, 1]), mask).sample.sum().backward()
    assert [name for name, weight in unet.named_parameters() if weight.grad is None] == []


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        unet = small_unet().train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet(noisy(), 3, torch.ones(2, 12)).sample.square().sum().backward()
        gradients.append(unet.conv_in.weight.grad)
    torch.testing.assert_close(*gradients)


def test_a_saved_network_is_the_same(tmp_path: Path) -> None:
    unet = small_unet(patch_size=2)
    unet.condition_mean.fill_(0.3)
    unet.save_pretrained(tmp_path)
    again = StedFmUNet.from_pretrained(tmp_path)
    assert torch.equal(again.condition_mean, unet.condition_mean)
    assert again.size_multiple == unet.size_multiple == 8
    assert torch.equal(again(noisy(), 3, torch.ones(2, 12)).sample, unet(noisy(), 3, torch.ones(2, 12)).sample)


def test_half_precision_runs() -> None:
    unet = small_unet().to(torch.bfloat16)
    sample = noisy().to(torch.bfloat16)
    assert unet(sample, torch.tensor([1, 2]), torch.ones(2, 12), torch.tensor([0, 1])).sample.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample": noisy(size=30)}, "height 30 and width 30 must be multiples of 4"),
        ({"sample": noisy(size=0)}, "must be multiples"),
        ({"sample": noisy(channels=2)}, r"sample must be \(batch, 1, height, width\)"),
        ({"condition": torch.zeros(2, 13)}, r"condition must be \(2, 12\), got \(2, 13\)"),
        ({"condition": torch.zeros(1, 12)}, r"condition must be \(2, 12\)"),
        ({"class_labels": torch.zeros(2)}, r"class_labels must be \(2,\) integers"),
    ],
)
def test_wrong_inputs_are_explained(arguments: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_unet()(**{"sample": noisy(), "timestep": 1, **arguments})


def test_conditions_of_other_networks_are_refused() -> None:
    plain = small_unet(condition_dim=None, num_classes=None)
    with pytest.raises(ValueError, match="None for this network"):
        plain(noisy(), 1, torch.zeros(2, 12))
    with pytest.raises(ValueError, match="not conditioned on classes"):
        plain(noisy(), 1, class_labels=torch.tensor([0, 0]))
