"""Notes on the images of a segmenter, and on those that are skipped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from stedfm_hf.labels.annotated import from_arrays
from stedfm_hf.training.finetuning.settings import SegmentationSettings
from stedfm_hf.training.segment import read_splits
from stedfm_hf.training.segmentation.notes import class_notes, memory_warnings


def test_skipped_images_are_counted(scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes, tmp_path / "data")
    (data / "masks" / "train" / "cell_0.tif").unlink()
    for number in (1, 2):
        tifffile.imwrite(data / "masks" / "train" / f"cell_{number}.tif", np.zeros((40, 48), np.uint8))
    splits = read_splits(SegmentationSettings("demo", str(data), output="run"), image_size=32)
    assert len(splits.train) == 7
    assert splits.description.endswith(
        "; skipped 1 image without a mask: train/cell_0.tif; skipped training images without a crop with 1 % "
        "annotated pixels: 2 of 9 (train/cell_1.tif, train/cell_2.tif)."
    )


def test_numbers_without_names_may_number_objects() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[0, :4] = 1, 2, 3, 3
    (fractions, warning) = class_notes(from_arrays("d", [np.eye(8)], [mask]))
    assert fractions == "d: classes of the pixels: background 93.8 %, class 1 1.56 %, class 2 1.56 %, class 3 3.12 %"
    assert warning.startswith("d: the 3 numbers in the masks are read as classes. If they number objects")
    named = from_arrays("d", [np.eye(8)], [mask], classes=["rings", "fibres", "puncta"])
    assert len(class_notes(named)) == 1


def test_images_that_need_much_memory_are_named() -> None:
    data = from_arrays("d", [np.eye(8)] * 2, [np.eye(8, dtype=np.uint8)] * 2)
    assert not memory_warnings({"test": data})
    (warning,) = memory_warnings({"test": replace(data, sizes=np.array([64, 20_000**2]))})
    assert warning.startswith("d: scoring 1 (400 million pixels) needs about 37 GiB of memory")


def test_a_recipe_names_no_folders(scenes: Path) -> None:
    masks = str(scenes / "masks")
    recipe = SegmentationSettings(
        "demo", str(scenes / "images"), output="run", masks=masks, min_annotated=0.1
    ).recipe()
    assert str(scenes) not in str(recipe) and "run" not in recipe.values() and recipe["min_annotated"] == 0.1
