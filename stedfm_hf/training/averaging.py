"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.runs import UserError, atomic_path

AVERAGE_FILE = "average.safetensors"


class WeightAverage(TrainerCallback):
    """Exponential moving average of the weights of a network, updated after every step.

    Args:
        network: Network that is trained.
        decay: Factor of the previous average in a step, such as 0.9999.
        ramp: Whether the factor rises from 0.1 in the first steps, so that the average soon forgets the random
            weights.
    """

    def __init__(self, network: torch.nn.Module, decay: float, *, ramp: bool = False) -> None:
        self.network, self.decay, self.ramp = network, decay, ramp
        self.weights = {name: value.detach().float().clone() for name, value in network.named_parameters()}

    def decay_at(self, step: int) -> float:
        """Return the factor of the previous average after a number of steps.

        Args:
            step: Number of optimiser steps so far.
        """
        return min(self.decay, (1.0 + step) / (10.0 + step)) if self.ramp else self.decay

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the average."""
        parameters = dict(self.network.named_parameters())
        device = next(iter(parameters.values())).device
        if next(iter(self.weights.values())).device != device:
            self.weights = {name: value.to(device) for name, value in self.weights.items()}
        with torch.no_grad():
            averages, current = list(self.weights.values()), [parameters[name].float() for name in self.weights]
            torch._foreach_lerp_(averages, current, 1.0 - self.decay_at(state.global_step))

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

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged weights inside the block, and its trained weights afterwards."""
        parameters = dict(self.network.named_parameters())
        trained = {name: value.detach().clone() for name, value in parameters.items()}
        try:
            self._set(self.weights)
            yield
        finally:
            self._set(trained)

    @torch.no_grad()
    def _set(self, weights: dict[str, torch.Tensor]) -> None:
        for name, value in self.network.named_parameters():
            value.copy_(weights[name])


class EncoderAverage(WeightAverage):
    """Exponential moving average of the weights of an encoder.

    Args:
        encoder: Encoder that is trained.
        decay: Factor of the previous average in a step, such as 0.9999.
    """

    def __init__(self, encoder: StedFmModel, decay: float) -> None:
        super().__init__(encoder, decay)
        self.encoder = encoder

    def as_encoder(self) -> StedFmModel:
        """Return an encoder with the averaged weights, on the CPU."""
        averaged = StedFmModel(self.encoder.config)
        missing = averaged.load_state_dict({name: value.cpu() for name, value in self.weights.items()}, strict=False)
        assert not missing.unexpected_keys
        return averaged
