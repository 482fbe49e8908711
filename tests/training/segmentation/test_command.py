"""`stedfm finetune segmentation` from its words to its answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from stedfm_hf.cli import main
from stedfm_hf.runs import EXIT_DONE
from tests.training.segmentation.small_segmentations import words_of


def test_the_command_trains_and_reports_the_metrics(
    encoder: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(encoder, scenes, tmp_path / "run", "--labels-per-class 2 --max-steps 2 --num-evaluations 1")
    assert main(["finetune", "segmentation", *words]) == EXIT_DONE
    said = capsys.readouterr()
    assert "2 steps of crops of 32 pixels" in said.err and ": test iou 0." in said.out
    assert "no conclusion can be drawn: the test has only 4 source images" in said.out
    assert main(["finetune", "segmentation", *words]) == EXIT_DONE
    assert "is finished; choose another --output to run it again" in capsys.readouterr().err
