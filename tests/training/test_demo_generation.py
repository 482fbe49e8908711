"""The packaged diffusion model is trained with the recipe `demo`, and exported without the encoder it belongs to."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from stedfm_hf.data.simulation.attribute_set import simulate_attribute_set
from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline
from stedfm_hf.runs import UserError
from stedfm_hf.training.demo_generation import export_generator, train_demo_generator
from stedfm_hf.weights.packaged import write_demo_generator

SHORT = {
    "max_steps": 2,
    "logging_steps": 1,
    "save_steps": 2,
    "eval_steps": 0,
    "base_channels": 8,
    "channel_multipliers": [1],
    "device": "cpu",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        few = partial(simulate_attribute_set, counts={"train": 10, "validation": 2})
        patch.setattr("stedfm_hf.training.demo_generation.simulate_attribute_set", few)
        return train_demo_generator(tmp_path_factory.mktemp("work"), **SHORT)


def generate(folder: Path) -> np.ndarray:
    pipeline = StedFmGenerationPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    embeddings = torch.linspace(-1, 1, 256).view(2, 128)
    latents = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return pipeline(embeddings=embeddings, latents=latents, num_inference_steps=3, guidance_scale=1.5).images


def test_the_exported_network_is_half_the_size_and_makes_the_same_images(trained: Path, tmp_path: Path) -> None:
    exported = export_generator(trained, tmp_path / "exported")
    assert not list(exported.rglob("*.py")) and not (exported / "encoder").exists()
    assert str(tmp_path.parent.parent) not in (exported / "unet" / "config.json").read_text(encoding="utf-8")
    halved = (exported / "unet" / "model.safetensors").stat().st_size
    whole = (trained / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert halved < 0.6 * whole
    written = write_demo_generator(tmp_path / "written", exported)
    np.testing.assert_allclose(generate(written), generate(trained), atol=0.02)
    pipeline = StedFmGenerationPipeline.from_pretrained(written)
    assert pipeline.unet.dtype == pipeline.encoder.dtype == torch.float32
    assert pipeline.config.condition_dropout == 0.1
    assert not torch.equal(pipeline.unet.condition_mean, torch.zeros(128))


def test_a_pipeline_with_another_encoder_is_refused(trained: Path, tmp_path: Path) -> None:
    pipeline = StedFmGenerationPipeline.from_pretrained(trained)
    with torch.no_grad():
        next(pipeline.encoder.parameters()).add_(1.0)
    other = StedFmGenerationPipeline(pipeline.unet, pipeline.scheduler, pipeline.encoder, pipeline.image_processor)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="not that of demo"):
        export_generator(tmp_path / "other", tmp_path / "exported")
