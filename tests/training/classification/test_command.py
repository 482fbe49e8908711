"""`stedfm finetune classification`: the words are passed on, help and wrong usage cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from stedfm_hf.cli import main
from stedfm_hf.runs import EXIT_DONE, EXIT_USAGE
from tests.training.classification.small_runs import words_of


def test_the_command_trains_and_says_what_came_out(
    encoder: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(encoder, crops, tmp_path / "run", "--labels_per_class 4 --max_steps 2 --checks 1")
    assert main(["finetune", "classification", *words]) == EXIT_DONE
    said = capsys.readouterr().out
    assert "seed 42: 8 training images, 2 steps" in said and ": test balanced_accuracy 0." in said
    assert main(["finetune", "classification", *words]) == EXIT_DONE
    assert "is finished; another output_dir begins a new run" in capsys.readouterr().out


def test_help_shows_our_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "classification", "--help"]) == EXIT_DONE
    said = capsys.readouterr().out
    assert "--labels_per_class" in said and "--mode {linear-probe," in said and "--adafactor" not in said


def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "classification", "--dataset", "nowhere", "--output_dir", "x"]) == EXIT_USAGE
    assert capsys.readouterr().err.strip() == "stedfm: error: no model is named; give --model FOLDER, a Hub id or demo"
