"""A model small enough for every test: 32 px crops, 8 px patches, two layers of width 32."""

from __future__ import annotations

from typing import Any

import torch

from stedfm_hf import StedFmConfig

TINY: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 32,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}


def tiny_config(**changes: Any) -> StedFmConfig:
    """The configuration, with `changes`."""
    return StedFmConfig(**{**TINY, **changes})


def pixels(batch: int = 2, height: int = 32, width: int = 32, channels: int = 1, seed: int = 0) -> torch.Tensor:
    """Random input (batch, channels, height, width) in [0, 1)."""
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
