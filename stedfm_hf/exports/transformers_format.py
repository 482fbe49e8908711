"""Export to stock classes of transformers, which load without this package and without remote code.

The position table of an export is that of one image size.

| model | class |
|---|---|
| encoder | `ViTModel`, whose pooler returns the class token |
| masked autoencoder | `ViTMAEForPreTraining` |
| classifier, pooling `avg` | `Dinov2ForImageClassification`, with zero weights for the class token |
| classifier, pooling `token` | `ViTForImageClassification` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

from stedfm_hf.exports.comparing import Comparison, Outputs, compare, random_images
from stedfm_hf.exports.kinds import encoder_of, kind_of
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.layers_stedfm import StedFmClassifier, sincos_position_table
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification, StedFmModel, StedFmPreTrainedModel
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs import UserError, write_json
from stedfm_hf.runs.quiet import quiet_transformers

Weights = dict[str, torch.Tensor]
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""`problem_type` of transformers by `target_type`; there is none of soft labels."""
_LAYER = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attention.out_proj": "attention.o_proj"}
_LAYER_OF_DINOV2 = {"norm1": "norm1", "norm2": "norm2", "attention.out_proj": "attention.o_proj"}


@quiet_transformers()
def export_transformers(
    model: StedFmPreTrainedModel, folder: Path, *, image_size: int | None = None
) -> tuple[str, Comparison]:
    """Write a model as a stock class of transformers, load it again, and compare both.

    Args:
        model: Encoder, masked autoencoder or classifier in float32, in evaluation mode.
        folder: Existing folder to write.
        image_size: Image size of the position table, in pixels; by default that of the model.

    Returns:
        Name of the class, and the comparison.

    Raises:
        UserError: If no stock class computes the same.
    """
    config = model.config
    size = config.image_size if image_size is None else image_size
    stock = stock_model(model, size)
    stock.save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", stock_processor(size))
    name = type(stock).__name__
    loaded = type(stock).from_pretrained(folder).eval()
    return name, compare(*_networks(model, loaded), random_images(config, [(size, size)]))


def stock_processor(size: int) -> dict[str, Any]:
    """Return the settings of a stock processor that changes no value.

    Stock processors divide by a constant, but images of STED-FM are scaled to their own percentiles. This one only
    stacks images that are scaled already.

    Args:
        size: Image size of the model, in pixels.
    """
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_rescale": False,
        "do_normalize": False,
        "size": {"height": size, "width": size},
    }


def stock_model(model: StedFmPreTrainedModel, image_size: int) -> PreTrainedModel:
    """Return the stock model with the weights of a model.

    Args:
        model: Encoder, masked autoencoder or classifier.
        image_size: Image size of the position table, in pixels.

    Raises:
        UserError: If no stock class computes the same.
    """
    kind = kind_of(model)
    if kind == "segmenter":
        raise UserError(
            "transformers has no stock class with the decoders of STED-FM; export the segmenter with --format onnx, "
            "or only its encoder with --encoder-only"
        )
    make: dict[str, Callable[[Any, int], tuple[PreTrainedModel, Weights]]] = {
        "encoder": _vit,
        "pretraining": _vitmae,
        "classifier": _classifier,
    }
    stock, weights = make[kind](model, image_size)
    stock.load_state_dict({name: value.detach().clone().contiguous() for name, value in weights.items()})
    return stock.eval()


def _vit(model: StedFmModel, size: int) -> tuple[PreTrainedModel, Weights]:
    config = model.config
    width = config.hidden_size
    stock = ViTModel(ViTConfig(**_settings(config, size), pooler_act="linear"))
    # Without weights for the pooler, transformers would initialise it at random.
    pooler = {"pooler.dense.weight": torch.eye(width), "pooler.dense.bias": torch.zeros(width)}
    return stock, _vit_weights(model, size) | pooler


def _vitmae(model: StedFmForPreTraining, size: int) -> tuple[PreTrainedModel, Weights]:
    """Return an empty `ViTMAEForPreTraining` and its weights, with the position tables of both parts."""
    config, decoder = model.config, model.decoder
    names = (
        *("decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads"),
        *("decoder_intermediate_size", "mask_ratio", "norm_pix_loss"),
    )
    stock = ViTMAEForPreTraining(
        ViTMAEConfig(**_settings(config, size), **{name: getattr(config, name) for name in names})
    )
    weights = {f"vit.{name}": value for name, value in _vit_weights(model.stedfm, size).items()}
    weights |= {
        "decoder.mask_token": decoder.mask_token,
        "decoder.decoder_pos_embed": position_table(size // config.patch_size, config.decoder_hidden_size),
        **_linear("decoder.decoder_embed", decoder.embed),
        **_linear("decoder.decoder_norm", decoder.norm),
        **_linear("decoder.decoder_pred", decoder.head),
    }
    for number, layer in enumerate(decoder.layers):
        weights |= _layer_weights(layer, f"decoder.decoder_layers.{number}", _LAYER)
    return stock, weights


def _classifier(model: StedFmForImageClassification, size: int) -> tuple[PreTrainedModel, Weights]:
    """Return an empty stock classifier with the pooling of the model, and its weights."""
    config = model.config
    labels = {
        "id2label": dict(config.id2label),
        "label2id": {name: index for index, name in config.id2label.items()},
        "problem_type": PROBLEM_TYPES.get(config.target_type),
    }
    weight, bias = folded_head(model.classifier)
    if config.pooling == "token":
        stock = ViTForImageClassification(ViTConfig(**_settings(config, size), **labels))
        weights = {f"vit.{name}": value for name, value in _vit_weights(model.stedfm, size).items()}
        return stock, weights | {"classifier.weight": weight, "classifier.bias": bias}
    settings = _settings(config, size)
    ratio, rest = divmod(settings.pop("intermediate_size"), config.hidden_size)
    if rest:
        raise UserError(
            f"Dinov2ForImageClassification needs an intermediate_size that is a multiple of hidden_size, and this "
            f"model has {config.intermediate_size} and {config.hidden_size}; export it with --format timm or onnx"
        )
    stock = Dinov2ForImageClassification(
        Dinov2Config(**settings, **labels, mlp_ratio=ratio, use_mask_token=False, layerscale_value=1.0)
    )
    # The head takes [class token, mean of the patch tokens].
    weights = {f"dinov2.{name}": value for name, value in _dinov2_weights(model.stedfm, size).items()}
    wide = torch.cat([torch.zeros_like(weight), weight], dim=1)
    return stock, weights | {"classifier.weight": wide, "classifier.bias": bias}


def _settings(config: StedFmConfig, size: int) -> dict[str, Any]:
    """Return the settings that the stock configurations share, with image size `size`."""
    names = (
        *("patch_size", "num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads"),
        *("intermediate_size", "hidden_act", "layer_norm_eps", "qkv_bias", "initializer_range"),
    )
    return {name: getattr(config, name) for name in names} | {"image_size": size}


def folded_head(head: StedFmClassifier) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (L, D) and bias (L,) of the linear layer that equals batch normalisation and linear layer.

    Args:
        head: Head of a classifier.
    """
    norm = head.batch_norm
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    weight = head.weight.double() * scale
    bias = head.bias.double() - weight @ norm.running_mean.double()
    return weight.float().detach(), bias.float().detach()


def position_table(grid: int, width: int) -> torch.Tensor:
    """Return the position table (1, 1 + grid * grid, width) of a square grid of patches, class token first."""
    return sincos_position_table(grid, grid, width)[None].clone()


def patch_kernel(encoder: StedFmModel) -> torch.Tensor:
    """Return the projection of the patches as the kernel (D, C, p, p) of a convolution."""
    config = encoder.config
    size, channels = config.patch_size, config.num_channels
    weight = encoder.embeddings.patch_embeddings.weight
    return weight.reshape(config.hidden_size, size, size, channels).permute(0, 3, 1, 2)


def _embedding_weights(encoder: StedFmModel, size: int) -> Weights:
    config = encoder.config
    return {
        "embeddings.cls_token": encoder.embeddings.cls_token,
        "embeddings.position_embeddings": position_table(size // config.patch_size, config.hidden_size),
        "embeddings.patch_embeddings.projection.weight": patch_kernel(encoder),
        "embeddings.patch_embeddings.projection.bias": encoder.embeddings.patch_embeddings.bias,
    }


def _vit_weights(encoder: StedFmModel, size: int) -> Weights:
    """Return the weights of `ViTModel` without a pooler."""
    weights = _embedding_weights(encoder, size) | _linear("layernorm", encoder.norm)
    for number, layer in enumerate(encoder.encoder.layers):
        weights |= _layer_weights(layer, f"layers.{number}", _LAYER)
    return weights


def _dinov2_weights(encoder: StedFmModel, size: int) -> Weights:
    """Return the weights of `Dinov2Model`."""
    weights = _embedding_weights(encoder, size) | _linear("layernorm", encoder.norm)
    one = torch.ones(encoder.config.hidden_size)
    for number, layer in enumerate(encoder.encoder.layers):
        prefix = f"encoder.layer.{number}"
        weights |= _layer_weights(layer, prefix, _LAYER_OF_DINOV2)
        weights |= {f"{prefix}.layer_scale1.lambda1": one, f"{prefix}.layer_scale2.lambda1": one}
    return weights


def _layer_weights(layer: nn.Module, prefix: str, names: Mapping[str, str]) -> Weights:
    """Return the weights of a transformer layer; the projection of queries, keys and values is split."""
    weights: Weights = {}
    for name, value in layer.state_dict().items():
        module, _, kind = name.rpartition(".")
        if module == "attention.qkv":
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                weights[f"{prefix}.attention.{part}_proj.{kind}"] = chunk
        else:
            weights[f"{prefix}.{names.get(module, module)}.{kind}"] = value
    return weights


def _linear(prefix: str, module: nn.Module) -> Weights:
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}


def _networks(model: Any, stock: Any) -> tuple[Callable[[torch.Tensor], Outputs], Callable[[torch.Tensor], Outputs]]:
    """Return both models as functions of images with the same outputs."""
    kind = kind_of(model)
    if kind == "classifier":
        return (lambda images: {"logits": model(images).logits}), (lambda images: {"logits": stock(images).logits})
    if kind == "encoder":

        def tokens(network: Any, images: torch.Tensor) -> Outputs:
            found = network(images).last_hidden_state
            return {"last_hidden_state": found, "class token": found[:, 0]}

        def stock_tokens(images: torch.Tensor) -> Outputs:
            found = stock(images)
            return {"last_hidden_state": found.last_hidden_state, "class token": found.pooler_output}

        return (lambda images: tokens(encoder_of(model), images)), stock_tokens

    def noise(images: torch.Tensor) -> torch.Tensor:
        patches = images.shape[2] * images.shape[3] // model.config.patch_size**2
        return torch.rand(len(images), patches, generator=torch.Generator().manual_seed(1))

    def ours(images: torch.Tensor) -> Outputs:
        found = model(images, noise=noise(images))
        return {"logits": found.logits, "loss": found.loss[None], "mask": found.mask.float()}

    def stocks(images: torch.Tensor) -> Outputs:
        masked = model(images, noise=noise(images)).ids_masked
        found = stock(images, noise=noise(images))
        logits = found.logits.gather(1, masked[:, :, None].expand(-1, -1, found.logits.shape[2]))
        return {"logits": logits, "loss": found.loss[None], "mask": found.mask}

    return ours, stocks
