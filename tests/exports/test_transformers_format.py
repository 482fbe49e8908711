"""Stock classes of transformers compute the same as the models that they were made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
)

from stedfm_hf import (
    StedFmForImageClassification,
    StedFmForPreTraining,
    StedFmForSemanticSegmentation,
    StedFmModel,
)
from stedfm_hf.exports.transformers_format import export_transformers
from stedfm_hf.runs import UserError
from tests.exports.exported_models import ARCHITECTURE_CHANGES, difference, trained
from tests.models import pixels

CLOSE = 2e-5


def exported(model: Any, folder: Path, auto: Any, **arguments: Any) -> Any:
    """Export a model, check the folder, and load it with an Auto class."""
    name, comparison = export_transformers(model, folder, **arguments)
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [name] and "auto_map" not in config and "custom_pipelines" not in config
    loaded, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert type(loaded).__module__.startswith("transformers.models.") and type(loaded).__name__ == name
    assert comparison.largest <= CLOSE
    return loaded.eval()


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("architecture", ARCHITECTURE_CHANGES)
def test_encoder(architecture: str, tmp_path: Path) -> None:
    model = trained(StedFmModel, architecture)
    stock = exported(model, tmp_path, AutoModel)
    found, expected = stock(pixels(2, 64, 64)), model(pixels(2, 64, 64))
    assert difference(found.last_hidden_state, expected.last_hidden_state) <= CLOSE
    assert difference(found.last_hidden_state[:, 1:].mean(1), expected.pooler_output) <= CLOSE
    assert difference(found.pooler_output, expected.last_hidden_state[:, 0]) <= CLOSE


def test_encoder_with_channels_for_another_image_size(tmp_path: Path) -> None:
    model = trained(StedFmModel, num_channels=3, qkv_bias=False)
    stock = exported(model, tmp_path, AutoModel, image_size=96)
    images = pixels(1, 96, 96, channels=3)
    assert difference(stock(images).last_hidden_state, model(images).last_hidden_state) <= CLOSE
    with pytest.raises(ValueError, match="doesn't match model"):
        stock(pixels(1, 64, 64, channels=3))


@pytest.mark.parametrize("architecture", ARCHITECTURE_CHANGES)
@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_masked_autoencoder(architecture: str, norm_pix_loss: bool, tmp_path: Path) -> None:
    model = trained(StedFmForPreTraining, architecture, norm_pix_loss=norm_pix_loss, num_channels=2)
    stock = exported(model, tmp_path, AutoModelForPreTraining)
    images = pixels(2, 64, 64, channels=2)
    noise = torch.rand(2, (64 // model.config.patch_size) ** 2, generator=torch.Generator().manual_seed(3))
    found, expected = stock(images, noise=noise), model(images, noise=noise)
    assert difference(found.loss, expected.loss) <= CLOSE * max(1.0, float(expected.loss))
    assert torch.equal(found.mask.bool(), expected.mask)
    masked = found.logits.gather(1, expected.ids_masked[:, :, None].expand_as(expected.logits))
    assert difference(masked, expected.logits) <= CLOSE


@pytest.mark.parametrize("architecture", ARCHITECTURE_CHANGES)
@pytest.mark.parametrize(
    ("pooling", "stock_class"), [("avg", "Dinov2ForImageClassification"), ("token", "ViTForImageClassification")]
)
def test_classifier(architecture: str, pooling: str, stock_class: str, tmp_path: Path) -> None:
    names = {0: "rings", 1: "fibres", 2: "puncta"}
    model = trained(
        StedFmForImageClassification, architecture, pooling=pooling, id2label=names, target_type="multi_label"
    )
    stock = exported(model, tmp_path, AutoModelForImageClassification)
    assert type(stock).__name__ == stock_class
    assert difference(stock(pixels(2, 64, 64)).logits, model(pixels(2, 64, 64)).logits) <= CLOSE
    assert stock.config.id2label == names and stock.config.problem_type == "multi_label_classification"


def test_the_processor_changes_no_value(tmp_path: Path) -> None:
    exported(trained(StedFmModel), tmp_path, AutoModel)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    image = np.random.default_rng(0).random((1, 64, 64), dtype=np.float32)
    found = processor(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(found, torch.from_numpy(image)[None])


def test_models_without_a_stock_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--format onnx"):
        export_transformers(trained(StedFmForSemanticSegmentation), tmp_path)
    with pytest.raises(UserError, match="multiple of hidden_size"):
        export_transformers(trained(StedFmForImageClassification, intermediate_size=200), tmp_path)
    assert not list(tmp_path.iterdir())
