from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.images import ImageReadError, list_series, open_image, read_image, read_series
from stedfm_hf.modeling.io_types_stedfm import RGB
from tests.images.nikon_files import encode, write_nd2

nd2 = pytest.importorskip("nd2")
RNG = np.random.default_rng(0)


def numbers(*shape: int, dtype: str = "u2") -> np.ndarray:
    return RNG.integers(1, 250, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize(("compressed", "padding"), [(False, 0), (False, 6), (True, 0)])
def test_positions_times_depths_and_channels(tmp_path: Path, dtype: str, compressed: bool, padding: int) -> None:
    array = numbers(2 * 2 * 3, 11, 13, 2, dtype=dtype)
    loops = [("t", 2), ("p", 2), ("z", 3)]
    path = write_nd2(tmp_path / "a.nd2", array, loops, ["STED", "DAPI"], compressed=compressed, padding=padding * 4)
    found = list(read_series(path))
    names = [f"image[t={t},p={p},z={z}]" for t in range(2) for p in range(2) for z in range(3)]
    assert [image.series for image in found] == names
    for image, frame in zip(found, array, strict=True):
        np.testing.assert_array_equal(image.array, frame.transpose(2, 0, 1))
        assert image.array.dtype == array.dtype and image.array.flags.writeable
        assert image.channel_names == ("STED", "DAPI")
        assert image.pixel_size_nm == pytest.approx((20.0, 20.0))
    assert found[3].metadata["position"] == "well 1"
    with nd2.ND2File(path) as file:  # the file means the same to the library
        assert dict(file.sizes) == {"T": 2, "P": 2, "Z": 3, "C": 2, "Y": 11, "X": 13}
        np.testing.assert_array_equal(file.asarray().reshape(12, 2, 11, 13), array.transpose(0, 3, 1, 2))
    with open_image(path, series=7) as opened:
        assert opened.by_region
        np.testing.assert_array_equal(opened.read(slice(2, 9), slice(4, 6)), found[7].array[:, 2:9, 4:6])


def test_colours_and_files_without_facts(tmp_path: Path) -> None:
    array = numbers(1, 5, 6, 3, dtype="u1")
    image = read_image(write_nd2(tmp_path / "a.nd2", array, [], ["brightfield"], calibration=0.0))
    assert image.channel_names == RGB and image.pixel_size_nm is None and image.series == "image"
    np.testing.assert_array_equal(image.array, array[0].transpose(2, 0, 1))
    array = numbers(3, 5, 6, 1)
    found = list(read_series(write_nd2(tmp_path / "b.nd2", array, [("t", 2)], ["GFP"])))
    assert [image.series for image in found] == [f"image[frame={k}]" for k in range(3)]
    assert "fewer planes than the file has frames" in found[0].metadata["notes"][0]


def test_lost_frames_are_not_zeros(tmp_path: Path) -> None:
    array = numbers(4, 5, 6, 1)
    path = write_nd2(tmp_path / "a.nd2", array, [("t", 4)], ["GFP"], lost=(1,))
    found = list(read_series(path))
    assert [image.series for image in found] == ["image[t=0]", "image[t=2]", "image[t=3]"]
    assert found[0].metadata["notes"] == ["1 of 4 planes are not in the file, such as image[t=1]"]
    for image, k in zip(found, (0, 2, 3), strict=True):
        np.testing.assert_array_equal(image.array[0], array[k, :, :, 0])


def test_large_frames_that_are_lost(tmp_path: Path) -> None:
    array = numbers(6, 100, 100, 1)
    path = write_nd2(tmp_path / "a.nd2", array, [("t", 6)], ["GFP"], lost=(1, 2, 3, 4))
    assert [each.name for each in list_series(path)] == ["image[t=0]", "image[t=5]"]


def test_damaged_files(tmp_path: Path) -> None:
    array = numbers(2, 50, 60, 1)
    path = write_nd2(tmp_path / "a.nd2", array, [("t", 2)], ["GFP"])
    content = path.read_bytes()
    place = content.index(array[1].tobytes()) - 8 - 4072 - 16
    path.write_bytes(content[:place] + bytes(16) + content[place + 16 :])
    np.testing.assert_array_equal(read_image(path, series=0).array[0], array[0, :, :, 0])
    with pytest.raises(ImageReadError, match="truncated or damaged"):
        read_image(path, series=1)
    for damaged in (content[:5000], content[:-50], b"\0\0\0\x0cjP  \r\n\x87\n" + content[12:]):
        path.write_bytes(damaged)
        with pytest.raises(ImageReadError) as caught:
            list_series(path)
        assert "\n" not in str(caught.value)


def test_headers_that_must_not_be_believed(tmp_path: Path) -> None:
    array = numbers(1, 5, 6, 1)
    wide = encode(
        "SLxImageAttributes",
        {
            "uiWidth": 2**20,
            "uiWidthBytes": 2**21,
            "uiHeight": 2**20,
            "uiComp": 1,
            "uiBpcInMemory": 16,
            "uiBpcSignificant": 16,
            "uiSequenceCount": 1,
            "eCompression": 2,
        },
    )
    path = write_nd2(tmp_path / "a.nd2", array, [], ["GFP"], headers={b"ImageAttributesLV!": wide})
    with pytest.raises(ImageReadError, match="far too large"):
        list_series(path)
    bomb = b"L\0" + bytes(10) + zlib.compress(bytes(2**28 + 1))
    path = write_nd2(tmp_path / "b.nd2", array, [], ["GFP"], headers={b"ImageMetadataLV!": bomb})
    with pytest.raises(ImageReadError, match="header is too large"):
        list_series(path)
    entities = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>'
    path = write_nd2(tmp_path / "c.nd2", array, [], ["GFP"], headers={b"ImageTextInfoLV!": entities})
    with pytest.raises(ImageReadError, match="declares entities"):
        list_series(path)
