"""Translate a state dict of the reference: detect the model, rename its tensors, and list dropped keys."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES, StedFmConfig
from stedfm_hf.modeling.layers_stedfm import sincos_position_table
from stedfm_hf.modeling.modeling_stedfm import (
    StedFmForImageClassification,
    StedFmPreTrainedModel,
)
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation
from stedfm_hf.runs.errors import UserError

__all__ = ["Kind", "Translation", "find_state_dict", "translate"]

Kind = Literal["pretraining", "classification", "segmentation"]

_EXPECTED = (
    "expected a STED-FM masked autoencoder (keys backbone.vit.… and decoder.…), or a classifier or a segmentation "
    "model of it (keys backbone.… and classification_head.… or decoder0_predict.…), or a diffusion model (keys "
    "model.init_conv.… and model.downs.…)"
)
_CLASSES: dict[Kind, type[StedFmPreTrainedModel]] = {
    "pretraining": StedFmForPreTraining,
    "classification": StedFmForImageClassification,
    "segmentation": StedFmForSemanticSegmentation,
}
# timm writes the encoder straight into the backbone of a model, lightly one level deeper.
_ENCODERS = ("backbone.vit.", "backbone.")
_LAYER = {"attn.qkv": "attention.qkv", "attn.proj": "attention.out_proj"}
_ENCODER_NAMES = {
    "cls_token": "stedfm.embeddings.cls_token",
    "patch_embed.proj": "stedfm.embeddings.patch_embeddings",
    "norm": "stedfm.norm",
}
_HEAD_NAMES = {
    "decoder.mask_token": "decoder.mask_token",
    "decoder.decoder_embed": "decoder.embed",
    "decoder.decoder_norm": "decoder.norm",
    "decoder.decoder_pred": "decoder.head",
    "classification_head.0": "classifier.batch_norm",
    "classification_head.1": "classifier",
    "classification_head": "decode_head.projection",
    "decoder12_upsampler.block": "decode_head.deepest",
    "decoder0_predict.2.block": "decode_head.classifier",
}
_LEVELS = {"9": 0, "6": 1, "3": 2}
# Of the full decoder of segmentation: pattern of the reference's module, and ours.
_BLOCKS = (
    (r"decoder([963])\.(\d)\.block\.0\.block", "laterals.{}.{}.up"),
    (r"decoder([963])\.(\d)\.block\.1\.block", "laterals.{}.{}.block.conv"),
    (r"decoder([963])\.(\d)\.block\.2", "laterals.{}.{}.block.batch_norm"),
    (r"decoder([963])_upsampler\.(\d)\.block\.0\.block", "merges.{}.{}.conv"),
    (r"decoder([963])_upsampler\.(\d)\.block\.1", "merges.{}.{}.batch_norm"),
    (r"decoder([963])_upsampler\.(\d)\.block", "merges.{}.{}"),
    (r"decoder0\.(\d)\.block\.0\.block", "image.{}.conv"),
    (r"decoder0\.(\d)\.block\.1", "image.{}.batch_norm"),
    (r"decoder0_predict\.(\d)\.block\.0\.block", "predict.{}.conv"),
    (r"decoder0_predict\.(\d)\.block\.1", "predict.{}.batch_norm"),
)
_LEFT_OVER_HEAD = "classifier in the backbone of the reference: random, never trained or used"
_LEFT_OVER_TOKEN = "mask token of the encoder: zeros and unused; the decoder has a separate one"
_TABLE = "sin-cos position table: equal to the one that the model computes"


@dataclass(frozen=True)
class Translation:
    """Translated state dict of the reference.

    Attributes:
        kind: Kind of the model, which selects its class.
        architecture: Name in `ARCHITECTURES`.
        config: Configuration of the model.
        state_dict: All weights with the names and layouts of this package; float32, not shared with the source.
        dropped: Keys of the reference that are not used, with the reason.
    """

    kind: Kind
    architecture: str
    config: StedFmConfig
    state_dict: dict[str, torch.Tensor]
    dropped: dict[str, str]

    def model(self) -> StedFmPreTrainedModel:
        """Return the model with these weights, in eval mode."""
        with torch.device("meta"):
            model = _CLASSES[self.kind](self.config)
        model.load_state_dict(self.state_dict, strict=True, assign=True)
        return model.eval()


def find_state_dict(checkpoint: Mapping[str, Any], source: str) -> dict[str, torch.Tensor]:
    """Find the weights in a checkpoint: a Lightning file, a fine-tuned model of the reference, or a state dict.

    Args:
        checkpoint: Dictionary of the checkpoint.
        source: Name of the file, for messages.

    Raises:
        UserError: If there are none.
    """
    keys = ("state_dict", "model_state_dict", "model")
    state: Any = next((checkpoint[key] for key in keys if key in checkpoint), checkpoint)
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{source}: holds no weights; {_EXPECTED}")
    others = [str(key) for key, value in state.items() if not _is_plain_tensor(value)]
    if others:
        raise UserError(f"{source}: {_names(others)} are not plain tensors; {_EXPECTED}")
    return {str(key): value for key, value in state.items()}


def translate(state: Mapping[str, torch.Tensor], source: str) -> Translation:
    """Translate weights of the reference, and check every key, shape and number.

    Args:
        state: State dict of the reference.
        source: Name of the file, for messages.

    Raises:
        UserError: If the architecture is unknown, keys are missing or unexpected, shapes differ, the position table is
            not the sin-cos table, or weights are NaN or infinite.
    """
    kind, prefix = _kind(state, source)
    architecture, config = _architecture(state, kind, prefix, source)
    named: dict[str, torch.Tensor] = {}
    dropped: dict[str, str] = {}
    unexpected: list[str] = []
    origin: dict[str, str] = {}
    for key, tensor in state.items():
        if reason := _left_over(key, prefix):
            dropped[key] = reason
        elif name := _our_name(key, prefix):
            named[name], origin[name] = tensor, key
        else:
            unexpected.append(key)

    # The model defines the expected keys and shapes; no second list is needed.
    with torch.device("meta"):
        expected = _CLASSES[kind](config).state_dict()
    unexpected += [origin[name] for name in named if name not in expected]
    tables = [f"{prefix}pos_embed", *(["decoder.decoder_pos_embed"] if kind == "pretraining" else [])]
    missing = [name for name in expected if name not in named] + [key for key in tables if key not in state]
    if missing or unexpected:
        what = [f"{len(missing)} missing ({_names(missing)})"] if missing else []
        what += [f"{len(unexpected)} unexpected ({_names(unexpected)})"] if unexpected else []
        raise UserError(f"{source}: looks like {architecture} but has keys {' and '.join(what)}; {_EXPECTED}")

    result = {}
    for name, target in expected.items():
        key, tensor = origin[name], named[name]
        if key.endswith("patch_embed.proj.weight"):
            tensor = _patch_matrix(tensor)
        if tensor.shape != target.shape or tensor.is_floating_point() != target.is_floating_point():
            found, needed = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (tensor, target))
            raise UserError(f"{source}: {key} is {found}, but {architecture} needs {needed}")
        if not tensor.isfinite().all():
            raise UserError(f"{source}: {key} holds NaN or infinite numbers; the training diverged")
        result[name] = tensor.to(target.dtype, copy=True).contiguous()
    for key in tables:
        _check_table(state[key], config, source, key)
    return Translation(kind, architecture, config, result, dropped)


def _is_plain_tensor(value: Any) -> bool:
    """Return whether a value is a dense tensor with all its numbers in memory, not one number expanded to a shape."""
    return (
        isinstance(value, torch.Tensor)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _kind(state: Mapping[str, torch.Tensor], source: str) -> tuple[Kind, str]:
    """Return the kind of the model, and the prefix of the keys of its encoder.

    Raises:
        UserError: If no head is known.
    """
    heads: dict[str, Kind] = {
        "classification_head.1.weight": "classification",
        "decoder.decoder_pred.weight": "pretraining",
        "classification_head.weight": "segmentation",
        "decoder0_predict.2.block.weight": "segmentation",
    }
    for prefix in _ENCODERS:
        for head, kind in heads.items():
            if head in state and f"{prefix}patch_embed.proj.weight" in state:
                return kind, prefix
    some = ", ".join(f"{key} {tuple(tensor.shape)}" for key, tensor in list(state.items())[:2])
    raise UserError(f"{source}: holds {len(state)} tensors such as {some}; {_EXPECTED}")


def _architecture(state: Mapping[str, torch.Tensor], kind: Kind, prefix: str, source: str) -> tuple[str, StedFmConfig]:
    """Return the name and the configuration of the architecture, from the shapes of the weights.

    Width, number of layers and patch size identify it; channels, image size, number of labels and decoder are read
    from the shapes.

    Raises:
        UserError: If no architecture has these sizes.
    """
    patch_embed = state[f"{prefix}patch_embed.proj.weight"]
    if patch_embed.ndim != 4 or patch_embed.shape[2] != patch_embed.shape[3] or 0 in patch_embed.shape:
        raise UserError(f"{source}: {prefix}patch_embed.proj.weight has shape {tuple(patch_embed.shape)}; {_EXPECTED}")
    width, channels, patch_size, _ = patch_embed.shape
    blocks = {match[1] for key in state if (match := re.match(re.escape(prefix) + r"blocks\.(\d+)\.", key))}
    size = (width, len(blocks), patch_size)
    sizes = {}
    for name in ARCHITECTURES:
        config = _config(name)
        sizes[config.hidden_size, config.num_hidden_layers, config.patch_size] = name
    if size not in sizes:
        known_sizes = ", ".join(f"{name} {size}" for size, name in sizes.items())
        raise UserError(
            f"{source}: (width, layers, patch size) is {size}, of another architecture; known: {known_sizes}"
        )
    architecture = sizes[size]
    options: dict[str, Any] = {"num_channels": channels}
    table = state.get(f"{prefix}pos_embed")
    if table is not None and table.ndim == 3 and table.shape[1] > 1:
        options["image_size"] = math.isqrt(table.shape[1] - 1) * patch_size
    if kind == "classification":
        options["num_labels"] = len(torch.atleast_1d(state["classification_head.1.weight"]))
    if kind == "segmentation":
        # All segmentation models of the reference have overlapping masks and the squared error.
        options |= {"target_type": "multi_label", "segmentation_loss": "mse"}
        if "classification_head.weight" in state:
            rows = len(torch.atleast_1d(state["classification_head.weight"]))
            options |= {"decoder": "linear", "num_labels": max(1, rows // patch_size**2)}
        else:
            rows = len(torch.atleast_1d(state["decoder0_predict.2.block.weight"]))
            options |= {"decoder": "unetr", "num_labels": rows}
    return architecture, _config(architecture, **options)


def _config(architecture: str, **options: Any) -> StedFmConfig:
    return StedFmConfig(**{**ARCHITECTURES[architecture], **options})


def _left_over(key: str, prefix: str) -> str | None:
    if key in (f"{prefix}pos_embed", "decoder.decoder_pos_embed"):
        return _TABLE
    if key in (f"{prefix}head.weight", f"{prefix}head.bias"):
        return _LEFT_OVER_HEAD
    return _LEFT_OVER_TOKEN if key == "backbone.mask_token" else None


def _our_name(key: str, prefix: str) -> str | None:
    """Return the name in this package of a key of the reference, or None."""
    if match := re.fullmatch(r"(.+blocks)\.(\d+)\.(.+)\.(weight|bias)", key):
        blocks, index, layer, parameter = match.groups()
        ours = {f"{prefix}blocks": "stedfm.encoder", "decoder.decoder_blocks": "decoder"}.get(blocks)
        return f"{ours}.layers.{index}.{_LAYER.get(layer, layer)}.{parameter}" if ours else None
    names = {prefix + theirs: ours for theirs, ours in _ENCODER_NAMES.items()} | _HEAD_NAMES
    module, _, parameter = key.rpartition(".")
    for pattern, ours in _BLOCKS:
        if match := re.fullmatch(pattern, module):
            level = "{}.{}" in ours
            numbers = [_LEVELS[n] if level and at == 0 else n for at, n in enumerate(match.groups())]
            return f"decode_head.{ours.format(*numbers)}.{parameter}"
    return names.get(key) or (f"{names[module]}.{parameter}" if module in names else None)


def _patch_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Arrange the convolution weights (D, C, p, p) as (D, p * p * C): pixels by row, column and channel."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _check_table(table: torch.Tensor, config: StedFmConfig, source: str, key: str) -> None:
    """Raise a UserError if a stored position table is not the sin-cos table that the models compute themselves.

    Half-precision tables may differ by their rounding.
    """
    size = config.image_size // config.patch_size
    width = config.decoder_hidden_size if key.startswith("decoder.") else config.hidden_size
    expected = sincos_position_table(size, size, width)[None]
    precision = max(1e-5, torch.finfo(table.dtype).eps) if table.is_floating_point() else 0.0
    if table.shape != expected.shape or not torch.allclose(table.float(), expected, rtol=0, atol=precision):
        raise UserError(
            f"{source}: {key} is not the fixed sin-cos position table of a {size}x{size} grid; the weights were "
            "trained with other position embeddings, which STED-FM does not support"
        )


def _names(names: Any, limit: int = 4) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:limit]) + (", …" if len(listed) > limit else "")
