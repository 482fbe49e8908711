"""STED-FM vision transformer: encoder, multi-layer backbone and image classifier."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput, BaseModelOutput, BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_stedfm import StedFmConfig
from .layers_stedfm import StedFmAttention, StedFmEmbeddings, StedFmLayer, StedFmPatchEmbeddings


class StedFmPreTrainedModel(PreTrainedModel):
    """Base class of all STED-FM models: initialisation, capabilities and the saved folder."""

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
        """Initialise the weights at random.

        Matrices are Xavier-uniform (queries, keys and values as one matrix) with zero biases, class and mask tokens
        are normal; the bias of the patch projection and the classifier have the defaults of torch.

        Source:
            Reference protocol.
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
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                inputs = module.weight[0].numel()  # as torch counts them, of transposed convolutions too
                init.uniform_(module.bias, -(inputs**-0.5), inputs**-0.5)
        elif isinstance(module, StedFmEmbeddings):
            init.normal_(module.cls_token, std=self.config.initializer_range)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """Save weights, configuration, image processor and all code files.

        Every Auto class loads the folder, with this package or with `trust_remote_code=True`. An existing
        `preprocessor_config.json` is kept; otherwise that of the folder from which the model was loaded, or the
        default, is written.

        Args:
            save_directory: Folder to write.
            is_main_process: Whether this process writes.
            kwargs: Other arguments of `PreTrainedModel.save_pretrained`.
        """
        # Not at the top: the table of all classes stands above this module. transformers finds the line all the same
        # when it copies remote code, so that a folder saved from remote code is complete as well.
        from .hub_stedfm import complete_folder

        # Before the weights are written, because a push to the Hub happens at the end of the call below.
        complete_folder(self, Path(save_directory), write=is_main_process)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        for weights in Path(save_directory).glob("*.safetensors"):
            # safetensors lets only the owner read what it writes; a shared folder shall be readable as a whole.
            shutil.copymode(Path(save_directory) / "config.json", weights)


class StedFmEncoder(StedFmPreTrainedModel):
    """Stack of encoder layers, (B, T, D) to (B, T, D), without the final norm."""

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
        """Apply the layers; hidden states are the input and the output of each layer."""
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


class StedFmModel(StedFmPreTrainedModel):
    """STED-FM encoder, from images to class and patch tokens, without masking.

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
    _keys_to_ignore_on_load_unexpected = [
        r"^decoder\.",
        r"^classifier\.",
        r"^batch_norm\.",
        r"^decode_head\.",
    ]

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__(config)
        self.embeddings = StedFmEmbeddings(config)
        self.encoder = StedFmEncoder(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the projection of the patches."""
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
            interpolate_pos_encoding: Whether sizes other than `config.image_size` are accepted.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `last_hidden_state` (B, 1 + N, D) after the final norm, class token first, patches in raster order;
            `pooler_output` (B, D), the mean of the patch tokens or the class token by `config.pooling`;
            `hidden_states` (input of the first layer, then the output of each) and `attentions` (B, heads, T, T)
            if requested.
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
        """Pool tokens (B, 1 + N, D) after the final norm to one embedding (B, D), by `config.pooling`."""
        return tokens[:, 0] if self.config.pooling == "token" else tokens[:, 1:].mean(dim=1)


class StedFmBackbone(BackboneMixin, StedFmPreTrainedModel):
    """STED-FM backbone: feature maps (B, D, h, w) of the layers selected by `out_features` or `out_indices`.

    Stage 0 is `"stem"` (the embedded patches), stage i is the output of layer i. The stride of all maps is the patch
    size.

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
        """Return the projection of the patches."""
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
        logits: (B, num_labels), before softmax or sigmoid; for a regression the predicted values.
        pooler_output: (B, D), pooled features, the input of the head.
        hidden_states: Input of the first layer and output of each layer, (B, 1 + N, D), if requested.
        attentions: Attention weights (B, heads, 1 + N, 1 + N) of each layer, if requested.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class StedFmForImageClassification(StedFmPreTrainedModel):
    """STED-FM classifier: pooled features, BatchNorm without affine parameters, and a linear layer.

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
        """Compute the logits (B, num_labels) of pooled features (B, D)."""
        return self.classifier(self.batch_norm(features))

    def target_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the mean loss of the batch for the labels of `config.target_type`, in float32."""
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
