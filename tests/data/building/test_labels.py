"""Labels from folders and tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedfm_hf.data.building.labels import label_files
from stedfm_hf.runs import UserError

PATHS = ["actin/a.tif", "actin/x/b.tif", "tubulin/a.tif", "c.tif"]


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode())
    return path


def test_the_first_folder_is_the_label() -> None:
    found = label_files(PATHS, "folder")
    assert found.labels == {"actin/a.tif": "actin", "actin/x/b.tif": "actin", "tubulin/a.tif": "tubulin"}
    assert "not in a subfolder" in found.missing
    with pytest.raises(UserError, match="no subfolders with images"):
        label_files(["a.tif"], "folder")


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["images/a/1.tif", "masks/a/1.tif"], "holds images and masks, .* INPUT/images as INPUT, .* INPUT/masks"),
        (["Images/1.tif", "Labels/1.tif", "other/1.tif"], "holds Images and Labels, not folders of classes"),
        (["images/a/1.tif", "2.tif"], "holds images, not folders of classes; give INPUT/images as INPUT$"),
    ],
)
def test_folders_of_images_and_masks_are_not_labels(paths: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        label_files(paths, "folder")


def test_folders_that_have_the_name_of_masks_only_are_labels() -> None:
    found = label_files(["labels/1.tif", "masks/1.tif"], "folder")
    assert set(found.labels.values()) == {"labels", "masks"}


def test_a_table_gives_labels_by_path_or_by_unique_file_name(tmp_path: Path) -> None:
    rows = [
        "path,label,by",
        "actin\\a.tif, 007 ,ada",
        "b.tif,x,ada",
        "./c.tif,y,ada",
        "tubulin/a.tif,,ada",
        "no.tif,z,",
    ]
    text = "\ufeff" + "\r\n".join(rows)
    found = label_files(PATHS, table(tmp_path, text))
    assert found.labels == {"actin/a.tif": "007", "actin/x/b.tif": "x", "c.tif": "y"}
    assert found.unused == ("no.tif",)
    assert "no row" in found.missing


def test_a_parquet_table_with_numbers_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"path": PATHS, "label": [3, 3, None, 11]}), path)
    assert label_files(PATHS, path).labels == {"actin/a.tif": "3", "actin/x/b.tif": "3", "c.tif": "11"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\nc.tif,x\n", r"no column path \(its columns are file, label\)"),
        ("", "no column path and no column label"),
        ("path,label\nc.tif,x\nc.tif,y\n", "'c.tif' has two labels"),
        ("path,label\nc.tif,x\na.tif,y\n", r"'a.tif' matches 2 files \(actin/a.tif, tubulin/a.tif\)"),
        ("path,label\n/data/c.tif,x\n", "labels none of the 4 files"),
        ("path,label\n", "labels none of the 4 files"),
        ("path,label\n\x00\x00,\x00\n", "labels none|cannot be read"),
    ],
)
def test_an_invalid_table_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        label_files(PATHS, table(tmp_path, text))


def test_a_row_may_be_repeated(tmp_path: Path) -> None:
    assert label_files(PATHS, table(tmp_path, "path,label\nc.tif,x\nc.tif,x\n")).labels == {"c.tif": "x"}


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet", "labels.xlsx"])
def test_the_message_names_a_table_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=name):
        label_files(PATHS, tmp_path / name)
    (tmp_path / name).write_bytes(b"\xff\xfe\x00PAR1")
    with pytest.raises(UserError, match=name):
        label_files(PATHS, tmp_path / name)
