"""Load a generation pipeline for the commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stedfm_hf.generation.direction import Direction
from stedfm_hf.generation.names import check_pipeline_name
from stedfm_hf.inference.loading import Encoder, choose_device, weights_sha256
from stedfm_hf.runs import UserError
from stedfm_hf.runs.quiet import quiet_transformers


@dataclass(frozen=True)
class LoadedPipeline:
    """Generation pipeline with its encoder, ready for use.

    Attributes:
        pipeline: `StedFmGenerationPipeline` on its device, with `DDIMScheduler`.
        encoder: Encoder of the pipeline, with its processor.
        name: Hub id or name of the folder.
        size_px: Height and width of the images that the network was trained on, in pixels.
    """

    pipeline: Any
    encoder: Encoder
    name: str
    size_px: int


@quiet_transformers()
def load_pipeline(model: str | Path, *, device: str = "auto") -> LoadedPipeline:
    """Load a pipeline that is conditioned on embeddings.

    Args:
        model: Folder or Hub id.
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`.

    Raises:
        UserError: If it cannot be loaded, holds pickles or another encoder than that of its training, or has no
            encoder.
    """
    from diffusers import DDIMScheduler

    from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline

    check_pipeline_name(model)
    try:
        with _no_progress():
            # An encoder that is stored in half precision computes in float32, as in other commands.
            pipeline = StedFmGenerationPipeline.from_pretrained(str(model), dtype=torch.float32)
        pipeline = pipeline.to(choose_device(device))
    except UserError:
        raise
    except Exception as error:  # damaged files make the libraries raise errors of many types
        raise UserError(f"model {model}: cannot be loaded ({' '.join(str(error).split())})") from error
    if pipeline.encoder is None:
        raise UserError(f"model {model}: is conditioned on classes and has no encoder; use it from Python")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    folder = Path(model)
    name = folder.resolve().name if folder.is_dir() else str(model)
    digest = weights_sha256(str(folder / "encoder")) if folder.is_dir() else ""
    encoder = Encoder(pipeline.encoder, pipeline.image_processor, name, digest)
    return LoadedPipeline(pipeline, encoder, name, int(pipeline.unet.config.sample_size))


def check_encoder(direction: Direction, loaded: LoadedPipeline) -> None:
    """Refuse a direction that was fitted to embeddings of another encoder.

    Args:
        direction: Direction.
        loaded: Pipeline.

    Raises:
        UserError: If the lengths of the embeddings or the weights differ.
    """
    size = loaded.encoder.model.config.hidden_size
    same = direction.weights_sha256 in (None, "", loaded.encoder.weights_sha256) or not loaded.encoder.weights_sha256
    if len(direction) != size or not same:
        raise UserError(
            f"direction {direction.name}: was fitted with another encoder ({direction.model or 'unknown'}) than that "
            f"of the pipeline {loaded.name}; fit it with --model and the folder of the pipeline"
        )


@contextmanager
def _no_progress() -> Iterator[None]:
    """Hide the progress bar of diffusers, which shows the four components of a pipeline."""
    from diffusers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
