from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.images import ImageReadError, list_series, open_image, read_image, read_series
from stedfm_hf.modeling.io_types_stedfm import RGB

czi = pytest.importorskip("pylibCZIrw.czi")  # the vendor's library also writes files
FOLDER = os.environ.get("STEDFM_REAL_DATA")
RNG = np.random.default_rng(0)


def numbers(*shape: int, dtype: str = "u2") -> np.ndarray:
    return RNG.integers(1, 250, shape).astype(dtype)


def write(path: Path, *tiles: tuple[np.ndarray, dict[str, Any]], **facts: Any) -> Path:
    """Write tiles with their plane, scene and location."""
    with czi.create_czi(str(path), compression_options=facts.pop("compression", None)) as file:
        for array, options in tiles:
            file.write(data=array, **options)
        if facts:
            file.write_metadata(document_name="a", **facts)
    return path


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("compression", [None, "zstd1:ExplicitLevel=2"])
def test_channels_time_and_depth(tmp_path: Path, dtype: str, compression: str | None) -> None:
    if dtype == "f4" and compression:
        pytest.skip("the library does not write it")
    array = numbers(2, 3, 2, 17, 13, dtype=dtype)
    tiles = [
        (array[t, z, c], {"plane": {"T": t, "Z": z, "C": c}}) for t in range(2) for z in range(3) for c in range(2)
    ]
    facts: dict[str, Any] = {"channel_names": {0: "STED", 1: "DAPI"}, "scale_x": 2e-8, "scale_y": 3e-8}
    path = write(tmp_path / "a.czi", *tiles, compression=compression, **facts)
    found = list(read_series(path))
    assert [image.series for image in found] == [f"image[t={t},z={z}]" for t in range(2) for z in range(3)]
    for k, (image, planes) in enumerate(zip(found, array.reshape(6, 2, 17, 13), strict=True)):
        np.testing.assert_array_equal(image.array, planes)
        assert image.array.dtype == array.dtype and image.array.flags.writeable
        assert image.pixel_size_nm == pytest.approx((30.0, 20.0))
        assert image.channel_names == ("STED", "DAPI") and "notes" not in image.metadata
        with open_image(path, series=k) as opened:
            assert opened.by_region
            np.testing.assert_array_equal(opened.read(slice(3, 9), slice(2, 5)), planes[:, 3:9, 2:5])


def test_scenes_and_mosaics(tmp_path: Path) -> None:
    a, b, c = numbers(10, 20), numbers(10, 20), numbers(12, 8)
    path = write(
        tmp_path / "a.czi",
        (a, {"location": (-50, 7), "scene": 0}),
        (b, {"location": (-40, 7), "scene": 0}),
        (c, {"location": (100, 0), "scene": 1}),
    )
    first, second = read_series(path)
    assert (first.series, second.series) == ("scene 0", "scene 1")
    np.testing.assert_array_equal(first.array[0], np.hstack([a[:, :10], b]))
    np.testing.assert_array_equal(second.array[0], c)
    assert first.pixel_size_nm is None and first.channel_names == ("0",)
    gap = write(tmp_path / "b.czi", (a, {"location": (0, 0)}), (b, {"location": (30, 0)}))
    image = read_image(gap)
    np.testing.assert_array_equal(image.array[0], np.hstack([a, np.zeros((10, 10)), b]))
    assert "pixels that no tile covers are 0" in image.metadata["notes"]


def test_colours_types_and_lost_planes(tmp_path: Path) -> None:
    colours, grey, wide = numbers(5, 6, 3, dtype="u1"), numbers(5, 6, dtype="u1"), numbers(5, 6)
    path = write(tmp_path / "a.czi", (colours, {}))
    image = read_image(path)
    assert image.channel_names == RGB
    np.testing.assert_array_equal(image.array, colours[..., ::-1].transpose(2, 0, 1))
    path = write(
        tmp_path / "b.czi",
        (grey, {"plane": {"C": 0, "T": 0}}),
        (wide, {"plane": {"C": 1, "T": 0}}),
        (grey, {"plane": {"C": 0, "T": 1}}),
    )
    image = read_image(path)
    np.testing.assert_array_equal(image.array, np.stack([grey.astype("u2"), wide]))
    assert image.series == "image[t=0]" and "1 of 2 planes are not in the file" in image.metadata["notes"][-1]
    path = write(tmp_path / "c.czi", (colours, {"plane": {"C": 0}}), (grey, {"plane": {"C": 1}}))
    assert [each.name for each in list_series(path)] == ["image channel 1", "image channel 0"]


def test_cut_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.czi", (numbers(50, 60), {}))
    content = path.read_bytes()
    for length in (20, 600, len(content) // 2, len(content) - 50):
        path.write_bytes(content[:length])
        with pytest.raises(ImageReadError) as caught:
            read_image(path)
        assert "\n" not in str(caught.value)


def test_damaged_tiles_do_not_end_the_process(tmp_path: Path) -> None:
    path = write(tmp_path / "a.czi", (numbers(50, 60), {}))
    content = path.read_bytes()
    places = [k for k in range(len(content)) if content[k : k + 2] == b"DV" and content[k + 6 : k + 14] != bytes(8)]
    assert len(places) == 2  # in the directory, and at the tile
    for place in places:
        path.write_bytes(content[: place + 28] + struct.pack("<i", 86) + content[place + 32 :])
        with pytest.raises(ImageReadError, match="a tile in its directory is not valid"):
            read_image(path)
    size = places[1] - 8 if content[places[1] - 48 :].startswith(b"ZISRAWSUBBLOCK") else places[0] - 8
    path.write_bytes(content[:size] + struct.pack("<q", 2**40) + content[size + 8 :])
    with pytest.raises(ImageReadError, match="longer than the file"):
        read_image(path)


def test_a_header_with_entities_costs_only_itself(tmp_path: Path) -> None:
    array = numbers(5, 6)
    path = write(tmp_path / "a.czi", (array, {}), scale_x=2e-8, scale_y=2e-8)
    content = path.read_bytes()
    start = content.index(b"<ImageDocument")
    bomb = b'<!DOCTYPE a [<!ENTITY b "bbbb">]>'
    path.write_bytes(content[:start] + bomb + content[start + len(bomb) :])
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], array)
    assert image.pixel_size_nm is None and "header cannot be read" in image.metadata["notes"][0]


@pytest.mark.skipif(not FOLDER, reason="set STEDFM_REAL_DATA to the folder of real microscope files")
@pytest.mark.parametrize(
    ("name", "series", "shape", "dtype", "size", "channels", "total"),
    [
        ("zeiss_two_channels", 1, (2, 640, 640), "uint8", None, ("DAPI", "GFP"), 8488476),
        ("zeiss_zstd_t3_z6", 18, (1, 200, 300), "uint16", 90.58, ("LED555",), 18018370),
        ("zeiss_nuclei", 1, (1, 240, 320), "uint8", 100.0, ("nuclei",), 136608),
        ("zeiss_compressed", 1, (1, 512, 512), "uint16", None, ("0",), 38944539),
    ],
)
def test_files_of_microscopes(
    name: str,
    series: int,
    shape: tuple[int, int, int],
    dtype: str,
    size: float | None,
    channels: tuple[str, ...],
    total: int,
) -> None:
    path = Path(str(FOLDER)) / "formats" / f"{name}.czi"
    assert len(list_series(path)) == series
    image = read_image(path, series=0)
    assert (image.array.shape, image.array.dtype.name, image.channel_names) == (shape, dtype, channels)
    assert image.pixel_size_nm == (None if size is None else pytest.approx((size, size), abs=0.01))
    assert int(image.array[0].sum()) == total
