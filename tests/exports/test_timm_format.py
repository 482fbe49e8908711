"""Folders for timm: the names, shapes and settings of its vision transformer, without timm itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stedfm_hf import StedFmForImageClassification, StedFmForPreTraining, StedFmForSemanticSegmentation, StedFmModel
from stedfm_hf.exports.timm_format import export_timm
from stedfm_hf.runs import UserError
from tests.exports.exported_models import ARCHITECTURE_CHANGES, trained
from tests.models import pixels


def timm_shapes(arguments: dict[str, Any], classes: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the weights of `timm.models.vision_transformer` (timm 1.0.31)."""
    width, patch = arguments["embed_dim"], arguments["patch_size"]
    hidden = int(width * arguments["mlp_ratio"])
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + (arguments["img_size"] // patch) ** 2, width),
        "patch_embed.proj.weight": (width, arguments["in_chans"], patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for number in range(arguments["depth"]):
        block = f"blocks.{number}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.{kind}": (width,) for kind in ("weight", "bias")}
        sizes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        sizes |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        for name, size in sizes.items():
            shapes |= {f"{block}.{name}.weight": size}
            if arguments["qkv_bias"] or name != "attn.qkv":
                shapes |= {f"{block}.{name}.bias": size[:1]}
    if classes:
        shapes |= {"head.weight": (classes, width), "head.bias": (classes,)}
    return shapes


@pytest.mark.parametrize("architecture", ARCHITECTURE_CHANGES)
@pytest.mark.parametrize("pooling", ["avg", "token"])
@pytest.mark.parametrize("model_class", [StedFmModel, StedFmForPreTraining, StedFmForImageClassification])
def test_a_folder_has_the_layout_of_timm(
    architecture: str, pooling: str, model_class: type[Any], tmp_path: Path
) -> None:
    model = trained(model_class, architecture, pooling=pooling, id2label={0: "rings", 1: "fibres"}, num_channels=2)
    how, comparison = export_timm(model, tmp_path, image_size=96)
    config = json.loads((tmp_path / "config.json").read_text())
    classes = 2 if model_class is StedFmForImageClassification else 0
    shapes = {name: tuple(value.shape) for name, value in load_file(tmp_path / "model.safetensors").items()}
    assert shapes == timm_shapes(config["model_args"], classes)
    assert config["architecture"] == "vit_small_patch16_224" and config["num_classes"] == classes
    assert config["global_pool"] == config["model_args"]["global_pool"] == pooling
    assert config["model_args"]["fc_norm"] is False and config["model_args"]["in_chans"] == 2
    assert config["pretrained_cfg"]["input_size"] == [2, 96, 96]
    assert config.get("label_names") == (["rings", "fibres"] if classes else None)
    assert comparison.largest <= 2e-5 and comparison.sizes == ((96, 96),)
    assert "timm" in how


def test_the_comparison_sees_a_wrong_weight(tmp_path: Path) -> None:
    model = trained(StedFmModel)
    from stedfm_hf.exports import timm_format

    export_timm(model, tmp_path)
    run = timm_format._like_timm(tmp_path)
    with torch.no_grad():
        model.norm.weight += 0.01
        assert float((run(pixels(1, 64, 64))["output"] - model(pixels(1, 64, 64)).pooler_output).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("model_class", "changes", "message"),
    [
        (StedFmForSemanticSegmentation, {}, "no segmenters"),
        (StedFmModel, {"layer_norm_eps": 1e-5}, "layer_norm_eps"),
        (StedFmModel, {"hidden_act": "relu"}, "hidden_act"),
    ],
)
def test_what_timm_cannot_compute_is_refused(
    model_class: type[Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        export_timm(trained(model_class, **changes), tmp_path)
    assert not list(tmp_path.iterdir())
