from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stedfm_hf.discovery.groups.items import folder_columns
from stedfm_hf.discovery.groups.maps import pca_map, umap_map
from stedfm_hf.discovery.groups.morphology import image_features
from stedfm_hf.discovery.index import index, open_index
from stedfm_hf.labels.annotations import read_annotations
from stedfm_hf.runs import UserError
from tests.discovery.helpers import write_images, write_model

PATHS = ["day1/a.tif", "day1/a.tif", "day2/b.tif", "day2/c.tif"]


def write(folder: Path, text: str, name: str = "table.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_matched_by_path_or_unique_name(tmp_path: Path, separator: str) -> None:
    rows = [["path", "condition", "dose"], ["day1/a.tif", "drug", "1.5"], ["b.tif", "control", ""]]
    found = read_annotations(write(tmp_path, "\n".join(map(separator.join, rows))), PATHS)
    assert found["condition"].tolist() == ["drug", "drug", "control", ""]
    np.testing.assert_array_equal(found["dose"], [1.5, 1.5, np.nan, np.nan])


def test_a_name_of_two_files_matches_none_of_them(tmp_path: Path) -> None:
    table = write(tmp_path, "path,condition\na.tif,drug\nb.tif,drug\n")
    assert read_annotations(table, ["x/a.tif", "y/a.tif", "x/b.tif"])["condition"].tolist() == ["", "", "drug"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,condition\na.tif,drug\n", "has no column path"),
        ("path,condition\nz.tif,drug\n", "describes none of the images"),
        ("path,condition\nb.tif,drug\nb.tif,control\n", "two rows for b.tif"),
        ("", "cannot be read"),
    ],
)
def test_a_table_that_does_not_fit_is_explained(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        read_annotations(write(tmp_path, text), PATHS)
    assert "\n" not in str(error.value)


def test_folders_that_differ_are_columns() -> None:
    paths = ["images/train/rings/1.tif", "images/test/rings/2.tif", "images/test/puncta/3.tif"]
    found = folder_columns(paths)
    assert {name: values.tolist() for name, values in found.items()} == {
        "folder 1": ["train", "test", "test"],
        "folder 2": ["rings", "rings", "puncta"],
    }
    assert folder_columns(["1.tif", "2.tif"]) == {}


def test_the_map_has_fixed_signs_and_defined_values() -> None:
    X = np.random.default_rng(0).normal(size=(20, 5))
    found = pca_map(X)
    assert (found[np.abs(found).argmax(axis=0), range(2)] > 0).all()
    assert pca_map(X[:1]).tolist() == [[0, 0]] and (pca_map(np.ones((3, 4))) == 0).all()


def test_morphology_of_images_with_given_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, model = write_images(tmp_path / "images", count=2), write_model(tmp_path / "model")
    index(images, output=tmp_path / "index", model=model, device="cpu")
    opened = open_index(tmp_path / "index")
    for number, path in enumerate(opened.items["path"].to_pylist()):
        mask = np.zeros((40, 48), np.uint8)
        for k in range(number):
            mask[4:10, 10 * k : 10 * k + 5] = 1
        (tmp_path / "masks" / path).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "masks" / path, mask)
    found = image_features(opened, tmp_path / "masks")
    assert found["objects"].tolist() == [0, 1, 2, 3] and found["area"].tolist() == [0, 30, 30, 30]
    assert found["nearest_neighbour"][2] == pytest.approx(10 * 0.02, rel=0.2)
    assert "1 image without objects" in capsys.readouterr().err
    (tmp_path / "masks" / path).unlink()
    with pytest.raises(UserError, match=r"1 image without exactly one mask \(b/b1.tif\)"):
        image_features(opened, tmp_path / "masks")


@pytest.mark.skipif(
    os.environ.get("HYPOTHESIS_PROFILE") != "full", reason="numba compiles for minutes; `make test-thorough` runs it"
)
def test_umap_is_the_same_in_every_run() -> None:
    X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    first = umap_map(X, seed=3)
    assert first.shape == (40, 2) and np.array_equal(first, umap_map(X, seed=3))
    assert np.array_equal(umap_map(X[:3]), pca_map(X[:3]))
