"""Files of planes that are written in rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from stedfm_hf.images import read_image
from stedfm_hf.inference.plane_files import new_planes


def test_files_too_large_for_one_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stedfm_hf.inference.plane_files.CLASSIC_PLANE", 1000)
    values = np.random.default_rng(0).random((3, 10, 20), dtype=np.float32)
    facts: dict[str, Any] = {"names": ["a", "b", "c"], "limits": (0, 1), "pixel_size_nm": (25, 20), "about": {}}
    for name, count in (("stack.tif", 3), ("plane.tif", 1)):
        rows = 10 if count == 3 else 30
        with new_planes(tmp_path / name, (count, rows, 20), np.float32, **facts) as planes:
            for top in (0, 6):
                planes.write(top, values.reshape(count, rows, 20)[:, top : 6 if top == 0 else rows])
            assert (planes.read(count - 1, 2, 9) == values.reshape(count, rows, 20)[-1, 2:9]).all()
        read = read_image(tmp_path / name)
        assert read.pixel_size_nm == pytest.approx((25, 20)) and (read.array.ravel() == values.ravel()).all()
    with tifffile.TiffFile(tmp_path / "stack.tif") as stack, tifffile.TiffFile(tmp_path / "plane.tif") as plane:
        assert stack.is_imagej and not stack.is_bigtiff and len(stack.pages) == 1 and plane.is_bigtiff


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_ome_files_in_bands_of_rows(tmp_path: Path, suffix: str) -> None:
    if suffix == ".ome.zarr":
        pytest.importorskip("zarr")
    values = np.random.default_rng(0).random((3, 1100, 700), dtype=np.float32)
    facts: dict[str, Any] = {"names": ["a", "b", "c"], "limits": (0, 1), "pixel_size_nm": (25, 20), "about": {}}
    path = tmp_path / f"a{suffix}"
    for _ in range(2):  # an earlier file is replaced
        with new_planes(path, values.shape, np.float32, **facts) as planes:
            for top in range(0, 1100, 170):
                planes.write(top, values[:, top : top + 170])
            assert (planes.read(1, 500, 600) == values[1, 500:600]).all()
    with pytest.raises(RuntimeError), new_planes(path, values.shape, np.float32, **facts):
        raise RuntimeError
    image = read_image(path)
    assert np.array_equal(image.array, values) and image.channel_names == ("a", "b", "c")
    assert image.pixel_size_nm == pytest.approx((25, 20)) and [each.name for each in tmp_path.iterdir()] == [path.name]
