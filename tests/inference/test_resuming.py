"""What a second run does with files that have been replaced, or are gone, since the first."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stedfm_hf import StedFmForImageClassification, StedFmForSemanticSegmentation, StedFmModel
from stedfm_hf.inference import classify, embed, segment
from stedfm_hf.inference.field_task import FieldTask
from stedfm_hf.inference.preparation import Preparation
from stedfm_hf.runs import ItemStatus, Manifest
from tests.models import tiny_config


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(root / "embed")
    labels = tiny_config(id2label={0: "rings", 1: "fibres"})
    StedFmForImageClassification(labels).save_pretrained(root / "classify")
    masks = tiny_config(decoder="linear", target_type="multi_label", id2label={0: "actin", 1: "tubulin"})
    StedFmForSemanticSegmentation(masks).save_pretrained(root / "segment")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, name in enumerate("abc"):
        put(tmp_path / "images" / f"{name}.npz", number, planes=3)
    return tmp_path / "images"


def put(file: Path, seed: int, planes: int = 1, shape: tuple[int, int] = (40, 36)) -> None:
    """Write a file of some planes; one that replaces another is an hour younger."""
    again = file.stat().st_mtime if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    pixels: dict[str, Any] = {f"z{plane}": random.random(shape, np.float32) for plane in range(planes)}
    np.savez(file, **pixels)
    if again is not None:
        os.utime(file, (again + 3600, again + 3600))


def without_stamps(manifest: Path) -> None:
    """Make a manifest as versions before stamps wrote them."""
    record = json.loads(manifest.read_text(encoding="utf-8"))
    for status in record["items"].values():
        assert status.pop("size") > 0 and status.pop("modified") > 0
    manifest.write_text(json.dumps(record), encoding="utf-8")


def by_segment(images: Path, out: Path, models: Path, **options: Any) -> Manifest:
    return segment(images, out, model=models / "segment", device="cpu", series="all", **options).manifest


def counting(monkeypatch: pytest.MonkeyPatch, owner: type, stop_at: int | None = None) -> list[str]:
    """Names what is worked on from now on, and stops the run where it is told to."""
    work: Any = owner.__call__
    done: list[str] = []

    def count(self: Any, one: Any, *rest: Any) -> Any:
        if len(done) == stop_at:
            raise KeyboardInterrupt
        done.append(rest[0] if rest else one.path)
        return work(self, one, *rest)

    monkeypatch.setattr(owner, "__call__", count)
    return done


def test_a_replaced_file_is_segmented_anew_with_rows_and_maps(
    models: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    by_segment(images, out, models)
    before = (out / "b.npz.labels3.tif").read_bytes()
    (out / "a.npz.notes1.tif").touch()
    put(images / "a.npz", 10)
    put(images / "c.npz", 11, planes=2, shape=(32, 40))
    done = counting(monkeypatch, FieldTask)
    assert by_segment(images, out, models).exit_status == 0
    assert done == ["a.npz", "c.npz", "c.npz"]
    assert "stedfm: 2 files have changed and are processed again: a.npz, c.npz\n" in capsys.readouterr().err
    by_segment(images, tmp_path / "fresh", models)
    for table in ("fields.parquet", "objects.parquet"):
        found, expected = (pd.read_parquet(folder / table) for folder in (out, tmp_path / "fresh"))
        found = found.sort_values("path", kind="stable", ignore_index=True)
        pd.testing.assert_frame_equal(found, expected)
    fresh = {file.name: file.read_bytes() for file in (tmp_path / "fresh").glob("*.npz.*")}
    assert {file.name: file.read_bytes() for file in out.glob("*.npz.*")} == {**fresh, "a.npz.notes1.tif": b""}
    assert (out / "b.npz.labels3.tif").read_bytes() == before
    del done[:]
    capsys.readouterr()
    by_segment(images, out, models)
    assert not done and "changed" not in capsys.readouterr().err


@pytest.mark.parametrize("stop_at", [2, 4])
def test_planes_of_a_stopped_run_are_of_the_file_as_it_was(
    stop_at: int, models: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        counting(patch, FieldTask, stop_at)
        with pytest.raises(KeyboardInterrupt):
            by_segment(images, tmp_path / "out", models)
    put(images / "a.npz", 10, planes=2)
    done = counting(monkeypatch, FieldTask)
    by_segment(images, tmp_path / "out", models)
    assert done.count("a.npz") == 2 and len(done) == (8 if stop_at == 2 else 7)
    by_segment(images, tmp_path / "fresh", models)
    files = {file.name for file in (tmp_path / "fresh").iterdir()}
    assert {file.name for file in (tmp_path / "out").iterdir()} == files
    for name in files - {"manifest.json"}:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes(), name


def test_a_file_that_can_no_longer_be_read_loses_its_rows(models: Path, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "emb.parquet"
    embed(images, model=models / "embed", output=output)
    by_segment(images, tmp_path / "out", models)
    (images / "a.npz").write_bytes(b"PK")
    assert by_segment(images, tmp_path / "out", models).exit_status == 1
    assert set(pd.read_parquet(tmp_path / "out" / "fields.parquet")["path"]) == {"b.npz", "c.npz"}
    assert not list((tmp_path / "out").glob("a.npz.*"))
    result = embed(images, model=models / "embed", output=output)
    assert result.manifest.exit_status == 1 and set(result.table["path"].to_pylist()) == {"b.npz", "c.npz"}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_replaced_file_is_embedded_anew(
    stopped: bool,
    suffix: str,
    models: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, output = models / "embed", tmp_path / f"emb.{suffix}"
    monkeypatch.setattr("stedfm_hf.inference.stepwise.CHUNK", 2)
    monkeypatch.setattr("stedfm_hf.inference.source_batches.AHEAD", (1, 2**20))
    if stopped:
        with monkeypatch.context() as patch:
            counting(patch, Preparation, stop_at=2)
            with pytest.raises(KeyboardInterrupt):
                embed(images, model=model, output=output, workers=1)
    else:
        embed(images, model=model, output=output)
    put(images / "b.npz", 10)
    done = counting(monkeypatch, Preparation)
    result = embed(images, model=model, output=output)
    assert sorted(done) == (["b.npz", "c.npz"] if stopped else ["b.npz"])
    assert "stedfm: 1 file has changed and is processed again: b.npz\n" in capsys.readouterr().err
    fresh: Any = embed(images, model=model).table.to_pandas()
    found: Any = result.table.to_pandas().sort_values("path", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(found, fresh)
    assert found["path"].tolist() == ["a.npz"] * 3 + ["b.npz"] + ["c.npz"] * 3
    del done[:]
    embed(images, model=model, output=output)
    assert not done


def test_a_replaced_file_is_classified_anew_with_its_maps(models: Path, images: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": models / "classify", "output": tmp_path / "t.csv", "maps": tmp_path / "maps"}
    classify(images, **options)
    assert len(list((tmp_path / "maps").glob("a.npz.map*"))) == 6
    put(images / "a.npz", 10)
    table = classify(images, **options).table
    assert sorted(table["path"].to_pylist()) == ["a.npz"] + ["b.npz"] * 3 + ["c.npz"] * 3
    assert sorted(file.name for file in (tmp_path / "maps").glob("a.npz.*")) == ["a.npz.map1.png", "a.npz.map1.tif"]
    assert len(list((tmp_path / "maps").iterdir())) == 14


def test_what_a_killed_process_was_writing_is_removed(models: Path, images: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in (".a.npz.map1.0123abcd.tmp.tif", ".notes.tmp.txt", "a.tif"):
        (maps / name).touch()
    classify(images, model=models / "classify", output=tmp_path / "t.csv", maps=maps)
    assert not (maps / ".a.npz.map1.0123abcd.tmp.tif").exists()
    assert (maps / ".notes.tmp.txt").exists() and (maps / "a.tif").exists()


def test_a_manifest_without_stamps_is_accepted_and_nothing_counts_as_changed(
    models: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "emb.parquet"
    embed(images, model=models / "embed", output=output)
    by_segment(images, tmp_path / "out", models)
    without_stamps(tmp_path / "emb.parquet.manifest.json")
    without_stamps(tmp_path / "out" / "manifest.json")
    put(images / "a.npz", 10)
    done = [counting(monkeypatch, owner) for owner in (Preparation, FieldTask)]
    result = embed(images, model=models / "embed", output=output)
    assert result.manifest.items["a.npz"] == ItemStatus("done") and len(result.table) == 9
    assert by_segment(images, tmp_path / "out", models).counts()["done"] == 3
    assert done == [[], []] and "changed" not in capsys.readouterr().err


def test_rows_of_files_that_are_gone_stay_and_are_named(
    models: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "emb.parquet"
    embed(images, model=models / "embed", output=output)
    by_segment(images, tmp_path / "out", models)
    (images / "b.npz").unlink()
    capsys.readouterr()
    assert len(embed(images, model=models / "embed", output=output).table) == 9
    line = "stedfm: 1 file of earlier runs is not among the inputs; its rows are kept: b.npz\n"
    assert line in capsys.readouterr().err
    by_segment(images, tmp_path / "out", models)
    assert line in capsys.readouterr().err
    assert len(pd.read_parquet(tmp_path / "out" / "fields.parquet")) == 9


def test_overwriting_removes_the_files_of_other_inputs(models: Path, images: Path, tmp_path: Path) -> None:
    out, maps = tmp_path / "out", tmp_path / "maps"
    options: dict[str, Any] = {"device": "cpu", "series": "z1"}
    segment(images, out, model=models / "segment", **options)
    classify(images, model=models / "classify", output=tmp_path / "c.csv", maps=maps, **options)
    (out / "mine.labels1.tif").touch()
    options["overwrite"] = True
    segment(images / "b.npz", out, model=models / "segment", **options)
    classify(images / "b.npz", model=models / "classify", output=tmp_path / "c.csv", maps=maps, **options)
    kinds = ("labels1.tif", "objects1.tif", "overlay1.png", "probabilities1.tif")
    expected = {"mine.labels1.tif", "fields.parquet", "objects.parquet", "manifest.json"}
    assert {file.name for file in out.iterdir()} == expected | {f"b.npz.{kind}" for kind in kinds}
    assert [file.name for file in maps.rglob("*.tif")] == ["b.npz.map1.tif"]
