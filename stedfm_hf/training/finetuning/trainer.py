"""Base trainer of the fine-tunings: evaluation on whole images, best weights, and early stopping."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput

from stedfm_hf.training.callbacks import MonitorCallback
from stedfm_hf.training.curve import CurveFile, FinetuneRow
from stedfm_hf.training.finetuning.best_weights import BestWeights, best_evaluation, evaluations_of, is_past_patience
from stedfm_hf.training.finetuning.data import Batches
from stedfm_hf.training.finetuning.network import Network, learning_rate_scale
from stedfm_hf.training.finetuning.settings import FinetuneSettings
from stedfm_hf.training.resumable_trainer import ResumableTrainer

Settings = TypeVar("Settings", bound=FinetuneSettings)


class FinetuneTrainer(ResumableTrainer, Generic[Settings, Network]):
    """Trainer that evaluates on the validation images and restores the best weights at the end.

    Args:
        settings: Settings of the fine-tuning.
        model: Network to train.
        args: Arguments of the run; `max_steps` must be set.
        batches: Training batches.
        metric: Validation metric that selects the best weights.
        kwargs: Other arguments of `ResumableTrainer`.
    """

    optimizer: Any

    def __init__(
        self,
        *,
        settings: Settings,
        model: Network,
        args: TrainingArguments,
        batches: Batches,
        metric: str,
        **kwargs: Any,
    ) -> None:
        self.best = BestWeights(model)
        super().__init__(model=model, args=args, batches=batches, checkpointed=[self.best], **kwargs)
        self.settings, self.network, self.batches, self.metric = settings, model, batches, metric

    @abstractmethod
    def validate(self) -> Mapping[str, Any]:
        """Return the metrics of the validation images, including `loss`; every process must make this call."""

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimiser, with weight decay of matrices and kernels only, and layer-wise learning rates."""
        if self.optimizer is None:
            layers, groups = self.network.config.num_hidden_layers, dict[tuple[float, float], list[Any]]()
            for name, parameter in self.network.named_parameters():
                if parameter.requires_grad:
                    scale = learning_rate_scale(name, layers, self.settings.effective_layer_decay)
                    decay = self.args.weight_decay if parameter.ndim in (2, 4) else 0.0  # tokens have three dimensions
                    groups.setdefault((scale, decay), []).append(parameter)
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.network)
            rate = options["lr"]
            parts = [
                {"params": parameters, "weight_decay": decay, "lr": scale * rate}
                for (scale, decay), parameters in sorted(groups.items(), key=lambda each: each[0], reverse=True)
            ]
            self.optimizer = kind(parts, **options)
        return self.optimizer

    @property
    def epoch(self) -> float:
        """Number of epochs of the training images so far."""
        return self.state.global_step * self.settings.effective_batch_size / len(self.batches.samples.items)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Evaluate on the validation images, and copy the weights if they are the best so far."""
        found = self.validate()
        metrics = {f"eval_{name}": float(value) for name, value in found.items() if isinstance(value, float)}
        # An undefined metric, such as R2 of constant numbers, is never the best.
        metrics.setdefault(f"eval_{self.metric}", -math.inf)
        self.log(metrics)
        history = self.state.log_history
        if best_evaluation(history, self.metric) == len(evaluations_of(history, self.metric)) - 1:
            self.best.keep()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def train_on(self, curve: CurveFile[FinetuneRow], report: Callable[[str], None]) -> TrainOutput:
        """Train from the newest complete checkpoint, and load the best weights at the end.

        Args:
            curve: Curve of the run.
            report: Function that prints a progress line.
        """
        monitor = FinetuneMonitorCallback(
            curve, metric=self.metric, patience=self.settings.early_stopping_patience, report=report
        )
        # After the callback that schedules logs and evaluations, so that it can add those of the last step.
        self.callback_handler.callbacks.insert(1, monitor)
        if self.args.should_save:
            Path(str(self.args.output_dir)).mkdir(parents=True, exist_ok=True)
        result = self.train_to_end(report)
        self.best.restore()
        return result

    def is_over(self, state: TrainerState) -> bool:
        """Return whether the steps are done, or early stopping applies.

        Args:
            state: State of the trainer in a checkpoint.
        """
        patience = self.settings.early_stopping_patience
        return is_past_patience(state.log_history, self.metric, patience) or super().is_over(state)

    def batches_from(self, step: int) -> Iterator[Any]:
        """Return the batches of this process after an optimiser step.

        Args:
            step: Number of optimiser steps so far.
        """
        self.batches.step = step
        return iter(self.batches)


class FinetuneMonitorCallback(MonitorCallback):
    """Record the curve of a fine-tuning, print progress lines, and stop it early or when it diverges.

    Args:
        curve: Curve file; gets a row for every log and evaluation.
        metric: Metric that selects the best model.
        patience: Number of evaluations without improvement before the training stops; None for no early stopping.
        report: Function that prints a progress line.
    """

    def __init__(
        self,
        curve: CurveFile[FinetuneRow],
        *,
        metric: str,
        patience: int | None,
        report: Callable[[str], None] = print,
    ) -> None:
        super().__init__(curve, report=report)
        self.metric, self.patience = metric, patience

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the time; after the last step, evaluate before saving, so that the result is in the checkpoint."""
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step >= state.max_steps:
            control.should_log = control.should_evaluate = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print a line; stop the training after enough evaluations without improvement."""
        self.speed.pause()
        if not metrics:
            return
        report = self.report if state.is_world_process_zero else lambda line: None
        shown = f"{self.metric} {metrics[f'eval_{self.metric}']:.4f}"
        report(f"step {state.global_step}/{state.max_steps}  validation loss {metrics['eval_loss']:.4f}  {shown}")
        if not math.isfinite(metrics["eval_loss"]):
            raise self._diverged(args, state, f"the validation loss is {metrics['eval_loss']}")
        if is_past_patience(state.log_history, self.metric, self.patience):
            control.should_training_stop = True
            report(f"step {state.global_step}: no improvement in {self.patience} evaluations; training stopped")

    def _row(self, common: dict[str, Any], logs: dict[str, float]) -> FinetuneRow:
        found = logs.get(f"eval_{self.metric}")
        return FinetuneRow(**common, validation_loss=logs.get("eval_loss"), validation_metric=found)

    def _advice(self, good: Path | None) -> str:
        checkpoint = "" if good is None else f"The last good checkpoint is {good}. "
        return f"{checkpoint}Train again with another --output and a lower --learning-rate."
