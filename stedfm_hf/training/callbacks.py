"""Watches a training: keeps the curve, prints a plain line now and then, and stops what has gone wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stedfm_hf.runs import UserError
from stedfm_hf.training.checkpoints import newest_complete
from stedfm_hf.training.curve import CurveFile, CurveRow

TOO_HIGH = 3.0
"""A loss this many times that of a constant prediction, or the lowest so far, is no fluctuation."""
IN_A_ROW = 3
"""Logs that must be so before the training is stopped."""


class TrainingDiverged(UserError):
    """A training was stopped because its loss is not a number any more, or far above that of a constant."""


class MonitorCallback(TrainerCallback):
    """Keeps the curve, prints a line at every log and check, and stops a training that has gone wrong.

    Every process decides by what all of them know, so that all stop together; only the first one writes and prints.
    While the loss is too high no checkpoint is written: the newest whole one is always a good one. For that the
    library must log in every step that it saves in, which it does before it saves.

    Args:
        curve: is cut back to the step that the training begins at, and gets a row for every log and check.
        report: called with the lines.
        clock: seconds from some time on.
        has_total: Whether the number of steps is known from the start.

    Raises:
        TrainingDiverged: from inside `Trainer.train()`; names the checkpoint to go on from.
    """

    def __init__(
        self,
        curve: CurveFile[Any],
        *,
        report: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        has_total: bool = True,
    ) -> None:
        self.curve, self.report, self.speed, self.has_total = curve, report, _Speed(clock), has_total
        self._began_at = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes the curve end where the training begins."""
        self._began_at = state.global_step
        if state.is_world_process_zero:
            self.curve.truncate(state.global_step if state.global_step > 0 else -1)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes the time."""
        self.speed.step(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Does not count the time it took to save."""
        self.speed.pause()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes a row and, of the training, a line; stops where the loss says so."""
        logs = logs or {}
        if "loss" in logs:
            speed = self.speed.since_last(state.global_step)
            per_second = None if speed is None else speed * samples_per_step(args)
            if per_second is not None:
                logs["images_per_second"] = per_second  # for the callbacks behind this one, such as TensorBoard's
            self._write(args, state, logs, per_second)
            if state.is_world_process_zero:
                self.report(self._place(state) + _training_line(logs, per_second))
            self._stop_if_wrong(args, state, control, logs)
        # A training that goes on from a checkpoint has been checked there before it was stopped, or not at all.
        elif "eval_loss" in logs and not 0 < state.global_step == self._began_at:
            self._write(args, state, logs, None)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prints a line; stops where the held-out loss is no number."""
        self.speed.pause()
        if metrics and "eval_loss" in metrics:
            if state.is_world_process_zero:
                self.report(self._place(state) + _check_line(metrics))
            if not math.isfinite(metrics["eval_loss"]):
                raise self._diverged(args, state, f"the held-out loss is {metrics['eval_loss']}")

    def _place(self, state: TrainerState) -> str:
        total = f"/{state.max_steps}" if self.has_total and state.max_steps > 0 else ""
        return f"step {state.global_step}{total}  epoch {state.epoch or 0.0:.2f}  "

    def _write(
        self, args: TrainingArguments, state: TrainerState, logs: dict[str, float], per_second: float | None
    ) -> None:
        if not state.is_world_process_zero:
            return
        common = {
            "step": state.global_step,
            "epoch": float(state.epoch or 0.0),
            "samples": state.global_step * samples_per_step(args),
            "images_per_second": per_second,
            **{name: logs.get(name) for name in ("loss", "learning_rate", "grad_norm")},
        }
        self.curve.append(self._row(common, logs))

    def _row(self, common: dict[str, Any], logs: dict[str, float]) -> Any:
        """A row of the curve: what all trainings have, and what this one found."""
        return CurveRow(
            **common,
            held_out_loss=logs.get("eval_loss"),
            constant_loss=logs.get("eval_constant_loss"),
            psnr=logs.get("eval_psnr"),
            knn=logs.get("eval_knn"),
        )

    def _stop_if_wrong(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float]
    ) -> None:
        if not math.isfinite(logs["loss"]):
            raise self._diverged(args, state, f"the loss is {logs['loss']}")
        # With float16 a step whose gradient overflows is left out, and the scale of the loss lowered: that is no harm.
        if not args.fp16 and not math.isfinite(logs.get("grad_norm", 0.0)):
            raise self._diverged(args, state, f"the gradient is {logs['grad_norm']}")
        # The history is part of a checkpoint, and the same in every process.
        count, limit = logs_too_high(state.log_history, args.get_warmup_steps(state.max_steps))
        if count:
            control.should_save = False
        if count >= IN_A_ROW:
            raise self._diverged(args, state, f"the loss is {logs['loss']:.4g}, for {count} logs above {limit:.4g}")

    def _diverged(self, args: TrainingArguments, state: TrainerState, what: str) -> TrainingDiverged:
        good = newest_complete(Path(str(args.output_dir)), lambda line: None)
        # Not the same command: a run goes on with its own settings only, to the same bits, hence to the same end.
        cure = "a new --output and a lower --base-learning-rate or --max-grad-norm"
        where = (
            f"the last good checkpoint is {good}: start from it with --init-from {good}, {cure}"
            if good is not None
            else f"there is no checkpoint yet: start again with {cure}"
        )
        return TrainingDiverged(f"step {state.global_step}: {what}; the training was stopped; {where}")


def logs_too_high(history: Sequence[dict[str, float]], warm_up: int = 0) -> tuple[int, float]:
    """How many of the last logs have a loss that is too high, and above what it is.

    Too high is three times what a constant prediction has on held-out crops (where nothing is held out: three times
    the first loss), and three times the lowest loss so far: a training that begins high and comes down is right.

    Args:
        history: logs in order, as `TrainerState.log_history`.
        warm_up: steps whose losses do not count.

    Example:
        >>> history = [{"step": step, "loss": loss} for step, loss in enumerate([0.2, 0.1, 0.05, 0.7, 0.9])]
        >>> count, limit = logs_too_high(history)
        >>> count, round(limit, 3)
        (2, 0.6)
    """
    losses = [log["loss"] for log in history if "loss" in log and log["step"] >= warm_up]
    if not losses:
        return 0, math.inf
    constants = [log["eval_constant_loss"] for log in history if "eval_constant_loss" in log]
    limit = TOO_HIGH * max(constants[-1] if constants else losses[0], min(losses))
    return len(list(takewhile(lambda loss: loss > limit, reversed(losses)))), limit


def samples_per_step(args: TrainingArguments) -> int:
    """Crops of an optimiser step, of all processes."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


class _Speed:
    """Steps a second since the last log, without the first step of all and without pauses."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._step: int | None = None
        self._start = self._paused = self._mark = 0.0

    def step(self, number: int) -> None:
        """A step has ended. The first one starts the readers and compiles: the time begins behind it."""
        self._mark = self.clock()
        if self._step is None:
            self._step, self._start = number, self._mark

    def pause(self) -> None:
        """What was done since the last step or log does not count."""
        now = self.clock()
        self._paused += now - self._mark
        self._mark = now

    def since_last(self, number: int) -> float | None:
        """Steps a second since the last call, or None where there are none."""
        now = self.clock()
        steps = 0 if self._step is None else number - self._step
        seconds = now - self._start - self._paused
        self._step, self._start, self._paused, self._mark = number, now, 0.0, now
        return steps / seconds if steps and seconds > 0 else None


def _training_line(logs: dict[str, float], per_second: float | None) -> str:
    parts = [f"loss {logs['loss']:.5f}"]
    if "learning_rate" in logs:
        parts.append(f"lr {logs['learning_rate']:.2e}")
    if per_second is not None:
        parts.append(f"{per_second:,.0f} images/s")
    return "  ".join(parts)


def _check_line(metrics: dict[str, float]) -> str:
    parts = [f"held-out loss {metrics['eval_loss']:.5f}"]
    if "eval_constant_loss" in metrics:
        parts[-1] += f" (best constant {metrics['eval_constant_loss']:.5f})"
    if "eval_psnr" in metrics:
        parts.append(f"PSNR {metrics['eval_psnr']:.1f} dB")
    if "eval_knn" in metrics:
        parts.append(f"kNN {100 * metrics['eval_knn']:.1f} %")
    return "  ".join(parts)
