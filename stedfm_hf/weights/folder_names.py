"""Files of converted models and pipelines."""

from __future__ import annotations

PIPELINE_KIND = "generation"
"""Kind of a converted diffusion model; its folder is that of a pipeline."""

UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
MODEL_FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "README.md")
PIPELINE_FILES = ("model_index.json", UNET_WEIGHTS, "README.md")
