"""STED-FM vision transformer: encoder, multi-layer backbone and image classifier."""

import os
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
from transformers.utils import IMAGE_PROCESSOR_NAME, ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .card_stedfm import CARD, has_empty_card, new_card
from .configuration_stedfm import StedFmConfig
from .layers_stedfm import (
    StedFmAttention,
    StedFmBatchNorm1d,
    StedFmClassifier,
    StedFmEmbeddings,
    StedFmLayer,
    StedFmPatchEmbeddings,
)


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
    # Whether the Trainer passes `num_items_in_batch`; if it is ignored, accumulated gradients become too large.
    accepts_loss_kwargs = False
    _processor_text: str | None = None
    _card_text: str | None = None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the weights at random.

        Matrices are Xavier-uniform (queries, keys and values as one matrix) with zero biases, class and mask tokens
        are normal; the bias of the patch projection and the classifier have the defaults of torch.

        Source:
            Reference protocol.
        """
        super()._init_weights(module)
        if isinstance(module, StedFmClassifier):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if isinstance(module, StedFmPatchEmbeddings):
                bound = module.in_features**-0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                inputs = module.weight[0].numel()  # as torch counts them, of transposed convolutions too
                init.uniform_(module.bias, -(inputs**-0.5), inputs**-0.5)
        elif isinstance(module, StedFmEmbeddings):
            init.normal_(module.cls_token, std=self.config.initializer_range)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model, and the text of its image processor, which `save_pretrained` writes with the model.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            args: Other positional arguments of `PreTrainedModel.from_pretrained`.
            kwargs: Other keyword arguments of `PreTrainedModel.from_pretrained`.
        """
        from .hub_stedfm import read_text  # see `save_pretrained`

        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._processor_text = read_text(pretrained_model_name_or_path, IMAGE_PROCESSOR_NAME, kwargs)
        model.requires_grad_unused()
        return loaded

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """Save weights, configuration, image processor and all code files.

        Every Auto class loads the folder, with this package or with `trust_remote_code=True`. An existing
        `preprocessor_config.json` is kept; otherwise that of the folder from which the model was loaded, or the
        default, is written. A model with an adapter (`add_adapter`) saves the adapter and the image processor only,
        as transformers does. With `push_to_hub=True`, all files of the folder are sent.

        Args:
            save_directory: Folder to write.
            is_main_process: Whether this process writes.
            kwargs: Other arguments of `PreTrainedModel.save_pretrained`.
        """
        # Not at the top: the table of all classes stands above this module. transformers finds the line all the same
        # when it copies remote code, so that a folder saved from remote code is complete as well.
        from .hub_stedfm import complete_folder, share_weights

        card = Path(save_directory, CARD)
        if kwargs.get("push_to_hub") and card.is_file():  # the call below would replace it
            self._card_text = card.read_text(encoding="utf-8", errors="replace")
        # Before the weights are written, because a push to the Hub happens at the end of the call below.
        complete_folder(self, Path(save_directory), write=is_main_process)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            share_weights(Path(save_directory))

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Upload a folder with the card of this model instead of the empty template of transformers."""
        from .hub_stedfm import read_text  # see `save_pretrained`

        if has_empty_card(Path(working_dir)):
            text = self._card_text or read_text(self.name_or_path or None, CARD, {})
            text = text or new_card(type(self).__name__, repo_id)
            Path(working_dir, CARD).write_text(text, encoding="utf-8")
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def _get_files_timestamps(self, working_dir: str | os.PathLike[str]) -> dict[str, float]:
        """Return the folders that a push to the Hub leaves out unless they change; all files are sent.

        transformers sends what is newer than at this call, and the code and the processor are written before it.
        """
        times: dict[str, float] = super()._get_files_timestamps(working_dir)
        return {name: time for name, time in times.items() if (Path(working_dir) / name).is_dir()}

    def requires_grad_unused(self) -> None:
        """Freeze weights that take no part in the loss; DistributedDataParallel stops at trainable ones."""

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Train or freeze all weights, except for those that take no part in the loss."""
        super().requires_grad_(requires_grad)
        self.requires_grad_unused()
        return self


def weighted_loss(
    loss: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """Weight the mean loss of a batch by its fraction of the labels of an optimiser step.

    The sum over the batches and processes of the step is then the loss of one large batch.

    Args:
        loss: Mean loss of the batch.
        labels: Labels of the batch; -100 is not counted.
        num_items_in_batch: Number of labels of the step, as counted by the Trainer of transformers; None does not
            weight the loss.
    """
    return loss if num_items_in_batch is None else loss * (labels.ne(-100).sum() / num_items_in_batch)


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
        """Apply the layers; hidden states are the input and the output of each layer.

        Raises:
            TypeError: If an argument of any of the models is unknown, which all of them pass on to here.
        """
        known = {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}
        asked = [name for name, value in kwargs.items() if value is not None and value is not False]
        if unknown := sorted(set(asked) - set(known)):
            raise TypeError(
                f"unknown argument {', '.join(unknown)}; in addition to its inputs, a STED-FM model takes "
                "output_hidden_states, output_attentions and return_dict"
            )
        for layer in self.layers:
            hidden_states = layer(hidden_states, **known)
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
        kwargs["return_dict"] = True  # of the encoder; that of this model is settled by its decorator
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
        kwargs |= {"output_hidden_states": True, "return_dict": True}
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

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the outputs that classifiers of transformers have, without the pooled features."""
        return tuple(value for name, value in self.items() if name != "pooler_output")


class StedFmForImageClassification(StedFmPreTrainedModel):
    """STED-FM classifier: pooled features, batch normalisation without affine parameters, and a linear layer.

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
    accepts_loss_kwargs = True

    def __init__(self, config: StedFmConfig) -> None:
        super().__init__(config)
        self.stedfm = StedFmModel(config)
        self.classifier = StedFmClassifier(config.hidden_size, config.num_labels)
        # The predictions of the Trainer are all outputs that are not listed here; they must be the logits.
        config.keys_to_ignore_at_inference = ["pooler_output"]
        self.post_init()

    @property
    def batch_norm(self) -> StedFmBatchNorm1d:
        """Normalisation of the features, part of the classifier."""
        return self.classifier.batch_norm

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        *,
        interpolate_pos_encoding: bool = True,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> StedFmImageClassifierOutput:
        """Classify images.

        Args:
            pixel_values: (B, C, H, W) float in [0, 1].
            labels: (B,) class indices for `target_type="single_label"`, else (B, num_labels): 0/1 for
                `"multi_label"`, probabilities for `"soft"`, real values for `"regression"` ((B,) with one label).
            interpolate_pos_encoding: As in `StedFmModel.forward`.
            num_items_in_batch: Number of labels of the optimiser step, see `weighted_loss`.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            A `StedFmImageClassifierOutput`.
        """
        kwargs["return_dict"] = True  # of the encoder; that of this model is settled by its decorator
        output = self.stedfm(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
        logits = self.classify(output.pooler_output)
        loss = None
        if labels is not None:
            loss = weighted_loss(self.target_loss(logits, labels), labels, num_items_in_batch)
        return StedFmImageClassifierOutput(
            loss=loss,
            logits=logits,
            pooler_output=output.pooler_output,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the logits (B, num_labels) of pooled features (B, D)."""
        return self.classifier(features)

    def target_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the mean loss of the batch for the labels of `config.target_type`, in float32.

        Args:
            logits: (B, L).
            labels: As in `forward`; class index -100 is ignored.

        Raises:
            ValueError: If shape or dtype of the labels do not fit `target_type`.
        """
        logits, target_type = logits.float(), self.config.target_type
        self._check_labels(logits, labels)
        if target_type == "single_label":
            each = nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
            return each.sum() / labels.ne(-100).sum().clamp(min=1)
        labels = labels.to(logits.dtype).reshape(logits.shape)
        if target_type == "soft":
            return nn.functional.cross_entropy(logits, labels)
        if target_type == "multi_label":
            return nn.functional.binary_cross_entropy_with_logits(logits, labels)
        return nn.functional.mse_loss(logits, labels)

    def _check_labels(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Raise a ValueError if shape or dtype of the labels do not fit `config.target_type`."""
        target_type, shape = self.config.target_type, tuple(labels.shape)
        hint = "set target_type (or problem_type) of the configuration to the type of the labels"
        if target_type == "single_label":
            if logits.shape[1] == 1:
                raise ValueError(f"with one class, the loss of target_type 'single_label' is always 0; {hint}")
            if shape != logits.shape[:1] or labels.is_floating_point():
                raise ValueError(
                    f"labels of target_type 'single_label' are class indices ({len(logits)},), got {labels.dtype} "
                    f"{shape}; {hint}"
                )
        elif shape != tuple(logits.shape) and not (shape == logits.shape[:1] and logits.shape[1] == 1):
            raise ValueError(
                f"labels of target_type {target_type!r} must have the shape {tuple(logits.shape)}, got {shape}; {hint}"
            )


__all__ = [
    "StedFmBackbone",
    "StedFmForImageClassification",
    "StedFmImageClassifierOutput",
    "StedFmModel",
    "StedFmPreTrainedModel",
    "weighted_loss",
]
