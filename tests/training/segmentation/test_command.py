"""`stedfm finetune segmentation`: the words are passed on, help and wrong usage cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from stedfm_hf.cli import main
from stedfm_hf.runs import EXIT_DONE, EXIT_USAGE, UserError
from stedfm_hf.training.segmentation.arguments import LEARNING_RATES, MODES, parse_arguments
from tests.training.segmentation.small_segmentations import words_of

LEAST = "--model demo --dataset crops --output_dir run --device cpu"


def test_the_command_trains_and_says_what_came_out(
    encoder: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(encoder, scenes, tmp_path / "run", "--labels_per_class 2 --max_steps 2 --checks 1")
    assert main(["finetune", "segmentation", *words]) == EXIT_DONE
    said = capsys.readouterr().out
    assert "2 steps of crops of 32 pixels" in said and ": test iou 0." in said
    assert "no conclusion can be drawn: the test has only 4 source images" in said
    assert main(["finetune", "segmentation", *words]) == EXIT_DONE
    assert "is finished; another output_dir begins a new run" in capsys.readouterr().out


def test_help_shows_our_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "segmentation", "--help"]) == EXIT_DONE
    said = capsys.readouterr().out
    assert "--min_annotated" in said and "--decoder {upernet,unetr,linear}" in said and "--adafactor" not in said


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_its_rate(mode: str) -> None:
    blocks = " --blocks 2" if mode == "last-blocks" else ""
    assert parse_arguments(f"{LEAST} --mode {mode}{blocks}".split())[2].learning_rate == LEARNING_RATES[mode]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--label_count 3 --label_fraction 0.5", "label_fraction and label_count are several ways"),
        ("--min_annotated 2", "min_annotated is 2"),
        ("--decoder unetr --auxiliary", "decoder unetr has no auxiliary head"),
        ("--decoder unet", "invalid choice: 'unet'"),
        ("--label_count 0", "label_count is 0"),
    ],
)
def test_wrong_words_are_said(words: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        parse_arguments(f"{LEAST} {words}".split())


def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "segmentation", "--model", "demo", "--output_dir", "x"]) == EXIT_USAGE
    assert capsys.readouterr().err.strip() == "stedfm: error: no data set is named; give --dataset FOLDER"
