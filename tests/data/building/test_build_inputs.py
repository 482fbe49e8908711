"""Notes of a build: skipped images of data sets, masks read as images, splits without a class, copies."""

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


def test_images_in_the_folder_of_a_data_set_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write(tmp_path / "in", **{f"n{number}": spots(number)})
    first = build(tmp_path / "in", tmp_path / "in" / "made", crop_size=32, **NO_SPLIT, workers=1)
    second = build(tmp_path / "in", tmp_path / "other", crop_size=32, **NO_SPLIT, workers=1)
    assert second.crops == first.crops
    assert (
        f"note: skipped 1 folder with results of stedfm, such as {tmp_path / 'in' / 'made'}" in capsys.readouterr().err
    )


@pytest.mark.parametrize("names", [("a", "a_mask"), ("images__a", "masks__a"), ("a", "a_cp_masks")])
def test_masks_of_the_images_are_skipped(
    names: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "in", **{name: spots(number)})
    summary = build(tmp_path / "in", tmp_path / "out", crop_size=32, **NO_SPLIT, workers=1)
    mask = tmp_path / "in" / f"{names[1].replace('__', '/')}.tif"
    note = capsys.readouterr().err
    assert f"note: skipped 1 mask of the input images, such as {mask}; " in note and "with --masks" in note
    assert list(summary.manifest.items) == [f"{names[0].replace('__', '/')}.tif"]
    assert summary.manifest.options["skipped_masks"] == 1


def test_masks_without_an_image_are_read_as_images_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in", b=spots(0), a_mask=spots(1))
    build(tmp_path / "in", tmp_path / "out", crop_size=32, **NO_SPLIT, workers=1)
    assert (
        "note: 1 file with the name of a mask, such as a_mask.tif, will be read as images" in capsys.readouterr().err
    )


def test_folders_of_images_and_masks_are_not_taken_as_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in", images__a=spots(0), masks__a=spots(1))
    assert main([*build_words(tmp_path), "--labels", "folder"]) == 2
    assert "holds images and masks, not folders of classes; give INPUT/images as INPUT" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_copy_with_another_label_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "in", A__a=spots(0), B__b=spots(0))
    write(tmp_path / "in", B__c=spots(1))
    summary = build(tmp_path / "in", tmp_path / "out", crop_size=32, labels="folder", **NO_SPLIT, workers=1)
    assert summary.manifest.items["B/b.tif"].reason == "exact copy of A/a.tif, which is labelled 'A', not 'B'"


def test_splits_without_a_class_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(9):
        write(tmp_path / "in", **{f"{'often' if number else 'rare'}__n{number}": spots(number)})
    write(tmp_path / "in", often__flat=np.zeros((64, 64), np.uint16))
    words = build_words(tmp_path)
    assert main([*words, "--labels", "folder"]) == 0
    out, err = capsys.readouterr()
    assert "skipped: 1 x no contrast" in out
    assert "note: split 'test' has no crop of rare" in err


def test_a_run_without_crops_can_be_repeated_with_other_settings(tmp_path: Path) -> None:
    write(tmp_path / "in", a=spots(0))
    words = build_words(tmp_path)
    assert main([*words, "--channel", "DAPI"]) == 2
    assert main(words) == 0
