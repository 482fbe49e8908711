"""What is worth a word: pictures of data sets, masks taken for images, poor splits, copies in dispute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.cli import main
from stedfm_hf.data import build
from tests.data.building.small_fields import NO_SPLIT, spots, write


def build_words(folder: Path) -> list[str]:
    output = ["--output", str(folder / "out"), "--crop-size", "32", "--workers", "1"]
    return ["data", "build", str(folder / "in"), *output]


def test_pictures_of_another_data_set_are_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write(tmp_path / "in", **{f"n{number}": spots(number)})
    first = build(tmp_path / "in", tmp_path / "in" / "made", crop_size=32, **NO_SPLIT, workers=1)
    second = build(tmp_path / "in", tmp_path / "other", crop_size=32, **NO_SPLIT, workers=1)
    assert second.crops == first.crops
    assert "skipped 2 images that belong to data sets" in capsys.readouterr().err


def test_files_called_masks_are_worth_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", a=spots(0))
    write(tmp_path / "in", a_mask=spots(1))
    build(tmp_path / "in", tmp_path / "out", crop_size=32, **NO_SPLIT, workers=1)
    assert "note: 1 files are called *_mask and are taken as images; --masks FOLDER" in capsys.readouterr().err


def test_a_copy_with_another_label_is_named(tmp_path: Path) -> None:
    write(tmp_path / "in", A__a=spots(0), B__b=spots(0))
    write(tmp_path / "in", B__c=spots(1))
    summary = build(tmp_path / "in", tmp_path / "out", crop_size=32, labels="folder", **NO_SPLIT, workers=1)
    assert summary.manifest.items["B/b.tif"].reason == "exact copy of A/a.tif, which is labelled 'A', not 'B'"


def test_splits_that_lack_something_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(9):
        write(tmp_path / "in", **{f"{'often' if number else 'rare'}__n{number}": spots(number)})
    write(tmp_path / "in", often__flat=np.zeros((64, 64), np.uint16))
    words = build_words(tmp_path)
    assert main([*words, "--labels", "folder"]) == 0
    out, err = capsys.readouterr()
    assert "skipped: 1 x no contrast" in out
    assert "note: split 'test' has no crop of rare" in err


def test_other_settings_may_be_tried_after_a_run_that_gave_nothing(tmp_path: Path) -> None:
    write(tmp_path / "in", a=spots(0))
    words = build_words(tmp_path)
    assert main([*words, "--channel", "DAPI"]) == 2
    assert main(words) == 0
