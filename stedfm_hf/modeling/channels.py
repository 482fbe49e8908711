"""Adapt models to a different number of channels."""

from typing import Literal, cast

import torch
from torch import nn

from .decoders_stedfm import StedFmConvBlock, StedFmUnetrDecoder
from .layers_stedfm import StedFmEmbeddings, StedFmPatchEmbeddings
from .modeling_stedfm import StedFmPreTrainedModel
from .modeling_stedfm_mae import StedFmDecoder


@torch.no_grad()
def adapt_channels(
    model: StedFmPreTrainedModel, num_channels: int, how: Literal["sum", "mean", "repeat"] = "mean"
) -> StedFmPreTrainedModel:
    """Change the number of input channels of a model in place, and keep its learned weights.

    Args:
        model: Any STED-FM model. The decoder of a masked autoencoder predicts the same pixels for every channel.
        num_channels: New number of channels.
        how: `"mean"` divides the summed old weights among the new channels, so that equal channels give the old
            result; `"sum"` gives every new channel the summed old weights; `"repeat"` repeats the old channels without
            rescaling.

    Returns:
        The same model.

    Raises:
        ValueError: For fewer than one channel or an unknown `how`.

    Example:
    ```python
    >>> from stedfm_hf import StedFmConfig, StedFmModel, adapt_channels
    >>> adapt_channels(StedFmModel(StedFmConfig(num_hidden_layers=1)), 2, how="mean").config.num_channels
    2

    ```
    """
    if num_channels < 1:
        raise ValueError(f"num_channels must be at least 1, got {num_channels}")
    if how not in ("sum", "mean", "repeat"):
        raise ValueError(f'how must be "sum", "mean" or "repeat", got {how!r}')
    before = model.config.num_channels
    turn = torch.arange(num_channels) % before
    for module in list(model.modules()):
        if isinstance(module, StedFmEmbeddings):
            old = module.patch_embeddings
            # (D, p * p, C): the channel is the last axis inside a patch.
            weight = _adapted(old.weight.unflatten(1, (-1, before)), 2, num_channels, how)
            new = StedFmPatchEmbeddings(weight.shape[1] * num_channels, old.out_features)
            new.weight, new.bias = _like(old.weight, weight.flatten(1)), old.bias
            module.patch_embeddings = new
        elif isinstance(module, StedFmUnetrDecoder):
            block = cast(StedFmConvBlock, module.image[0])
            conv = nn.Conv2d(num_channels, block.conv.out_channels, kernel_size=3, padding=1)
            weight = _adapted(block.conv.weight, 1, num_channels, how)
            conv.weight, conv.bias = _like(block.conv.weight, weight), block.conv.bias
            block.conv = conv
        elif isinstance(module, StedFmDecoder):
            head = module.head
            weight = head.weight.unflatten(0, (-1, before))[:, turn].flatten(0, 1)
            bias = head.bias.unflatten(0, (-1, before))[:, turn].flatten()
            module.head = nn.Linear(head.in_features, weight.shape[0])
            module.head.weight, module.head.bias = _like(head.weight, weight), _like(head.bias, bias)
    model.config.num_channels = num_channels
    return model


def _adapted(weight: torch.Tensor, axis: int, num_channels: int, how: str) -> torch.Tensor:
    """Return input weights for another number of channels, which are on an axis."""
    if how == "repeat":
        return weight.index_select(axis, torch.arange(num_channels, device=weight.device) % weight.shape[axis])
    weight = weight.sum(dim=axis, keepdim=True) / (num_channels if how == "mean" else 1)
    return weight.repeat_interleave(num_channels, dim=axis)


def _like(old: torch.Tensor, values: torch.Tensor) -> nn.Parameter:
    """Return new weights that are trained or frozen as the old ones are."""
    return nn.Parameter(values.clone(), requires_grad=old.requires_grad)


__all__ = ["adapt_channels"]
