from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stedfm_hf.images import ImageReadError, list_series, open_image, read_image, read_series
from stedfm_hf.modeling.io_types_stedfm import RGB
from tests.images.leica_files import Image, write_lif, write_lof, write_xlif

pytest.importorskip("liffile")
FOLDER = os.environ.get("STEDFM_REAL_DATA")
RNG = np.random.default_rng(0)


def numbers(shape: tuple[int, ...], dtype: str = "u2") -> np.ndarray:
    return RNG.integers(1, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4", "f8"])
def test_channels_time_and_depth(tmp_path: Path, dtype: str) -> None:
    array = numbers((2, 3, 2, 5, 6), dtype)
    path = write_lif(tmp_path / "a.lif", Image(array, "TZCYX", dyes=["STAR RED", "DAPI"]))
    found = list(read_series(path))
    assert [image.series for image in found] == [f"Series001[t={t},z={z}]" for t in range(2) for z in range(3)]
    for image, plane in zip(found, array.reshape(6, 2, 5, 6), strict=True):
        np.testing.assert_array_equal(image.array, plane)
        assert image.array.dtype == array.dtype and image.array.flags.writeable
        assert image.channel_names == ("STAR RED", "DAPI")
        assert image.pixel_size_nm == pytest.approx((20.0, 10.0))


@pytest.mark.parametrize("axes", ["CZYX", "ZYXC", "YCZX", "XYCZ", "CZXY"])
def test_any_order_of_the_axes_and_regions(tmp_path: Path, axes: str) -> None:
    array = numbers(tuple({"C": 2, "Z": 3, "Y": 7, "X": 5}[axis] for axis in axes))
    expected = array.transpose([axes.index(axis) for axis in "ZCYX"])
    path = write_lif(tmp_path / "a.lif", Image(array, axes))
    for z in range(3):
        with open_image(path, series=z) as image:
            assert image.by_region and image.shape == (2, 7, 5)
            np.testing.assert_array_equal(image.read(), expected[z])
            np.testing.assert_array_equal(image.read(slice(2, 6), slice(1, 4)), expected[z][:, 2:6, 1:4])


def test_colours_sections_wavelengths_and_tiles(tmp_path: Path) -> None:
    colours, section = numbers((4, 5, 3), "u1"), numbers((4, 1, 6))
    spectrum, tiles = numbers((3, 4, 5)), numbers((2, 4, 5))
    path = write_lif(
        tmp_path / "a.lif",
        Image(colours, "YXS", "photo"),
        Image(section, "ZYX", "xz"),
        Image(spectrum, "LYX", "spectrum"),
        Image(tiles, "MYX", "tiles"),
    )
    photo = read_image(path, series="photo")
    assert photo.channel_names == RGB
    np.testing.assert_array_equal(photo.array, colours.transpose(2, 0, 1))
    xz = read_image(path, series="xz")
    np.testing.assert_array_equal(xz.array, section.transpose(1, 0, 2))
    assert xz.pixel_size_nm == pytest.approx((100.0, 10.0))
    third = read_image(path, series="spectrum[lambda=2]")
    np.testing.assert_array_equal(third.array[0], spectrum[2])
    assert third.metadata["emission_nm"] == 510.0
    tile = read_image(path, series="tiles[m=1]")
    np.testing.assert_array_equal(tile.array[0], tiles[1])
    assert "mosaic" in tile.metadata["notes"][0]


def test_a_damaged_image_costs_only_itself(tmp_path: Path) -> None:
    good, lost = numbers((4, 5)), numbers((4, 5))
    path = write_lif(tmp_path / "a.lif", Image(good, "YX", "good"), Image(lost, "YX", "lost", cut=7))
    (image,) = read_series(path)
    np.testing.assert_array_equal(image.array[0], good)
    assert "truncated" in image.metadata["left_out"]["lost"]
    assert image.notes[0].startswith("1 of its images cannot be read, such as lost (truncated")
    with pytest.raises(ImageReadError, match="truncated.*copy"):
        read_image(write_lif(tmp_path / "b.lif", Image(lost, "YX", cut=7)))


def test_one_object_and_images_in_other_files(tmp_path: Path) -> None:
    array = numbers((3, 4, 5))
    np.testing.assert_array_equal(read_image(write_lof(tmp_path / "a.lof", Image(array, "CYX"))).array, array)
    by_object = write_xlif(tmp_path / "a.xlif", Image(array, "CYX"), [("a.lof", array.nbytes)])
    np.testing.assert_array_equal(read_image(by_object).array, array)
    for k, plane in enumerate(array):
        tifffile.imwrite(tmp_path / f"a_{k}.tif", plane)
    tiffs = write_xlif(tmp_path / "b.xlif", Image(array, "CYX"), [(f"a_{k}.tif", array[k].nbytes) for k in range(3)])
    np.testing.assert_array_equal(read_image(tiffs).array, array)
    (tmp_path / "a_2.tif").unlink()
    with pytest.raises(ImageReadError, match="a_2.tif, which is missing"):
        read_image(tiffs)
    with pytest.raises(ImageReadError, match="not next to it"):
        read_image(write_xlif(tmp_path / "c.xlif", Image(array, "CYX"), [("C:/a.tif", array.nbytes)]))


def test_headers_that_must_not_be_believed(tmp_path: Path) -> None:
    array = numbers((4, 5))
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]>'
    with pytest.raises(ImageReadError, match="declares entities"):
        read_image(write_lif(tmp_path / "a.lif", Image(array, "YX"), declaration=bomb))
    path = write_lif(tmp_path / "b.lif", Image(array, "YX"))
    content = path.read_bytes()
    path.write_bytes(content[:9] + struct.pack("<I", 2**31) + content[13:])
    with pytest.raises(ImageReadError, match="header is cut"):
        list_series(path)
    wide = content.replace('NumberOfElements="5"'.encode("utf-16-le"), 'NumberOfElements="9"'.encode("utf-16-le"))
    path.write_bytes(wide)
    with pytest.raises(ImageReadError, match="truncated or damaged"):
        list_series(path)


@pytest.mark.skipif(not FOLDER, reason="set STEDFM_REAL_DATA to the folder of real microscope files")
def test_a_wavelength_sweep_of_a_microscope() -> None:
    path = Path(str(FOLDER)) / "formats" / "leica_wavelength_sweep.lif"
    sums, planes = dict[str, int](), dict[str, int]()
    for image in read_series(path):
        name = image.series.partition("[")[0]
        sums[name] = sums.get(name, 0) + int(image.array.sum())
        planes[name] = planes.get(name, 0) + 1
        assert image.array.shape == (1, 64, 64) and image.array.dtype == np.uint8
        assert image.pixel_size_nm == pytest.approx((104.8, 104.8), abs=0.05)
    assert sums == {"x_y_lambdaEmi": 547248, "x_y_lambdaExc": 1485476, "x_y_z_t_lambdaEmi": 4846106}
    assert planes == {"x_y_lambdaEmi": 20, "x_y_lambdaExc": 15, "x_y_z_t_lambdaEmi": 2 * 10 * 11}
