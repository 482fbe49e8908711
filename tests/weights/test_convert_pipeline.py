"""Conversion of the reference's diffusion model, from files of its format with stand-in weights."""

from __future__ import annotations

import json
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from stedfm_hf import StedFmGenerationPipeline
from stedfm_hf.cards.checks import card_problems
from stedfm_hf.hub.publish import publish
from stedfm_hf.runs.errors import UserError
from stedfm_hf.weights.convert import Conversion, convert
from tests import parity

TIMESTEPS = torch.tensor([7, 731])


@cache
def checkpoint(conditioning: str, encoder: bool = True) -> dict[str, torch.Tensor]:
    """The `state_dict` that the reference's training saves."""
    state = {f"model.{key}": tensor for key, tensor in parity.unet_state_dict(conditioning).items()}
    if encoder:
        state |= {f"latent_encoder.{key}": tensor for key, tensor in parity.classifier_state_dict().items()}
    return state


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    extra = {"epoch": 69, "global_step": 0, "pytorch-lightning_version": "2.4.0", "loops": {}, "callbacks": {}}
    torch.save({**extra, "state_dict": state}, path)
    return path


def load(folder: Path) -> StedFmGenerationPipeline:
    pipeline = StedFmGenerationPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Conversion:
    """A conversion of a zip archive, as the authors publish theirs."""
    folder = tmp_path_factory.mktemp("converted")
    archive = folder / "diffusion-model.zip"
    with zipfile.ZipFile(archive, "w") as files:
        files.write(write(folder / "checkpoint-69.pth", checkpoint("latent")), "diffusion-model/checkpoint-69.pth")
    return convert(archive, folder / "generator")


def test_the_network_and_the_encoder_are_those_of_the_reference(report: Conversion) -> None:
    assert (report.kind, report.architecture) == ("generation", "stedfm-unet for embeddings")
    pipeline = load(report.output)
    expected = {name: torch.from_numpy(array) for name, array in parity.results("unet").items()}
    sample, condition = parity.standard_normal("unet_x", 2, 1, 64, 64), parity.standard_normal("unet_latent", 2, 384)
    with torch.no_grad():
        output = pipeline.unet(sample, TIMESTEPS, condition).sample
    torch.testing.assert_close(output, expected["latent"], rtol=0, atol=2e-5)
    fixture = torch.from_numpy(parity.results("classifier_small")["classifier_features"])
    embeddings = pipeline.embed(parity.images(len(fixture), 224), normalization="none")
    torch.testing.assert_close(embeddings, fixture, rtol=0, atol=1e-5)


def test_the_protocol_is_that_of_the_reference(report: Conversion) -> None:
    pipeline = load(report.output)
    assert type(pipeline.scheduler) is DDPMScheduler
    np.testing.assert_allclose(pipeline.scheduler.betas, np.linspace(1e-4, 0.02, 1000), rtol=1e-5)
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.config.value_range == [0.0, 1.0] and pipeline.config.clip_sample_range == [-1.0, 1.0]
    assert pipeline.unet.config.sample_size == 224
    with pytest.raises(ValueError, match="without condition dropout|trained with condition dropout"):
        pipeline(embeddings=torch.zeros(1, 384), guidance_scale=2.0)
    images = pipeline(embeddings=torch.zeros(1, 384), num_inference_steps=1, height=32, width=32).images
    assert images.shape == (1, 32, 32)


def test_what_is_left_out_and_where_it_came_from(report: Conversion) -> None:
    reasons = report.dropped
    assert "never trained" in reasons["model.label_embed.weight"]
    assert "random" in reasons["latent_encoder.classification_head.1.weight"]
    assert {key.partition(".")[0] for key in reasons} == {"model", "latent_encoder"}
    record = json.loads((report.output / "manifest.json").read_text())
    assert record["options"]["member"] == "diffusion-model/checkpoint-69.pth"
    assert record["options"]["weights_sha256"] == report.weights_sha256
    assert convert(report.output.parent / "diffusion-model.zip", report.output).manifest.ended == report.manifest.ended


def test_the_card(report: Conversion) -> None:
    card = (report.output / "README.md").read_text(encoding="utf-8")
    problems = card_problems(card, "model")
    assert len(problems) == 1 and "licence" in problems[0]
    assert "9,688,449" in card and "diffusion-model.zip" in card and "stedfm-vit-small" in card


@pytest.mark.slow
def test_the_folder_can_be_published(report: Conversion) -> None:
    result = publish(report.output, "my-lab/generator", licence="mit", dry_run=True)
    assert result.kind == "pipeline" and result.findings == ()


def test_a_model_for_classes(tmp_path: Path) -> None:
    report = convert(write(tmp_path / "class.pth", checkpoint("class", encoder=False)), tmp_path / "generator")
    assert report.architecture == "stedfm-unet for classes"
    pipeline = load(report.output)
    names = list(pipeline.config.id2label.values())
    assert len(names) == 24 and names[0] == "FUS" and names[18:20] == ["tom20", "tubulin"] and names[23] == "vimentin"
    sample, expected = parity.standard_normal("unet_x", 2, 1, 64, 64), parity.results("unet")["class"]
    with torch.no_grad():
        output = pipeline.unet(sample, TIMESTEPS, class_labels=torch.tensor([6, 19])).sample
    torch.testing.assert_close(output, torch.from_numpy(expected), rtol=0, atol=2e-5)
    images = pipeline(class_labels="f-actin", num_inference_steps=1, height=32, width=32).images
    assert images.shape == (1, 32, 32)
    card = (report.output / "README.md").read_text(encoding="utf-8")
    assert 'label = "FUS"' in card and "unconditional-image-generation" in card


def test_overwriting_replaces_a_conversion(tmp_path: Path) -> None:
    output = tmp_path / "generator"
    convert(write(tmp_path / "one.pth", checkpoint("class", encoder=False)), output)
    bias = {"model.final_conv.bias": torch.tensor([5.0])}
    two = write(tmp_path / "two.pth", checkpoint("class", encoder=False) | bias)
    with pytest.raises(UserError):
        convert(two, output)
    convert(two, output, overwrite=True)
    assert load(output).unet.conv_out.bias.item() == 5.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.mid_attn.norm.g": None}, "1 missing"),
        ({"other.weight": torch.zeros(2)}, "unexpected key other.weight"),
        ({"latent_encoder.backbone.norm.weight": None}, r"\(encoder\): looks like stedfm-vit-small"),
        ({"model.init_conv.weight": None}, "not those of a diffusion model"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, changes: dict[str, torch.Tensor | None], message: str) -> None:
    state = {**checkpoint("latent"), **changes}
    path = write(tmp_path / "wrong.pth", {key: tensor for key, tensor in state.items() if tensor is not None})
    with pytest.raises(UserError, match=message):
        convert(path, tmp_path / "generator")
    assert not (tmp_path / "generator").exists()
