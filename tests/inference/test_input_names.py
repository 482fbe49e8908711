"""Names of inputs that have stopped commands: masks, tables and results in the folder, long names, bytes, brackets."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

from stedfm_hf import StedFmForImageClassification, StedFmForSemanticSegmentation
from stedfm_hf.cli import main
from tests.models import tiny_config

CLASSES = {0: "background", 1: "rings"}


def field(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(50, (40, 48)).astype(np.uint16)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "segmenter"
    StedFmForSemanticSegmentation(tiny_config(decoder="linear", id2label=CLASSES)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "classifier"
    StedFmForImageClassification(tiny_config(id2label=CLASSES)).save_pretrained(folder)
    return folder


def paths_of(table: str | Path) -> list[str]:
    return list(dict.fromkeys(pq.read_table(table)["path"].to_pylist()))


def test_all_commands_run_in_the_folder_of_the_images_twice(
    segmenter: Path,
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("a0", "a1"):
        tifffile.imwrite(tmp_path / f"{name}.tif", field())
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["embed", ".", "--model", str(segmenter)]) == 0
        assert main(["segment", ".", "--model", str(segmenter)]) == 0
        assert main(["classify", ".", "--model", str(classifier), "--maps", "maps"]) == 0
        out = capsys.readouterr().out
        assert out.count("2 rows from 2 files") == 2 and "in 2 fields from 2 files" in out
    assert main(["embed", ".", "--model", str(segmenter), "--output", "again.parquet"]) == 0
    assert "skipped 1 folder and 4 files with results of stedfm, such as segmented" in capsys.readouterr().err
    for table in ("embeddings.parquet", "segmented/fields.parquet", "classes.parquet", "again.parquet"):
        assert paths_of(table) == ["a0.tif", "a1.tif"]
    assert main(["segment", "maps", "--model", str(segmenter), "--output", "of_maps", "--series", "all"]) == 0


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/c{}.ome.tif", "masks/c{}.tif"),
        ("c{}.ome.tif", "c{}_mask.ome.tif"),
        ("c{}.ome.tif", "c{}_mask.tif"),
        ("c{}.tif", "c{}_cp_masks.tif"),
        ("c{}.tif", "c{}_seg.npy"),
    ],
)
def test_masks_are_neither_embedded_nor_segmented(image: str, mask: str, segmenter: Path, tmp_path: Path) -> None:
    for number in range(2):
        for pattern in (image, mask):
            file = tmp_path / "in" / pattern.format(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".npy":
                np.save(file, np.array({"masks": field()}, dtype=object), allow_pickle=True)
            else:
                tifffile.imwrite(file, field(number))
    model, table, folder = ["--model", str(segmenter)], tmp_path / "e.parquet", tmp_path / "out"
    assert main(["embed", str(tmp_path / "in"), *model, "--output", str(table)]) == 0
    assert main(["segment", str(tmp_path / "in"), *model, "--output", str(folder)]) == 0
    assert paths_of(table) == paths_of(folder / "fields.parquet") == [image.format(number) for number in range(2)]


def test_a_name_too_long_for_the_results_fails_alone(
    segmenter: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "m" * 236 + ".tif"
    for name in ("a.tif", long, "z.tif"):
        tifffile.imwrite(tmp_path / name, field())
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["segment", str(tmp_path), "--model", str(segmenter), "--output", str(out)]) == 1
        assert (
            "the file name would have 259 bytes, above the limit of 255; rename the input" in capsys.readouterr().err
        )
        assert paths_of(out / "fields.parquet") == ["a.tif", "z.tif"]
    assert not list(out.glob("mm*")) and not list(out.glob(".*.tmp.*"))
    table, model = tmp_path / "c.parquet", ["--model", str(classifier)]
    maps = ["--maps", str(tmp_path / "maps")]
    assert main(["classify", str(tmp_path), *model, "--output", str(table)]) == 0
    assert main(["embed", str(tmp_path), *model, "--output", str(tmp_path / "e.parquet")]) == 0
    assert len(paths_of(table)) == 3
    longer = tmp_path / ("n" * 248 + ".tif")
    tifffile.imwrite(longer, field())
    assert main(["classify", str(tmp_path), *model, *maps, "--output", str(tmp_path / "d.parquet")]) == 1
    assert paths_of(tmp_path / "d.parquet") == ["a.tif", long, "z.tif"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems store names as Unicode")
def test_names_that_are_not_text_reach_every_table(
    segmenter: Path, classifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, name in enumerate((b"caf\xe9.tif", b"a\nb.tif", "日本.tif".encode())):
        tifffile.imwrite(folder / os.fsdecode(name), field(seed))
    (folder / os.fsdecode(b"bad\xe9.tif")).write_bytes(b"II*\0broken")
    good, bad = [r"a\x0ab.tif", r"caf\xe9.tif", "日本.tif"], r"bad\xe9.tif"
    segment = ["segment", "--model", str(segmenter), "--output", str(tmp_path / "s")]
    embed = ["embed", "--model", str(segmenter), "--output", str(tmp_path / "e.parquet")]
    table = ["embed", "--model", str(segmenter), "--output", str(tmp_path / "e.csv")]
    classify = ["classify", "--model", str(classifier), "--output", str(tmp_path / "c.parquet")]
    maps = ["--maps", str(tmp_path / "maps")]
    for words in (segment, embed, table, [*classify, *maps]):
        assert main([*words, str(folder)]) == 1
        error = capfd.readouterr().err
        assert error.count("error: ") == 1 and rf"error: {bad}: " in error
        assert main([*words, str(folder), "--json"]) == 1
        json.loads(capfd.readouterr().out)
    for path in (tmp_path / "s" / "fields.parquet", tmp_path / "e.parquet", tmp_path / "c.parquet"):
        assert paths_of(path) == good
    for record in (tmp_path / "s" / "manifest.json", tmp_path / "e.parquet.manifest.json"):
        items = json.loads(record.read_text(encoding="utf-8"))["items"]
        assert set(items) == {*good, bad} and items[bad]["state"] == "failed"
        assert items[bad]["reason"].startswith(f"{bad}: ")
    assert (tmp_path / "s" / r"caf\xe9.tif.labels1.tif").exists()
    assert (tmp_path / "maps" / r"a\x0ab.tif.map1.tif").exists()
    output = ["--output", str(tmp_path / "set"), "--crop-size", "32", "--min-foreground", "0", "--keep-names"]
    assert main(["data", "build", str(folder), *output, "--workers", "1"]) == 1
    assert rf"error: {bad}: " in capfd.readouterr().err
    rows = [row for file in (tmp_path / "set" / "data").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert {row["source"] for row in rows} == set(good)
    assert main(["info", *map(str, sorted(folder.iterdir()))]) == 1
    shown = capfd.readouterr()
    assert r"caf\xe9.tif" in shown.out and r"bad\xe9.tif" in shown.err and r"a\x0ab.tif" in shown.out


@pytest.mark.skipif(sys.platform != "linux", reason="other systems store names as Unicode")
def test_folders_that_are_not_text(
    segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for seed in range(3):
        for kind, array in (("images", field(seed)), ("masks", (field(seed) > 50).astype(np.uint8))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / kind / os.fsdecode(b"n\xe9%d.tif" % seed), array)
    evaluate = ["evaluate", "segmentation", "--dataset", str(folder), "--folds", "2", "--baselines", "otsu"]
    assert main([*evaluate, "--output", str(tmp_path / "evaluated")]) == 0
    page = (tmp_path / "evaluated" / "report.html").read_text(encoding="utf-8")
    assert r"caf\xe9" in page
    embed = ["embed", "--model", str(segmenter), str(folder)]
    assert main([*embed, "--output", str(tmp_path / "e.parquet")]) == 0
    assert paths_of(tmp_path / "e.parquet") == [rf"images/n\xe9{seed}.tif" for seed in range(3)]
    capfd.readouterr()
    monkeypatch.chdir(folder)
    assert main(embed) == 2
    assert "embeddings.parquet: the path is not UTF-8 text; choose another output" in capfd.readouterr().err


def test_a_data_set_is_embedded_in_its_folder_twice_and_brackets_are_named(
    segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", field())
    options = ["--crop-size", "32", "--min-foreground", "0", "--workers", "1", "--validation", "0", "--test", "0"]
    assert main(["data", "build", str(tmp_path), "--output", str(tmp_path / "set"), *options]) == 0
    monkeypatch.chdir(tmp_path / "set")
    for _ in range(2):
        assert main(["embed", ".", "--model", str(segmenter)]) == 0
        assert "4 rows from 4 files" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").rename(tmp_path / "set [1]")
    assert main(["embed", "set [1]", "--model", str(segmenter), "--output", "x.parquet"]) == 2
    assert "set [1]: the path of a data set must not contain [; rename the folder" in capsys.readouterr().err
    # The index file names the shards: no pattern is matched.
    words = ["finetune", "segmentation", "--dataset", "set [1]", "--model", str(segmenter), "--output", "x"]
    assert main(words) == 2
    assert "set [1]: no image has a readable mask (4 without a mask" in capsys.readouterr().err


def test_brackets_and_dashes(segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp [1]").mkdir()
    tifffile.imwrite(tmp_path / "exp [1]" / "slide [x=0,y=0,w=80,h=96].tif", field())
    tifffile.imwrite(tmp_path / "-a.tif", field())
    common = ["--model", str(segmenter)]
    assert main(["embed", *common, "--output", "e.parquet", "exp [1]/*.tif"]) == 0
    assert main(["segment", *common, "--output", "s", "exp [1]/*.tif"]) == 0
    assert paths_of("e.parquet") == paths_of("s/fields.parquet") == ["slide [x=0,y=0,w=80,h=96].tif"]
    assert main(["embed", *common, "--output", "d.parquet", "--", "-a.tif"]) == 0
    assert paths_of("d.parquet") == ["-a.tif"]
    build = ["data", "build", "exp [1]/*.tif", "--output", "set", "--crop-size", "32", "--min-foreground", "0"]
    assert main([*build, "--workers", "1"]) == 0
