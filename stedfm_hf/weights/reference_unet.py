"""Translate the denoising network in a checkpoint of the reference's diffusion model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from stedfm_hf.modeling.unet_stedfm import StedFmUNet
from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.wording import some_of

__all__ = ["Conditioning", "UNetTranslation", "is_unet", "translate_unet"]

Conditioning = Literal["embedding", "class"]

EXPECTED = "expected a diffusion model of STED-FM (keys model.init_conv.…, model.downs.… and model.cond_mlp.…)"
_STEM = "init_conv.weight"
_UNUSED_CLASSES = 4
"""Number of classes that the reference leaves in a network that is conditioned on embeddings."""
_UNUSED = {
    "embedding": ("label_embed.", "table of classes: random, never trained or used"),
    "class": ("cond_mlp.", "layers for embeddings: random, never trained or used"),
}
# Patterns of the modules of the reference, and ours.
_MODULES = (
    (r"init_conv", "conv_in"),
    (r"final_conv", "conv_out"),
    (r"time_mlp\.1", "time_embedding.linear_1"),
    (r"time_mlp\.3", "time_embedding.linear_2"),
    (r"cond_mlp\.0", "condition_embedding.linear_1"),
    (r"cond_mlp\.2", "condition_embedding.linear_2"),
    (r"label_embed", "class_embedding"),
    (r"(down|up)s\.(\d+)\.([01])\.(.+)", "{}_blocks.{}.resnets.{}.{}"),
    (r"(down|up)s\.(\d+)\.2(.*)", "{}_blocks.{}.attention{}"),
    (r"(down|up)s\.(\d+)\.3(.*)", "{}_blocks.{}.resample{}"),
    (r"mid_block1\.(.+)", "mid_block.resnets.0.{}"),
    (r"mid_block2\.(.+)", "mid_block.resnets.1.{}"),
    (r"mid_attn(.*)", "mid_block.attention{}"),
    (r"final_res_block\.(.+)", "resnet_out.{}"),
)
# Names inside a residual block and an attention.
_PARTS = (
    (r"\.mlp\.1$", ".time_emb_proj"),
    (r"\.block([12])\.proj$", r".conv\1"),
    (r"\.block([12])\.norm$", r".norm\1"),
    (r"\.res_conv$", ".conv_shortcut"),
    (r"\.to_out\.0$", ".to_out"),
    (r"\.to_out\.1$", ".norm_out"),
)
_PARAMETERS = {"g": ".weight", "mem_kv": ".memory", "weight": ".weight", "bias": ".bias"}


@dataclass(frozen=True)
class UNetTranslation:
    """Translated denoising network of the reference.

    Attributes:
        conditioning: What the network was conditioned on: `embedding` or `class`.
        config: Arguments of `StedFmUNet`.
        state_dict: All weights with the names and layouts of this package; float32, not shared with the source.
        dropped: Keys of the reference that are not used, with the reason.
    """

    conditioning: Conditioning
    config: dict[str, Any]
    state_dict: dict[str, torch.Tensor]
    dropped: dict[str, str]

    def model(self) -> StedFmUNet:
        """Return the network with these weights, in eval mode."""
        with torch.device("meta"):
            unet = StedFmUNet(**self.config)
        unet.load_state_dict(self.state_dict, strict=True, assign=True)
        return unet.eval()


def is_unet(state: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a state dict without the prefix `model.` is that of a denoising network."""
    return _STEM in state and any(key.startswith("downs.") for key in state)


def translate_unet(state: Mapping[str, torch.Tensor], source: str) -> UNetTranslation:
    """Translate weights of the reference's denoising network, and check every key, shape and number.

    A network with a table of more than 4 classes is conditioned on classes, any other one on embeddings: the reference
    always has both modules and uses one.

    Args:
        state: State dict of the reference's network, without the prefix `model.`.
        source: Name of the file, for messages.

    Raises:
        UserError: If keys are missing or unexpected, shapes differ, or weights are NaN or infinite.
    """
    config, conditioning = _config(state, source)
    prefix, reason = _UNUSED[conditioning]
    dropped = {key: reason for key in state if key.startswith(prefix)}
    used = {key: tensor for key, tensor in state.items() if key not in dropped}
    origin = {name: key for key in used if (name := our_name(key))}
    with torch.device("meta"):
        expected = StedFmUNet(**config).state_dict()
    computed = {
        name: tensor for name, tensor in expected.items() if name.startswith(("condition_mean", "condition_s"))
    }
    missing = [name for name in expected if name not in origin and name not in computed]
    unexpected = [key for key in used if our_name(key) not in expected]
    if missing or unexpected:
        what = [f"{len(missing)} missing ({some_of(missing)})"] if missing else []
        what += [f"{len(unexpected)} unexpected ({some_of(unexpected)})"] if unexpected else []
        raise UserError(f"{source}: looks like a diffusion model but has keys {' and '.join(what)}; {EXPECTED}")

    result = {}
    for name, target in expected.items():
        if name in computed:  # the reference does not standardise embeddings
            result[name] = torch.full(target.shape, float(name == "condition_std"))
            continue
        key = origin[name]
        tensor = _our_layout(used[key], key, len(config["channel_multipliers"]))
        if tensor.shape != target.shape or not tensor.is_floating_point():
            found = f"{tuple(used[key].shape)} {str(tensor.dtype).removeprefix('torch.')}"
            raise UserError(f"{source}: {key} is {found}, which does not fit the other weights; {EXPECTED}")
        if not tensor.isfinite().all():
            raise UserError(f"{source}: {key} holds NaN or infinite numbers; the training diverged")
        result[name] = tensor.to(target.dtype, copy=True).contiguous()
    return UNetTranslation(conditioning, config, result, dropped)


def our_name(key: str) -> str | None:
    """Return the name in this package of a key of the reference's network, or None.

    Example:
        >>> our_name("downs.0.2.to_out.1.g"), our_name("mid_block1.mlp.1.bias")
        ('down_blocks.0.attention.norm_out.weight', 'mid_block.resnets.0.time_emb_proj.bias')
    """
    module, _, parameter = key.rpartition(".")
    for pattern, ours in _MODULES:
        if match := re.fullmatch(pattern, module):
            name = ours.format(*match.groups())
            for part, replacement in _PARTS:
                name = re.sub(part, replacement, name)
            return name + _PARAMETERS[parameter] if parameter in _PARAMETERS else None
    return None


def _our_layout(tensor: torch.Tensor, key: str, stages: int) -> torch.Tensor:
    """Return a tensor of the reference in the layout of this package."""
    if key.endswith(".g"):
        return tensor.flatten()
    # The reference stores the memory of linear attention as (2, heads, channels, tokens).
    full = (f"downs.{stages - 1}.", "ups.0.", "mid_attn.")
    if key.endswith(".mem_kv") and tensor.ndim == 4 and not key.startswith(full):
        return tensor.transpose(2, 3)
    return tensor


def _config(state: Mapping[str, torch.Tensor], source: str) -> tuple[dict[str, Any], Conditioning]:
    """Return the arguments of `StedFmUNet` from the shapes of the weights, and what conditions the network."""
    try:
        base_channels, in_channels, _, _ = state[_STEM].shape
        stages = sum(bool(re.fullmatch(r"downs\.\d+\.2\.mem_kv", key)) for key in state)
        # All stages but the last end in a sequence of rearrangement and convolution.
        ends = [state[f"downs.{stage}.3{'.1' * (stage < stages - 1)}.bias"] for stage in range(stages)]
        _, heads, memory_tokens, head_dim = state["mid_attn.mem_kv"].shape
        classes = len(state["label_embed.weight"])
        config: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": len(state["final_conv.bias"]),
            "base_channels": base_channels,
            "channel_multipliers": tuple(len(end) // base_channels for end in ends),
            "attention_heads": heads,
            "attention_head_dim": head_dim,
            "memory_tokens": memory_tokens,
        }
        if classes > _UNUSED_CLASSES:
            return config | {"condition_dim": None, "num_classes": classes}, "class"
        return config | {"condition_dim": state["cond_mlp.0.weight"].shape[1]}, "embedding"
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{source}: the keys or shapes are not those of a diffusion model; {EXPECTED}") from error
