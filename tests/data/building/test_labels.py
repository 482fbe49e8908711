"""Labels from folders and tables."""

from __future__ import annotations

import unicodedata
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


WANTED = {"actin/a.tif": "007", "actin/x/b.tif": "thin, long", "c.tif": "µ"}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".CSV"])
@pytest.mark.parametrize(
    ("encoding", "start"),
    [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("cp1252", ""), ("utf-8-sig", "sep={}\r\n")],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "header", ["path{0}label{0}n", " Path {0} LABEL{0}", '"path"{0}"label"{0}"n"', "n{0}label{0}Path"]
)
def test_tables_as_spreadsheets_write_them(
    suffix: str, encoding: str, start: str, separator: str, header: str, tmp_path: Path
) -> None:
    rows = [("actin\\a.tif", "007"), ("b.tif", '"thin, long"'), (".\\c.tif", "µ")]
    swapped = header.startswith("n")
    lines = [separator.join(["1", *row[::-1]] if swapped else [*row, "1"]) for row in rows]
    text = start.format(separator) + "\r\n".join([header.format(separator), *lines, ""])
    path = tmp_path / f"labels{suffix}"
    path.write_bytes(text.encode(encoding))
    assert label_files(PATHS, path).labels == WANTED


def test_a_table_with_absolute_paths_and_other_unicode_forms(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "Zürich.tif")
    files = {f"actin/{name}": tmp_path / "in" / "actin" / name, "c.tif": tmp_path / "in" / "c.tif"}
    rows = f"path,label\nactin/Zürich.tif,x\n{tmp_path}/in/c.tif,y\n/elsewhere/c.tif,z\n"
    found = label_files(files, table(tmp_path, rows))
    assert found.labels == {f"actin/{name}": "x", "c.tif": "y"}
    assert found.unused == ("/elsewhere/c.tif",)


def test_rows_may_lack_or_repeat_empty_cells(tmp_path: Path) -> None:
    text = "path;label;note\nc.tif;x\n\nactin/a.tif;y;;;\nb.tif\n"
    assert label_files(PATHS, table(tmp_path, text)).labels == {"c.tif": "x", "actin/a.tif": "y"}


def test_a_spreadsheet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match="is a spreadsheet; save it as CSV"):
        label_files(PATHS, tmp_path / "labels.xlsx")


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
        ("path,Path,label\nc.tif,c.tif,x\n", "has two columns path; remove one"),
        ("path;label;note\nc.tif;x;1;2\n", "row 2 has 4 cells and the header has 3; put cells"),
        ("c.tif,x\na.tif,y\n", r"no column path and no column label \(its columns are c.tif, x\)"),
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
