"""A saved folder is complete: any class loads from it, with the package or without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoModelForPreTraining

from stedfm_hf import (
    StedFmBackbone,
    StedFmForImageClassification,
    StedFmForPreTraining,
    StedFmImageProcessor,
    StedFmModel,
)
from stedfm_hf.weights.packaged import packaged_folder
from tests.models import pixels, tiny_config

CLASSES = [StedFmModel, StedFmForPreTraining, StedFmForImageClassification, StedFmBackbone]


def saved(cls: type[Any], folder: Path) -> Any:
    torch.manual_seed(0)
    model = cls(tiny_config(num_labels=3)).eval()
    model.save_pretrained(folder)
    return model


def tensors(model: Any) -> dict[str, torch.Tensor]:
    """What a model makes of fixed input, by name."""
    if isinstance(model, StedFmBackbone):
        return {"map": model(pixels()).feature_maps[0]}
    kwargs = {"noise": torch.linspace(0, 1, 32).reshape(2, 16)} if isinstance(model, StedFmForPreTraining) else {}
    return {name: value for name, value in model(pixels(), **kwargs).items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("cls", CLASSES)
def test_what_is_saved_is_what_is_loaded(cls: type[Any], tmp_path: Path) -> None:
    model = saved(cls, tmp_path)
    loaded, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    for name, value in tensors(model).items():
        assert torch.equal(value, tensors(loaded)[name]), name


@pytest.mark.parametrize("cls", CLASSES)
def test_every_folder_gives_its_encoder(cls: type[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = saved(cls, tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path)
    assert "LOAD REPORT" not in caplog.text and "UNEXPECTED" not in caplog.text
    assert type(encoder) is StedFmModel
    backbone = StedFmBackbone.from_pretrained(tmp_path)
    source = model if cls in (StedFmModel, StedFmBackbone) else model.stedfm
    for name, value in source.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name]) and torch.equal(value, backbone.state_dict()[name])


def test_the_auto_classes_resolve(tmp_path: Path) -> None:
    saved(StedFmForPreTraining, tmp_path)
    assert type(AutoModelForPreTraining.from_pretrained(tmp_path)) is StedFmForPreTraining
    classifier = AutoModelForImageClassification.from_pretrained(tmp_path, id2label={0: "rings", 1: "fibres"})
    assert type(classifier) is StedFmForImageClassification and classifier.config.num_labels == 2
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is StedFmImageProcessor


def test_a_missing_key_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(StedFmModel, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    AutoModel.from_pretrained(tmp_path)
    assert "MISSING" in caplog.text and "norm.weight" in caplog.text


def test_the_processor_goes_along(tmp_path: Path) -> None:
    model = saved(StedFmModel, tmp_path / "first")
    assert StedFmImageProcessor.from_pretrained(tmp_path / "first").patch_size == model.config.patch_size
    StedFmImageProcessor(patch_size=8, normalization="fixed", intensity_range=[0, 99]).save_pretrained(
        tmp_path / "first"
    )
    model.save_pretrained(tmp_path / "first")
    loaded = StedFmModel.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    for folder in ("first", "second"):
        processor = StedFmImageProcessor.from_pretrained(tmp_path / folder)
        assert (processor.normalization, processor.intensity_range) == ("fixed", [0, 99])


def test_who_may_read_the_folder_may_read_the_weights(tmp_path: Path) -> None:
    saved(StedFmModel, tmp_path)
    modes = {(tmp_path / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1


def test_half_precision_is_kept(tmp_path: Path) -> None:
    saved(StedFmModel, tmp_path / "first").to(torch.bfloat16).save_pretrained(tmp_path / "half")
    assert StedFmModel.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    assert StedFmModel.from_pretrained(tmp_path / "half", dtype=torch.float32).dtype == torch.float32


STRANGER = """
import importlib.util, json, sys
from pathlib import Path
import torch
import transformers
from safetensors.torch import save_file

assert importlib.util.find_spec("stedfm_hf") is None, "the package must not be importable here"
source, target = map(Path, sys.argv[1:])
trust = {"trust_remote_code": True}
generator = torch.Generator().manual_seed(0)
images = torch.rand(2, 1, 32, 32, generator=generator)
found = {}
for folder in sorted(source.iterdir()):
    auto = {"StedFmForPreTraining": transformers.AutoModelForPreTraining,
            "StedFmForImageClassification": transformers.AutoModelForImageClassification}.get(folder.name)
    if auto:
        model = auto.from_pretrained(folder, **trust)
        kwargs = {"noise": torch.linspace(0, 1, 32).reshape(2, 16)} if "Pre" in folder.name else {}
        output = model(images, **kwargs)
        found |= {f"{folder.name}.{k}": v.contiguous() for k, v in output.items() if isinstance(v, torch.Tensor)}
        model.save_pretrained(target / folder.name)
    encoder = transformers.AutoModel.from_pretrained(folder, **trust)
    found[f"{folder.name}.tokens"] = encoder(images).last_hidden_state
    config = transformers.AutoConfig.from_pretrained(folder, **trust)
    backbone = transformers.AutoBackbone.from_config(config, **trust)
    backbone.load_state_dict(encoder.state_dict())
    found[f"{folder.name}.map"] = backbone.eval()(images).feature_maps[0]
    processor = transformers.AutoImageProcessor.from_pretrained(folder, **trust)
    counts = torch.arange(900, dtype=torch.int32).reshape(30, 30).numpy().astype("uint16")
    found[f"{folder.name}.pixels"] = processor(counts, return_tensors="pt")["pixel_values"]
extract = transformers.pipeline(
    "image-feature-extraction", model=str(source / "StedFmModel"), device="cpu", **trust
)
found["pipeline"] = torch.from_numpy(extract(counts))
save_file(found, target / "found.safetensors")
"""


def test_a_stranger_without_the_package_gets_the_same(tmp_path: Path) -> None:
    models = {cls.__name__: saved(cls, tmp_path / "source" / cls.__name__) for cls in CLASSES}
    (tmp_path / "target").mkdir()
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER, encoding="utf-8")
    # An editable install is a path hook in site-packages; -S leaves both out, and the paths are given by hand.
    sites = [path for path in sys.path if path.endswith("site-packages")]
    start = f"import sys; sys.path[1:1] = {sites!r}; sys.argv = sys.argv[1:]; exec(open(sys.argv[0]).read())"
    result = subprocess.run(
        [sys.executable, "-S", "-c", start, str(script), str(tmp_path / "source"), str(tmp_path / "target")],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found = load_file(tmp_path / "target" / "found.safetensors")
    for name, model in models.items():
        for key, value in tensors(model).items():
            if f"{name}.{key}" in found:
                assert torch.equal(value, found[f"{name}.{key}"]), (name, key)
        encoder = AutoModel.from_pretrained(tmp_path / "source" / name)
        assert torch.equal(encoder(pixels()).last_hidden_state, found[f"{name}.tokens"])
        assert torch.equal(
            tensors(StedFmBackbone.from_pretrained(tmp_path / "source" / name))["map"], found[f"{name}.map"]
        )
    assert {f"{name}.logits" for name in ("StedFmForPreTraining", "StedFmForImageClassification")} <= set(found)
    # What remote code saves is as complete as what the package saves.
    for name in ("StedFmForPreTraining", "StedFmForImageClassification"):
        again, first = tmp_path / "target" / name, tmp_path / "source" / name
        assert {file.name for file in again.iterdir()} == {file.name for file in first.iterdir()}
        configs = [json.loads((folder / "config.json").read_text()) for folder in (again, first)]
        assert configs[0]["auto_map"] == configs[1]["auto_map"]
        assert configs[0]["custom_pipelines"] == configs[1]["custom_pipelines"]
        assert type(AutoModel.from_pretrained(again)) is StedFmModel


def test_the_processor_of_a_folder_without_code_gets_its_code(tmp_path: Path) -> None:
    """The packaged encoder has no code files, because the package is there: a folder saved from it has them."""
    encoder = StedFmModel.from_pretrained(packaged_folder("demo"))
    encoder.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert settings["auto_map"] == {"AutoImageProcessor": "image_processing_stedfm.StedFmImageProcessor"}
    assert settings["patch_size"] == 8 and settings["size"] == {"height": 64, "width": 64}
