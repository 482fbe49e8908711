"""Search for places: the best rectangles, their coordinates, and files for Fiji and napari."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from stedfm_hf.discovery.index import index, open_index
from stedfm_hf.discovery.search import places as places_module
from stedfm_hf.discovery.search import search
from stedfm_hf.discovery.search.places import separate_maxima, similarity_map, window_similarity
from stedfm_hf.runs import UserError
from tests.discovery.helpers import write_image, write_images, write_model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    write_model(folder / "model")
    write_images(folder / "images", count=2)
    write_image(folder / "images" / "a" / "field.tif", 50, (100, 130))
    index(folder / "images", output=folder / "index", patches=True, model=folder / "model", device="cpu")
    return folder


def found(world: Path, output: Path, query: str | Path | None = None, **options: Any) -> pd.DataFrame:
    index, model = world / "index", world / "model"
    return search(index, query, output=output, model=model, device="cpu", **options).table.to_pandas()


def boxes(table: pd.DataFrame) -> np.ndarray:
    return table[["y_px", "x_px", "height_px", "width_px"]].to_numpy()


def test_places_have_the_size_of_the_query_and_do_not_overlap(world: Path, tmp_path: Path) -> None:
    table = found(world, tmp_path / "out", "a/field.tif", box=(16, 24, 24, 16), count=15)
    assert len(table) == 15 and table["score"].is_monotonic_decreasing
    assert set(table["height_px"]) <= {16.0, 12.0} and set(table["width_px"]) <= {24.0, 18.0}  # cut at the border
    for _, rows in table.groupby("path"):
        for one in range(len(rows)):
            for other in range(one):
                y, x = np.abs(boxes(rows)[one, :2] - boxes(rows)[other, :2])
                assert y >= 16 or x >= 24
    own = boxes(table[table["path"] == "a/field.tif"])
    assert len(own) and all(y >= 40 or y + h <= 24 or x >= 40 or x + w <= 16 for y, x, h, w in own)
    excluded = found(world, tmp_path / "source", "a/field.tif", box=(16, 24, 24, 16), exclude="source", count=4)
    assert "a/field.tif" not in set(excluded["path"])


def test_coordinates_are_in_pixels_and_micrometres(world: Path, tmp_path: Path) -> None:
    table = found(world, tmp_path / "out", "a/a0.tif", box=(8, 8, 16, 16), count=4)
    np.testing.assert_allclose(table["y_um"], table["y_px"] * 0.02)
    np.testing.assert_allclose(table["width_um"], table["width_px"] * 0.02)
    np.save(tmp_path / "plain.npy", np.random.default_rng(0).random((64, 64)))
    index(tmp_path / "plain.npy", output=tmp_path / "index", patches=True, model=world / "model", device="cpu")
    result = search(tmp_path / "index", "plain.npy", output=tmp_path / "plain", box=(0, 0, 16, 16), count=4)
    assert result.table["y_um"].null_count == len(result.table) > 0


def test_the_score_of_a_place_is_the_whitened_cosine_of_the_mean_of_its_patches(world: Path) -> None:
    opened = open_index(world / "index")
    number = opened.items["path"].to_pylist().index("a/field.tif")
    query = np.random.default_rng(0).normal(size=32)
    z = opened.standardiser(opened.embeddings(number))
    for window in ((1, 1), (2, 3), (3, 2), (13, 17)):
        values = window_similarity(opened, query, number, window)
        assert values.shape == (13 - window[0] + 1, 17 - window[1] + 1)
        for row, col in np.ndindex(*values.shape):
            mean = z[row : row + window[0], col : col + window[1]].reshape(-1, 32).mean(axis=0)
            one, other = mean @ opened.whitening, query @ opened.whitening
            wanted = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            assert values[row, col] == pytest.approx(wanted, abs=1e-4)
        assert similarity_map(opened, query, number, window).shape == (13, 17)


def test_large_images_are_computed_in_bands(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_index(world / "index")
    number = opened.items["path"].to_pylist().index("a/field.tif")
    query = np.random.default_rng(0).normal(size=32)
    whole = window_similarity(opened, query, number, (3, 4))
    monkeypatch.setattr(places_module, "BAND_VALUES", 1)
    np.testing.assert_allclose(window_similarity(opened, query, number, (3, 4)), whole, atol=1e-5)


def test_a_large_index_is_searched_where_the_best_patches_are(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = found(world, tmp_path / "all", "a/a0.tif", box=(8, 8, 8, 8), count=2)
    monkeypatch.setattr(places_module, "ALL_IMAGES", 2)
    monkeypatch.setattr(places_module, "NEAREST_PATCHES", 20)
    pd.testing.assert_frame_equal(every, found(world, tmp_path / "some", "a/a0.tif", box=(8, 8, 8, 8), count=2))


@pytest.mark.parametrize("seed", range(4))
def test_maxima_are_apart_and_nothing_higher_is_left(seed: int) -> None:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random((20, 30)), 1)
    chosen = separate_maxima(values, 12, (3, 4))
    left = np.ones(values.shape, bool)
    for row, col in chosen:
        assert left[row, col] and np.isclose(values[row, col], values[left].max())
        left[max(0, row - 2) : row + 3, max(0, col - 3) : col + 4] = False
    assert separate_maxima(np.full((2, 2), -np.inf), 3, (1, 1)) == []


@pytest.mark.figures
def test_files_are_read_back(world: Path, tmp_path: Path) -> None:
    roifile = pytest.importorskip("roifile")
    table = found(world, tmp_path / "out", "a/a1.tif", box=(0, 8, 24, 16), count=12)
    rows = table[table["path"] == "a/field.tif"]
    assert len(rows)
    with zipfile.ZipFile(tmp_path / "out" / "rois" / "a" / "field.tif.zip") as archive:
        rois = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()]
    for roi, (_, row) in zip(rois, rows.iterrows(), strict=True):
        assert roi.roitype == roifile.ROI_TYPE.RECT and roi.name.startswith(f"{row['rank']:04d}_")
        assert (roi.top, roi.left) == (row["y_px"], row["x_px"])
        assert (roi.bottom - roi.top, roi.right - roi.left) == (row["height_px"], row["width_px"])
    points = pd.read_csv(tmp_path / "out" / "points" / "a" / "field.tif.csv")
    assert list(points)[:3] == ["index", "axis-0", "axis-1"] and points["rank"].tolist() == rows["rank"].tolist()
    np.testing.assert_allclose(points["axis-0"], rows["y_px"] + rows["height_px"] / 2 - 0.5)
    with tifffile.TiffFile(tmp_path / "out" / "maps" / "a" / "field.tif.similarity.tif") as tiff:
        metadata = tiff.imagej_metadata
        values = tiff.asarray()
        resolution = tiff.pages.first.tags["XResolution"].value
    assert values.shape == (13, 17) and values.dtype == np.float32 and metadata is not None
    assert metadata["unit"] == "um" and resolution[1] / resolution[0] == pytest.approx(8 * 0.02)
    assert values.max() >= rows["score"].max() - 1e-5
    for name in ("contact_sheet.png", "maps/a/field.tif.similarity.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert min(image.size) > 200


def test_without_roifile_the_rest_is_written(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "roifile", None)
    found(world, tmp_path / "out", "a/a1.tif", box=(0, 8, 24, 16), count=3, maps=0)
    assert 'pip install "stedfm-hf[discovery]"' in capsys.readouterr().err
    assert not (tmp_path / "out" / "rois").exists() and not (tmp_path / "out" / "maps").exists()
    assert list((tmp_path / "out" / "points").rglob("*.csv"))


def test_a_planted_pattern_is_found(tmp_path: Path, world: Path) -> None:
    """A bright grid in images of noise, planted at known positions."""
    random = np.random.default_rng(0)
    grid = (np.indices((32, 32)) // 2).sum(axis=0) % 2 * 800
    planted = {}
    for number in range(6):
        pixels = random.poisson(50, (96, 96)).astype(np.uint16)
        if number < 4:
            y, x = planted[f"{number}.tif"] = tuple(8 * random.integers(0, 8, 2))
            pixels[y : y + 32, x : x + 32] += grid.astype(np.uint16)
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", pixels)
    index(tmp_path / "images", output=tmp_path / "index", patches=True, model=world / "model", device="cpu")
    y, x = planted["0.tif"]
    result = search(tmp_path / "index", "0.tif", output=tmp_path / "out", box=(x, y, 32, 32), count=3, maps=0)
    positions = {row["path"]: (row["y_px"], row["x_px"]) for row in result.table.to_pylist()}
    assert set(positions) == {"1.tif", "2.tif", "3.tif"}
    for name, position in positions.items():  # within a patch
        assert np.abs(np.subtract(position, planted[name])).max() <= 8


def test_a_whole_image_is_found_as_places_of_its_size(world: Path, tmp_path: Path) -> None:
    new = write_image(tmp_path / "crop.tif", 5, (32, 32))
    table = found(world, tmp_path / "out", new, count=4)
    assert set(table["height_px"]) | set(table["width_px"]) <= {32.0, 28.0, 26.0, 34.0}
    with pytest.raises(UserError, match="not inside the image"):
        found(world, tmp_path / "bad", new, box=(16, 16, 32, 32))
