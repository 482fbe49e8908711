"""The library's trainer for masked autoencoders: masks by sample, decay of matrices, held-out checks."""

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

REFERENCE_PERIOD_EPOCHS = 20


class PretrainingTrainer(ResumableTrainer):
    """Trains a `StedFmForPreTraining` on the batches of `EndlessBatches`.

    Args:
        settings: Settings of the pretraining.
        model: the masked autoencoder.
        args: of the run; `max_steps` must be set.
        batches: what it is fed.
        preparation: makes the input of a step out of a batch.
        held_out: crops to look at now and then; None: no checks.
        average: follows the weights; it is saved with every checkpoint.
        time_limit: Ends the training when its time is used; None trains all steps.
        kwargs: of `transformers.Trainer`.
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
        # The library only looks whether there is something to evaluate on; `evaluate` is ours.
        checkpointed = [each for each in (average, time_limit) if each is not None]
        super().__init__(
            model=model, args=args, batches=batches, checkpointed=checkpointed, eval_dataset=held_out, **kwargs
        )
        self.settings = settings
        self.batches, self.preparation, self.held_out, self.average = batches, preparation, held_out, average
        self.time_limit, self._checked_at = time_limit, -1
        if average is not None and (self.is_fsdp_enabled or is_deepspeed_zero3_enabled()):
            raise UserError("ema_decay needs all weights in every process; leave it out, or ZeRO-3 or FSDP")
        for callback in checkpointed:
            self.add_callback(callback)

    # ------------------------------------------------------------------------------------- the step

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Scales, augments and masks on the device, and takes the loss of the model."""
        ready = [self.preparation(part, epoch=part["epoch"]) for part in inputs["parts"]]
        whole = {name: torch.cat([part[name] for part in ready]) for name in ready[0]}
        output = model(**whole)
        return (output.loss, output) if return_outputs else output.loss

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Matrices only; no biases, norms and tokens. The reference decays everything."""
        # ZeRO-3 leaves a flat piece of every parameter and remembers its shape.
        shapes = {name: getattr(p, "ds_shape", p.shape) for name, p in model.named_parameters()}
        return [name for name, shape in shapes.items() if self.settings.protocol == "reference" or len(shape) == 2]

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Warm-up and one cosine; the reference has a cosine with a half period of 20 epochs."""
        limit = self.time_limit
        if self.settings.protocol != "reference" and limit is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            per_epoch = self.batches.batches_per_epoch[0] / self.args.gradient_accumulation_steps

            def rate(step: int) -> float:
                if limit is not None:
                    return limit.rate(step, num_training_steps)
                return 0.5 * (1.0 + math.cos(math.pi * int(step / per_epoch) / REFERENCE_PERIOD_EPOCHS))

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, rate)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # ------------------------------------------------------------------------------------- is it going well

    @property
    def network(self) -> StedFmForPreTraining:
        """The masked autoencoder without what wraps it."""
        return cast(StedFmForPreTraining, self.accelerator.unwrap_model(self.model, keep_torch_compile=False))

    @property
    def check_dtype(self) -> torch.dtype | None:
        """Precision of autocast in checks: that of the training."""
        return torch.bfloat16 if self.args.bf16 else None

    @property
    def samples(self) -> int:
        """Samples of all ranks seen so far."""
        return self.state.global_step * self.settings.effective_batch_size

    @property
    def epoch(self) -> float:
        """Epochs of the first data set seen so far."""
        batches = self.state.global_step * self.args.gradient_accumulation_steps
        return batches / self.batches.batches_per_epoch[0]

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Looks at the held-out crops."""
        if self.held_out is None:
            return {}
        self._checked_at = self.state.global_step
        found = self.held_out.evaluate(self.network, device=self.args.device, dtype=self.check_dtype)
        metrics = found.metrics()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def reconstructions(self) -> list[Reconstruction]:
        """What the model makes of some held-out crops; none without any."""
        if self.held_out is None:
            return []
        return self.held_out.reconstructions(self.network, device=self.args.device, dtype=self.check_dtype)

    # ------------------------------------------------------------------------------------- checkpoints

    def check_checkpoint(self, folder: Path) -> None:
        """Refuse a checkpoint of another architecture.

        Raises:
            UserError: Names what differs.
        """
        kind = type(self.model.config)
        theirs, ours = kind.from_pretrained(folder).to_dict(), self.model.config.to_dict()
        # Fields of the configuration itself: others come and go with saving and with the library.
        differing = [key for key in kind.__annotations__ if key in ours and theirs.get(key) != ours[key]]
        if differing:
            shown = "; ".join(f"{key}: {theirs.get(key)!r} there, {ours[key]!r} now" for key in differing[:4])
            raise UserError(f"{folder}: is a checkpoint of another model ({shown}); choose another --output")

    def is_over(self, state: TrainerState) -> bool:
        """Whether the steps or the time are used."""
        limit = self.time_limit
        out_of_time = limit is not None and limit.used(state.global_step, self.args.max_steps) >= 1.0
        return out_of_time or super().is_over(state)

    def load_last(self, checkpoint: str) -> None:
        """Load as for a step: DeepSpeed and FSDP load and save through what they wrap the model in."""
        self._prepare_for_training(self.args.max_steps, self.get_train_dataloader(), checkpoint)
        self._checked_at = self.state.global_step

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self.args.eval_on_start = self.held_out is not None and kwargs.get("resume_from_checkpoint") is None
        outcome = super()._inner_training_loop(*args, **kwargs)
        if self.held_out is not None and self._checked_at != self.state.global_step:
            self.evaluate()
        return outcome

    def batches_from(self, step: int) -> Iterator[Any]:
        """The batches of this rank behind an optimiser step."""
        self.batches.start = step * self.args.gradient_accumulation_steps
        return iter(self.batches)
