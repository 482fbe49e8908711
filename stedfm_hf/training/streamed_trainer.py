"""Base class of trainers on streamed crops: epochs, time limit, learning-rate schedule and held-out evaluations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import IntervalStrategy

from stedfm_hf.runs import UserError
from stedfm_hf.training.batches import EndlessBatches
from stedfm_hf.training.resumable_trainer import ResumableTrainer
from stedfm_hf.training.time_limit import TimeLimit

if TYPE_CHECKING:
    from stedfm_hf.training.averaging import WeightAverage
    from stedfm_hf.training.callbacks import MonitorCallback
    from stedfm_hf.training.settings import StreamedSettings


class StreamedTrainer(ResumableTrainer):
    """Trainer on the batches of `EndlessBatches`.

    Args:
        settings: Settings of the training.
        model: Network to train.
        args: Arguments of the run; `max_steps` must be set.
        batches: Training batches.
        preparation: Preparation of the batches.
        held_out: Held-out evaluation; None for no evaluation.
        average: Moving average of the weights, saved with every checkpoint; None for no average.
        kwargs: Other arguments of `ResumableTrainer`.
    """

    lr_scheduler: Any

    def __init__(
        self,
        *,
        settings: StreamedSettings,
        model: torch.nn.Module,
        args: TrainingArguments,
        batches: EndlessBatches,
        preparation: Any,
        held_out: Any = None,
        average: WeightAverage | None = None,
        **kwargs: Any,
    ) -> None:
        if held_out is None:
            args.eval_strategy = IntervalStrategy.NO
        limit = TimeLimit(settings.max_seconds, settings.warmup_ratio) if settings.max_seconds else None
        checkpointed = [each for each in (average, limit) if each is not None]
        # The library requires a data set for evaluation, but `evaluate` is overridden.
        super().__init__(
            model=model, args=args, batches=batches, checkpointed=checkpointed, eval_dataset=held_out, **kwargs
        )
        self.settings, self.batches, self.preparation = settings, batches, preparation
        self.held_out, self.average, self.time_limit, self._evaluated_at = held_out, average, limit, -1
        for callback in checkpointed:
            self.add_callback(callback)
        if average is not None and (self.is_fsdp_enabled or is_deepspeed_zero3_enabled()):
            raise UserError("--ema-decay needs all weights in every process; use it without ZeRO-3 and FSDP")

    @abstractmethod
    def held_out_metrics(self) -> dict[str, float]:
        """Evaluate on the held-out crops, and return the metrics with the prefix `eval_`."""

    def train_with(self, monitor: MonitorCallback, report: Callable[[str], None]) -> None:
        """Train to the end, and record the training curve.

        Args:
            monitor: Callback that records the curve.
            report: Function that prints a progress line.
        """
        # First, because the callbacks of --report-to log the speed that it measures.
        self.callback_handler.callbacks.insert(0, monitor)
        self.train_to_end(report)

    def rate_of_step(self) -> Callable[[int], float] | None:
        """Return a learning-rate schedule, as a fraction of the peak; None for that of the arguments."""
        return None

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """Data type of autocast in evaluations, the same as in training."""
        return torch.bfloat16 if self.args.bf16 else None

    @property
    def samples(self) -> int:
        """Number of samples seen so far, of all processes together."""
        return self.state.global_step * self.settings.effective_batch_size

    @property
    def epoch(self) -> float:
        """Number of epochs of the first data set so far."""
        batches = self.state.global_step * self.args.gradient_accumulation_steps
        return batches / self.batches.batches_per_epoch[0]

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Create the learning-rate schedule of the arguments, the time limit or `rate_of_step`."""
        rate, limit = self.rate_of_step(), self.time_limit
        if limit is not None:

            def rate(step: int) -> float:
                return limit.rate(step, num_training_steps)

        if rate is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, rate)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Evaluate on the held-out crops, and log the metrics."""
        if self.held_out is None:
            return {}
        self._evaluated_at = self.state.global_step
        metrics = self.held_out_metrics()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def is_over(self, state: TrainerState) -> bool:
        """Return whether the steps are done or the time is over.

        Args:
            state: State of the trainer in a checkpoint.
        """
        limit = self.time_limit
        out_of_time = limit is not None and limit.used(state.global_step, self.args.max_steps) >= 1.0
        return out_of_time or super().is_over(state)

    def load_last(self, checkpoint: str) -> None:
        """Load a checkpoint as for a step, because DeepSpeed and FSDP load through their wrappers.

        Args:
            checkpoint: Folder of the checkpoint.
        """
        self._prepare_for_training(self.args.max_steps, self.get_train_dataloader(), checkpoint)
        self._evaluated_at = self.state.global_step

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self.args.eval_on_start = self.held_out is not None and kwargs.get("resume_from_checkpoint") is None
        result = super()._inner_training_loop(*args, **kwargs)
        if self.held_out is not None and self._evaluated_at != self.state.global_step:
            self.evaluate()
        return result

    def batches_from(self, step: int) -> Iterator[Any]:
        """Return the batches of this process after an optimiser step.

        Args:
            step: Number of optimiser steps so far.
        """
        self.batches.start = step * self.args.gradient_accumulation_steps
        return iter(self.batches)
