"""Tiny pipelines that generate images, with random weights: 16 px images, an encoder of width 32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler

from stedfm_hf import (
    StedFmForImageClassification,
    StedFmGenerationPipeline,
    StedFmImageProcessor,
    StedFmModel,
    StedFmUNet,
)
from tests.models import tiny_config

SIZE = 16


def tiny_unet(seed: int = 0, **changes: Any) -> StedFmUNet:
    """Return a network with random weights."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "sample_size": SIZE,
        "base_channels": 8,
        "channel_multipliers": (1, 2),
        "condition_dim": 32,
        "num_classes": None,
    }
    return StedFmUNet(**{**settings, **changes}).eval()


def tiny_encoder(seed: int = 0) -> StedFmModel:
    """Return an encoder with random weights."""
    torch.manual_seed(seed)
    return StedFmModel(tiny_config(image_size=SIZE)).eval()


def reference_scheduler(steps: int = 1000) -> DDPMScheduler:
    """Return the noise schedule of the reference."""
    return DDPMScheduler(
        num_train_timesteps=steps,
        beta_start=1e-4 * 1000 / steps,
        beta_end=0.02 * 1000 / steps,
        variance_type="fixed_small",
        clip_sample=False,
    )


def tiny_pipeline(with_encoder: bool = True, unet: StedFmUNet | None = None, **settings: Any) -> Any:
    """Return a pipeline; it shows no progress."""
    components: dict[str, Any] = {"encoder": None, "image_processor": None}
    if with_encoder:
        components = {"encoder": tiny_encoder(), "image_processor": StedFmImageProcessor(patch_size=8, size=SIZE)}
    scheduler = settings.pop("scheduler", None) or reference_scheduler()
    pipeline = StedFmGenerationPipeline(unet or tiny_unet(), scheduler, **components, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seeded(*seeds: int) -> list[torch.Generator]:
    """Return generators with these seeds."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def save_quality_model(folder: Path) -> Path:
    """Save a regression model that predicts a `quality`, and return its folder."""
    torch.manual_seed(0)
    config = tiny_config(num_labels=1, id2label={0: "quality"}, target_type="regression")
    StedFmForImageClassification(config).save_pretrained(folder)
    StedFmImageProcessor().save_pretrained(folder)
    return folder
