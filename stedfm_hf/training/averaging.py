"""A moving average of the encoder's weights, which often has the better features."""

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
    """Follows the weights of an encoder after every step.

    Args:
        encoder: what is trained.
        decay: share of the old average that stays in a step, such as 0.9999.
    """

    def __init__(self, encoder: StedFmModel, decay: float) -> None:
        self.encoder, self.decay = encoder, decay
        self.weights = {name: value.detach().float().clone() for name, value in encoder.named_parameters()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes the new weights in."""
        parameters = dict(self.encoder.named_parameters())
        device = next(iter(parameters.values())).device
        if next(iter(self.weights.values())).device != device:
            self.weights = {name: value.to(device) for name, value in self.weights.items()}
        with torch.no_grad():
            ours, theirs = list(self.weights.values()), [parameters[name].float() for name in self.weights]
            torch._foreach_lerp_(ours, theirs, 1.0 - self.decay)

    def save(self, folder: Path) -> None:
        """Writes the average into a checkpoint."""
        with atomic_path(folder / AVERAGE_FILE) as temporary:
            save_file({name: value.cpu().contiguous() for name, value in self.weights.items()}, temporary)

    def load(self, folder: Path) -> None:
        """Takes the average of a checkpoint.

        Raises:
            UserError: the checkpoint has none.
        """
        if not (folder / AVERAGE_FILE).exists():
            raise UserError(
                f"{folder}: was written without --ema-decay; resume without it, or choose another --output"
            )
        self.weights = load_file(folder / AVERAGE_FILE)

    def as_encoder(self) -> StedFmModel:
        """An encoder with the averaged weights, on the CPU."""
        averaged = StedFmModel(self.encoder.config)
        missing = averaged.load_state_dict({name: value.cpu() for name, value in self.weights.items()}, strict=False)
        assert not missing.unexpected_keys
        return averaged
