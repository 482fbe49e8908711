"""TIFF, OME-TIFF and ImageJ TIFF: planes, channels, calibration and pixel size."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stedfm_hf.modeling.io_stedfm import ImageReadError, list_series, read_image, read_series
from stedfm_hf.modeling.io_types_stedfm import unit_in_nm

DTYPES = st.sampled_from(["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])


def planes_of(path: Path) -> dict[str, np.ndarray]:
    """Every series by name, read in both ways."""
    result = {}
    for info, image in zip(list_series(path), read_series(path), strict=True):
        again = read_image(path, series=info.name)
        np.testing.assert_array_equal(again.array, image.array)
        assert (info.name, info.shape, info.dtype) == (image.series, image.array.shape, image.array.dtype.name)
        assert info.channel_names == image.channel_names and info.pixel_size_nm == image.pixel_size_nm
        json.dumps(image.metadata, allow_nan=False)
        result[info.name] = image.array
    return result


@given(
    data=st.data(),
    dtype=DTYPES,
    shape=hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
    order=st.sampled_from(["<", ">"]),
    big=st.booleans(),
    packed=st.booleans(),
    tiled=st.booleans(),
)
def test_plain_tiff_round_trip(
    tmp_path: Path,
    data: st.DataObject,
    dtype: str,
    shape: tuple[int, int],
    order: Literal["<", ">"],
    big: bool,
    packed: bool,
    tiled: bool,
) -> None:
    array = data.draw(hnp.arrays(dtype, shape))
    options: dict[str, Any] = {"compression": "zlib" if packed else None, "tile": (16, 16) if tiled else None}
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=order, bigtiff=big, metadata=None, **options)
    image = read_image(tmp_path / "a.tif")
    assert image.array.dtype == array.dtype and image.array.dtype.isnative and image.array.flags.writeable
    np.testing.assert_array_equal(image.array, array[None])
    assert image.pixel_size_nm is None
    assert (image.series, image.channel_names, image.source) == ("image", ("0",), str(tmp_path / "a.tif"))


@pytest.mark.parametrize("packed", [None, "zlib"])
def test_ome_planes_and_channels(tmp_path: Path, packed: str | None) -> None:
    stack = np.arange(2 * 3 * 2 * 4 * 5, dtype=np.uint16).reshape(2, 3, 2, 4, 5)
    metadata = {
        "axes": "TZCYX",
        "Name": "Cell 1",
        "Channel": {"Name": ["STAR RED", "STAR ORANGE"]},
        "PhysicalSizeX": 0.02,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 25.0,
        "PhysicalSizeYUnit": "nm",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, ome=True, metadata=metadata, compression=packed)
    planes = planes_of(tmp_path / "a.ome.tif")
    assert list(planes) == [f"Cell 1[t={t},z={z}]" for t in range(2) for z in range(3)]
    np.testing.assert_array_equal(planes["Cell 1[t=1,z=2]"], stack[1, 2])
    image = read_image(tmp_path / "a.ome.tif", series="Cell 1[t=0,z=1]", channel="STAR ORANGE")
    np.testing.assert_array_equal(image.array, stack[0, 1, 1:])
    assert image.pixel_size_nm == pytest.approx((25.0, 20.0))
    assert image.metadata["plane"] == {"t": 0, "z": 1}
    assert image.metadata["format"] == "OME-TIFF"


@given(
    axes=st.permutations("TZC"),
    sizes=st.tuples(*[st.integers(1, 3)] * 3),
    packed=st.booleans(),
)
def test_axes_in_any_order(tmp_path: Path, axes: list[str], sizes: tuple[int, ...], packed: bool) -> None:
    order = "".join(axes)
    stack = np.arange(np.prod(sizes) * 12, dtype=np.int32).reshape(*sizes, 3, 4)
    options: dict[str, Any] = {"compression": "zlib" if packed else None, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, ome=True, metadata={"axes": order + "YX"}, **options)
    images = list(read_series(tmp_path / "a.ome.tif"))
    standard = np.moveaxis(stack, [order.index(axis) for axis in "TZC"], [0, 1, 2])
    expected = standard.reshape(-1, *standard.shape[2:])
    assert len(images) == len(expected)
    for image in images:
        place = image.metadata.get("plane", {})
        np.testing.assert_array_equal(image.array, standard[place.get("t", 0), place.get("z", 0)])


def test_several_ome_images_and_equal_names(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for k in range(3):
            metadata = {"axes": "YX", "Name": "Ch1", "PhysicalSizeX": k + 1.0, "PhysicalSizeY": k + 1.0}
            writer.write(np.full((2 + k, 3), k, np.uint8), metadata=metadata)
    assert [each.name for each in list_series(tmp_path / "a.ome.tif")] == ["Ch1", "Ch1#2", "Ch1#3"]
    assert read_image(tmp_path / "a.ome.tif", series="Ch1#2").pixel_size_nm == pytest.approx((2000.0, 2000.0))


def ome_header(folder: Path, stack: np.ndarray) -> str:
    options: dict[str, Any] = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(folder / "header.ome.tif", stack, ome=True, **options)
    with tifffile.TiffFile(folder / "header.ome.tif") as tif:
        return tif.ome_metadata or ""


def test_ome_header_that_names_other_files_stays_in_this_file(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    header = ome_header(tmp_path, pixels)
    other = '<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="../b.ome.tif">urn:uuid:1</UUID></TiffData>'
    header = header.replace('SizeZ="1"', 'SizeZ="2"').replace("</Pixels>", other + "</Pixels>")
    tifffile.imwrite(tmp_path / "c.ome.tif", pixels[0], description=header.encode(), metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "c.ome.tif").array, pixels)


def test_ome_planes_without_a_page_are_an_error_not_zeros(tmp_path: Path) -> None:
    stack = np.ones((2, 8, 8), np.uint8)
    header = ome_header(tmp_path, stack).replace('SizeZ="2"', 'SizeZ="3"')
    options: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(tmp_path / "b.ome.tif", stack, description=header.encode(), **options)
    names = [each.name for each in list_series(tmp_path / "b.ome.tif")]
    assert len(names) == 3
    assert read_image(tmp_path / "b.ome.tif", series=names[1]).array.all()
    with pytest.raises(ImageReadError, match="page 2 is missing"):
        read_image(tmp_path / "b.ome.tif", series=names[2])


def test_ome_header_with_absurd_counts(tmp_path: Path) -> None:
    stack = np.ones((2, 8, 8), np.uint8)
    header = ome_header(tmp_path, stack).replace('PlaneCount="2"', 'PlaneCount="99999999999"')
    tifffile.imwrite(tmp_path / "b.ome.tif", stack[0], description=header.encode(), metadata=None)
    with pytest.raises(ImageReadError, match="99999999999 planes"):
        list_series(tmp_path / "b.ome.tif")


@pytest.mark.parametrize("packed", [None, "zlib"])
def test_imagej_hyperstack(tmp_path: Path, packed: str | None) -> None:
    stack = np.arange(2 * 3 * 2 * 4 * 5, dtype=np.uint16).reshape(2, 3, 2, 4, 5)
    options: dict[str, Any] = {
        "compression": packed,
        "resolution": (50.0, 40.0),
        "metadata": {"unit": "um", "axes": "TZCYX"},
    }
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, **options)
    planes = planes_of(tmp_path / "a.tif")
    assert len(planes) == 6
    np.testing.assert_array_equal(planes["image[t=1,z=0]"], stack[1, 0])
    assert list_series(tmp_path / "a.tif")[0].pixel_size_nm == pytest.approx((25.0, 20.0))


def test_pages_without_axes_are_planes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for k in range(3):
            writer.write(np.full((4, 5), k, np.int16), metadata=None)
    planes = planes_of(tmp_path / "a.tif")
    assert list(planes) == ["image[page=0]", "image[page=1]", "image[page=2]"]
    assert planes["image[page=2]"].min() == 2
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((2, 3, 4, 5), np.uint8), photometric="minisblack")
    assert list(planes_of(tmp_path / "b.tif"))[-1] == "image[page=1,page2=2]"


def test_pages_of_different_shapes_are_series(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for k in range(2):
            writer.write(np.zeros((4, 5 + k), np.int16), metadata=None)
    assert [each.name for each in list_series(tmp_path / "a.tif")] == ["image", "image#2"]


def test_five_channels_as_samples(tmp_path: Path) -> None:
    stack = np.arange(5 * 4 * 6, dtype=np.uint16).reshape(5, 4, 6)
    for planar, array in (("separate", stack), ("contig", stack.transpose(1, 2, 0))):
        options: dict[str, Any] = {"planarconfig": planar, "photometric": "minisblack", "metadata": None}
        tifffile.imwrite(tmp_path / "a.tif", array, **options)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, stack)
        tifffile.imwrite(tmp_path / "a.tif", array, compression="zlib", **options)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, stack)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb(tmp_path: Path, planar: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 60_000, (3, 4, 5)).astype(np.uint16)
    alpha = np.concatenate([rgb, rgb[:1]])
    for pixels in (rgb, alpha):
        array = pixels if planar == "separate" else pixels.transpose(1, 2, 0)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", planarconfig=planar)
        image = read_image(tmp_path / "a.tif")
        np.testing.assert_array_equal(image.array, rgb)
        assert image.channel_names == ("red", "green", "blue")
    grey = np.repeat(rgb[:1], 3, axis=0).transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="rgb")
    assert list(planes_of(tmp_path / "a.tif").values())[0].shape == (1, 4, 5)


def test_palette_keeps_the_values_and_bilevel_becomes_bytes(tmp_path: Path) -> None:
    values = np.arange(20, dtype=np.uint8).reshape(4, 5)
    table = np.random.default_rng(0).integers(0, 65_535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, values[None])
    tifffile.imwrite(tmp_path / "b.tif", values % 2 == 1)
    image = read_image(tmp_path / "b.tif")
    assert image.array.dtype == np.uint8
    np.testing.assert_array_equal(image.array, values[None] % 2)


def calibrated(path: Path, pixels: np.ndarray, **metadata: object) -> Any:
    tifffile.imwrite(path, pixels, imagej=True, metadata=metadata)
    (info,), image = list_series(path), read_image(path)
    assert info.dtype == image.array.dtype.name
    return image


@pytest.mark.parametrize(
    ("stored", "c0", "c1", "expected"),
    [
        ("u2", -32768, 1, "i2"),  # how ImageJ stores signed 16-bit data
        ("u2", -32768.0, 1.0, "i2"),
        ("u2", 0, 1, "u2"),
        ("u2", 1, 1, "i4"),
        ("u1", 0, 2, "i2"),
        ("u1", -5, -1, "i2"),
        ("u2", 0, 10**6, "f4"),
        ("u2", 0.5, 1, "f4"),
        ("u1", 0, 0.25, "f4"),
    ],
)
def test_linear_calibration(tmp_path: Path, stored: str, c0: float, c1: float, expected: str) -> None:
    top = np.iinfo(stored).max
    pixels = np.array([[0, 1, top - 1, top]], stored)
    image = calibrated(tmp_path / "a.tif", pixels, cf=0, c0=c0, c1=c1, vunit="Gray Value")
    assert image.array.dtype == np.dtype(expected)
    np.testing.assert_allclose(image.array[0, 0], pixels[0].astype(float) * c1 + c0, rtol=1e-6)
    assert image.metadata["calibration"]["applied"] is True


@pytest.mark.parametrize(
    "metadata",
    [
        {"cf": 3, "c0": 1.0, "c1": 2.0},
        {"cf": 20},
        {"cf": 0, "c0": 1.0},
        {"cf": 0, "c0": "x", "c1": 1},
        {"cf": 0, "c0": float("nan"), "c1": 1.0},
        {"cf": 0, "c0": 5, "c1": 0},
    ],
)
def test_other_calibrations_are_noted_only(tmp_path: Path, metadata: dict[str, object]) -> None:
    pixels = np.array([[3, 4]], np.uint16)
    image = calibrated(tmp_path / "a.tif", pixels, **metadata)
    np.testing.assert_array_equal(image.array[0], pixels)
    assert image.array.dtype == np.uint16
    assert image.metadata["calibration"]["applied"] is False
    json.dumps(image.metadata, allow_nan=False)


def test_floats_are_not_calibrated(tmp_path: Path) -> None:
    pixels = np.array([[3, np.nan]], np.float32)
    image = calibrated(tmp_path / "a.tif", pixels, cf=0, c0=-32768, c1=1)
    np.testing.assert_array_equal(image.array[0], pixels)


def test_signed_file_with_the_calibration_of_signed_data_stays_as_it_is(tmp_path: Path) -> None:
    pixels = np.array([[-5, 158]], np.int16)
    header = "ImageJ=1.53\nunit=micron\ncf=0\nc0=-32768.0\nc1=1.0\n"
    tifffile.imwrite(tmp_path / "a.tif", pixels, description=header, metadata=None)
    image = read_image(tmp_path / "a.tif")
    assert image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array[0], pixels)


@pytest.mark.parametrize(
    ("unit", "nm"),
    [
        ("micron", 20.0),
        ("um", 20.0),
        ("\\u00B5m", 20.0),
        ("nm", 0.02),
        ("mm", 20_000.0),
        ("cm", 200_000.0),
        ("inch", 508_000.0),
        ("pixel", None),
        ("", None),
    ],
)
def test_imagej_units(tmp_path: Path, unit: str, nm: float | None) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4, 4), np.uint8), imagej=True, resolution=(50, 50), metadata={"unit": unit}
    )
    size = read_image(tmp_path / "a.tif").pixel_size_nm
    assert size == (None if nm is None else pytest.approx((nm, nm)))


def test_micro_signs() -> None:
    assert {unit_in_nm(unit) for unit in ("µm", "\u03bcm", "\\u00B5m", "\\u00b5m", "Âµm", "Microns", " um ")} == {1e3}
    assert unit_in_nm("furlong") is None
    assert unit_in_nm("Å") == unit_in_nm("\u212b") == 0.1


@pytest.mark.parametrize(
    ("unit", "per_unit", "nm"),
    [
        ("INCH", 72, None),
        ("INCH", 300, None),
        ("INCH", 1_270_000, 20.0),
        ("CENTIMETER", 500_000, 20.0),
        ("CENTIMETER", 118, None),
        ("NONE", 500_000, None),
    ],
)
def test_resolution_tags_of_printers_are_no_pixel_size(
    tmp_path: Path, unit: str, per_unit: int, nm: float | None
) -> None:
    options: dict[str, Any] = {"resolution": (per_unit, per_unit), "resolutionunit": unit, "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8), **options)
    size = read_image(tmp_path / "a.tif").pixel_size_nm
    assert size == (None if nm is None else pytest.approx((nm, nm)))


def test_resolution_of_zero(tmp_path: Path) -> None:
    for resolution in ((0, 50), ((50, 0), (50, 0))):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8), imagej=True, metadata={"unit": "um"})
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
            value = resolution[0] if isinstance(resolution[0], tuple) else (resolution[0], 1)
            tif.pages.first.tags["XResolution"].overwrite(value)
        assert read_image(tmp_path / "a.tif").pixel_size_nm is None


@pytest.mark.parametrize("kind", ["plain", "packed", "imagej", "ome"])
def test_stacks_that_lost_their_end(tmp_path: Path, kind: str) -> None:
    """A cut stack never passes for a shorter one."""
    path = tmp_path / "a.tif"
    stack = np.random.default_rng(0).integers(0, 9, (4, 8, 8)).astype(np.uint16)
    ome_size = {"PhysicalSizeX": 0.02, "PhysicalSizeY": 0.05}
    options: dict[str, dict[str, Any]] = {
        "plain": {"photometric": "minisblack", "metadata": None},
        "packed": {"photometric": "minisblack", "metadata": None, "compression": "zlib"},
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX", "unit": "um"}},
        "ome": {"ome": True, "photometric": "minisblack", "metadata": {"axes": "ZYX"} | ome_size},
    }
    unit: dict[str, Any] = {} if kind == "imagej" else {"resolutionunit": "CENTIMETER"}
    resolution = (50, 20) if kind == "imagej" else (500_000, 200_000)
    tifffile.imwrite(path, stack, resolution=resolution, **unit, **options[kind])
    content = path.read_bytes()
    names = list(planes_of(path))
    assert len(names) == 4
    for cut in range(1, len(content), 7):
        path.write_bytes(content[:cut])
        try:
            images = list(read_series(path))
        except ImageReadError:
            continue
        np.testing.assert_array_equal(np.concatenate([image.array for image in images]), stack)
        assert [image.series for image in images] == names
        assert all(image.pixel_size_nm == pytest.approx((50.0, 20.0)) for image in images)


def test_pages_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 8, 8), np.uint8), photometric="minisblack", metadata=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        first, place = tif.pages.first.offset, tif.pages.next_page_offset
    assert place is not None
    struct.pack_into("<I", content, place, first)
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match="after 3 page"):
        list_series(path)


@pytest.mark.parametrize("packed", [None, "zlib"])
def test_declared_sizes_are_not_believed(tmp_path: Path, packed: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), compression=packed, metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags["ImageWidth"].overwrite(2**30)
        tif.pages.first.tags["ImageLength"].overwrite(2**30)
    with pytest.raises(ImageReadError, match=r"truncated|too large"):
        list_series(path)


@pytest.mark.parametrize("codec", [5, 34712, 34926, 50000])  # LZW, JPEG 2000, Zstandard twice
def test_a_missing_codec_names_the_package(tmp_path: Path, codec: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags["Compression"].overwrite(codec)
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        with pytest.raises(ImageReadError, match="pip install imagecodecs"):
            read_image(path)
    else:
        with pytest.raises(ImageReadError):
            read_image(path)


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.complex64))
    with pytest.raises(ImageReadError, match="complex64"):
        read_image(tmp_path / "a.tif")
