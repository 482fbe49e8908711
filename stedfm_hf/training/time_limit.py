"""A training that ends when its time is used: `stedfm pretrain --max-seconds`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stedfm_hf.runs import read_json, write_json

TIME_FILE = "time.json"


class TimeLimit(TrainerCallback):
    """End a training when its time is used, or its steps, and let the learning rate follow what is used of them.

    The rate rises for the share `warmup` and then falls to 0 like half a cosine. All processes use the clock of the
    first one, so that they end together.

    Args:
        seconds: Time of the training, with evaluations and checkpoints; that of interrupted runs counts.
        warmup: Share of the time in which the learning rate rises.
        clock: Returns seconds from some time on.
    """

    def __init__(self, seconds: float, warmup: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.warmup, self.clock = seconds, warmup, clock
        self.elapsed, self._started = 0.0, 0.0

    def used(self, steps: int, max_steps: int) -> float:
        """Return what is used of the time or of the steps, whichever is more, 0 to 1."""
        return min(1.0, max(self.elapsed / self.seconds, steps / max_steps))

    def rate(self, steps: int, max_steps: int) -> float:
        """Return the share of the highest learning rate after some steps."""
        used = self.used(steps, max_steps)
        if used < self.warmup:
            return max(used / self.warmup, 0.02)
        return 0.5 * (1.0 + math.cos(math.pi * (used - self.warmup) / (1.0 - self.warmup)))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._started = self.clock() - self.elapsed

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the clock; after the last step, log and save."""
        now = torch.tensor(self.clock() - self._started, dtype=torch.float64)
        if args.world_size > 1:
            now = now.float().to(args.device)
            torch.distributed.broadcast(now, 0)
        self.elapsed = float(now)
        if self.used(state.global_step, state.max_steps) >= 1.0:
            control.should_training_stop = control.should_log = control.should_save = True

    def save(self, folder: Path) -> None:
        """Write the time that is used into a checkpoint."""
        write_json(folder / TIME_FILE, {"seconds": self.elapsed})

    def load(self, folder: Path) -> None:
        """Take up the time that was used until a checkpoint."""
        self.elapsed = float(read_json(folder / TIME_FILE)["seconds"])
