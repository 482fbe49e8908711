"""Whatever tifffile writes: our pixels are those of tifffile, and our metadata are those that were written."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.modeling.io_stedfm import open_image, read_series

UNITS = {"pm": 1e-3, "Å": 0.1, "nm": 1.0, "µm": 1e3, "um": 1e3, "mm": 1e6, "cm": 1e7}
COMPRESSIONS = [None, "zlib", "lzw", "zstd", "packbits", "lzma"]


def by_tifffile(path: Path) -> np.ndarray:
    """All pixels as tifffile reads them, (planes, channels, H, W), channels and planes in the order of the file."""
    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        axes, array = series.get_axes(squeeze=False), series.asarray(squeeze=False)
    order = [k for k, axis in enumerate(axes) if axis not in "CSYX"]
    order += [axes.index(axis) for axis in "CSYX" if axis in axes]
    array = array.transpose(order)
    height, width = array.shape[-2:]
    channels = int(np.prod([n for n, k in zip(array.shape, order, strict=True) if axes[k] in "CS"]))
    return array.reshape(-1, channels, height, width)


@given(
    data=st.data(),
    dtype=st.sampled_from(["u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8"]),
    order=st.sampled_from("<>"),
    axes=st.permutations("TZC").flatmap(lambda axes: st.integers(0, 3).map(lambda n: "".join(axes[:n]) + "YX")),
    compression=st.sampled_from(COMPRESSIONS),
    predictor=st.booleans(),
    layout=st.sampled_from([{}, {"rowsperstrip": 5}, {"tile": (16, 32)}]),
    big=st.booleans(),
    units=st.tuples(st.sampled_from(sorted(UNITS)), st.sampled_from(sorted(UNITS))),
)
def test_ome(
    tmp_path: Path,
    data: st.DataObject,
    dtype: str,
    order: Any,
    axes: str,
    compression: str | None,
    predictor: bool,
    layout: dict[str, Any],
    big: bool,
    units: tuple[str, str],
) -> None:
    shape = [data.draw(st.integers(1, 3)) for _ in axes[:-2]] + [data.draw(st.integers(1, 40)) for _ in "YX"]
    array = np.random.default_rng(sum(shape)).integers(0, 120, shape).astype(dtype)
    size = [data.draw(st.sampled_from([0.02, 1.5, 20.0, 300.0])) for _ in "YX"]
    names = [f"dye {k}" for k in range(shape[axes.index("C")] if "C" in axes else 1)]
    metadata: dict[str, Any] = {"axes": axes, "Name": "cell"}
    metadata |= {f"PhysicalSize{axis}": value for axis, value in zip("YX", size, strict=True)}
    metadata |= {f"PhysicalSize{axis}Unit": unit for axis, unit in zip("YX", units, strict=True)}
    if "C" in axes:
        metadata["Channel"] = {"Name": names}
    options: dict[str, Any] = {"compression": compression, **layout, "bigtiff": big, "byteorder": order}
    if compression in ("zlib", "lzw", "zstd") and np.dtype(dtype).kind != "f":
        options["predictor"] = predictor
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, array, ome=True, metadata=metadata, photometric="minisblack", **options)
    images = list(read_series(path))
    np.testing.assert_array_equal(np.stack([image.array for image in images]), by_tifffile(path))
    for image in images:
        assert image.array.dtype == np.dtype(dtype) and "notes" not in image.metadata
        assert image.pixel_size_nm == pytest.approx(
            [value * UNITS[unit] for value, unit in zip(size, units, strict=True)], rel=1e-6
        )
        assert list(image.channel_names) == (names if "C" in axes else ["0"])


@given(
    dtype=st.sampled_from(["u1", "u2", "f4"]),
    counts=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
    size=st.tuples(st.integers(3, 30), st.integers(3, 30)),
    unit=st.sampled_from(["micron", "um", "nm", "\\u00B5m", "cm", "inch"]),
    per_unit=st.tuples(st.sampled_from([0.05, 20.0, 1e3]), st.sampled_from([0.05, 20.0])),
)
def test_imagej(
    tmp_path: Path,
    dtype: str,
    counts: tuple[int, int, int],
    size: tuple[int, int],
    unit: str,
    per_unit: tuple[float, float],
) -> None:
    array = np.random.default_rng(0).integers(0, 120, (*counts, *size)).astype(dtype)
    metadata = {"axes": "TZCYX", "unit": unit}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, imagej=True, metadata=metadata, resolution=per_unit, resolutionunit=1)
    images = list(read_series(path))
    np.testing.assert_array_equal(np.stack([image.array for image in images]), by_tifffile(path))
    nm = {"nm": 1.0, "cm": 1e7, "inch": 25.4e6}.get(unit, 1e3)
    across, down = per_unit
    assert images[0].pixel_size_nm == pytest.approx((nm / down, nm / across), rel=1e-6)


def write_packed(path: Path, array: np.ndarray, bits: int, rows_per_strip: int) -> None:
    """Write a TIFF of packed pixels by hand: rows begin at a byte, as the standard says."""
    height, width = array.shape
    planes = (array[..., None].astype(np.int64) >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(planes.reshape(height, -1).astype(np.uint8), axis=1)
    strips = [packed[top : top + rows_per_strip].tobytes() for top in range(0, height, rows_per_strip)]
    offsets = list(np.cumsum([8, *(len(strip) for strip in strips)]))
    at, count = int(offsets.pop()), len(strips)
    lists = struct.pack(f"<{2 * count}I", *offsets, *(len(strip) for strip in strips))
    values = [at, at + 4 * count] if count > 1 else [offsets[0], len(strips[0])]
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, values[0]), (277, 1)]
    tags += [(278, rows_per_strip), (279, values[1])]
    entries = b"".join(struct.pack("<HHII", tag, 4, count if tag in (273, 279) else 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", at + len(lists)) + b"".join(strips) + lists + directory)


@given(
    bits=st.sampled_from([1, 2, 4, 6, 10, 12, 14]),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    rows_per_strip=st.integers(1, 30),
)
def test_packed_bits(tmp_path: Path, bits: int, size: tuple[int, int], rows_per_strip: int) -> None:
    array = np.random.default_rng(bits).integers(0, 2**bits, size)
    write_packed(tmp_path / "a.tif", array, bits, rows_per_strip)
    half = slice(0, (size[0] + 1) // 2)
    with open_image(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(image.read(half)[0], array[half])
        np.testing.assert_array_equal(image.read()[0], array)
