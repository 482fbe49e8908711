"""`stedfm finetune classification` from its words to its answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stedfm_hf.cli import main
from stedfm_hf.runs import EXIT_DONE
from tests.training.classification.small_runs import words_of


def test_the_command_trains_and_reports_the_metrics(
    encoder: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(encoder, crops, tmp_path / "run", "--labels-per-class 4 --max-steps 2 --num-evaluations 1")
    assert main(["finetune", "classification", *words]) == EXIT_DONE
    said = capsys.readouterr()
    assert "stedfm: seed 42: 8 training images, 2 steps\n" in said.err and ": test balanced_accuracy 0." in said.out
    assert main(["finetune", "classification", *words, "--json"]) == EXIT_DONE
    again = capsys.readouterr()
    assert "is finished; choose another --output to run it again" in again.err
    assert json.loads(again.out)["metrics"]["seeds"] == [42]
