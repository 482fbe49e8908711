"""Export to a folder for `timm.create_model("local-dir:...")`. timm is not needed to write it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from stedfm_hf.exports.comparing import Comparison, Network, Outputs, compare, random_images
from stedfm_hf.exports.kinds import encoder_of, kind_of
from stedfm_hf.exports.transformers_format import Weights, folded_head, patch_kernel, position_table
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification, StedFmPreTrainedModel
from stedfm_hf.runs import UserError, read_json, write_json

ARCHITECTURE = "vit_small_patch16_224"
"""Architecture of timm; `model_args` change its sizes."""
_LAYER_NORM_EPS = 1e-6  # fixed in timm
_PARTS = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out_proj": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def export_timm(
    model: StedFmPreTrainedModel, folder: Path, *, image_size: int | None = None
) -> tuple[str, Comparison]:
    """Write an encoder or a classifier for timm, and compare both models.

    The outputs are those of `timm.create_model`. If timm is not installed, they are computed from the written files
    as timm does.

    Args:
        model: Encoder, or model that holds one, in float32 and in evaluation mode; of a classifier also the head.
        folder: Existing folder to write.
        image_size: Image size of the position table, in pixels; by default that of the model.

    Returns:
        Description of the comparison, and the comparison.

    Raises:
        UserError: If timm cannot compute the same.
    """
    config = model.config
    size = config.image_size if image_size is None else image_size
    if kind_of(model) == "segmenter":
        raise UserError(
            "timm has no segmenters; export the segmenter with --format onnx, or only its encoder with --encoder-only"
        )
    _check(config)
    weights = timm_weights(model, size)
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    write_json(folder / "config.json", timm_config(model, size))
    timm = _import_timm()
    network = _like_timm(folder) if timm is None else _with_timm(timm, folder)

    def reference(images: torch.Tensor) -> Outputs:
        tokens = encoder_of(model)(images).last_hidden_state
        pooled = encoder_of(model).pool(tokens)
        output = model.classify(pooled) if isinstance(model, StedFmForImageClassification) else pooled
        return {"tokens": tokens, "output": output}

    how = "computed as timm does, because timm is not installed" if timm is None else f"timm {timm.__version__}"
    return how, compare(reference, network, random_images(config, [(size, size)]))


def timm_config(model: StedFmPreTrainedModel, size: int) -> dict[str, Any]:
    """Return `config.json` of timm.

    Args:
        model: Encoder or classifier.
        size: Image size of the position table, in pixels.
    """
    config = model.config
    pool = "token" if config.pooling == "token" else "avg"
    classifies = isinstance(model, StedFmForImageClassification)
    labels = [str(config.id2label[number]) for number in range(config.num_labels)] if classifies else []
    arguments = {
        "in_chans": config.num_channels,
        "img_size": size,
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "qkv_bias": config.qkv_bias,
        "global_pool": pool,
        # Without it, timm pools before the norm.
        "fc_norm": False,
    }
    pretrained = {
        "tag": "stedfm",
        "input_size": [config.num_channels, size, size],
        "fixed_input_size": True,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": [0.0] * config.num_channels,
        "std": [1.0] * config.num_channels,
        "num_classes": len(labels),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    found: dict[str, Any] = {
        "architecture": ARCHITECTURE,
        "num_classes": len(labels),
        "num_features": config.hidden_size,
        "global_pool": pool,
        "model_args": arguments,
        "pretrained_cfg": pretrained,
    }
    return found | ({"label_names": labels} if labels else {})


def timm_weights(model: StedFmPreTrainedModel, size: int) -> Weights:
    """Return the weights with the names of timm's vision transformer.

    Args:
        model: Encoder or classifier.
        size: Image size of the position table, in pixels.
    """
    encoder = encoder_of(model)
    config = encoder.config
    weights: Weights = {
        "cls_token": encoder.embeddings.cls_token,
        "pos_embed": position_table(size // config.patch_size, config.hidden_size),
        "patch_embed.proj.weight": patch_kernel(encoder),
        "patch_embed.proj.bias": encoder.embeddings.patch_embeddings.bias,
        "norm.weight": encoder.norm.weight,
        "norm.bias": encoder.norm.bias,
    }
    for number, layer in enumerate(encoder.encoder.layers):
        for name, value in layer.state_dict().items():
            module, _, kind = name.rpartition(".")
            weights[f"blocks.{number}.{_PARTS[module]}.{kind}"] = value
    if isinstance(model, StedFmForImageClassification):
        weights["head.weight"], weights["head.bias"] = folded_head(model.classifier)
    return weights


def _check(config: Any) -> None:
    """Refuse settings that timm's vision transformer does not have."""
    if config.layer_norm_eps != _LAYER_NORM_EPS or config.hidden_act != "gelu":
        raise UserError(
            f"timm's vision transformer has layer_norm_eps {_LAYER_NORM_EPS} and hidden_act gelu, and this model "
            f"{config.layer_norm_eps} and {config.hidden_act}; export it with --format transformers or onnx"
        )
    if int(config.hidden_size * (config.intermediate_size / config.hidden_size)) != config.intermediate_size:
        raise UserError(
            f"timm cannot express intermediate_size {config.intermediate_size} as a ratio of hidden_size "
            f"{config.hidden_size}; export the model with --format transformers or onnx"
        )


def _import_timm() -> Any:
    """Return timm, or None if it cannot be imported. It is not a dependency, but a user may have it."""
    try:
        return importlib.import_module("timm")
    except Exception:  # torchvision, which timm imports, raises errors of many types next to another torch
        return None


def _with_timm(timm: Any, folder: Path) -> Network:
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()

    def run(images: torch.Tensor) -> Outputs:
        return {"tokens": network.forward_features(images), "output": network(images)}

    return run


def _like_timm(folder: Path) -> Network:
    """Return a function that computes a written folder as timm's `VisionTransformer` does."""
    config, weights = read_json(folder / "config.json"), load_file(folder / "model.safetensors")
    arguments = config["model_args"]

    def linear(name: str, values: torch.Tensor) -> torch.Tensor:
        return functional.linear(values, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, values: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(
            values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], _LAYER_NORM_EPS
        )

    def run(images: torch.Tensor) -> Outputs:
        kernel = weights["patch_embed.proj.weight"]
        patches = functional.conv2d(images, kernel, weights["patch_embed.proj.bias"], stride=arguments["patch_size"])
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([weights["cls_token"].expand(len(tokens), -1, -1), tokens], dim=1) + weights["pos_embed"]
        for number in range(arguments["depth"]):
            block = f"blocks.{number}"
            qkv = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", tokens))
            query, key, value = qkv.unflatten(2, (3, arguments["num_heads"], -1)).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(query, key, value)
            tokens = tokens + linear(f"{block}.attn.proj", attended.transpose(1, 2).flatten(2))
            hidden = functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", tokens)))
            tokens = tokens + linear(f"{block}.mlp.fc2", hidden)
        tokens = norm("norm", tokens)
        pooled = tokens[:, 0] if config["global_pool"] == "token" else tokens[:, 1:].mean(dim=1)
        return {"tokens": tokens, "output": linear("head", pooled) if config["num_classes"] else pooled}

    return run
