"""Image sources that the inputs of `embed`, `classify` and `segment` name."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedfm_hf.data.repository.layout import staged_schema
from stedfm_hf.data.sources import find_sources, is_dataset_folder
from stedfm_hf.runs import write_json


def paths(*inputs: Path | str) -> list[str]:
    return [source.path for source in find_sources(inputs)[0]]


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_masks_next_to_their_images_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path, "a.tif", "a_mask.tif", "b_mask.tif", "c_image.tif", "c_mask.png", "c_region.tif", "n.txt")
    sources, skipped = find_sources(folder)
    assert [source.path for source in sources] == ["a.tif", "b_mask.tif", "c_image.tif", "c_region.tif"]
    assert skipped == {".txt": 1, "masks": 2}
    assert "note: skipped 2 masks of the input images, such as " in capsys.readouterr().err
    assert paths(f"{folder}/*_mask.*") == ["a_mask.tif", "b_mask.tif", "c_mask.png"]
    assert paths(folder / "a.tif", folder / "a_mask.tif") == ["a.tif", "a_mask.tif"]
    assert paths(folder, folder / "a_mask.tif")[-1] == "a_mask.tif"
    skipped_file = folder / "c_mask.png"
    assert capsys.readouterr().err == (
        f"stedfm: note: skipped 1 mask of the input images, such as {skipped_file}; to read a mask as an image, give "
        "the path of its file\n"
    )


@pytest.mark.parametrize("masks", ["masks", "labels", "annotations"])
def test_a_mask_folder_next_to_the_image_folder_is_skipped(masks: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "cells", "images/1.tif", f"{masks}/1.tif", f"{masks}/2.tif", "other/1.tif")
    taken = {"images/1.tif", f"{masks}/2.tif", "other/1.tif"}
    assert set(paths(folder)) == taken
    assert set(paths(tmp_path)) == {f"cells/{path}" for path in taken}
    assert paths(folder / masks) == ["1.tif", "2.tif"], "a mask folder given as input is read"
    assert set(paths(folder, folder / masks)) == taken | {"1.tif"}


def test_files_that_differ_in_the_suffix_alone_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path, "a.tif", "a.png", "b.ome.tif", "b.jpg", "c.tif", "x/c.tif")
    assert len(paths(folder)) == 6
    note = "note: 2 files with the name of another image and a different suffix (a.tif and a.png); if these show"
    assert capsys.readouterr().err.count(note) == 1


def test_a_folder_is_a_data_set_by_what_it_holds(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.tif"], "embedding": [[1.0]]})
    images = make(tmp_path / "images", "a.tif", "data/b.tif")
    for name in ("embeddings.parquet", "data/train-00000-of-00001.parquet", ".hidden.parquet"):
        pq.write_table(table, images / name)
    (images / "damaged.parquet").write_bytes(b"PAR1")
    (images / "README.md").write_text("# Images of cells\n\nconfigs: none")
    assert not is_dataset_folder(images)
    assert paths(images) == ["a.tif", "data/b.tif"]
    (images / "README.md").write_text("---\nconfigs:\n- config_name: crops\n---\n")
    assert is_dataset_folder(images)
    only_tables = tmp_path / "tables"
    only_tables.mkdir()
    pq.write_table(table, only_tables / "embeddings.parquet")
    assert is_dataset_folder(only_tables), "the error then names its columns"
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}}}
    pixels = pa.table({"image": [b"x"]}).replace_schema_metadata({"huggingface": json.dumps(features)})
    for folder, stored in (
        (make(tmp_path / "with", "preview.png"), pixels),
        (make(tmp_path / "crops", "x.png"), crops()),
    ):
        pq.write_table(stored, folder / "train.parquet")
        assert is_dataset_folder(folder)
    assert not is_dataset_folder(tmp_path) and not is_dataset_folder(tmp_path / "nowhere")


def crops() -> pa.Table:
    return staged_schema().empty_table()


def test_a_result_folder_with_tables_is_read_as_images(tmp_path: Path) -> None:
    folder = make(tmp_path / "segmented", "a.tif.labels1.tif", "objects.parquet")
    write_json(folder / "manifest.json", {"command": "segment"})
    assert paths(folder) == ["a.tif.labels1.tif"]
