"""How much a training changed the token at each position: cosine similarity between two models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from stedfm_hf.modeling.modeling_stedfm import StedFmPreTrainedModel
from stedfm_hf.runs import UserError


@torch.no_grad()
def token_similarity(
    model_a: StedFmPreTrainedModel,
    model_b: StedFmPreTrainedModel,
    pixel_values: torch.Tensor,
    include_class_token: bool = False,
) -> torch.Tensor:
    """Compare the tokens of two models at each position of images, such as before and after fine-tuning.

    Args:
        model_a: Model that holds an encoder, on its device and in its precision.
        model_b: Another one, with the same width, patch size and channels.
        pixel_values: Images (B, C, H, W) float in [0, 1]; H and W are any multiples of the patch size.
        include_class_token: Whether the class token is compared too; it comes first.

    Returns:
        Cosine similarity (B, N) in [-1, 1], or (B, 1 + N) with the class token, patches in raster order; float32 on
        the CPU.

    Raises:
        UserError: If tokens of the two models cannot be compared.

    Source:
        Reference protocol, which includes the class token in the distribution over images.

    Example:
        >>> from stedfm_hf import StedFmConfig, StedFmModel
        >>> model = StedFmModel(StedFmConfig(num_hidden_layers=1))
        >>> token_similarity(model, model, torch.rand(1, 1, 32, 32)).numpy().round(4).tolist()
        [[1.0, 1.0, 1.0, 1.0]]
    """
    for name in ("hidden_size", "patch_size", "num_channels"):
        one, two = getattr(model_a.config, name), getattr(model_b.config, name)
        if one != two:
            raise UserError(
                f"tokens of models with {name} {one} and {two} cannot be compared; give two models of one architecture"
            )
    first = 0 if include_class_token else 1
    tokens = [_tokens(model, pixel_values)[:, first:].numpy() for model in (model_a, model_b)]
    return torch.from_numpy(compare_tokens(*tokens))


def compare_tokens(tokens_a: np.ndarray, tokens_b: np.ndarray) -> np.ndarray:
    """Compute the cosine similarity of tokens at the same position.

    Args:
        tokens_a: Tokens (..., D).
        tokens_b: Tokens (..., D) of the other model.

    Returns:
        (...,) float32 in [-1, 1]; 0 for tokens of zeros.

    Raises:
        UserError: If the shapes differ.

    Example:
        >>> compare_tokens(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [-1.0, 1.0]])).tolist()
        [1.0, 0.0]
    """
    if tokens_a.shape != tokens_b.shape:
        raise UserError(f"tokens of shape {tokens_a.shape} and {tokens_b.shape} cannot be compared at each position")
    one, two = (torch.from_numpy(np.asarray(each, np.float64)) for each in (tokens_a, tokens_b))
    similarity: np.ndarray = torch.cosine_similarity(one, two, dim=-1).clamp(-1, 1).float().numpy()
    return similarity


def _tokens(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    tokens: torch.Tensor = model.base_model(pixel_values.to(model.device)).last_hidden_state.float().cpu()
    return tokens
