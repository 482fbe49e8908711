"""Data sets built from real microscope files: pixels, offsets, signs and pixel sizes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from stedfm_hf.data.building.build import build
from stedfm_hf.data.repository.decoding import decode
from stedfm_hf.images import read_series

FOLDER = os.environ.get("STEDFM_REAL_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="set STEDFM_REAL_DATA to the folder of real microscope files")
ROOT = Path(FOLDER or ".")


def built(tmp_path: Path, folder: str, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Build a data set of raw crops, and load all its rows with `datasets`."""
    output = tmp_path / folder
    settings: dict[str, Any] = {"pixels": "raw", "keep_names": True, "min_foreground": 0.0, "workers": 1} | options
    summary = build(ROOT / folder, output, validation=0.2, test=0.2, **settings)
    loaded = datasets.load_dataset(str(output))
    return summary, [row for rows in loaded.values() for row in rows]


@pytest.mark.parametrize(
    ("folder", "dtype"),
    [
        ("actin_raw", "int16"),
        ("synaptic_proteins", "uint8"),
        ("datamaps", "float32"),
        ("confocal_sted", "uint8"),
        ("msr", "int16"),
    ],
)
def test_raw_crops_are_the_pixels_of_the_files(tmp_path: Path, folder: str, dtype: str) -> None:
    _, rows = built(tmp_path, folder)
    assert {row["dtype"] for row in rows} == {dtype}
    images = {
        (path, image.series): image
        for path in {row["source"] for row in rows}
        for image in read_series(ROOT / folder / path)
    }
    for row in rows:
        image = images[row["source"], row["series"]]
        cut = image.array[0, row["y"] : row["y"] + 224, row["x"] : row["x"] + 224]
        pixels = decode(row)["pixels"][0].numpy()
        assert pixels.dtype == cut.dtype
        np.testing.assert_array_equal(pixels, cut)
        assert row["pixel_size_nm"] == (None if image.pixel_size_nm is None else list(image.pixel_size_nm))


def test_calibration_signs_and_pixel_sizes_are_reported(tmp_path: Path) -> None:
    summary, rows = built(tmp_path, "actin_raw")
    calibrated = {row["source"]: json.loads(row["metadata"]).get("calibration") for row in rows}
    assert calibrated["01_Block_1.tif"]["applied"] and calibrated["01_Block_1.tif"]["c0"] == -32768.0
    assert calibrated["actin_1.tiff"] is None
    assert summary.manifest.options["files_without_pixel_size"] == 4
    assert "no pixel size" in summary.manifest.items["actin_1.tiff"].reason
    with_size = {row["source"] for row in rows if row["pixel_size_nm"]}
    assert with_size == {"01_Block_1.tif", "07_Glu-Gly_1.tif"}
    assumed, rows = built(tmp_path / "assumed", "actin_raw", assume_pixel_size_nm=20.0, pixel_size_nm=10.0)
    assert assumed.manifest.counts()["done"] == 6
    assert len(rows) == 24 and {tuple(row["pixel_size_nm"]) for row in rows} == {(10.0, 10.0)}


def test_an_imspector_file_without_a_stack_fails_and_the_others_do_not(tmp_path: Path) -> None:
    summary, rows = built(tmp_path, "msr")
    assert summary.manifest.counts() == {"done": 2, "failed": 1, "skipped": 0}
    assert "holds no image stack" in summary.manifest.failures()["dummy_4channel.msr"]
    assert {row["series"] for row in rows if row["source"] == "dummy_3channel.msr"} == {
        f"Ch{n + 1} {{{0}}}" for n in range(3)
    }
    assert {tuple(np.round(row["pixel_size_nm"], 3)) for row in rows} == {(20.0, 20.0)}


def test_masks_next_to_the_images_and_in_a_separate_folder(tmp_path: Path) -> None:
    summary, rows = built(tmp_path, "spot_segmentation", masks=ROOT / "spot_segmentation")
    assert len(rows) == 10 and all(row["source"].endswith("_image.tif") for row in rows)
    for row in rows:
        expected = next(read_series(ROOT / "spot_segmentation" / row["source"].replace("_image", "_mask"))).array[0]
        np.testing.assert_array_equal(decode(row)["mask"].numpy(), expected)

    summary, rows = built(tmp_path, "actin_raw", masks=ROOT / "actin_masks")
    assert summary.manifest.options["files_without_mask"] == 3
    found = {row["source"]: sorted(set(row["mask"])) for row in rows if row["mask"] is not None}
    assert found == {"actin_1.tiff": [0, 1, 2], "actin_2.tiff": [0, 1, 2], "tubulin.tiff": [0]}
