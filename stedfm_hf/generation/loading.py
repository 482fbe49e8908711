"""Load a generation pipeline for the commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stedfm_hf.generation.direction import Direction
from stedfm_hf.generation.names import ADVICE, find_pipeline
from stedfm_hf.inference.loading import Encoder, choose_device, weights_sha256
from stedfm_hf.modeling.conditioning_stedfm import is_same_encoder
from stedfm_hf.runs import UserError
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.weights.models import find_model
from stedfm_hf.weights.packaged import load_demo_generator, packaged_folder


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
        model: Folder, Hub id, or `"demo"`, a small packaged pipeline trained on simulated images only.
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`.

    Raises:
        UserError: If it cannot be loaded, holds pickles or another encoder than that of its training, or has no
            encoder.
    """
    from diffusers import DDIMScheduler

    from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline

    demo = packaged_folder(str(model))
    folder = find_pipeline(model) if demo is None else demo
    if demo is not None:
        name = find_model(model).name  # which says what it was trained on
    else:
        name = folder.resolve().name if Path(model).is_dir() else str(model)
    try:
        with _no_progress():
            # An encoder that is stored in half precision computes in float32, as in other commands.
            pipeline = (
                load_demo_generator()
                if demo is not None
                else StedFmGenerationPipeline.from_pretrained(folder, dtype=torch.float32)
            )
        pipeline = pipeline.to(choose_device(device))
        pipeline.unet.to(memory_format=torch.channels_last)  # convolutions on a CPU take a tenth less time
    except UserError:
        raise
    except Exception as error:  # damaged files make the libraries raise errors of many types
        raise UserError(f"model {model}: cannot be loaded ({' '.join(str(error).split())}); {ADVICE}") from error
    if pipeline.encoder is None:
        raise UserError(f"model {model}: is conditioned on classes and has no encoder; use it from Python")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    weights = weights_sha256(str(folder / "encoder" if demo is None else demo))
    encoder = Encoder(pipeline.encoder, pipeline.image_processor, name, weights)
    return LoadedPipeline(pipeline, encoder, name, int(pipeline.unet.config.sample_size))


def check_direction(direction: Direction, loaded: LoadedPipeline) -> None:
    """Refuse a direction that was fitted to embeddings of another encoder, or of images of another size.

    Encoders are compared by their fingerprints, as in a pipeline: copies of an encoder are the same in any precision.
    A direction without a fingerprint is compared by the SHA-256 of the weights.

    Args:
        direction: Direction.
        loaded: Pipeline.

    Raises:
        UserError: If the lengths of the embeddings, the encoders or the sizes differ.
    """
    fit_again = f"fit it again with --model and the pipeline {loaded.name}"
    if len(direction) != loaded.encoder.model.config.hidden_size or not _is_encoder_of(direction, loaded):
        raise UserError(
            f"direction {direction.name}: was fitted with another encoder ({direction.model or 'unknown'}) than that "
            f"of the pipeline {loaded.name}; {fit_again}"
        )
    fitted, size = direction.size_px, loaded.size_px
    if fitted not in (None, size):
        raise UserError(
            f"direction {direction.name}: was fitted to images of {fitted} x {fitted} pixels, but the pipeline "
            f"{loaded.name} generates {size} x {size} pixels; {fit_again}, to crops of this size"
        )


def _is_encoder_of(direction: Direction, loaded: LoadedPipeline) -> bool:
    """Return whether a direction was fitted with the encoder of a pipeline, or does not know its encoder."""
    if direction.encoder_fingerprint:
        return is_same_encoder(direction.encoder_fingerprint, loaded.pipeline.config.encoder_fingerprint)
    return direction.weights_sha256 in (None, "", loaded.encoder.weights_sha256)


def check_sampling(loaded: LoadedPipeline, num_inference_steps: int, guidance_scale: float) -> None:
    """Refuse options of the sampling that a pipeline does not have, before anything is written.

    Args:
        loaded: Pipeline.
        num_inference_steps: Number of denoising steps.
        guidance_scale: Strength of the condition.

    Raises:
        UserError: If there are more steps than in the training, or guidance needs a training with condition dropout.
    """
    trained = loaded.pipeline.scheduler.config.num_train_timesteps
    if num_inference_steps > trained:
        raise UserError(
            f"the pipeline {loaded.name} was trained with {trained} denoising steps, fewer than "
            f"{num_inference_steps}; give at most {trained} with --num-inference-steps"
        )
    if guidance_scale != 1 and not loaded.pipeline.config.condition_dropout:
        raise UserError(
            f"--guidance-scale {guidance_scale:g}: the pipeline {loaded.name} was trained without condition dropout; "
            "leave out the option"
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
