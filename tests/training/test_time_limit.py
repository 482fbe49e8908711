"""A pretraining that ends when its time is used, and what is used of it when it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel, TrainerControl, TrainerState, TrainingArguments

from stedfm_hf.runs import Manifest
from stedfm_hf.training.curve import Curve
from stedfm_hf.training.time_limit import TimeLimit
from tests.training.pretraining import run, write_blobs

pytestmark = pytest.mark.filterwarnings("ignore:.*ranks reads", "ignore:.*each epoch drops")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def step(limit: TimeLimit, clock: Clock, seconds: float, number: int) -> TrainerControl:
    control, state = TrainerControl(), TrainerState(global_step=number, max_steps=1000)
    clock.now += seconds
    limit.on_step_end(TrainingArguments(output_dir="run", use_cpu=True), state, control)
    return control


def test_the_rate_follows_the_time_and_a_resumed_run_has_what_is_left(tmp_path: Path) -> None:
    clock = Clock()
    limit = TimeLimit(10.0, 0.1, clock=clock)
    limit.on_train_begin(*[None] * 3)
    assert limit.rate(0, 1000) == 0.02
    assert not step(limit, clock, 1.0, 1).should_training_stop and limit.rate(1, 1000) == 1.0
    assert limit.rate(550, 1000) == pytest.approx(0.5), "steps count where they are used up before the time"
    limit.save(tmp_path)
    clock.now += 50  # not running
    again = TimeLimit(10.0, 0.1, clock=clock)
    again.load(tmp_path)
    again.on_train_begin(*[None] * 3)
    assert not step(again, clock, 4.5, 2).should_training_stop and again.rate(2, 1000) == pytest.approx(0.5)
    ended = step(again, clock, 4.5, 3)
    assert ended.should_training_stop and ended.should_save and again.rate(3, 1000) == 0.0


def test_a_run_ends_when_its_time_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stedfm_hf.training import pretrain

    crops = write_blobs(tmp_path / "crops")
    output = tmp_path / "run"
    words = "--max_steps -1 --max-seconds 0.6"

    class Stopped(Exception):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "_finish", stop)
        with pytest.raises(Stopped):
            run(crops, output, words)
    steps = Curve(output / "curve.csv").rows()[-1].step
    result = run(crops, output, words)
    assert result.steps == steps >= 1 and run(crops, output, words).steps == steps
    record = Manifest.load(output / "manifest.json")
    assert record.options["steps"] == steps and record.settings["max_seconds"] == 0.6
    assert AutoModel.from_pretrained(output).config.hidden_size == 128
