"""Building blocks of the networks: patches, positions, attention, transformer layers and embeddings."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.pytorch_utils import compile_compatible_method_lru_cache
from transformers.utils import TransformersKwargs

from .configuration_stedfm import StedFmConfig


def patchify(pixel_values: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut images into patches.

    Args:
        pixel_values: (B, C, H, W), H and W multiples of `patch_size`.
        patch_size: Size p of a patch, in pixels.

    Returns:
        Patches (B, N, p * p * C) in raster order, each in the order (row, column, channel).
    """
    batch, channels, height, width = pixel_values.shape
    rows, cols = height // patch_size, width // patch_size
    patches = pixel_values.reshape(batch, channels, rows, patch_size, cols, patch_size)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * cols, patch_size * patch_size * channels)


def unpatchify(patches: torch.Tensor, patch_size: int, height: int, width: int) -> torch.Tensor:
    """Assemble patches (B, N, p * p * C) to images (B, C, height, width); the inverse of `patchify`."""
    batch, _, values = patches.shape
    channels = values // (patch_size * patch_size)
    patches = patches.reshape(batch, height // patch_size, width // patch_size, patch_size, patch_size, channels)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width)


@compile_compatible_method_lru_cache(maxsize=8)
def sincos_position_table(
    height: int, width: int, dim: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Compute the fixed 2-D sin-cos position table of a grid of patches, as in the original masked autoencoder.

    The first half of the channels encodes the column, the second half the row, each as [sin | cos] over dim / 4
    frequencies 10000^(-4k / dim). Coordinates are the integer coordinates of the patches, not scaled.

    Args:
        height: Number of rows of patches h.
        width: Number of columns of patches w.
        dim: Number of channels D, a multiple of 4.
        dtype: Dtype of the result; the table is computed in float32.
        device: Device of the result.

    Returns:
        Table (1 + h * w, D): row 0 is that of the class token and zero, the others are in raster order.

    Example:
    ```python
    >>> sincos_position_table(14, 14, 384).shape
    torch.Size([197, 384])

    ```
    """
    quarter = dim // 4
    # A table made under inference_mode must not stay in the cache as an inference tensor: training would refuse it.
    with torch.inference_mode(False), torch.no_grad():
        frequencies = torch.tensor([10000.0 ** (-k / quarter) for k in range(quarter)], device=device)
        x = torch.arange(width, device=device, dtype=torch.float32)[:, None] * frequencies
        y = torch.arange(height, device=device, dtype=torch.float32)[:, None] * frequencies
        x = torch.cat([x.sin(), x.cos()], dim=1)[None].expand(height, width, 2 * quarter)
        y = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(height, width, 2 * quarter)
        grid = torch.cat([x, y], dim=2).flatten(0, 1)
        return torch.cat([grid.new_zeros(1, dim), grid]).to(dtype)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention with explicit weights, which are returned; (B, heads, N, d) in, (B, N, heads, d) out."""
    weights = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = weights.softmax(dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _is_slow_for_sdpa(query: torch.Tensor) -> bool:
    """Return whether fused attention is slower than two matrix products: on CPUs in half precision (torch 2.13).

    Explicit weights need memory that grows with the square of the sequence length, so long sequences stay fused.
    """
    return query.device.type == "cpu" and query.dtype != torch.float32 and query.shape[2] <= 1024


class StedFmAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values.

    Width and heads are arguments because encoder and decoder, which share the configuration, have different ones.
    """

    def __init__(self, config: StedFmConfig, hidden_size: int, num_attention_heads: int) -> None:
        super().__init__()
        self.config = config
        self.num_attention_heads = num_attention_heads
        self.head_dim = hidden_size // num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=config.qkv_bias)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, last: int = 0, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute the attention of the `last` tokens (0: all) of (B, T, width) to all; return them and the weights."""
        batch, tokens, width = hidden_states.shape
        qkv = self.qkv(hidden_states).view(batch, tokens, 3, self.num_attention_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        implementation = self.config._attn_implementation
        # Fused kernels never form the weights: whoever asks for them gets the written-out attention for this call.
        wants_weights = kwargs.get("output_attentions", self.config.output_attentions)
        if wants_weights or (implementation == "sdpa" and _is_slow_for_sdpa(query)):
            implementation = "eager"
        attend: Callable[..., tuple[torch.Tensor, torch.Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            implementation, eager_attention_forward
        )
        query = query[:, :, -last:]  # all tokens for 0, because -0 is 0
        output, weights = attend(self, query, key, value, None, dropout=0.0, scaling=self.scaling, **kwargs)
        return self.out_proj(output.reshape(batch, -1, width)), weights


class StedFmMLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: StedFmConfig, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.chunk_size = config.chunk_size_feed_forward
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform tokens of shape (B, T, hidden_size), keeping the shape."""
        if not self.chunk_size:
            return self._transform(hidden_states)
        chunks = hidden_states.split(self.chunk_size, dim=1)
        return torch.cat([self._transform(chunk) for chunk in chunks], dim=1)

    def _transform(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class StedFmLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer of encoder and decoder, (B, T, width) to (B, T, width)."""

    def __init__(
        self, config: StedFmConfig, hidden_size: int, num_attention_heads: int, intermediate_size: int
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = StedFmAttention(config, hidden_size, num_attention_heads)
        self.norm2 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = StedFmMLP(config, hidden_size, intermediate_size)

    def forward(
        self, hidden_states: torch.Tensor, last: int = 0, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        """Update the `last` tokens (0: all) with attention to all, and return them."""
        attended, _ = self.attention(self.norm1(hidden_states), last=last, **kwargs)
        hidden_states = hidden_states[:, -last:] + attended
        return hidden_states + self.mlp(self.norm2(hidden_states))


class StedFmBatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation of features (B, D) that also trains on a batch of one image, which has no variance.

    Such a batch is normalised with the running statistics, which it does not change. The same holds while the layer
    that follows is frozen (`frozen`): statistics that change without being trained are not saved with an adapter.
    """

    frozen = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise features (B, D)."""
        if self.training and (self.frozen or len(input) == 1):
            return nn.functional.batch_norm(input, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(input)


class StedFmBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of maps (B, C, h, w) that keeps its running statistics while its weights are frozen."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise maps (B, C, h, w)."""
        if self.training and not self.weight.requires_grad:
            running = self.running_mean, self.running_var
            return nn.functional.batch_norm(input, *running, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class StedFmClassifier(nn.Module):
    """Head of the classifier: batch normalisation without affine parameters, and a linear layer.

    One module, so that an adapter with `modules_to_save=["classifier"]` has the statistics of the normalisation, too.
    It is not a `nn.Linear`, whose low-rank updates would act on features that are not normalised.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.batch_norm = StedFmBatchNorm1d(in_features, affine=False, eps=1e-6)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as nn.Linear does
        nn.init.uniform_(self.bias, -(in_features**-0.5), in_features**-0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the logits (B, L) of pooled features (B, D)."""
        self.batch_norm.frozen = not self.weight.requires_grad
        return nn.functional.linear(self.batch_norm(features), self.weight, self.bias)


class StedFmPatchEmbeddings(nn.Linear):
    """Linear projection of the patches of `patchify`, (B, N, p * p * C) to (B, N, D)."""


class StedFmEmbeddings(nn.Module):
    """Embeddings: class token and projected patches with positions."""

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.patch_embeddings = StedFmPatchEmbeddings(
            config.patch_size * config.patch_size * config.num_channels, config.hidden_size
        )

    def forward(
        self,
        pixel_values: torch.Tensor,
        ids_keep: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = True,
    ) -> torch.Tensor:
        """Embed all or some patches of images.

        Args:
            pixel_values: (B, C, H, W) float in [0, 1].
            ids_keep: (B, K) raster indices of the patches to embed, in the order of the result; None embeds all.
            interpolate_pos_encoding: Whether sizes other than the configured one are accepted.

        Returns:
            Embeddings (B, 1 + K, D): the class token, then the patches.
        """
        rows, cols = self.grid(pixel_values, interpolate_pos_encoding)
        weight = self.patch_embeddings.weight
        patches = patchify(pixel_values.to(weight.dtype), self.config.patch_size)
        positions = sincos_position_table(rows, cols, self.config.hidden_size, weight.dtype, pixel_values.device)[1:]
        if ids_keep is not None:
            # Hidden patches are dropped before they are projected: three quarters of that work is never done.
            patches = patches.gather(1, ids_keep[:, :, None].expand(-1, -1, patches.shape[2]))
            positions = positions[ids_keep]
        tokens = self.patch_embeddings(patches) + positions
        # The position of the class token is zero, so that nothing is added to it.
        return torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def grid(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = True) -> tuple[int, int]:
        """Check `pixel_values` (B, C, H, W), and return the number of rows and columns of patches."""
        config = self.config
        if pixel_values.ndim != 4:
            raise ValueError(f"pixel_values must be (batch, channels, height, width), got {tuple(pixel_values.shape)}")
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"pixel_values must be floats in [0, 1], got {pixel_values.dtype}: pass images through the processor"
            )
        _, channels, height, width = pixel_values.shape
        if channels != config.num_channels:
            raise ValueError(
                f"pixel_values have {channels} channels but the model takes {config.num_channels}: choose one with "
                "processor(image, channel=...), or change the model with stedfm_hf.adapt_channels"
            )
        if height % config.patch_size or width % config.patch_size or not height or not width:
            raise ValueError(
                f"height {height} and width {width} must be multiples of the patch size {config.patch_size}: "
                "the processor pads images to it"
            )
        if not interpolate_pos_encoding and (height, width) != (config.image_size, config.image_size):
            raise ValueError(
                f"image of {height}x{width} pixels where interpolate_pos_encoding=False allows only "
                f"{config.image_size}x{config.image_size}"
            )
        return height // config.patch_size, width // config.patch_size


__all__ = [
    "StedFmAttention",
    "StedFmBatchNorm1d",
    "StedFmBatchNorm2d",
    "StedFmClassifier",
    "StedFmEmbeddings",
    "StedFmLayer",
    "StedFmPatchEmbeddings",
    "patchify",
    "sincos_position_table",
    "unpatchify",
]
