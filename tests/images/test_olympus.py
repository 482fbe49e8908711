from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.images import ImageReadError, list_series, open_image, read_image, read_series
from tests.images.olympus_files import SECTOR, planes, settings, write_compound, write_oib, write_oif

pytest.importorskip("oiffile")
FOLDER = os.environ.get("STEDFM_REAL_DATA")
RNG = np.random.default_rng(0)
Write = Callable[[Path, bytes, dict[str, bytes]], Path]
BOTH = pytest.mark.parametrize("write", [write_oif, write_oib])


def numbers(*shape: int) -> np.ndarray:
    return RNG.integers(1, 4000, shape).astype("u2")


def file(folder: Path, write: Write, name: str = "a") -> Path:
    return folder / f"{name}{'.oif' if write is write_oif else '.oib'}"


@BOTH
def test_channels_time_depth_and_wavelength(tmp_path: Path, write: Write) -> None:
    array = numbers(2, 3, 2, 13, 17)
    path = write(file(tmp_path, write), settings("XYCZT", dyes=("STAR RED", "None")), planes(array, "TZC"))
    found = list(read_series(path))
    assert [image.series for image in found] == [f"image[t={t},z={z}]" for t in range(2) for z in range(3)]
    for image, plane in zip(found, array.reshape(6, 2, 13, 17), strict=True):
        np.testing.assert_array_equal(image.array, plane)
        assert image.array.dtype == np.uint16 and image.array.flags.writeable
        assert image.channel_names == ("STAR RED", "CH2")
        assert image.pixel_size_nm == pytest.approx((1000.0, 750.0))
    with open_image(path, series=3) as opened:
        np.testing.assert_array_equal(opened.read(slice(2, 5), slice(1, 9)), found[3].array[:, 2:5, 1:9])
    spectrum = write(file(tmp_path, write, "b"), settings("XYL", unit="nm"), planes(array[0, :, 0], "L"))
    assert [each.name for each in list_series(spectrum)] == [f"image[lambda={k}]" for k in range(3)]


@BOTH
def test_sections_and_lost_planes(tmp_path: Path, write: Write) -> None:
    section = numbers(1, 5, 17)
    image = read_image(write(file(tmp_path, write), settings("XZC"), planes(section, "C")))
    np.testing.assert_array_equal(image.array, section)
    assert image.pixel_size_nm == pytest.approx((3000.0, 750.0))
    files = planes(numbers(3, 2, 5, 6), "TC")
    del files["s_T002C001.tif"]
    found = list(read_series(write(file(tmp_path, write, "b"), settings("XYCT"), files)))
    assert [image.series for image in found] == ["image[t=0]", "image[t=2]"]
    assert "1 of 3 planes are not in the file, such as image[t=1]" in found[0].metadata["notes"]


@BOTH
def test_a_damaged_plane_costs_only_itself(tmp_path: Path, write: Write) -> None:
    array = numbers(2, 5, 6)
    files = planes(array, "Z")
    files["s_Z001.tif"] = files["s_Z001.tif"][:50]
    path = write(file(tmp_path, write), settings("XYZ"), files)
    np.testing.assert_array_equal(read_image(path, series="image[z=1]").array[0], array[1])
    with pytest.raises(ImageReadError):
        read_image(path, series="image[z=0]")


def test_the_folder_of_an_oif_file(tmp_path: Path) -> None:
    array = numbers(1, 5, 6)
    path = write_oif(tmp_path / "first.oif", settings("XYC"), planes(array, "C"))
    renamed = path.rename(tmp_path / "renamed.oif")
    np.testing.assert_array_equal(read_image(renamed).array, array)
    (tmp_path / "first.oif.files").rename(tmp_path / "elsewhere")
    with pytest.raises(ImageReadError, match="folder renamed.oif.files, which is missing; copy it too"):
        read_image(renamed)


def test_damaged_compound_files(tmp_path: Path) -> None:
    path = write_oib(tmp_path / "a.oib", settings("XYC"), planes(numbers(2, 40, 50), "C"))
    content = bytearray(path.read_bytes())
    table = len(content) - SECTOR * -(-len(content) // SECTOR // 128)
    circle = bytearray(content)
    for k in range(0, len(content) // SECTOR - 2):  # every sector follows itself
        struct.pack_into("<I", circle, table + 4 * k, k)
    many = bytearray(content)
    struct.pack_into("<II", many, 68, 0, 0xFFFFFFFF)
    for damaged in (circle, many, content[:600], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ImageReadError) as caught:
            list(read_series(path))
        assert "\n" not in str(caught.value)
    write_compound(path, {"WordDocument": b"x"})
    with pytest.raises(ImageReadError, match="compound file of another program"):
        read_image(path)


@pytest.mark.skipif(not FOLDER, reason="set STEDFM_REAL_DATA to the folder of real microscope files")
def test_a_file_of_a_microscope() -> None:
    image = read_image(Path(str(FOLDER)) / "formats" / "olympus_three_channels.oib")
    assert image.array.shape == (3, 256, 256) and image.array.dtype == np.uint16
    assert image.array.sum((1, 2)).tolist() == [1458233, 92526, 21348604]
    assert image.pixel_size_nm == pytest.approx((177.0, 177.0))
    assert image.channel_names == ("CH1", "Alexa Fluor 546", "TD1")
