"""Training curve of a diffusion model, in `curve.csv`, and the callback that writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stedfm_hf.training.callbacks import MonitorCallback
from stedfm_hf.training.curve import CurvePoint


@dataclass(frozen=True)
class GenerationRow(CurvePoint):
    """Row of the curve of a diffusion model (see `CurvePoint`).

    Attributes:
        held_out_loss: Loss of the averaged weights on held-out crops.
        constant_loss: Loss of the best constant prediction on the held-out crops.
        frechet_embedding: Fréchet distance of samples and held-out crops in the embeddings of the encoder.
        frechet_embedding_real: The same distance between two halves of the held-out crops.
        frechet_texture: Fréchet distance of samples and held-out crops in texture and morphology features.
        frechet_texture_real: The same distance between two halves of the held-out crops.
        images_per_second: Crops per second of all processes together, without evaluations and checkpoints.
    """

    held_out_loss: float | None = None
    constant_loss: float | None = None
    frechet_embedding: float | None = None
    frechet_embedding_real: float | None = None
    frechet_texture: float | None = None
    frechet_texture_real: float | None = None
    images_per_second: float | None = None


class GenerationMonitor(MonitorCallback):
    """Record the curve of a diffusion model, print progress lines, and stop a diverging training."""

    def _advice(self, good: Path | None) -> str:
        """Return advice on how to start again."""
        return "Start again with another --output and a lower --learning-rate or --max-grad-norm."

    def _row(self, common: dict[str, Any], logs: dict[str, float]) -> GenerationRow:
        """Return a row of the curve from the common columns and the logs."""
        return GenerationRow(
            **common,
            held_out_loss=logs.get("eval_loss"),
            constant_loss=logs.get("eval_constant_loss"),
            frechet_embedding=logs.get("eval_frechet_embedding"),
            frechet_embedding_real=logs.get("eval_frechet_embedding_real"),
            frechet_texture=logs.get("eval_frechet_texture"),
            frechet_texture_real=logs.get("eval_frechet_texture_real"),
        )
