"""Watches a fine-tuning: keeps its curve, prints a line at every check, and stops it when it is time to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from stedfm_hf.training.checkpoints import newest_whole
from stedfm_hf.training.curve import Moment, RowsFile
from stedfm_hf.training.finetuning.checks import is_past_patience
from stedfm_hf.training.watching import TrainingDiverged, Watch


@dataclass(frozen=True)
class CheckRow(Moment):
    """A moment of a fine-tuning; what was not measured then is None.

    Args:
        step: optimiser steps done.
        epoch: epochs of the training images of the run done.
        samples: images seen, of all processes.
        loss: mean training loss since the row before.
        learning_rate: of the last step.
        grad_norm: norm of the gradient of the last step, before it was clipped.
        validation_loss: loss on the validation images, unweighted.
        validation_figure: what the best model is chosen by.
        images_per_second: images of all processes a second, without checks and savings.
    """

    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    validation_loss: float | None = None
    validation_figure: float | None = None
    images_per_second: float | None = None


class CheckWatch(Watch):
    """Keeps the curve of a fine-tuning and stops it: early where it was asked to, and where it has gone wrong.

    Args:
        curve: gets a row for every log and check.
        figure: what the best model is chosen by.
        patience: checks without a better one, after which it is stopped; None: never.
        say: called with the lines.
    """

    def __init__(
        self, curve: RowsFile[CheckRow], *, figure: str, patience: int | None, say: Callable[[str], None] = print
    ) -> None:
        super().__init__(curve, say=say)
        self.figure, self.patience = figure, patience

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes the time, and has the last step checked: before it is saved, so that it counts after a stop, too."""
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
        """Prints a line; ends the training after checks enough without a better one."""
        self.speed.pause()
        if not metrics:
            return
        value = metrics[f"eval_{self.figure}"]
        if state.is_world_process_zero:
            self.say(
                f"step {state.global_step}/{state.max_steps}  validation loss {metrics['eval_loss']:.4f}  "
                f"{self.figure} {value:.4f}"
            )
        if not math.isfinite(metrics["eval_loss"]):
            raise self._diverged(args, state, f"the validation loss is {metrics['eval_loss']}")
        if is_past_patience(state.log_history, self.figure, self.patience):
            control.should_training_stop = True
            if state.is_world_process_zero:
                self.say(f"step {state.global_step}: {self.patience} checks without a better one: stopped")

    def _row(self, common: dict[str, Any], logs: dict[str, float]) -> CheckRow:
        found = logs.get(f"eval_{self.figure}")
        return CheckRow(**common, validation_loss=logs.get("eval_loss"), validation_figure=found)

    def _diverged(self, args: TrainingArguments, state: TrainerState, what: str) -> TrainingDiverged:
        good = newest_whole(Path(str(args.output_dir)), lambda line: None)
        kept = "" if good is None else f"; {good} is the last good checkpoint"
        return TrainingDiverged(
            f"step {state.global_step}: {what}; the training was stopped{kept}; begin again with another --output_dir "
            "and a lower --learning_rate"
        )
