"""Exponential moving average of the encoder weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.runs import UserError, atomic_path

AVERAGE_FILE = "average.safetensors"


class EncoderAverage(TrainerCallback):
    """Exponential moving average of the weights of an encoder, updated after every step.

    Args:
        encoder: Encoder that is trained.
        decay: Factor of the previous average in a step, such as 0.9999.
    """

    def __init__(self, encoder: StedFmModel, decay: float) -> None:
        self.encoder, self.decay = encoder, decay
        self.weights = {name: value.detach().float().clone() for name, value in encoder.named_parameters()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the average."""
        parameters = dict(self.encoder.named_parameters())
        device = next(iter(parameters.values())).device
        if next(iter(self.weights.values())).device != device:
            self.weights = {name: value.to(device) for name, value in self.weights.items()}
        with torch.no_grad():
            averages, current = list(self.weights.values()), [parameters[name].float() for name in self.weights]
            torch._foreach_lerp_(averages, current, 1.0 - self.decay)

    def save(self, folder: Path) -> None:
        """Write the average into the folder of a checkpoint."""
        with atomic_path(folder / AVERAGE_FILE) as temporary:
            save_file({name: value.cpu().contiguous() for name, value in self.weights.items()}, temporary)

    def load(self, folder: Path) -> None:
        """Read the average from the folder of a checkpoint.

        Raises:
            UserError: The checkpoint has no average.
        """
        if not (folder / AVERAGE_FILE).exists():
            raise UserError(
                f"{folder}: was written without --ema-decay; resume without it, or choose another --output"
            )
        self.weights = load_file(folder / AVERAGE_FILE)

    def as_encoder(self) -> StedFmModel:
        """Return an encoder with the averaged weights, on the CPU."""
        averaged = StedFmModel(self.encoder.config)
        missing = averaged.load_state_dict({name: value.cpu() for name, value in self.weights.items()}, strict=False)
        assert not missing.unexpected_keys
        return averaged
