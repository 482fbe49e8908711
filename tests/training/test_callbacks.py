"""Callbacks of a training: the curve, the progress lines, and stopping a diverging training before it is saved."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training.callbacks import MonitorCallback, TrainingDiverged, count_high_losses
from stedfm_hf.training.checkpoints import checkpoint_folder, mark_complete, newest_complete
from stedfm_hf.training.curve import Curve

TINY = StedFmConfig(
    image_size=16,
    patch_size=8,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    decoder_hidden_size=32,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
)


class Run:
    """A training without a model: calls the callback as the library does, with a simulated clock."""

    def __init__(self, output: Path, *, step: int = 0, first: bool = True, **options: Any) -> None:
        self.lines: list[str] = []
        self.now = 0.0
        self.curve = Curve(output / "curve.csv")
        self.monitor = MonitorCallback(self.curve, report=self.lines.append, clock=lambda: self.now)
        options = {"per_device_train_batch_size": 4, "warmup_steps": 0, "use_cpu": True} | options
        self.args = TrainingArguments(output_dir=str(output), **options)
        self.state = TrainerState(global_step=step, max_steps=100, is_world_process_zero=first)
        self.control = TrainerControl()
        self.monitor.on_train_begin(self.args, self.state, self.control)

    def steps(self, count: int, seconds: float = 1.0) -> None:
        for _ in range(count):
            self.now += seconds
            self.state.global_step += 1
            self.monitor.on_step_end(self.args, self.state, self.control)

    def log(self, **logs: float) -> None:
        self.control.should_save = True
        self.state.epoch = self.state.global_step / 10
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.monitor.on_log(self.args, self.state, self.control, logs=logs)

    def evaluate(self, **metrics: float) -> None:
        self.log(**metrics)
        self.monitor.on_evaluate(self.args, self.state, self.control, metrics=metrics)

    def save(self) -> None:
        folder = checkpoint_folder(Path(str(self.args.output_dir)), self.state.global_step)
        folder.mkdir()
        mark_complete(folder, self.state.global_step)
        self.monitor.on_save(self.args, self.state, self.control)


def test_logs_and_evaluations_make_rows_and_lines(tmp_path: Path) -> None:
    run = Run(tmp_path, gradient_accumulation_steps=2)
    run.evaluate(eval_loss=0.5, eval_constant_loss=0.25, eval_psnr=17.25, eval_knn=0.5)
    run.steps(10)
    run.log(loss=0.125, learning_rate=1e-3, grad_norm=2.0)
    run.log(train_runtime=3.0)
    check, log = run.curve.rows()
    assert (check.step, check.held_out_loss, check.constant_loss, check.psnr, check.knn) == (0, 0.5, 0.25, 17.25, 0.5)
    assert (log.step, log.epoch, log.samples, log.loss, log.learning_rate) == (10, 1.0, 80, 0.125, 1e-3)
    assert (check.loss, log.held_out_loss, log.grad_norm) == (None, None, 2.0)
    assert run.lines == [
        "step 0/100  epoch 0.00  held-out loss 0.50000 (best constant 0.25000)  PSNR 17.2 dB  kNN 50.0 %",
        "step 10/100  epoch 1.00  loss 0.12500  lr 1.00e-03  8 images/s",
    ]


def test_speed_excludes_evaluations_and_checkpoints(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.steps(1, seconds=100.0)  # compiling, say
    run.steps(4, seconds=0.5)
    run.log(loss=0.1)
    run.now += 30.0
    run.evaluate(eval_loss=0.1)
    run.now += 20.0
    run.save()
    run.steps(3, seconds=0.25)
    run.now += 7.0
    run.evaluate(eval_loss=0.1)
    run.steps(1, seconds=0.25)
    run.log(loss=0.1)
    assert [row.images_per_second for row in run.curve.rows() if row.loss is not None] == [8.0, 16.0]


def test_only_the_first_process_writes_and_prints(tmp_path: Path) -> None:
    run = Run(tmp_path, first=False)
    run.steps(2)
    run.log(loss=0.1)
    run.evaluate(eval_loss=0.1)
    assert not run.lines and not run.curve.path.exists()
    run.steps(2)
    with pytest.raises(TrainingDiverged):  # but all of them stop
        run.log(loss=math.nan)


def test_a_resumed_run_has_the_curve_of_an_uninterrupted_one(tmp_path: Path) -> None:
    def go(run: Run, last: int, *, resumed: bool = False) -> None:
        run.evaluate(eval_loss=0.5)  # the library evaluates again at the step where it resumes
        while run.state.global_step < last:
            run.steps(5)
            run.log(loss=1 / run.state.global_step)
            if run.state.global_step % 10 == 0:
                run.evaluate(eval_loss=2 / run.state.global_step)

    unbroken = Run(tmp_path / "unbroken")
    go(unbroken, 30)
    broken = Run(tmp_path / "broken")
    go(broken, 25)
    resumed = Run(tmp_path / "broken", step=10)
    go(resumed, 30)
    wanted, found = (
        [(row.step, row.loss, row.held_out_loss) for row in run.curve.rows()] for run in (unbroken, resumed)
    )
    assert found == wanted
    again = Run(tmp_path / "broken")
    assert again.curve.rows() == []


@pytest.mark.parametrize("logs", [{"loss": math.nan}, {"loss": math.inf}, {"loss": 0.1, "grad_norm": math.nan}])
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path, logs: dict[str, float]) -> None:
    run = Run(tmp_path)
    run.steps(3)
    with pytest.raises(TrainingDiverged, match="step 3: .*There is no checkpoint yet"):
        run.log(**logs)
    run.save()
    (tmp_path / "checkpoint-4").mkdir()  # not complete
    with pytest.raises(TrainingDiverged, match=r"last good checkpoint: --init-from \S*checkpoint-3,"):
        run.log(**logs)
    with pytest.raises(TrainingDiverged, match="held-out loss is nan"):
        run.evaluate(eval_loss=math.nan)


def test_a_gradient_that_overflows_is_harmless_with_float16(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.args.fp16 = True
    run.steps(1)
    run.log(loss=0.1, grad_norm=math.inf)
    assert run.control.should_save


def test_a_loss_far_above_the_constant_stops_the_training_and_is_not_saved(tmp_path: Path) -> None:
    run = Run(tmp_path, warmup_steps=10)
    run.evaluate(eval_loss=0.9, eval_constant_loss=0.1)
    run.steps(5)
    run.log(loss=4.0)  # in the warm-up
    assert run.control.should_save
    run.steps(5)
    run.log(loss=0.08)
    run.save()
    for loss, saves in ((0.4, False), (0.2, True), (0.4, False), (0.5, False)):
        run.steps(5)
        run.log(loss=loss)
        assert run.control.should_save is saves
    run.steps(5)
    with pytest.raises(
        TrainingDiverged, match=r"step 35: the loss is 0\.6, above 0\.3 in 3 consecutive logs.*checkpoint-10,"
    ):
        run.log(loss=0.6)


@pytest.mark.parametrize(
    ("losses", "constant", "count"),
    [
        ([5.0, 4.0, 3.0, 2.0], 0.1, 0),  # it comes down
        ([5.0, 4.0, 3.0, 20.0, 20.0], 0.1, 2),
        ([0.05, 0.06, 0.04, 0.2], 0.1, 0),  # it goes up, but not above 3 times the constant
        ([0.05, 0.31, 0.31, 0.31], 0.1, 3),
        ([0.05, 0.31, 0.04, 0.31], 0.1, 1),
        ([0.2, 0.05, 0.7, 0.7], None, 2),
        ([], None, 0),
    ],
)
def test_too_high_is_above_the_constant_and_the_lowest(
    losses: list[float], constant: float | None, count: int
) -> None:
    history = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    if constant is not None:
        history.insert(0, {"step": 0, "eval_loss": 1.0, "eval_constant_loss": constant})
    assert count_high_losses(history)[0] == count


def test_a_loss_may_be_high_in_the_warmup() -> None:
    history = [{"step": step, "loss": loss} for step, loss in enumerate([0.05, 0.9, 0.9, 0.9])]
    assert count_high_losses(history)[0] == 3 and count_high_losses(history, warmup_steps=4)[0] == 0


class Images(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Noise images, with NaN pixels from one index on."""

    def __init__(self, bad_from: int) -> None:
        self.bad_from = bad_from

    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        pixels = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(number))
        return {"pixel_values": pixels * math.nan if number >= self.bad_from else pixels}


class InOrder(Trainer):
    def _get_train_sampler(self, *_: Any, **__: Any) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(Images(0))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        mark_complete(
            checkpoint_folder(Path(str(self.args.output_dir)), self.state.global_step), self.state.global_step
        )


def train(output: Path, report: Callable[[str], None], bad_from: int) -> None:
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=4,
        max_steps=10,
        logging_steps=2,
        save_steps=2,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        label_names=[],
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    monitor = MonitorCallback(Curve(output / "curve.csv"), report=report)
    InOrder(
        model=StedFmForPreTraining(TINY), args=arguments, train_dataset=Images(bad_from), callbacks=[monitor]
    ).train()


def test_a_model_with_weights_that_are_not_finite_is_never_saved(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(TrainingDiverged, match=r"step 6: the loss is nan.*: --init-from \S*checkpoint-4,"):
        train(tmp_path, lines.append, bad_from=20)
    newest = newest_complete(tmp_path)
    assert newest is not None and newest.name == "checkpoint-4" and not (tmp_path / "checkpoint-6").exists()
    weights = StedFmForPreTraining.from_pretrained(newest).state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert [line.split("  ")[0] for line in lines] == ["step 2/10", "step 4/10", "step 6/10"]
    rows = Curve(tmp_path / "curve.csv").rows()
    assert [row.samples for row in rows] == [8, 16, 24] and all(row.learning_rate for row in rows)
