"""Callbacks that record the training curve, print progress lines, and stop a diverging training."""

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

DIVERGENCE_FACTOR = 3.0
"""Factor above the loss of a constant prediction, and above the lowest loss, from which a loss is too high."""
DIVERGED_LOGS = 3
"""Number of consecutive logs with a loss that is too high after which the training is stopped."""


class TrainingDiverged(UserError):
    """Training was stopped because the loss is not finite, or far above that of a constant prediction."""


class MonitorCallback(TrainerCallback):
    """Record the training curve, print a line for every log and evaluation, and stop a diverging training.

    All processes decide from the same values, so they stop together; only the first one writes and prints. While the
    loss is too high, no checkpoint is written, so the newest complete checkpoint is always usable. This requires a log
    in every step that is saved.

    Args:
        curve: Curve file, truncated at the first step of the training; gets a row for every log and evaluation.
        report: Function that prints a progress line.
        clock: Function that returns the time in seconds.
        has_total: Whether the number of steps is known from the start.

    Raises:
        TrainingDiverged: Raised inside `Trainer.train()`; the message names the last good checkpoint.
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
        """Truncate the curve at the first step of the training."""
        self._began_at = state.global_step
        if state.is_world_process_zero:
            self.curve.truncate(state.global_step if state.global_step > 0 else -1)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the time of the step."""
        self.speed.step(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Exclude the time for saving from the speed."""
        self.speed.pause()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a row, print a line for a training loss, and stop a diverging training."""
        logs = logs or {}
        if "loss" in logs:
            speed = self.speed.since_last(state.global_step)
            per_second = None if speed is None else speed * samples_per_step(args)
            if per_second is not None:
                logs["images_per_second"] = per_second  # for the later callbacks, such as TensorBoard
            self._write(args, state, logs, per_second)
            if state.is_world_process_zero:
                self.report(self._position(state) + _training_line(logs, per_second))
            self._stop_if_diverged(args, state, control, logs)
        # A resumed training was already evaluated at its first step, or not at all.
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
        """Print a line, and stop the training if the held-out loss is not finite."""
        self.speed.pause()
        if metrics and "eval_loss" in metrics:
            if state.is_world_process_zero:
                self.report(self._position(state) + _evaluation_line(metrics))
            if not math.isfinite(metrics["eval_loss"]):
                raise self._diverged(args, state, f"the held-out loss is {metrics['eval_loss']}")

    def _position(self, state: TrainerState) -> str:
        total = f"/{state.max_steps}" if self.has_total and state.max_steps > 0 else ""
        return f"step {state.global_step}{total}  epoch {state.epoch or 0.0:.2f}  "

    def _write(
        self, args: TrainingArguments, state: TrainerState, logs: dict[str, float], per_second: float | None
    ) -> None:
        """Append a row of logs to the curve, in the first process only; `per_second` is None if not measured."""
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
        """Return a row of the curve from the common columns and the logs."""
        return CurveRow(
            **common,
            held_out_loss=logs.get("eval_loss"),
            constant_loss=logs.get("eval_constant_loss"),
            psnr=logs.get("eval_psnr"),
            knn=logs.get("eval_knn"),
        )

    def _stop_if_diverged(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float]
    ) -> None:
        """Raise TrainingDiverged if loss or gradient is not finite, or the loss stays high for `DIVERGED_LOGS` logs.

        While the loss is high, no checkpoint is saved, so that the newest checkpoint is a good one.
        """
        if not math.isfinite(logs["loss"]):
            raise self._diverged(args, state, f"the loss is {logs['loss']}")
        # With float16, a step whose gradient overflows is skipped and the loss scale is lowered; this is harmless.
        if not args.fp16 and not math.isfinite(logs.get("grad_norm", 0.0)):
            raise self._diverged(args, state, f"the gradient is {logs['grad_norm']}")
        # The history is part of a checkpoint and the same in every process.
        count, limit = count_high_losses(state.log_history, args.get_warmup_steps(state.max_steps))
        if count:
            control.should_save = False
        if count >= DIVERGED_LOGS:
            raise self._diverged(
                args, state, f"the loss is {logs['loss']:.4g}, above {limit:.4g} in {count} consecutive logs"
            )

    def _advice(self, good: Path | None) -> str:
        """Return advice on how to start again, with the last good checkpoint if there is one."""
        # The same command would resume with the same settings, and diverge again.
        changes = "another --output and a lower --base-learning-rate or --max-grad-norm"
        if good is not None:
            return f"Start from the last good checkpoint: --init-from {good}, {changes}."
        return f"There is no checkpoint yet: start again with {changes}."

    def _diverged(self, args: TrainingArguments, state: TrainerState, what: str) -> TrainingDiverged:
        """Return the error of a diverged training, with advice on how to start again; `what` is what was observed."""
        good = newest_complete(Path(str(args.output_dir)), lambda line: None)
        advice = self._advice(good)
        return TrainingDiverged(f"step {state.global_step}: {what}; training stopped. {advice}")


def count_high_losses(history: Sequence[dict[str, float]], warmup_steps: int = 0) -> tuple[int, float]:
    """Count the latest consecutive logs with a loss above the limit.

    The limit is three times the loss of a constant prediction on held-out crops (without held-out crops: the first
    training loss), and at least three times the lowest training loss.

    Args:
        history: Logs in order, as `TrainerState.log_history`.
        warmup_steps: Number of first steps to ignore.

    Returns:
        Number of logs, and the limit.

    Example:
        >>> history = [{"step": step, "loss": loss} for step, loss in enumerate([0.2, 0.1, 0.05, 0.7, 0.9])]
        >>> count, limit = count_high_losses(history)
        >>> count, round(limit, 3)
        (2, 0.6)
    """
    losses = [log["loss"] for log in history if "loss" in log and log["step"] >= warmup_steps]
    if not losses:
        return 0, math.inf
    constants = [log["eval_constant_loss"] for log in history if "eval_constant_loss" in log]
    limit = DIVERGENCE_FACTOR * max(constants[-1] if constants else losses[0], min(losses))
    return len(list(takewhile(lambda loss: loss > limit, reversed(losses)))), limit


def samples_per_step(args: TrainingArguments) -> int:
    """Return the number of samples in an optimiser step, of all processes together."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


class _Speed:
    """Speed in steps per second, without the first step and without pauses."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._step: int | None = None
        self._start = self._paused = self._mark = 0.0

    def step(self, number: int) -> None:
        """Record the end of a step; timing starts after the first one, which compiles and starts the readers."""
        self._mark = self.clock()
        if self._step is None:
            self._step, self._start = number, self._mark

    def pause(self) -> None:
        """Exclude the time since the last step or log."""
        now = self.clock()
        self._paused += now - self._mark
        self._mark = now

    def since_last(self, number: int) -> float | None:
        """Return the steps per second since the last call, or None without any step."""
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


def _evaluation_line(metrics: dict[str, float]) -> str:
    """Format the metrics of an evaluation as one line; those that were not computed are left out."""
    parts = [f"held-out loss {metrics['eval_loss']:.5f}"]
    if "eval_constant_loss" in metrics:
        parts[-1] += f" (best constant {metrics['eval_constant_loss']:.5f})"
    if "eval_psnr" in metrics:
        parts.append(f"PSNR {metrics['eval_psnr']:.1f} dB")
    if "eval_frechet_texture" in metrics:
        names = [name for name in ("embedding", "texture") if f"eval_frechet_{name}" in metrics]
        values = (f"{name} {metrics[f'eval_frechet_{name}']:.4g}" for name in names)
        parts.append(f"Fréchet distance: {', '.join(values)}")
    if "eval_knn" in metrics:
        parts.append(f"kNN {100 * metrics['eval_knn']:.1f} %")
    return "  ".join(parts)
