from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.images import ImageReadError, list_series, read_image, read_series
from tests.images.imspector_files import METRE, NOTHING, SECOND, Stack, write_obf

PIXELS = np.arange(30, dtype=np.int16).reshape(5, 6) - 7


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("suffix", [".msr", ".obf", ".tif"])  # by content, whatever the suffix says
def test_round_trip(tmp_path: Path, dtype: str, packed: bool, suffix: str) -> None:
    pixels = np.abs(PIXELS).astype(dtype)
    path = write_obf(tmp_path / f"a{suffix}", Stack(pixels, packed=packed, lengths=(5 * 30e-9, 6 * 20e-9)))
    image = read_image(path)
    assert image.array.dtype == pixels.dtype and image.array.flags.writeable
    np.testing.assert_array_equal(image.array, pixels[None])
    assert image.pixel_size_nm == pytest.approx((30.0, 20.0))
    assert image.series == "Ch1 {0}"
    (info,) = list_series(path)
    assert (info.shape, info.dtype, info.pixel_size_nm) == ((1, 5, 6), dtype_name(dtype), image.pixel_size_nm)
    json.dumps(image.metadata, allow_nan=False)


def dtype_name(dtype: str) -> str:
    return np.dtype(dtype).name


def test_stacks_are_series_and_equal_names_get_unique_names(tmp_path: Path) -> None:
    stacks = [Stack(PIXELS + k, name=name) for k, name in enumerate(["STED", "Confocal", "STED", ""])]
    path = write_obf(tmp_path / "a.msr", *stacks)
    assert [each.name for each in list_series(path)] == ["STED", "Confocal", "STED#2", "stack"]
    np.testing.assert_array_equal(read_image(path, series="STED#2").array[0], PIXELS + 2)
    with pytest.raises(ImageReadError, match="4 series.*STED, Confocal, STED#2"):
        read_image(path)


def test_depth_and_time_make_planes(tmp_path: Path) -> None:
    stack = np.arange(2 * 3 * 5 * 6, dtype=np.uint16).reshape(2, 3, 5, 6)
    labels = ("ExpControl T", "ExpControl Z", "ExpControl Y", "ExpControl X")
    path = write_obf(tmp_path / "a.msr", Stack(stack, labels))
    names = [each.name for each in list_series(path)]
    assert names == [f"Ch1 {{0}}[t={t},z={z}]" for t in range(2) for z in range(3)]
    for image, plane in zip(read_series(path), stack.reshape(6, 5, 6), strict=True):
        np.testing.assert_array_equal(image.array[0], plane)
    assert read_image(path, series=5).metadata["plane"] == {"t": 1, "z": 2}


def test_a_section_is_an_image_of_its_two_long_axes(tmp_path: Path) -> None:
    section = np.arange(24, dtype=np.uint16).reshape(4, 1, 6)
    labels = ("ExpControl Z", "ExpControl Y", "ExpControl X")
    stack = Stack(section, labels, lengths=(4 * 50e-9, 1e-6, 6 * 20e-9))
    image = read_image(write_obf(tmp_path / "a.msr", stack))
    np.testing.assert_array_equal(image.array, section.transpose(1, 0, 2))
    assert image.pixel_size_nm == pytest.approx((50.0, 20.0))


def test_named_axes_in_another_order(tmp_path: Path) -> None:
    stack = np.arange(2 * 5 * 6, dtype=np.uint16).reshape(6, 5, 2)
    path = write_obf(tmp_path / "a.msr", Stack(stack, ("X", "Y", "Z")))
    np.testing.assert_array_equal(read_image(path, series=1).array[0], stack[:, :, 1].T)
    path = write_obf(tmp_path / "b.msr", Stack(PIXELS, ("", "None")))
    np.testing.assert_array_equal(read_image(path).array[0], PIXELS)


def test_pixel_size_is_none_where_axes_are_no_lengths(tmp_path: Path) -> None:
    for units in ((SECOND, METRE), (SECOND, NOTHING)):
        assert read_image(write_obf(tmp_path / "a.msr", Stack(PIXELS, units=units))).pixel_size_nm is None
    assert read_image(write_obf(tmp_path / "a.msr", Stack(PIXELS, lengths=(0.0, 1e-6)))).pixel_size_nm is None


def test_lengths_without_a_unit_are_metres(tmp_path: Path) -> None:
    units = (NOTHING, NOTHING)
    image = read_image(write_obf(tmp_path / "a.msr", Stack(PIXELS, lengths=(5 * 30e-9, 6 * 20e-9), units=units)))
    assert image.pixel_size_nm == pytest.approx((30.0, 20.0)) and "metres" in image.metadata["notes"][0]
    never_set = read_image(write_obf(tmp_path / "b.msr", Stack(PIXELS, lengths=(1.0, 1.0), units=units)))
    assert never_set.pixel_size_nm is None and "notes" not in never_set.metadata


def test_a_damaged_stack_costs_only_itself(tmp_path: Path) -> None:
    stacks = [Stack(PIXELS + k, name=name) for k, name in enumerate(["good", "complex", "last"])]
    stacks[1].array = PIXELS.astype(np.complex64)
    found = list(read_series(write_obf(tmp_path / "a.msr", *stacks)))
    assert [image.series for image in found] == ["good", "last"]
    assert "complex64" in found[0].metadata["left_out"]["complex"]
    path = write_obf(tmp_path / "b.msr", *stacks)
    content = path.read_bytes()
    place = content.rindex(b"OMAS_BF_STACK")
    path.write_bytes(content[:place] + bytes(16) + content[place + 16 :])
    (image,) = read_series(path)
    assert image.series == "good" and set(image.metadata["left_out"]) == {"complex", "stacks after complex"}


def test_no_stack_is_one_clear_error(tmp_path: Path) -> None:
    path = write_obf(tmp_path / "a.msr")
    for read in (read_image, list_series):
        with pytest.raises(ImageReadError, match="holds no image stack") as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_msr_files_and_odd_stacks(tmp_path: Path) -> None:
    (tmp_path / "a.msr").write_bytes(b"CDataDoc" + bytes(100))
    with pytest.raises(ImageReadError, match="not an OBF file"):
        read_image(tmp_path / "a.msr")
    with pytest.raises(ImageReadError, match="complex64"):
        read_image(write_obf(tmp_path / "b.msr", Stack(PIXELS.astype(np.complex64))))
    with pytest.raises(ImageReadError, match="not an image"):
        read_image(write_obf(tmp_path / "c.msr", Stack(PIXELS.ravel(), ("X",))))


@pytest.mark.parametrize("packed", [True, False])
def test_lost_pixels_are_an_error_unmeasured_ones_are_zero(tmp_path: Path, packed: bool) -> None:
    lost = Stack(PIXELS + 50, packed=packed, lost=20)
    with pytest.raises(ImageReadError, match="truncated"):
        read_image(write_obf(tmp_path / "a.msr", lost))
    lost.samples_written = 20
    array = read_image(write_obf(tmp_path / "a.msr", lost)).array
    np.testing.assert_array_equal(array.ravel()[:20], (PIXELS + 50).ravel()[:20])
    assert not array.ravel()[20:].any()


def test_a_packed_bomb_is_unpacked_to_the_declared_size_only(tmp_path: Path) -> None:
    path = write_obf(tmp_path / "a.msr", Stack(np.zeros((3000, 1000), np.uint8)))
    content = bytearray(path.read_bytes())
    place = content.index(b"OMAS_BF_STACK") + 16 + 8
    struct.pack_into("<2I", content, place, 10, 3)
    path.write_bytes(content)
    assert read_image(path).array.shape == (1, 3, 10)
    struct.pack_into("<2I", content, place, 2**31, 2**31)
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match="too large"):
        list_series(path)


def test_stacks_in_a_circle(tmp_path: Path) -> None:
    path = write_obf(tmp_path / "a.msr", Stack(PIXELS))
    content = bytearray(path.read_bytes())
    start = content.index(b"OMAS_BF_STACK")
    struct.pack_into("<Q", content, start + struct.calcsize("<16s17I30d5I2Q"), start)
    path.write_bytes(content)
    (image,) = read_series(path)
    np.testing.assert_array_equal(image.array[0], PIXELS)
    assert "cycle" in image.metadata["left_out"]["stacks after Ch1 {0}"]


@given(data=st.data())
def test_cut_or_damaged_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    path = write_obf(tmp_path / "a.msr", Stack(PIXELS), Stack(PIXELS, name="Ch2", packed=False))
    content = bytearray(path.read_bytes())
    cut = data.draw(st.booleans())
    if cut:
        content = content[: data.draw(st.integers(1, len(content) - 1))]
    else:
        for _ in range(3):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        images = list(read_series(path))
    except ImageReadError as error:
        assert "\n" not in str(error)
    else:
        if cut:
            whole = [image.series for image in images] == ["Ch1 {0}", "Ch2"]
            assert whole or images[0].metadata["left_out"]
            assert all(np.array_equal(image.array[0], PIXELS) for image in images)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("packed", [True, False])
def test_files_of_the_vendors_library(tmp_path: Path, dtype: str, packed: bool) -> None:
    specpy = pytest.importorskip("specpy", reason="specpy, the library of Imspector, is not installed")
    pixels = np.arange(2 * 3 * 5 * 6).reshape(2, 3, 5, 6).astype(dtype)
    stack = specpy.Stack(np.dtype(dtype), [6, 5, 3, 2])
    stack.data()[...] = pixels
    stack.set_lengths([6 * 20e-9, 5 * 30e-9, 3 * 100e-9, 2.0])
    path = tmp_path / "a.msr"
    file = specpy.File(str(path), specpy.File.Write)
    file.write(stack, packed)
    del file
    found = list(read_series(path))
    assert len(found) == 6
    for image, plane in zip(found, pixels.reshape(6, 5, 6), strict=True):
        np.testing.assert_array_equal(image.array[0], plane)
        assert image.array.dtype == dtype and image.pixel_size_nm == pytest.approx((30.0, 20.0))
