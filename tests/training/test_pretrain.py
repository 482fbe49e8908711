"""Pretraining: exact after any stop, the same however it is shared, and a folder that loads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel

from stedfm_hf.runs import UserError
from stedfm_hf.training.checkpoints import checkpoint_folder, checkpoint_steps, newest_complete
from stedfm_hf.training.curve import Curve
from tests.figures import plotted_figures
from tests.training.pretraining import ROOT, SCRIPT, assert_same_weights, curve_of, run, words_of, write_blobs

pytestmark = pytest.mark.filterwarnings("ignore:.*ranks reads", "ignore:.*each epoch drops")


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="module")
def unbroken(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    with plotted_figures():
        run(crops, output)
    return output


def test_the_folder_holds_all_of_a_run_and_loads(unbroken: Path) -> None:
    model, processor = AutoModel.from_pretrained(unbroken), AutoImageProcessor.from_pretrained(unbroken)
    pixels = processor(np.arange(64 * 64).reshape(64, 64), return_tensors="pt")
    assert model(**pixels).pooler_output.shape == (1, 128)
    assert checkpoint_steps(unbroken) == [8, 10] or checkpoint_steps(unbroken) == [4, 8]
    for name in ("recipe.yaml", "manifest.json", "figures/curve.png", "figures/reconstructions.png"):
        assert (unbroken / name).exists()
    rows = Curve(unbroken / "curve.csv").rows()
    assert [row.step for row in rows if row.loss is not None] == [2, 4, 6, 8, 10]
    assert [row.step for row in rows if row.held_out_loss is not None] == [0, 4, 8, 10]
    card = (unbroken / "README.md").read_text(encoding="utf-8")
    assert "stedfm-vit-64-p8" in card and not (unbroken / "training_args.bin").exists()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 8, 9))])
def test_a_stopped_run_ends_as_the_unbroken_one_to_the_bit(
    crops: Path, unbroken: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stedfm_hf.training.callbacks import MonitorCallback

    with monkeypatch.context() as patch:

        def stop(self: MonitorCallback, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step == step:
                raise Stopped

        patch.setattr(MonitorCallback, "on_step_end", stop)
        with pytest.raises(Stopped):
            run(crops, tmp_path / "run")
    result = run(crops, tmp_path / "run")
    assert result.steps == 10
    assert curve_of(tmp_path / "run") == curve_of(unbroken)
    assert_same_weights(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_a_killed_run_ends_as_the_unbroken_one(crops: Path, unbroken: Path, tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, *words_of(crops, tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("stedfm: step 6/"):
                break
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "model.safetensors").exists()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert curve_of(tmp_path / "run") == curve_of(unbroken)


def test_a_finished_run_is_not_trained_again(crops: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stedfm_hf.training.callbacks import MonitorCallback

    def step(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished run was trained")

    before = curve_of(unbroken)
    monkeypatch.setattr(MonitorCallback, "on_step_end", step)
    assert run(crops, unbroken).steps == 10
    assert curve_of(unbroken) == before


def test_a_run_that_was_stopped_after_its_last_step_is_only_finished(
    crops: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stedfm_hf.training import pretrain

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "_finish", lambda *_, **__: (_ for _ in ()).throw(Stopped()))
        with pytest.raises(Stopped):
            run(crops, tmp_path / "run", "--save_steps 10 --eval_steps 10")
    assert run(crops, tmp_path / "run", "--save_steps 10 --eval_steps 10").steps == 10
    assert_same_weights(tmp_path / "run", unbroken)


def test_an_incomplete_checkpoint_is_skipped(unbroken: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(unbroken, copy)
    last = checkpoint_folder(copy, checkpoint_steps(copy)[-1])
    (last / "optimizer.pt").unlink()
    lines: list[str] = []
    found = newest_complete(copy, lines.append)
    assert found == checkpoint_folder(copy, checkpoint_steps(copy)[-2])
    assert lines == [f"{last}: incomplete checkpoint; skipped"]


def test_a_run_is_not_mixed_with_another(crops: Path, unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mask_ratio: 0.75 before, 0.6 now"):
        run(crops, unbroken, "--mask_ratio 0.6")
    (tmp_path / "other.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        run(crops, tmp_path)


def test_an_interrupted_run_is_not_resumed_with_other_settings(crops: Path, unbroken: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(unbroken, tmp_path / "run")
    (copy / "config.json").unlink()  # written at the end
    assert newest_complete(copy) is not None
    with pytest.raises(UserError, match="mask_ratio: 0.75 before, 0.6 now"):
        run(crops, copy, "--mask_ratio 0.6")


def test_the_average_is_resumed(crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stedfm_hf.training.callbacks import MonitorCallback

    words = "--ema_decay 0.9 --max_steps 6 --save_steps 2 --eval_steps 6"
    run(crops, tmp_path / "whole", words)
    with monkeypatch.context() as patch:

        def stop(self: MonitorCallback, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step == 3:
                raise Stopped

        patch.setattr(MonitorCallback, "on_step_end", stop)
        with pytest.raises(Stopped):
            run(crops, tmp_path / "run", words)
    run(crops, tmp_path / "run", words)
    weights, wanted = (load_file(tmp_path / name / "average" / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    final = load_file(tmp_path / "whole" / "model.safetensors")
    assert not torch.equal(final["stedfm.norm.weight"], wanted["norm.weight"])
    assert AutoModel.from_pretrained(tmp_path / "whole" / "average").config.hidden_size == 128


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--architecture stedfm-vit-tiny", "crops of 64 x 64 are smaller than the 224 x 224"),
        ("--effective_batch_size 4096", "fewer than one effective batch \\(4096\\)"),
        ("--train_split trian", "has no split 'trian'"),
    ],
)
def test_unusable_data_are_reported_before_anything_is_written(
    crops: Path, tmp_path: Path, words: str, error: str
) -> None:
    with pytest.raises(UserError, match=error):
        run(crops, tmp_path / "run", words)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_keeps_the_previous_checkpoint(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    real = Trainer._save_checkpoint

    def full(self: Any, model: Any, trial: Any) -> None:
        if self.state.global_step == 8:
            checkpoint_folder(tmp_path / "run", 8).mkdir()
            raise OSError(28, "No space left on device")
        real(self, model, trial)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", full)
        with pytest.raises(UserError, match="checkpoint-8: the checkpoint cannot be written .*No space left"):
            run(crops, tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run") == [4]
    assert run(crops, tmp_path / "run").steps == 10


def test_the_held_out_evaluation_may_use_another_data_set(crops: Path, tmp_path: Path) -> None:
    other = write_blobs(tmp_path / "other", 40, seed=1)
    run(crops, tmp_path / "run", f"--max_steps 4 --validation_dataset {other}")
    run(crops, tmp_path / "own", "--max_steps 4")
    rows, own = (Curve(tmp_path / name / "curve.csv").rows() for name in ("run", "own"))
    assert [row.loss for row in rows] == [row.loss for row in own]
    assert rows[0].held_out_loss is not None and rows[0].held_out_loss != own[0].held_out_loss
