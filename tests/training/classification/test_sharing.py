"""Fine-tuning is the same however a step is shared: by accumulated batches, or by several processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stedfm_hf.runs import read_json
from stedfm_hf.training.finetuning.summary import METRICS_FILE
from tests.training.classification.small_runs import SCRIPT, run, words_of
from tests.training.finetuning.small import curve_of
from tests.training.launching import launch


def assert_same_losses(output: Path, wanted: Path) -> None:
    """Of training and validation, but for the order in which float32 sums are taken."""
    for row, other in zip(curve_of(output), curve_of(wanted), strict=True):
        assert (row.step, row.epoch, row.samples) == (other.step, other.epoch, other.samples)
        for loss, expected in ((row.loss, other.loss), (row.validation_loss, other.validation_loss)):
            assert loss == (None if expected is None else pytest.approx(expected, rel=1e-5))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "linear-probe"])
def test_two_processes_give_the_losses_of_two_accumulated_batches(
    encoder: Path, crops: Path, tmp_path: Path, mode: str
) -> None:
    # Small steps: on some CPUs Adam's large first ones make of a rounding error more than is allowed here.
    words = f"--mode {mode} --learning_rate 1e-4"
    run(encoder, crops, tmp_path / "one", f"{words} --per_device_train_batch_size 4")
    said = launch(SCRIPT, words_of(encoder, crops, tmp_path / "two", words))
    assert "2 processes x 4 images x 1 accumulation step" in said and said.count("test balanced_accuracy") == 1
    assert_same_losses(tmp_path / "two", tmp_path / "one")
    ours, theirs = (read_json(tmp_path / name / METRICS_FILE)["test"]["mean"] for name in ("two", "one"))
    assert ours == pytest.approx(theirs)


def test_a_probe_does_not_depend_on_the_number_of_processes(encoder: Path, crops: Path, tmp_path: Path) -> None:
    """Its head is normalised by the training images, not by a batch."""
    run(encoder, crops, tmp_path / "whole")
    run(encoder, crops, tmp_path / "parts", "--per_device_train_batch_size 2")
    assert_same_losses(tmp_path / "parts", tmp_path / "whole")
