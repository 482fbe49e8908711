"""Tiny models of several architectures, with weights that are not at their initial values."""

from __future__ import annotations

from typing import Any

import torch

from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from tests.models import tiny_config

ARCHITECTURE_CHANGES: dict[str, dict[str, Any]] = {
    "64-p8": {**ARCHITECTURES["stedfm-vit-64-p8"], "num_hidden_layers": 2},
    "tiny-p16": {**ARCHITECTURES["stedfm-vit-tiny"], "image_size": 64, "patch_size": 16, "num_hidden_layers": 2},
}
"""Sizes of `stedfm-vit-64-p8` and of the family with patches of 16 pixels, with two layers."""


def trained(model_class: type[Any], architecture: str = "64-p8", **changes: Any) -> Any:
    """Return a model in evaluation mode, all of whose weights and statistics differ from their initial values."""
    torch.manual_seed(0)
    model = model_class(tiny_config(**{**ARCHITECTURE_CHANGES[architecture], **changes}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value += 0.1 * torch.rand(value.shape, generator=generator) - 0.05
    return model.eval()


def difference(found: Any, expected: Any) -> float:
    """Return the largest absolute difference of two tensors of equal shape."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max())
