from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.data.splits import file_id
from stedfm_hf.images import (
    ImageReadError,
    find_images,
    is_image_folder,
    list_series,
    open_image,
    read_image,
    read_series,
)
from stedfm_hf.runs.files import file_stamp

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")
RNG = np.random.default_rng(0)
UNITS = {"z": "micrometer", "y": "micrometer", "x": "nanometer"}


def axes_of(names: str, units: dict[str, str] | None = None) -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    units = UNITS if units is None else units
    return [{"name": k, "type": kinds.get(k, "space")} | ({"unit": units[k]} if k in units else {}) for k in names]


def write(
    path: Path,
    array: np.ndarray,
    names: str = "tczyx",
    *,
    version: str = "0.4",
    units: dict[str, str] | None = None,
    scale: list[float] | None = None,
    labels: tuple[str, ...] = (),
    **options: Any,
) -> Path:
    """Write an image, its metadata as the specification of the version has it; zarr writes the chunks."""
    scale = scale or [{"z": 0.1, "y": 0.02, "x": 25.0}.get(name, 1.0) for name in names]
    axes: object = {"0.3": list(names), "0.2": None}.get(version, axes_of(names, units))
    level: dict[str, Any] = {"path": "0"}
    if version >= "0.4":
        level["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    multiscale = {"name": "cell", "datasets": [level, {"path": "1"}]} | ({"axes": axes} if axes else {})
    ome: dict[str, Any] = {"multiscales": [multiscale], "omero": {"channels": [{"label": each} for each in labels]}}
    path.mkdir(parents=True)
    options = {"chunks": (1,) * (array.ndim - 2) + (8, 8)} | options
    if version >= "0.5":
        ome["version"] = version
        content = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (path / "zarr.json").write_text(json.dumps(content))
        stored = zarr.create_array(path / "0", shape=array.shape, dtype=array.dtype, zarr_format=3, **options)
    else:
        multiscale["version"] = version
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(ome))
        stored = zarr.create_array(path / "0", shape=array.shape, dtype=array.dtype, zarr_format=2, **options)
    stored[...] = array
    return path


def numbers(*shape: int, dtype: str = "u2") -> np.ndarray:
    return RNG.integers(1, 250, shape).astype(dtype)


@pytest.mark.parametrize("version", ["0.2", "0.3", "0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">u2", "f4", "f8"])
def test_versions_and_types(tmp_path: Path, version: str, dtype: str) -> None:
    if version == "0.5":
        dtype = dtype.strip(">")
    array = numbers(2, 3, 2, 11, 13, dtype=dtype)
    path = write(tmp_path / "a.zarr", array, version=version, labels=("STED", "confocal", "DAPI"))
    found = list(read_series(path))
    assert [image.series for image in found] == [f"cell[t={t},z={z}]" for t in range(2) for z in range(2)]
    for image, plane in zip(found, array.transpose(0, 2, 1, 3, 4).reshape(4, 3, 11, 13), strict=True):
        np.testing.assert_array_equal(image.array, plane)
        assert image.array.dtype == array.dtype.newbyteorder("=") and image.array.flags.writeable
        assert image.channel_names == ("STED", "confocal", "DAPI")
        assert image.pixel_size_nm == (pytest.approx((20.0, 25.0)) if version >= "0.4" else None)
        assert image.metadata["format"] == f"OME-Zarr {version}"


@pytest.mark.parametrize("names", ["yx", "cyx", "xyc", "yxc", "zxyc", "xcy"])
@pytest.mark.parametrize("shards", [None, 16])
def test_any_order_of_the_axes_and_regions(tmp_path: Path, names: str, shards: int | None) -> None:
    lengths = {"z": 2, "c": 3, "y": 40, "x": 33}
    array = numbers(*(lengths[name] for name in names))
    options: dict[str, Any] = {"shards": (shards,) * array.ndim, "chunks": (8,) * array.ndim} if shards else {}
    path = write(tmp_path / "a.zarr", array, names, version="0.5" if shards else "0.4", **options)
    expected = np.moveaxis(array, [names.index(axis) for axis in "zcyx" if axis in names], range(array.ndim))
    expected = expected.reshape(lengths["z"] if "z" in names else 1, -1, 40, 33)
    for k, plane in enumerate(expected):
        with open_image(path, series=k) as image:
            assert image.by_region and image.pixel_size_nm == pytest.approx((20.0, 25.0))
            np.testing.assert_array_equal(image.read(), plane)
            np.testing.assert_array_equal(image.read(slice(5, 31), slice(30, 33)), plane[:, 5:31, 30:33])


def test_the_pixel_size_is_the_product_of_the_scales_and_is_never_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", numbers(5, 6), "yx", scale=[0.5, 2.0], units={"y": "nanometer", "x": "nm"})
    attributes = json.loads((path / ".zattrs").read_text())
    whole = [{"type": "scale", "scale": [100.0, 10.0]}, {"type": "translation", "translation": [7.0, 7.0]}]
    attributes["multiscales"][0]["coordinateTransformations"] = whole
    (path / ".zattrs").write_text(json.dumps(attributes))
    assert read_image(path).pixel_size_nm == (50.0, 20.0)
    image = read_image(write(tmp_path / "b.zarr", numbers(5, 6), "yx", units={}))
    assert image.pixel_size_nm is None and "no unit" in image.metadata["notes"][0]


def test_absent_chunks_are_reported(tmp_path: Path) -> None:
    array = numbers(20, 20)
    path = write(tmp_path / "a.zarr", array, "yx", chunk_key_encoding={"name": "v2", "separator": "/"})
    shutil.rmtree(path / "0" / "0")
    image = read_image(path)
    assert not image.array[0, :8].any() and np.array_equal(image.array[0, 8:], array[8:])
    assert image.metadata["notes"][0].startswith("3 of 9 chunks are not in the folder")


def test_collections_and_plates(tmp_path: Path) -> None:
    arrays = [numbers(5, 6) for _ in range(3)]
    collection = tmp_path / "series.zarr"
    for k, array in enumerate(arrays):
        write(collection / str(k), array, "yx")
    (collection / ".zgroup").write_text('{"zarr_format": 2}')
    (collection / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
    assert [each.name for each in list_series(collection)] == ["0", "1", "2"]
    np.testing.assert_array_equal(read_image(collection, series="2").array[0], arrays[2])
    (collection / "1" / ".zattrs").write_text("{")
    found = list(read_series(collection))
    assert [image.series for image in found] == ["0", "2"] and "1" in found[0].metadata["left_out"]
    plate = tmp_path / "plate.zarr"
    for well in ("A/1", "B/2"):
        for field in range(2):
            write(plate / well / str(field), arrays[field], "yx")
        (plate / well / ".zgroup").write_text('{"zarr_format": 2}')
        (plate / well / ".zattrs").write_text(json.dumps({"well": {"images": [{"path": "0"}, {"path": "1"}]}}))
    (plate / ".zgroup").write_text('{"zarr_format": 2}')
    (plate / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}))
    assert [each.name for each in list_series(plate)] == ["A/1/0", "A/1/1", "B/2/0", "B/2/1"]
    shutil.rmtree(plate / "A" / "1" / "1" / "0")
    found = list(read_series(plate))
    assert [image.series for image in found] == ["A/1/0", "B/2/0", "B/2/1"]
    assert "missing" in found[0].metadata["left_out"]["A/1/1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compressor": {"id": "pickle"}}, "'pickle', which is not supported"),
        ({"filters": [{"id": "json2"}]}, "'json2', which is not supported"),
        ({"shape": [2**20, 2**20], "chunks": [2**20, 2**20]}, "chunks of .* too large"),
        ({"shape": [2**30, 2**30]}, "far too large"),
        ({"dtype": "|O"}, "."),
        ({"dtype": "<c8", "fill_value": None}, "complex64"),
        ({"shape": [0, 6]}, "empty"),
    ],
)
def test_arrays_that_must_not_be_read(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = write(tmp_path / "a.zarr", numbers(5, 6), "yx")
    metadata = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(json.dumps(metadata | change))
    for read in (list_series, read_image):
        with pytest.raises(ImageReadError, match=words):
            read(path)


def test_a_chunk_that_unpacks_beyond_its_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", numbers(8, 8), "yx", compressors=[numcodecs.GZip()])
    (path / "0" / "0.0").write_bytes(gzip.compress(bytes(2**27)))
    with pytest.raises(ImageReadError, match="larger than its"):
        read_image(path)


def test_codecs_in_shards_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", numbers(16, 16), "yx", version="0.5", chunks=(8, 8), shards=(16, 16))
    text = (path / "0" / "zarr.json").read_text()
    (path / "0" / "zarr.json").write_text(text.replace('"zstd"', '"numcodecs.pickle"'))
    with pytest.raises(ImageReadError, match="numcodecs.pickle"):
        read_image(path)


def test_paths_that_lead_out_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "other", numbers(5, 6), "yx")
    path = write(tmp_path / "a.zarr", numbers(5, 6), "yx")
    for name in ("../other/0", "/etc", "C:\\0", ".."):
        attributes = json.loads((path / ".zattrs").read_text())
        attributes["multiscales"][0]["datasets"][0]["path"] = name
        (path / ".zattrs").write_text(json.dumps(attributes))
        with pytest.raises(ImageReadError, match="not in the folder"):
            read_image(path)


def test_folders_are_recognised_by_what_is_in_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", numbers(5, 6), "yx")
    renamed = path.rename(tmp_path / "a")
    assert is_image_folder(renamed) and read_image(renamed).array.shape == (1, 5, 6)
    (tmp_path / "empty.zarr").mkdir()
    assert is_image_folder(tmp_path / "empty.zarr") and not is_image_folder(tmp_path)
    with pytest.raises(ImageReadError, match="no Zarr metadata"):
        read_image(tmp_path / "empty.zarr")
    (tmp_path / "b.zarr").write_bytes(b"x")
    with pytest.raises(ImageReadError, match="not the folder"):
        read_image(tmp_path / "b.zarr")
    zarr.create_array(tmp_path / "plain.zarr", shape=(5, 6), dtype="u1")
    with pytest.raises(ImageReadError, match="without OME metadata"):
        read_image(tmp_path / "plain.zarr")
    with pytest.raises(ImageReadError, match="is a folder"):
        read_image(tmp_path)


def test_a_folder_that_is_an_image_is_found_as_one_file(tmp_path: Path) -> None:
    for name in ("a.ome.zarr", "sub/b"):
        write(tmp_path / name, numbers(5, 6), "yx")
    (tmp_path / "c.oif.files").mkdir()
    (tmp_path / "c.oif.files" / "s_C001.tif").write_bytes(b"x")
    (tmp_path / "d.tif").write_bytes(b"x")

    def paths(pattern: Path) -> list[str]:
        found = find_images(pattern)
        assert not found.skipped
        return [image.path for image in found.images]

    assert paths(tmp_path) == ["a.ome.zarr", "d.tif", "sub/b"]
    assert paths(tmp_path / "*.zarr") == paths(tmp_path / "a.ome.zarr") == ["a.ome.zarr"]
    assert paths(tmp_path / "**" / "b") == ["sub/b"]


def test_a_change_in_the_folder_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", numbers(5, 6), "yx")
    stamp, name = file_stamp(path), file_id(path)
    assert (stamp, name) == (file_stamp(path), file_id(path))
    chunk = max((each for each in (path / "0").rglob("*") if each.is_file()), key=lambda each: each.stat().st_size)
    chunk.write_bytes(chunk.read_bytes() + b"x")
    assert file_stamp(path) != stamp and file_id(path) != name
