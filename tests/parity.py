"""What the reference computes: stand-in weights that follow from the reference's key names, and its results.

The fixtures were computed with the reference's own building blocks (timm 1.0.31, lightly 1.6.0, CPU, float32). No
weight is stored: each tensor is a fixed function of its key, so that none can be swapped or dropped unseen.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

FIXTURES = Path(__file__).parent / "fixtures" / "parity"
ARCHITECTURES = ("64-p8", "tiny", "small", "base", "large")
REFERENCE: dict[str, dict[str, dict[str, Any]]] = json.loads((FIXTURES / "reference.json").read_text())

_OURS = (
    ("backbone.vit.cls_token", "stedfm.embeddings.cls_token"),
    ("backbone.vit.patch_embed.proj", "stedfm.embeddings.patch_embeddings"),
    ("backbone.vit.blocks.", "stedfm.encoder.layers."),
    ("backbone.vit.norm", "stedfm.norm"),
    ("decoder.decoder_embed", "decoder.embed"),
    ("decoder.decoder_blocks.", "decoder.layers."),
    ("decoder.decoder_norm", "decoder.norm"),
    ("decoder.decoder_pred", "decoder.head"),
    ("classification_head.0", "classifier.batch_norm"),
    ("classification_head.1", "classifier"),
    (".attn.proj", ".attention.out_proj"),
    (".attn.", ".attention."),
)


def results(name: str) -> dict[str, np.ndarray]:
    """Arrays of one fixture file."""
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return dict(arrays)


def images(batch: int, size: int) -> torch.Tensor:
    """Input pixels (batch, 1, size, size), uniform in [0, 1)."""
    generator = np.random.default_rng(zlib.crc32(b"images"))
    return torch.from_numpy(generator.random((batch, 1, size, size), dtype=np.float32))


def tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Stand-in value of a state-dict entry of the reference."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(100)
    draw = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(draw)
    elif key.endswith(".g") or (len(shape) == 1 and key.endswith("weight")):
        value = 1 + 0.05 * draw
    elif len(shape) <= 1:
        value = 0.05 * draw
    elif key.endswith(("cls_token", "mask_token")):
        value = 0.02 * draw
    else:
        value = draw / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def classic_table(grid: int, dim: int) -> torch.Tensor:
    """The masked autoencoder's position table (1, 1 + grid², dim), written down once more for tests."""
    omega = 1.0 / 10000 ** (np.arange(dim // 4) / (dim / 4))
    rows, cols = (axis.reshape(-1, 1) * omega for axis in np.mgrid[:grid, :grid])
    table = np.concatenate([np.sin(cols), np.cos(cols), np.sin(rows), np.cos(rows)], axis=1)
    return torch.from_numpy(np.concatenate([np.zeros((1, dim)), table])[None].astype(np.float32))


def reference_state_dict(architecture: str) -> dict[str, torch.Tensor]:
    """A checkpoint's `state_dict` with the reference's keys, position tables and left-overs included."""
    shapes = {key: tuple(shape) for key, (shape, _) in REFERENCE[architecture]["state_dict"].items()}
    return {
        key: classic_table(round((shape[1] - 1) ** 0.5), shape[2]) if key.endswith("pos_embed") else tensor(key, shape)
        for key, shape in shapes.items()
    }


def classifier_state_dict() -> dict[str, torch.Tensor]:
    """The `model_state_dict` of a fine-tuned small classifier with four classes, with the reference's keys."""
    shapes: dict[str, list[int]] = json.loads((FIXTURES / "classifier_keys.json").read_text())
    return {
        key: classic_table(14, 384) if key.endswith("pos_embed") else tensor(key, tuple(shape))
        for key, shape in shapes.items()
    }


def segmentation_state_dict(decoder: str) -> dict[str, torch.Tensor]:
    """The `model` of a `result.pt` of a small segmentation model with two classes, with the reference's keys.

    Args:
        decoder: `"linear"` or `"unetr"`.
    """
    shapes: dict[str, list[int]] = json.loads((FIXTURES / "segmentation_keys.json").read_text())[decoder]
    return {
        key: classic_table(14, 384) if key.endswith("pos_embed") else tensor(key, tuple(shape))
        for key, shape in shapes.items()
    }


def unet_state_dict(conditioning: str = "latent") -> dict[str, torch.Tensor]:
    """The `state_dict` of the reference's denoising network without the prefix `model.`.

    Args:
        conditioning: `"latent"` or `"class"`.
    """
    shapes: dict[str, list[int]] = json.loads((FIXTURES / "unet_keys.json").read_text())
    if conditioning == "class":
        shapes = shapes | {"label_embed.weight": [24, 256]}
    return {key: tensor(key, tuple(shape)) for key, shape in shapes.items()}


def standard_normal(name: str, *shape: int) -> torch.Tensor:
    """Input of a fixture, float32."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(draw.astype(np.float32))


def our_key(key: str) -> str | None:
    """Our name of a reference key; None for what has no place in our models."""
    if key.endswith("pos_embed") or key == "backbone.mask_token" or ".head." in key:
        return None
    if key.startswith("backbone.") and not key.startswith("backbone.vit."):
        key = key.replace("backbone.", "backbone.vit.", 1)  # classifier files leave `vit` out
    for theirs, ours in _OURS:
        key = key.replace(theirs, ours)
    return key


def our_state_dict(reference: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights under our names, patch projections as matrices over (row, column, channel)."""
    state_dict = {our_key(key): value for key, value in reference.items()}
    projection = "stedfm.embeddings.patch_embeddings.weight"
    state_dict[projection] = state_dict[projection].permute(0, 2, 3, 1).flatten(1)
    return {key: value for key, value in state_dict.items() if key is not None}
