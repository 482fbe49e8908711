"""Regions of images: a region is the slice of the whole image, and other pixels are not decoded."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.modeling.io_stedfm import ImageReadError, open_image, read_image

SIDE = st.integers(1, 40)


def draw_slice(data: st.DataObject, length: int) -> slice:
    start = data.draw(st.integers(0, length - 1))
    return slice(start, data.draw(st.integers(start + 1, length)))


@given(
    data=st.data(),
    height=SIDE,
    width=SIDE,
    dtype=st.sampled_from(["u1", ">u2", "<i2", "u4", "f4", ">f8"]),
    samples=st.sampled_from([1, 3, 4]),
    planar=st.sampled_from(["contig", "separate"]),
    compression=st.sampled_from([None, "zlib", "lzw", "zstd"]),
    layout=st.sampled_from([{}, {"rowsperstrip": 3}, {"tile": (16, 16)}, {"tile": (32, 16)}]),
    predictor=st.booleans(),
)
def test_a_region_of_a_tiff_is_a_slice(
    tmp_path: Path,
    data: st.DataObject,
    height: int,
    width: int,
    dtype: str,
    samples: int,
    planar: str,
    compression: str | None,
    layout: dict[str, Any],
    predictor: bool,
) -> None:
    shape = (
        (height, width)
        if samples == 1
        else (height, width, samples)
        if planar == "contig"
        else (samples, height, width)
    )
    array = np.random.default_rng(height * width).integers(0, 99, shape).astype(dtype)
    options: dict[str, Any] = {"photometric": "minisblack" if samples != 3 else "rgb", "metadata": None, **layout}
    if samples > 1:
        options["planarconfig"] = planar
    if compression:
        options |= {"compression": compression, "predictor": predictor and np.dtype(dtype).kind != "f"}
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=">" if dtype[0] == ">" else "<", **options)
    rows, columns = draw_slice(data, height), draw_slice(data, width)
    whole = read_image(tmp_path / "a.tif").array
    with open_image(tmp_path / "a.tif") as image:
        region = image.read(rows, columns)
        assert (image.shape, image.dtype, image.by_region) == (whole.shape, whole.dtype, True)
        np.testing.assert_array_equal(image.read(), whole)
    np.testing.assert_array_equal(region, whole[:, rows, columns])
    assert region.dtype == whole.dtype and region.flags.c_contiguous and region.flags.writeable


@given(
    data=st.data(),
    kind=st.sampled_from(["imagej", "ome"]),
    axes=st.permutations("ZCT").map(lambda order: "".join(order) + "YX"),
    packed=st.booleans(),
)
def test_a_region_of_a_plane_of_a_stack(
    tmp_path: Path, data: st.DataObject, kind: str, axes: str, packed: bool
) -> None:
    if kind == "imagej":
        axes = "TZCYX"
    array = np.arange(2 * 3 * 2 * 9 * 11, dtype=np.uint16).reshape(2, 3, 2, 9, 11)
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    compression = {"compression": "zlib"} if packed else {}
    tifffile.imwrite(path, array, metadata={"axes": axes}, **{kind: True}, **compression)  # type: ignore[arg-type]
    rows, columns = draw_slice(data, 9), draw_slice(data, 11)
    number = data.draw(st.integers(0, 12 // 2 - 1 if axes != "TZCYX" else 5))
    count = 12 // array.shape[axes.index("C")]
    number %= count
    whole = read_image(path, series=number).array
    with open_image(path, series=number) as image:
        np.testing.assert_array_equal(image.read(rows, columns), whole[:, rows, columns])
    with open_image(path, series=number, channel=1) as image:
        np.testing.assert_array_equal(image.read(rows, columns), whole[1:2, rows, columns])


@given(data=st.data(), shape=st.sampled_from([(9, 11), (2, 9, 11), (9, 11, 3)]), fortran=st.booleans())
def test_a_region_of_an_array(tmp_path: Path, data: st.DataObject, shape: tuple[int, ...], fortran: bool) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape, order="F" if fortran else "C")
    np.save(tmp_path / "a.npy", array)
    whole = read_image(tmp_path / "a.npy").array
    rows, columns = draw_slice(data, whole.shape[1]), draw_slice(data, whole.shape[2])
    with open_image(tmp_path / "a.npy") as image:
        np.testing.assert_array_equal(image.read(rows, columns), whole[:, rows, columns])


def test_a_format_without_regions_is_decoded_once(tmp_path: Path) -> None:
    array = np.arange(99, dtype=np.uint16).reshape(9, 11)
    np.savez_compressed(tmp_path / "a.npz", image=array)
    with open_image(tmp_path / "a.npz") as image:
        assert not image.by_region
        np.testing.assert_array_equal(image.read(slice(2, 4), slice(3, 9))[0], array[2:4, 3:9])
        np.testing.assert_array_equal(image.read()[0], array)


def test_grey_stored_in_colour_is_one_channel_by_region(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8)
    red = np.stack([grey, 0 * grey, 0 * grey], -1)
    for name, colours, channel in (("grey", np.stack([grey] * 3, -1), "0"), ("red", red, "red")):
        tifffile.imwrite(tmp_path / f"{name}.tif", colours, photometric="rgb", tile=(16, 16), compression="zlib")
        with open_image(tmp_path / f"{name}.tif") as image:
            assert image.channel_names == (channel,)
            np.testing.assert_array_equal(image.read(slice(3, 20), slice(4, 9))[0], grey[3:20, 4:9])
        found = read_image(tmp_path / f"{name}.tif")
        assert found.channel_names == (channel,)
        np.testing.assert_array_equal(found.array[0], grey)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_region_needs_little_memory(tmp_path: Path, compression: str | None) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2048, 2048), np.uint16), tile=(256, 256), compression=compression)
    tracemalloc.start()
    with open_image(tmp_path / "a.tif") as image:
        image.read(slice(100, 200), slice(1000, 1100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # the image has 8 MB


def test_a_damaged_tile_costs_only_its_region(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 9999, (64, 64)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(32, 32), compression="zlib", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        start, count = tif.pages.first.dataoffsets[3], tif.pages.first.databytecounts[3]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[start : start + count] = bytes(count)
    (tmp_path / "a.tif").write_bytes(data)
    with open_image(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(image.read(slice(0, 32))[0], array[:32])
    with pytest.raises(ImageReadError, match="a.tif"), open_image(tmp_path / "a.tif") as image:
        image.read(slice(32, 64), slice(32, 64))
