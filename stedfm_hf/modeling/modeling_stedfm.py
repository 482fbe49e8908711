"""STED-FM vision transformer: encoder, multi-layer backbone and image classifier."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput, BaseModelOutput, BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.pytorch_utils import compile_compatible_method_lru_cache
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_stedfm import StedFmConfig


def patchify(pixel_values: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut images into patches.

    Args:
        pixel_values: (B, C, H, W), H and W multiples of `patch_size`.
        patch_size: Side p of a patch in pixels.

    Returns:
        (B, N, p * p * C): patches in raster order, each in the order (row, column, channel).
    """
    batch, channels, height, width = pixel_values.shape
    rows, cols = height // patch_size, width // patch_size
    patches = pixel_values.reshape(batch, channels, rows, patch_size, cols, patch_size)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * cols, patch_size * patch_size * channels)


def unpatchify(patches: torch.Tensor, patch_size: int, height: int, width: int) -> torch.Tensor:
    """Put patches (B, N, p * p * C) back together into images (B, C, height, width); the inverse of `patchify`."""
    batch, _, values = patches.shape
    channels = values // (patch_size * patch_size)
    patches = patches.reshape(batch, height // patch_size, width // patch_size, patch_size, patch_size, channels)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width)


@compile_compatible_method_lru_cache(maxsize=8)
def sincos_position_table(
    height: int, width: int, dim: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Fixed 2-D sin-cos position table of a grid of patches, as in the original masked autoencoder.

    The first half of the channels encodes the column, the second half the row, each as [sin | cos] over dim / 4
    frequencies 10000^(-4k / dim). Coordinates are the integer patch coordinates of the asked grid, unscaled.

    Args:
        height: Rows of patches h.
        width: Columns of patches w.
        dim: Channels D, a multiple of 4.
        dtype: Type of the result; the table is computed in float32.
        device: Device of the result.

    Returns:
        (1 + h * w, D): row 0 belongs to the class token and is zero, the others are in raster order.

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
    """Attention written out, the only kind that returns its weights; (B, heads, N, d) in, (B, N, heads, d) out."""
    weights = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = weights.softmax(dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _is_slow_for_sdpa(query: torch.Tensor) -> bool:
    """Whether torch's fused attention is slower than two matrix products: on CPUs in half precision (torch 2.13).

    Written out, the weights take memory that grows with the square of the sequence, so that long ones stay with it.
    """
    return query.device.type == "cpu" and query.dtype != torch.float32 and query.shape[2] <= 1024


class StedFmAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

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
        """Let the `last` tokens (0: all) of (B, T, width) attend to all; returns theirs alone, and the weights."""
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
        query = query[:, :, -last:]
        output, weights = attend(self, query, key, value, None, dropout=0.0, scaling=self.scaling, **kwargs)
        return self.out_proj(output.reshape(batch, -1, width)), weights


class StedFmMLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: StedFmConfig, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class StedFmLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer, (B, T, width) to (B, T, width); the encoder and the decoder are made of it."""

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
        """Update the `last` tokens (0: all) in the light of all, and return those."""
        attended, _ = self.attention(self.norm1(hidden_states), last=last, **kwargs)
        hidden_states = hidden_states[:, -last:] + attended
        return hidden_states + self.mlp(self.norm2(hidden_states))


class StedFmPatchEmbeddings(nn.Linear):
    """Linear projection (B, N, p * p * C) to (B, N, D) of patches as `patchify` cuts them."""


class StedFmEmbeddings(nn.Module):
    """Class token, projected patches and their positions."""

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
        """Embed an image, or only some of its patches.

        Args:
            pixel_values: (B, C, H, W) float in [0, 1].
            ids_keep: (B, K) raster indices of the patches to embed, in the order of the result; None takes all.
            interpolate_pos_encoding: Whether sizes other than the configured one are accepted.

        Returns:
            (B, 1 + K, D): the class token, then the patches.
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
        """Rows and columns of patches of checked `pixel_values` (B, C, H, W)."""
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


class StedFmPreTrainedModel(PreTrainedModel):
    """What all STED-FM models share: initialisation, capabilities and the complete saved folder."""

    config: StedFmConfig
    config_class = StedFmConfig
    base_model_prefix = "stedfm"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["StedFmEmbeddings", "StedFmLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": StedFmLayer, "attentions": StedFmAttention}
    _input_embed_layer = "patch_embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw the weights as the reference does.

        Xavier-uniform matrices (queries, keys and values as one matrix) with zero biases, normal class and mask
        tokens, torch's own uniform bias in the patch projection and torch's own linear layer as classifier.
        """
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            if module is getattr(self, "classifier", None):
                init.uniform_(module.weight, -bound, bound)
                init.uniform_(module.bias, -bound, bound)
            else:
                init.xavier_uniform_(module.weight)
                if isinstance(module, StedFmPatchEmbeddings):
                    init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, StedFmEmbeddings):
            init.normal_(module.cls_token, std=self.config.initializer_range)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """Save a folder that is complete: weights, configuration, image processor and all code files.

        Any of the Auto classes loads from it, with the package or with `trust_remote_code=True` without it. A
        `preprocessor_config.json` that lies there already is kept; otherwise the one the model was loaded with, or
        the default, is written. Arguments are those of `PreTrainedModel.save_pretrained`.
        """
        # Not at the top: the table of all classes stands above this module. transformers finds the line all the same
        # when it copies remote code, so that a folder saved from remote code is complete as well.
        from .hub_stedfm import complete_folder

        # Before the weights are written, because a push to the Hub happens at the end of the call below.
        complete_folder(self, Path(save_directory), write=is_main_process)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)


class StedFmEncoder(StedFmPreTrainedModel):
    """The stack of encoder layers, (B, T, D) to (B, T, D), without the final norm."""

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(
            StedFmLayer(config, config.hidden_size, config.num_attention_heads, config.intermediate_size)
            for _ in range(config.num_hidden_layers)
        )
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutput:
        """Run the layers; hidden states are the input and the output of each layer."""
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


class StedFmModel(StedFmPreTrainedModel):
    """STED-FM encoder: images in, class and patch tokens out. It never masks.

    Example:
    ```python
    >>> import torch
    >>> from stedfm_hf import StedFmConfig, StedFmModel
    >>> model = StedFmModel(StedFmConfig(num_hidden_layers=2)).eval()
    >>> output = model(torch.rand(1, 1, 224, 160))
    >>> output.last_hidden_state.shape, output.pooler_output.shape
    (torch.Size([1, 141, 384]), torch.Size([1, 384]))

    ```
    """

    # The decoder and heads of the folder an encoder is taken out of are not its business.
    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^classifier\.", r"^batch_norm\."]

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__(config)
        self.embeddings = StedFmEmbeddings(config)
        self.encoder = StedFmEncoder(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The projection of the patches."""
        return self.embeddings.patch_embeddings

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        *,
        interpolate_pos_encoding: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Embed images.

        Args:
            pixel_values: (B, C, H, W) float in [0, 1]; H and W are any multiples of the patch size.
            interpolate_pos_encoding: False refuses sizes other than `config.image_size`.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `last_hidden_state` (B, 1 + N, D) after the final norm, class token first, patches in raster order;
            `pooler_output` (B, D), the mean of the patch tokens or the class token by `config.pooling`;
            `hidden_states` (input of the first layer, then the output of each) and `attentions` (B, heads, T, T)
            if asked for.
        """
        hidden_states = self.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        output = self.encoder(hidden_states, **kwargs)
        tokens = self.norm(output.last_hidden_state)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens,
            pooler_output=self.pool(tokens),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, 1 + N, D) after the final norm to one vector (B, D), by `config.pooling`."""
        return tokens[:, 0] if self.config.pooling == "token" else tokens[:, 1:].mean(dim=1)


class StedFmBackbone(BackboneMixin, StedFmPreTrainedModel):
    """STED-FM as a backbone: feature maps (B, D, h, w) of the layers chosen by `out_features` or `out_indices`.

    Stage 0 is `"stem"` (the embedded patches), stage i the output of layer i. All maps have the stride of the patch.

    Example:
    ```python
    >>> import torch
    >>> from stedfm_hf import StedFmBackbone, StedFmConfig
    >>> backbone = StedFmBackbone(StedFmConfig(num_hidden_layers=4, out_indices=[2, 4])).eval()
    >>> [tuple(map.shape) for map in backbone(torch.rand(1, 1, 64, 96)).feature_maps]
    [(1, 384, 4, 6), (1, 384, 4, 6)]

    ```
    """

    _keys_to_ignore_on_load_unexpected = StedFmModel._keys_to_ignore_on_load_unexpected

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__(config)
        self.embeddings = StedFmEmbeddings(config)
        self.encoder = StedFmEncoder(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.num_features = [config.hidden_size] * (config.num_hidden_layers + 1)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The projection of the patches."""
        return self.embeddings.patch_embeddings

    @can_return_tuple
    @filter_output_hidden_states
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        """Compute the feature maps of `pixel_values` (B, C, H, W); see `StedFmModel.forward`."""
        rows, cols = self.embeddings.grid(pixel_values)
        kwargs["output_hidden_states"] = True
        output = self.encoder(self.embeddings(pixel_values), **kwargs)
        feature_maps = []
        for stage, hidden_states in zip(self.stage_names, output.hidden_states, strict=True):
            if stage in self.out_features:
                if self.config.apply_layernorm or stage == self.stage_names[-1]:
                    hidden_states = self.norm(hidden_states)
                tokens = hidden_states[:, 1:].transpose(1, 2)
                feature_maps.append(tokens.reshape(tokens.shape[0], -1, rows, cols).contiguous())
        return BackboneOutput(
            feature_maps=tuple(feature_maps), hidden_states=output.hidden_states, attentions=output.attentions
        )


@dataclass
class StedFmImageClassifierOutput(ModelOutput):
    """Output of `StedFmForImageClassification`.

    Attributes:
        loss: Scalar, if labels were given.
        logits: (B, num_labels), before softmax or sigmoid; the predicted values for regression.
        pooler_output: (B, D), the features the head saw.
        hidden_states: Input of the first layer and output of each layer, (B, 1 + N, D), if asked for.
        attentions: (B, heads, 1 + N, 1 + N) of each layer, if asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class StedFmForImageClassification(StedFmPreTrainedModel):
    """STED-FM with the reference's classification head: BatchNorm without affine parameters, then a linear layer.

    Example:
    ```python
    >>> import torch
    >>> from stedfm_hf import StedFmConfig, StedFmForImageClassification
    >>> model = StedFmForImageClassification(StedFmConfig(num_hidden_layers=2, num_labels=3)).eval()
    >>> model(torch.rand(2, 1, 224, 224), labels=torch.tensor([0, 2])).logits.shape
    torch.Size([2, 3])

    ```
    """

    _keys_to_ignore_on_load_unexpected = [r"^decoder\."]

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__(config)
        self.stedfm = StedFmModel(config)
        self.batch_norm = nn.BatchNorm1d(config.hidden_size, affine=False, eps=1e-6)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        *,
        interpolate_pos_encoding: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> StedFmImageClassifierOutput:
        """Classify images.

        Args:
            pixel_values: (B, C, H, W) float in [0, 1].
            labels: (B,) class indices for `target_type="single_label"`, else (B, num_labels): 0/1 for
                `"multi_label"`, probabilities for `"soft"`, real values for `"regression"` ((B,) with one label).
            interpolate_pos_encoding: As in `StedFmModel.forward`.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            A `StedFmImageClassifierOutput`.
        """
        output = self.stedfm(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
        logits = self.classify(output.pooler_output)
        return StedFmImageClassifierOutput(
            loss=None if labels is None else self.target_loss(logits, labels),
            logits=logits,
            pooler_output=output.pooler_output,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_labels) of pooled features (B, D)."""
        return self.classifier(self.batch_norm(features))

    def target_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of the batch for the labels of `config.target_type`, in float32."""
        logits = logits.float()
        match self.config.target_type:
            case "single_label":
                return nn.functional.cross_entropy(logits, labels)
            case "soft":
                return nn.functional.cross_entropy(logits, labels.to(logits.dtype))
            case "multi_label":
                return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
            case _:
                return nn.functional.mse_loss(logits, labels.to(logits.dtype).reshape(logits.shape))


__all__ = [
    "StedFmBackbone",
    "StedFmForImageClassification",
    "StedFmImageClassifierOutput",
    "StedFmModel",
    "StedFmPreTrainedModel",
]
