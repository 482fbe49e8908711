"""Pretraining under DeepSpeed's ZeRO, two processes on a CPU: what plain DDP does, in less memory."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoModel

from stedfm_hf.training.curve import Curve
from tests.training.pretraining import (
    as_stopped,
    assert_same_losses,
    assert_same_weights,
    curve_of,
    launch,
    run,
    words_of,
    write_blobs,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed"),
    pytest.mark.filterwarnings("ignore:.*ranks reads", "ignore:.*each epoch drops"),
]
TWENTY = "--max_steps 20 --eval-steps 8 --save_steps 8 --save_total_limit 3"


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="module")
def plain(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process without DeepSpeed: test_pretrain_sharing.py says that DDP gives the same."""
    output = tmp_path_factory.mktemp("runs") / "plain"
    run(crops, output, TWENTY)
    return output


def launch_zero(stage: int, crops: Path, output: Path, words: str = TWENTY) -> str:
    return launch(words_of(crops, output, f"{words} --deepspeed zero{stage}"), DS_ACCELERATOR="cpu")


@pytest.fixture(scope="module")
def zero3(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "zero3"
    assert "2 processes x 4 crops" in launch_zero(3, crops, output)
    return output


@pytest.mark.parametrize("stage", [1, 2])
def test_spread_states_and_gradients_change_no_loss(crops: Path, plain: Path, tmp_path: Path, stage: int) -> None:
    assert "2 processes x 4 crops" in launch_zero(stage, crops, tmp_path / "run")
    assert_same_losses(tmp_path / "run", plain)


def test_spread_weights_train_to_a_folder_that_loads(plain: Path, zero3: Path) -> None:
    assert_same_losses(zero3, plain)
    whole = sum(parameter.numel() for parameter in AutoModel.from_pretrained(plain).parameters())
    assert sum(parameter.numel() for parameter in AutoModel.from_pretrained(zero3).parameters()) == whole


def test_spread_weights_begin_from_those_of_another_model(crops: Path, plain: Path, tmp_path: Path) -> None:
    launch_zero(3, crops, tmp_path / "run", f"--max_steps 4 --init_from {plain}")
    first, last = (Curve(folder / "curve.csv").rows()[place] for folder, place in ((tmp_path / "run", 0), (plain, -1)))
    assert first.step == 0 and first.held_out_loss == pytest.approx(last.held_out_loss)


@pytest.mark.parametrize("step", [8, 20])
def test_a_stopped_run_with_spread_weights_goes_on(crops: Path, zero3: Path, tmp_path: Path, step: int) -> None:
    output = as_stopped(zero3, tmp_path / "run", step)
    said = launch_zero(3, crops, output)
    assert ("step 10/20" in said) == (step == 8) and "step 8/20" not in said
    assert curve_of(output) == curve_of(zero3)
    assert_same_weights(output, zero3)
