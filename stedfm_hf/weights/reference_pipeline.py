"""Translate a checkpoint of the reference's diffusion model: denoising network, encoder and noise schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler

from stedfm_hf.modeling.generation_pipeline_stedfm import StedFmGenerationPipeline
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.runs.errors import UserError
from stedfm_hf.weights.reference import Translation, translate
from stedfm_hf.weights.reference_unet import UNetTranslation, is_unet, translate_unet

__all__ = ["REFERENCE_CLASSES", "PipelineTranslation", "is_diffusion_model", "translate_pipeline"]

REFERENCE_CLASSES = (
    *("FUS", "adducin", "bassoon", "beta-camkii", "beta2-spectrin", "camkii", "f-actin", "gephyrin", "glur1", "homer"),
    *("lifeact", "live-tubulin", "map2", "nkcc2", "psd95", "rim", "sir-actin", "sir-tubulin", "tom20", "tubulin"),
    *("vgat", "vglut1", "vglut2", "vimentin"),
)
"""Classes of the reference's model, by their indices.

Source:
    Reference protocol.
"""

REFERENCE_STEPS = 1000
_UNET, _ENCODER, _HEAD = "model.", "latent_encoder.", "classification_head."
_UNUSED_ENCODER = "encoder: a network that takes classes does not use it"
_UNUSED_HEAD = "classification head of the encoder: random, never trained or used"
_SCHEDULE = "numbers of the noise schedule, which the scheduler computes"


@dataclass(frozen=True)
class PipelineTranslation:
    """Translated diffusion model of the reference.

    Attributes:
        unet: Denoising network.
        encoder: Encoder whose embeddings condition the network; None if the network takes classes, or the file has
            no encoder.
        dropped: Keys of the reference that are not used, with the reason.
    """

    unet: UNetTranslation
    encoder: Translation | None
    dropped: dict[str, str]

    @property
    def id2label(self) -> dict[int, str] | None:
        """Names of the classes by their indices; None for other classes than those of the reference."""
        known = self.unet.config.get("num_classes") == len(REFERENCE_CLASSES)
        return dict(enumerate(REFERENCE_CLASSES)) if known else None

    def pipeline(self) -> Any:
        """Return the pipeline, with the noise schedule, the range of values and the clip of the reference.

        The reference trains with images in [0, 1], and clips the clean image of each step to [-1, 1].
        """
        scheduler = DDPMScheduler(
            num_train_timesteps=REFERENCE_STEPS,
            beta_schedule="linear",
            beta_start=1e-4,
            beta_end=0.02,
            variance_type="fixed_small",
            prediction_type="epsilon",
            clip_sample=False,  # the pipeline clips, for every scheduler
        )
        encoder = processor = None
        if self.encoder is not None:
            config = self.encoder.config
            encoder = self.encoder.model().get_submodule("stedfm")
            processor = StedFmImageProcessor(patch_size=config.patch_size, size=config.image_size)
        return StedFmGenerationPipeline(
            self.unet.model(),
            scheduler,
            encoder,
            processor,
            value_range=(0.0, 1.0),
            clip_sample_range=(-1.0, 1.0),
            id2label=self.id2label,
        )


def is_diffusion_model(state: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a state dict is that of a diffusion model of the reference."""
    return is_unet(_part(state, _UNET))


def translate_pipeline(state: Mapping[str, torch.Tensor], source: str) -> PipelineTranslation:
    """Translate weights of the reference's diffusion model, and check every key, shape and number.

    Args:
        state: State dict of the reference.
        source: Name of the file, for messages.

    Raises:
        UserError: If keys are missing or unexpected, shapes differ, the encoder is not a STED-FM encoder, or weights
            are NaN or infinite.
    """
    unet = translate_unet(_part(state, _UNET), source)
    dropped = {_UNET + key: reason for key, reason in unet.dropped.items()}
    dropped |= {key: _SCHEDULE for key, tensor in state.items() if _is_schedule(key, tensor)}
    unexpected = [key for key in state if not key.startswith((_UNET, _ENCODER)) and key not in dropped]
    if unexpected:
        raise UserError(f"{source}: looks like a diffusion model but has the unexpected key {unexpected[0]}")
    weights, encoder = _part(state, _ENCODER), None
    if weights and unet.conditioning == "class":
        dropped |= {_ENCODER + key: _UNUSED_ENCODER for key in weights}
    elif weights:
        encoder = translate(weights, f"{source} (encoder)")
        dropped |= {_ENCODER + key: reason for key, reason in encoder.dropped.items()}
        dropped |= {_ENCODER + key: _UNUSED_HEAD for key in weights if key.startswith((_HEAD, "decoder."))}
        unet.config["sample_size"] = encoder.config.image_size
    return PipelineTranslation(unet, encoder, dropped)


def _part(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _is_schedule(key: str, tensor: torch.Tensor) -> bool:
    return "." not in key and tensor.shape == (REFERENCE_STEPS,)
