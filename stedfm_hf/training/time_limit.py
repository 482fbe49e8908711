"""Time limit of a training: `stedfm pretrain --max-seconds`."""

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
    """Stop a training at a time limit, and schedule the learning rate by the elapsed time.

    The learning rate rises linearly during the warm-up and then falls to 0 like half a cosine. All processes use the
    clock of the first one, so they stop together.

    Args:
        seconds: Time limit in seconds, including evaluations, checkpoints and earlier interrupted runs.
        warmup: Fraction of the time for the warm-up of the learning rate, in [0, 1).
        clock: Function that returns the time in seconds.
    """

    def __init__(self, seconds: float, warmup: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.warmup, self.clock = seconds, warmup, clock
        self.elapsed, self._started = 0.0, 0.0

    def used(self, steps: int, max_steps: int) -> float:
        """Return the used fraction of the time or of the steps, whichever is larger, in [0, 1].

        Args:
            steps: Number of optimiser steps so far.
            max_steps: Largest number of optimiser steps.
        """
        return min(1.0, max(self.elapsed / self.seconds, steps / max_steps))

    def rate(self, steps: int, max_steps: int) -> float:
        """Return the learning rate as a fraction of the peak learning rate.

        Args:
            steps: Number of optimiser steps so far.
            max_steps: Largest number of optimiser steps.
        """
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
        """Update the elapsed time; after the last step, log and save."""
        now = torch.tensor(self.clock() - self._started, dtype=torch.float64)
        if args.world_size > 1:
            now = now.float().to(args.device)
            torch.distributed.broadcast(now, 0)
        self.elapsed = float(now)
        if self.used(state.global_step, state.max_steps) >= 1.0:
            control.should_training_stop = control.should_log = control.should_save = True

    def save(self, folder: Path) -> None:
        """Write the elapsed time into a checkpoint."""
        write_json(folder / TIME_FILE, {"seconds": self.elapsed})

    def load(self, folder: Path) -> None:
        """Read the elapsed time from a checkpoint."""
        self.elapsed = float(read_json(folder / TIME_FILE)["seconds"])
