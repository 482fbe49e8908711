"""Trainer of masked autoencoders: reproducible masks, weight decay of matrices, and held-out evaluation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import IntervalStrategy

from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.runs import UserError
from stedfm_hf.training.batches import EndlessBatches
from stedfm_hf.training.preparation import Preparation
from stedfm_hf.training.resumable_trainer import ResumableTrainer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stedfm_hf.reports.reconstructions import Reconstruction
    from stedfm_hf.training.averaging import EncoderAverage
    from stedfm_hf.training.held_out_evaluation import HeldOutEvaluator
    from stedfm_hf.training.settings import PretrainSettings
    from stedfm_hf.training.time_limit import TimeLimit

REFERENCE_HALF_PERIOD = 20
"""Half period of the oscillating learning rate of the reference protocol, in epochs."""


class PretrainingTrainer(ResumableTrainer):
    """Trainer of `StedFmForPreTraining` on the batches of `EndlessBatches`.

    Args:
        settings: Settings of the pretraining.
        model: Masked autoencoder.
        args: Arguments of the run; `max_steps` must be set.
        batches: Training batches.
        preparation: Preprocessing of the batches.
        held_out: Held-out evaluation; None for no evaluation.
        average: Moving average of the weights, saved with every checkpoint; None for no average.
        time_limit: Time limit; None for no limit.
        kwargs: Other arguments of `ResumableTrainer`.
    """

    lr_scheduler: Any

    def __init__(
        self,
        *,
        settings: PretrainSettings,
        model: StedFmForPreTraining,
        args: TrainingArguments,
        batches: EndlessBatches,
        preparation: Preparation,
        held_out: HeldOutEvaluator | None = None,
        average: EncoderAverage | None = None,
        time_limit: TimeLimit | None = None,
        **kwargs: Any,
    ) -> None:
        if held_out is None:
            args.eval_strategy = IntervalStrategy.NO
        # The library requires a data set for evaluation, but `evaluate` is overridden.
        checkpointed = [each for each in (average, time_limit) if each is not None]
        super().__init__(
            model=model, args=args, batches=batches, checkpointed=checkpointed, eval_dataset=held_out, **kwargs
        )
        self.settings = settings
        self.batches, self.preparation, self.held_out, self.average = batches, preparation, held_out, average
        self.time_limit, self._evaluated_at = time_limit, -1
        if average is not None and (self.is_fsdp_enabled or is_deepspeed_zero3_enabled()):
            raise UserError("--ema-decay needs all weights in every process; use it without ZeRO-3 and FSDP")
        for callback in checkpointed:
            self.add_callback(callback)

    # ------------------------------------------------------------------------------------- training step

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Prepare the batch on the device, and return the loss of the model."""
        ready = [self.preparation(part, epoch=part["epoch"]) for part in inputs["parts"]]
        whole = {name: torch.cat([part[name] for part in ready]) for name in ready[0]}
        output = model(**whole)
        return (output.loss, output) if return_outputs else output.loss

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return the names of the decayed parameters: matrices only; all of them with the reference protocol."""
        # ZeRO-3 partitions parameters and keeps their shape in `ds_shape`.
        shapes = {name: getattr(p, "ds_shape", p.shape) for name, p in model.named_parameters()}
        return [name for name, shape in shapes.items() if self.settings.protocol == "reference" or len(shape) == 2]

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Create the learning-rate schedule of the arguments, the time limit or the reference protocol."""
        limit = self.time_limit
        if self.settings.protocol != "reference" and limit is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            per_epoch = self.batches.batches_per_epoch[0] / self.args.gradient_accumulation_steps

            def rate(step: int) -> float:
                if limit is not None:
                    return limit.rate(step, num_training_steps)
                return 0.5 * (1.0 + math.cos(math.pi * int(step / per_epoch) / REFERENCE_HALF_PERIOD))

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, rate)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # ------------------------------------------------------------------------------------- evaluation

    @property
    def network(self) -> StedFmForPreTraining:
        """Masked autoencoder without its wrappers."""
        return cast(StedFmForPreTraining, self.accelerator.unwrap_model(self.model, keep_torch_compile=False))

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

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Evaluate on the held-out crops, and log the metrics."""
        if self.held_out is None:
            return {}
        self._evaluated_at = self.state.global_step
        found = self.held_out.evaluate(self.network, device=self.args.device, dtype=self.autocast_dtype)
        metrics = found.metrics()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def reconstructions(self) -> list[Reconstruction]:
        """Return reconstructions of some held-out crops; none without held-out crops."""
        if self.held_out is None:
            return []
        return self.held_out.reconstructions(self.network, device=self.args.device, dtype=self.autocast_dtype)

    # ------------------------------------------------------------------------------------- checkpoints

    def check_checkpoint(self, folder: Path) -> None:
        """Check that a checkpoint has the same configuration.

        Args:
            folder: Folder of the checkpoint.

        Raises:
            UserError: The configurations differ; the message lists the differences.
        """
        kind = type(self.model.config)
        saved, current = kind.from_pretrained(folder).to_dict(), self.model.config.to_dict()
        # Only the fields of the class: other fields depend on saving and on the version of the library.
        differing = [key for key in kind.__annotations__ if key in current and saved.get(key) != current[key]]
        if differing:
            shown = "; ".join(f"{key}: {saved.get(key)!r} there, {current[key]!r} now" for key in differing[:4])
            raise UserError(f"{folder}: is a checkpoint of another model ({shown}); choose another --output")

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
