"""From the state dict of the reference to ours: which model it is, what every tensor is called, what is left over."""

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
    "model of it (keys backbone.… and classification_head.… or decoder0_predict.…)"
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
    "classification_head.0": "batch_norm",
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
_LEFT_OVER_HEAD = "classifier that the reference leaves in its backbone: random, never trained, never used"
_LEFT_OVER_TOKEN = "mask token of the encoder: zeros, never used, the decoder has its own"
_TABLE = "sin-cos position table: equal to the one the model computes"


@dataclass(frozen=True)
class Translation:
    """A reference state dict in our terms.

    Attributes:
        kind: Which of our classes takes it.
        architecture: Name in `ARCHITECTURES`.
        config: Configuration of the model.
        state_dict: Our names and layouts; float32, no memory shared with the source. Complete: nothing is missing.
        dropped: The reference's keys that were left behind, with the reason.
    """

    kind: Kind
    architecture: str
    config: StedFmConfig
    state_dict: dict[str, torch.Tensor]
    dropped: dict[str, str]

    def model(self) -> StedFmPreTrainedModel:
        """The model with these weights, in eval mode."""
        with torch.device("meta"):
            model = _CLASSES[self.kind](self.config)
        model.load_state_dict(self.state_dict, strict=True, assign=True)
        return model.eval()


def find_state_dict(checkpoint: Mapping[str, Any], source: str) -> dict[str, torch.Tensor]:
    """Finds the weights in a checkpoint: a Lightning file, a file of the reference's fine-tuning, or bare weights.

    Raises:
        UserError: There are none.
    """
    places = ("state_dict", "model_state_dict", "model")
    state: Any = next((checkpoint[place] for place in places if place in checkpoint), checkpoint)
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{source}: holds no weights; {_EXPECTED}")
    strangers = [str(key) for key, value in state.items() if not _is_plain_tensor(value)]
    if strangers:
        raise UserError(f"{source}: {_names(strangers)} hold no plain tensors; {_EXPECTED}")
    return {str(key): value for key, value in state.items()}


def translate(state: Mapping[str, torch.Tensor], source: str) -> Translation:
    """Translates reference weights, checking every key, shape and number.

    Raises:
        UserError: Another architecture, a missing or unexpected key, a wrong shape, a position table that is not the
            sin-cos one, NaN or infinite weights.
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

    # The model itself says what it needs: no second list of keys and shapes to keep right.
    with torch.device("meta"):
        wanted = _CLASSES[kind](config).state_dict()
    unexpected += [origin[name] for name in named if name not in wanted]
    tables = [f"{prefix}pos_embed", *(["decoder.decoder_pos_embed"] if kind == "pretraining" else [])]
    missing = [name for name in wanted if name not in named] + [key for key in tables if key not in state]
    if missing or unexpected:
        what = [f"{len(missing)} missing ({_names(missing)})"] if missing else []
        what += [f"{len(unexpected)} unexpected ({_names(unexpected)})"] if unexpected else []
        raise UserError(f"{source}: looks like {architecture} but has keys {' and '.join(what)}; {_EXPECTED}")

    result = {}
    for name, place in wanted.items():
        key, tensor = origin[name], named[name]
        if key.endswith("patch_embed.proj.weight"):
            tensor = _patch_matrix(tensor)
        if tensor.shape != place.shape or tensor.is_floating_point() != place.is_floating_point():
            found, asked = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (tensor, place))
            raise UserError(f"{source}: {key} is {found}, but {architecture} has {asked}")
        if not tensor.isfinite().all():
            raise UserError(f"{source}: {key} holds NaN or infinite numbers; the training that wrote it failed")
        result[name] = tensor.to(place.dtype, copy=True).contiguous()
    for key in tables:
        _check_table(state[key], config, source, key)
    return Translation(kind, architecture, config, result, dropped)


def _is_plain_tensor(value: Any) -> bool:
    """Whether `value` is a dense tensor that holds all its numbers: one number can be stretched to any shape."""
    return (
        isinstance(value, torch.Tensor)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _kind(state: Mapping[str, torch.Tensor], source: str) -> tuple[Kind, str]:
    """Which model it is, and what the keys of its encoder begin with."""
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
    """Name and configuration, from the shapes alone."""
    patch_embed = state[f"{prefix}patch_embed.proj.weight"]
    if patch_embed.ndim != 4 or patch_embed.shape[2] != patch_embed.shape[3] or 0 in patch_embed.shape:
        raise UserError(f"{source}: {prefix}patch_embed.proj.weight has shape {tuple(patch_embed.shape)}; {_EXPECTED}")
    width, channels, patch_size, _ = patch_embed.shape
    blocks = {match[1] for key in state if (match := re.match(re.escape(prefix) + r"blocks\.(\d+)\.", key))}
    found = (width, len(blocks), patch_size)
    sizes = {}
    for name in ARCHITECTURES:
        config = _config(name)
        sizes[config.hidden_size, config.num_hidden_layers, config.patch_size] = name
    if found not in sizes:
        known = ", ".join(f"{name} {size}" for size, name in sizes.items())
        raise UserError(f"{source}: (width, layers, patch size) is {found}, of another architecture; known: {known}")
    architecture = sizes[found]
    options: dict[str, Any] = {"num_channels": channels}
    table = state.get(f"{prefix}pos_embed")
    if table is not None and table.ndim == 3 and table.shape[1] > 1:
        options["image_size"] = math.isqrt(table.shape[1] - 1) * patch_size
    if kind == "classification":
        options["num_labels"] = len(torch.atleast_1d(state["classification_head.1.weight"]))
    if kind == "segmentation":
        # Masks that may overlap, trained with the squared error: so are all of the reference's.
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
    """Our name of a reference key, or None if there is none."""
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
    """(D, C, p, p) of the convolution to (D, p * p * C): our patches are in the order (row, column, channel)."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _check_table(table: torch.Tensor, config: StedFmConfig, source: str, key: str) -> None:
    side = config.image_size // config.patch_size
    width = config.decoder_hidden_size if key.startswith("decoder.") else config.hidden_size
    expected = sincos_position_table(side, side, width)[None]
    precision = max(1e-5, torch.finfo(table.dtype).eps) if table.is_floating_point() else 0.0
    if table.shape != expected.shape or not torch.allclose(table.float(), expected, rtol=0, atol=precision):
        raise UserError(
            f"{source}: {key} is not the fixed sin-cos position table of a {side}x{side} grid; the weights were "
            "trained with other positions, which STED-FM does not have"
        )


def _names(names: Any, limit: int = 4) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:limit]) + (", …" if len(listed) > limit else "")
