"""Adapt models to a different number of channels."""

from typing import Literal

import torch
from torch import nn

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
    for module in model.modules():
        if isinstance(module, StedFmEmbeddings):
            old = module.patch_embeddings
            # (D, p * p, C): the channel is the last axis inside a patch.
            weight = old.weight.unflatten(1, (-1, before))
            if how == "repeat":
                weight = weight[:, :, turn]
            else:
                weight = weight.sum(dim=2, keepdim=True).expand(-1, -1, num_channels)
                weight = weight / num_channels if how == "mean" else weight
            new = StedFmPatchEmbeddings(weight.shape[1] * num_channels, old.out_features)
            new.weight, new.bias = nn.Parameter(weight.flatten(1).clone()), old.bias
            module.patch_embeddings = new
        elif isinstance(module, StedFmDecoder):
            head = module.head
            weight = head.weight.unflatten(0, (-1, before))[:, turn].flatten(0, 1)
            bias = head.bias.unflatten(0, (-1, before))[:, turn].flatten()
            module.head = nn.Linear(head.in_features, weight.shape[0])
            module.head.weight, module.head.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    model.config.num_channels = num_channels
    return model


__all__ = ["adapt_channels"]
