"""Exact logit maps: how much each patch adds to the logits of a classifier."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch.nn import functional

from stedfm_hf.exports.runtime_models import RuntimeClassifier
from stedfm_hf.exports.transformers_format import folded_head
from stedfm_hf.modeling.layers_stedfm import StedFmClassifier
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.runs import UserError


@dataclass(frozen=True, eq=False)
class LogitMaps:
    """Logits of images, split over their patches.

    Attributes:
        logits: Logits (B, L), or the predicted values of a regression.
        maps: What each patch adds to each logit (B, L, rows, cols), in units of the logit; the sum over the patches
            is the logit.
    """

    logits: torch.Tensor
    maps: torch.Tensor


@torch.no_grad()
def logit_maps(model: StedFmForImageClassification | RuntimeClassifier, pixel_values: torch.Tensor) -> LogitMaps:
    """Split the logits of images over their patches.

    The classifier averages the patch tokens t, standardises the mean and applies a linear layer. All of this is
    linear, so that a logit is the sum over N patches of (w · (t - μ) / √(σ² + ε) + b) / N. The bias is split evenly.

    The split is exact for the head. It does not say what happens if the pixels of a patch change: tokens mix by
    attention, so that a token also holds information of other patches.

    The cost is that of one forward pass; nothing grows with the square of the number of patches, except for the time
    of the attention.

    Args:
        model: Classifier with mean pooling and a linear head, in evaluation mode.
        pixel_values: Images (B, C, H, W) float in [0, 1]; H and W are any multiples of the patch size.

    Returns:
        Logits and maps, float32 on the CPU. The head is computed in float32 in every precision of the model.

    Raises:
        UserError: If the split would not be exact (`check_exact`).

    Example:
        >>> from stedfm_hf import StedFmConfig, StedFmForImageClassification
        >>> model = StedFmForImageClassification(StedFmConfig(num_hidden_layers=1, num_labels=3)).eval()
        >>> found = logit_maps(model, torch.rand(2, 1, 32, 48))
        >>> found.logits.shape, found.maps.shape
        (torch.Size([2, 3]), torch.Size([2, 3, 2, 3]))
        >>> torch.allclose(found.maps.sum(dim=(2, 3)), found.logits, atol=1e-5)
        True
    """
    check_exact(model)
    tokens = model.base_model(pixel_values.to(model.device)).last_hidden_state[:, 1:].float().cpu()
    maps = patch_logits(model, tokens) / tokens.shape[1]
    cols = pixel_values.shape[3] // model.config.patch_size
    return LogitMaps(patch_logits(model, tokens.mean(dim=1)), maps.transpose(1, 2).unflatten(2, (-1, cols)))


@torch.no_grad()
def patch_logits(model: StedFmForImageClassification | RuntimeClassifier, tokens: torch.Tensor) -> torch.Tensor:
    """Compute the logits that an image would have if all of its patch tokens were this one.

    The logit of an image is their mean over the patches; that of a field in tiles, in which every position counts
    once, is their mean weighted by the fraction of each patch inside the field.

    Args:
        model: Classifier with mean pooling and a linear head, in evaluation mode.
        tokens: Patch tokens (..., D) after the final norm.

    Returns:
        Logits (..., L), float32 on the CPU.

    Raises:
        UserError: If the logits of patches do not add up to that of the image (`check_exact`).

    Example:
        >>> from stedfm_hf import StedFmConfig, StedFmForImageClassification
        >>> model = StedFmForImageClassification(StedFmConfig(num_hidden_layers=1, num_labels=3)).eval()
        >>> patch_logits(model, torch.rand(2, 5, 384)).shape
        torch.Size([2, 5, 3])
    """
    check_exact(model)
    if isinstance(model, RuntimeClassifier):
        weight, bias = model.head["weight"], model.head["bias"]
    else:
        weight, bias = folded_head(copy.deepcopy(model.classifier).cpu())  # in float64, which not every device has
    return functional.linear(tokens.float().cpu(), weight, bias)


def check_exact(model: object) -> None:
    """Refuse a model whose logits are not sums over its patches.

    Args:
        model: Model.

    Raises:
        UserError: If the model is not a classifier, pools the class token, is in training mode or has a head that is
            not linear.

    Example:
        >>> from stedfm_hf import StedFmConfig, StedFmForImageClassification
        >>> check_exact(StedFmForImageClassification(StedFmConfig(num_hidden_layers=1)).eval())
    """
    instead = "use attention maps instead"
    if not isinstance(model, StedFmForImageClassification | RuntimeClassifier):
        raise UserError(
            f"logit maps need a classifier, and a {type(model).__name__} has no logits of images; give a folder "
            f"written by `stedfm finetune classification`, or {instead}"
        )
    if model.config.pooling != "avg":
        raise UserError(
            "logit maps need a classifier that averages the patch tokens, but the pooling of this one is "
            f"{model.config.pooling!r}, so that its logits are not sums over patches; {instead}"
        )
    if isinstance(model, RuntimeClassifier):
        return
    if type(model.classifier) is not StedFmClassifier:
        raise UserError(
            f"logit maps need the linear head of a STED-FM classifier, but the head is a "
            f"{type(model.classifier).__name__}; merge an adapter into the model first, or {instead}"
        )
    if model.training or model.batch_norm.training:
        raise UserError(
            "logit maps need a classifier in evaluation mode: in training mode, the normalisation of the head depends "
            "on the other images of the batch; call model.eval()"
        )
