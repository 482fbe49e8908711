"""Large files are read by region: the results are those of the same images read as a whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from stedfm_hf import StedFmConfig, StedFmForImageClassification, StedFmForSemanticSegmentation
from stedfm_hf.images import ImageReadError, read_image, regions
from stedfm_hf.inference import classify, embed, segment, source_batches

TINY = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A tiled field of two channels, a stack, and an array, of sizes that no tile divides."""
    rng, folder = np.random.default_rng(0), tmp_path / "images"
    folder.mkdir()
    field = rng.integers(0, 60000, (2, 75, 90)).astype(np.uint16)
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.02, "PhysicalSizeY": 0.02}
    tifffile.imwrite(folder / "a.ome.tif", field, tile=(32, 32), compression="zlib", metadata=metadata)
    tifffile.imwrite(folder / "b.tif", rng.integers(0, 9000, (3, 41, 50)).astype(np.int16), imagej=True)
    np.save(folder / "c.npy", rng.normal(size=(33, 70)).astype(np.float32))
    return folder


def by_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "LARGE_BYTES", 1)
    monkeypatch.setattr(regions, "_BLOCK_BYTES", 3000)
    monkeypatch.setattr(source_batches, "LARGE", 1)


def test_tables_are_equal(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    StedFmForImageClassification(StedFmConfig(**TINY, num_labels=2)).save_pretrained(model)
    tables: dict[str, list[Any]] = {"embed": [], "patch": [], "classify": []}
    for name in ("whole", "region"):
        if name == "region":
            by_region(monkeypatch)
        options: dict[str, Any] = {"model": model, "device": "cpu"}
        tables["embed"].append(embed(images, output=tmp_path / f"{name}.parquet", **options).table)
        tables["patch"].append(embed(images, output=tmp_path / f"{name}-p.parquet", pooling="patch", **options).table)
        maps = tmp_path / f"{name}-maps"
        tables["classify"].append(classify(images, output=tmp_path / f"{name}-c.parquet", maps=maps, **options).table)
    assert tables["embed"][0].num_rows == 2 + 3 + 1
    for whole, region in tables.values():
        assert whole.equals(region)
    written = sorted(path.name for path in (tmp_path / "whole-maps").rglob("*.tif"))
    assert len(written) == 6
    for path in (tmp_path / "whole-maps").rglob("*.tif"):
        np.testing.assert_array_equal(tifffile.imread(path), tifffile.imread(tmp_path / "region-maps" / path.name))


def test_masks_are_equal(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = StedFmConfig(**TINY, decoder="linear", id2label={0: "background", 1: "rings"})
    StedFmForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    folders = [tmp_path / "whole", tmp_path / "region"]
    for folder in folders:
        if folder.name == "region":
            by_region(monkeypatch)
        segment(images, folder, model=tmp_path / "model", device="cpu", series="all")
    files = sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*.tif"))
    assert len(files) == 3 * 6
    for file in files:
        whole, region = (tifffile.imread(folder / file) for folder in folders)
        np.testing.assert_array_equal(whole, region)
    for name in ("fields.parquet", "objects.parquet"):
        assert pq.read_table(folders[0] / name).equals(pq.read_table(folders[1] / name))


def test_the_pixels_of_a_large_file_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.zeros((3000, 2000), np.uint16)
    array[::7] = 500
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(256, 256), compression="zlib")
    monkeypatch.setattr(regions, "LARGE_BYTES", 1)
    monkeypatch.setattr(regions, "_BLOCK_BYTES", 2**20)
    tracemalloc.start()
    (image,) = regions.read_large(tmp_path / "a.tif")
    total = sum(int(image.array[:, top : top + 100].sum()) for top in range(0, 3000, 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == int(array.sum()) and peak < array.nbytes / 2
    np.testing.assert_array_equal(np.asarray(image.array), read_image(tmp_path / "a.tif").array)


def test_a_wrong_series_or_channel_names_the_large_file(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_region(monkeypatch)
    for wanted in ({"series": "nope"}, {"channel": "nope"}):
        with pytest.raises(ImageReadError, match=r"a\.ome\.tif: .*'nope'"):
            list(regions.read_large(images / "a.ome.tif", **wanted))


def test_a_file_that_is_damaged_in_the_middle_fails_alone(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = images / "a.ome.tif"
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages.first.dataoffsets[4], tif.pages.first.databytecounts[4]
    data = bytearray(path.read_bytes())
    data[start : start + count] = bytes(count)
    path.write_bytes(data)
    by_region(monkeypatch)
    StedFmForImageClassification(StedFmConfig(**TINY, num_labels=2)).save_pretrained(tmp_path / "model")
    result = embed(images, model=tmp_path / "model", output=tmp_path / "e.parquet", device="cpu")
    assert set(result.manifest.failures()) == {"a.ome.tif"}
    assert result.table["path"].to_pylist() == ["b.tif"] * 3 + ["c.npy"]


def test_rows_of_a_large_image_show_progress(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    StedFmForImageClassification(StedFmConfig(**TINY, num_labels=2)).save_pretrained(tmp_path / "model")
    options: dict[str, Any] = {"model": tmp_path / "model", "output": tmp_path / "e.parquet", "device": "cpu"}
    embed(images / "c.npy", **options)
    assert "rows" not in capsys.readouterr().err
    monkeypatch.setattr(source_batches, "LARGE", 1)
    embed(images / "c.npy", overwrite=True, **options)
    assert "c.npy: 33/33 rows" in capsys.readouterr().err
