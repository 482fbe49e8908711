"""Real microscope files: each is read with the right type, offset and pixel size."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.images import ImageReadError, find_images, list_series, read_image, read_series

FOLDER = os.environ.get("STEDFM_REAL_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="set STEDFM_REAL_DATA to the folder of real microscope files")
ROOT = Path(FOLDER or ".")


def test_every_file_is_read_but_the_one_without_a_stack() -> None:
    failed = []
    for found in find_images(ROOT).images:
        try:
            images = list(read_series(found.file))
        except ImageReadError as error:
            failed.append((found.path, str(error)))
            continue
        assert [each.name for each in list_series(found.file)] == [image.series for image in images]
        if found.path.startswith("formats/"):
            continue  # other microscopes: their right values are in the tests of their readers
        for image in images:
            side = 750 if found.file.suffix == ".msr" else 224
            assert image.array.shape == (1, side, side)
            assert np.isfinite(image.array).all()
            json.dumps(image.metadata, allow_nan=False)
    assert [path for path, _ in failed] == ["msr/dummy_4channel.msr"]
    assert "holds no image stack" in failed[0][1]


@pytest.mark.parametrize(
    ("name", "top", "nm"),
    [
        ("actin_1.tiff", 93, None),
        ("actin_2.tiff", 106, None),
        ("tubulin.tiff", 63, None),
        ("axon_3.tif", 68, None),
        ("01_Block_1.tif", 158, 20.0),
        ("07_Glu-Gly_1.tif", 132, 20.0),
    ],
)
def test_counts(name: str, top: int, nm: float | None) -> None:
    image = read_image(ROOT / "actin_raw" / name)
    assert image.array.dtype == np.int16
    assert (int(image.array.min()), int(image.array.max())) == (0, top)
    assert image.pixel_size_nm == (None if nm is None else pytest.approx((nm, nm), abs=1e-5))


@pytest.mark.parametrize(
    ("folder", "dtype"),
    [
        ("actin_masks", "uint8"),
        ("datamaps", "float32"),
        ("synaptic_proteins", "uint8"),
        ("spot_segmentation", "uint8"),
        ("confocal_sted", "uint8"),
    ],
)
def test_types(folder: str, dtype: str) -> None:
    images = [read_image(found.file) for found in find_images(ROOT / folder).images]
    assert {image.array.dtype.name for image in images} == {dtype}
    assert {image.pixel_size_nm for image in images} == {None}


@pytest.mark.parametrize("stacks", [1, 3])
def test_imspector(stacks: int) -> None:
    images = list(read_series(ROOT / "msr" / f"dummy_{stacks}channel.msr"))
    assert [image.series for image in images] == [f"Ch{k + 1} {{0}}" for k in range(stacks)]
    for image in images:
        assert image.array.dtype == np.int16
        assert (int(image.array.min()), int(image.array.max())) == (0, 2)
        assert image.pixel_size_nm == pytest.approx((20.0, 20.0), abs=1e-5)
