"""How the packaged encoder is made: simulated, trained, exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from stedfm_hf import StedFmImageProcessor
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training import demo_encoder
from stedfm_hf.training.demo_encoder import export_model, train_demo_encoder
from tests.models import tiny_config

SHORT = {
    "max_steps": 2,
    "effective_batch_size": 8,
    "logging_steps": 1,
    "save_steps": 2,
    "eval_steps": 2,
    "device": "cpu",
}


def test_the_export_is_the_encoder_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = StedFmForPreTraining(tiny_config())
    whole.save_pretrained(tmp_path / "run")
    processor = StedFmImageProcessor(patch_size=8)
    folder = export_model(StedFmForPreTraining.from_pretrained(tmp_path / "run"), processor, tmp_path / "demo")
    (folder / "README.md").write_text("kept")
    export_model(StedFmForPreTraining.from_pretrained(tmp_path / "run"), processor, folder)
    names = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert not {"auto_map", "custom_pipelines"} & set(json.loads((folder / "config.json").read_text()))
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
    for name, value in whole.stedfm.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value.half().float()), name


def test_images_training_and_encoder_come_from_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_encoder, "FIELDS_PER_STRUCTURE", 3)
    monkeypatch.setattr(demo_encoder, "simulate_benchmark", lambda output: demo_encoder.simulate_pool(output))
    # Unlike the benchmark, this pool has no validation split, so there is no held-out evaluation.
    run = train_demo_encoder(tmp_path, **SHORT, precision="float32")
    network = StedFmForPreTraining.from_pretrained(run)
    folder = export_model(network, StedFmImageProcessor.from_pretrained(run), tmp_path / "demo")
    assert AutoModel.from_pretrained(folder).config.hidden_size == 128
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "Trained on only simulated images" in card
    assert "architecture: stedfm-vit-64-p8" in (run / "recipe.yaml").read_text()
