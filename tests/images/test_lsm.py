"""LSM files: TIFF pages with thumbnails between them, and the structure CZ_LSMINFO of version 2.0 in a tag."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stedfm_hf.images import ImageReadError, list_series, open_image, read_image, read_series

RNG = np.random.default_rng(0)
SIZE = struct.calcsize("<Ii8i6dHHI4Id8I")


def write_lsm(
    path: Path,
    array: np.ndarray,
    scan: int,
    names: tuple[str, ...] = (),
    *,
    voxel: tuple[float, float, float] = (2e-8, 3e-8, 1e-7),
) -> Path:
    """Write pages (n, C, H, W) with 1 or 3 channels and a thumbnail behind each; the names follow the pages."""
    pages, channels, height, width = array.shape
    z, time = (pages, 1) if scan == 0 else (1, pages)
    if scan == 1:
        z, height, time = height, 1, 1

    def facts(colours: int) -> bytes:
        return struct.pack(
            "<Ii8i6dHHI4Id8I",
            67127628,
            SIZE,
            width,
            height,
            z,
            channels,
            time,
            2,
            8,
            8,
            *voxel,
            0,
            0,
            0,
            scan,
            0,
            0,
            0,
            0,
            0,
            colours,
            0.0,
            *[0] * 8,
        )

    for again in (False, True):  # the place of the names is the size of the file without them
        colours = path.stat().st_size if again else 0
        with tifffile.TiffWriter(path, byteorder="<") as file:
            for page in array:
                tag = [(34412, 1, SIZE, facts(colours), True)]
                file.write(
                    page,
                    photometric="minisblack",
                    planarconfig="separate" if channels > 1 else None,
                    metadata=None,
                    extratags=tag,
                    contiguous=False,
                )
                file.write(
                    np.zeros((8, 8, 3), np.uint8), photometric="rgb", subfiletype=1, metadata=None, contiguous=False
                )
    text = b"".join(struct.pack("<I", len(name) + 1) + name.encode() + b"\0" for name in names)
    block = struct.pack("<6I", 24 + 4 * len(names) + len(text), len(names), len(names), 24, 24 + 4 * len(names), 0)
    with path.open("ab") as end:
        end.write(block + bytes(4 * len(names)) + text)
    return path


def numbers(*shape: int) -> np.ndarray:
    return RNG.integers(1, 4000, shape).astype("u2")


@pytest.mark.parametrize(("scan", "axis"), [(0, "z"), (3, "t")])
def test_stacks_and_series_without_thumbnails(tmp_path: Path, scan: int, axis: str) -> None:
    path = tmp_path / "a.lsm"
    array = numbers(3, 3, 20, 25)
    write_lsm(path, array, scan, ("Ch1", "ChS2", "T3"))
    with tifffile.TiffFile(path) as file:
        assert file.is_lsm and file.series[0].axes == f"{axis.upper()}CYX"
    found = list(read_series(path))
    assert [image.series for image in found] == [f"image[{axis}={k}]" for k in range(3)]
    for k, (image, page) in enumerate(zip(found, array, strict=True)):
        np.testing.assert_array_equal(image.array, page)
        assert image.channel_names == ("Ch1", "ChS2", "T3")
        assert image.pixel_size_nm == pytest.approx((30.0, 20.0)) and image.metadata["format"] == "LSM"
        with open_image(path, series=k) as opened:
            np.testing.assert_array_equal(opened.read(slice(3, 9), slice(20, 25)), page[:, 3:9, 20:25])


def test_sections(tmp_path: Path) -> None:
    array = numbers(1, 3, 12, 25)
    image = read_image(write_lsm(tmp_path / "a.lsm", array, 1))
    np.testing.assert_array_equal(image.array, array[0])
    assert image.pixel_size_nm == pytest.approx((100.0, 20.0))
    line = read_image(write_lsm(tmp_path / "b.lsm", array, 2))
    np.testing.assert_array_equal(line.array, array[0])
    assert line.pixel_size_nm is None


def test_other_tiff_files_with_the_suffix_and_cut_files(tmp_path: Path) -> None:
    array = numbers(20, 25)
    tifffile.imwrite(tmp_path / "a.lsm", array)
    np.testing.assert_array_equal(read_image(tmp_path / "a.lsm").array[0], array)
    path = write_lsm(tmp_path / "b.lsm", numbers(3, 1, 20, 25), 0)
    content = path.read_bytes()
    for length in (7, 300, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(ImageReadError):
            list_series(path)
