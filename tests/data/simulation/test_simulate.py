"""Sets of simulated fields: files, data sets, resuming, and refused arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from datasets import load_dataset

from stedfm_hf.cli import main
from stedfm_hf.data import SimulationSettings, decode, simulate, simulate_field, simulate_image
from stedfm_hf.data.simulation import jobs
from stedfm_hf.data.simulation import simulate as module
from stedfm_hf.data.simulation.physics import class_id
from stedfm_hf.modeling.image_processing_stedfm import fit_intensity_range
from stedfm_hf.runs import Manifest, UserError

SIZE: dict[str, Any] = {"height": 64, "width": 48, "pixel_size_nm": 15.0}
SMALL = SimulationSettings(**SIZE)
PAIR = ["rings", "puncta"]


def test_files_are_in_class_folders_and_store_the_pixel_size(tmp_path: Path) -> None:
    made = simulate(
        tmp_path, structures=PAIR, per_structure=2, seed=1, first_index=4, **SIZE, confocal=True, workers=1
    )
    names = ["puncta/puncta_00004.tif", "puncta/puncta_00005.tif", "rings/rings_00004.tif", "rings/rings_00005.tif"]
    assert sorted(made.manifest.items) == names
    for kind in ("images", "masks", "confocal"):
        found = (tmp_path / kind).rglob("*.tif")
        assert sorted(file.relative_to(tmp_path / kind).as_posix() for file in found) == names
    with tifffile.TiffFile(tmp_path / "images" / names[2]) as tiff:
        assert tiff.is_imagej
        assert tiff.imagej_metadata is not None
        assert tiff.imagej_metadata["unit"] in ("um", "\\u00B5m", "µm")
        pixels, units = tiff.pages.first.tags["XResolution"].value
        assert 1000.0 * units / pixels == pytest.approx(15.0)
        assert json.loads(tiff.imagej_metadata["Info"])["simulated"] is True
        np.testing.assert_array_equal(tiff.asarray(), simulate_image("rings", seed=1, index=4, settings=SMALL))
    field = simulate_field("rings", seed=1, index=4, settings=SMALL, confocal=True)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "masks" / names[2]), field.mask)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "confocal" / names[2]), field.confocal)


def test_splits_have_separate_folders_and_fields(tmp_path: Path) -> None:
    simulate(tmp_path, structures=["rings"], splits={"train": 2, "test": 1}, **SIZE, masks=False, workers=1)
    files = sorted(file.relative_to(tmp_path / "images").as_posix() for file in tmp_path.rglob("*.tif"))
    assert files == ["test/rings/rings_00002.tif", "train/rings/rings_00000.tif", "train/rings/rings_00001.tif"]


def test_a_data_set_contains_raw_counts_masks_and_labels(tmp_path: Path) -> None:
    simulate(
        tmp_path,
        structures=PAIR,
        splits={"train": 3, "test": 2},
        **SIZE,
        format="dataset",
        confocal=True,
        workers=1,
    )
    loaded = load_dataset(str(tmp_path), split="test")
    assert loaded.features["label"].names == PAIR
    assert sorted(loaded["source"]) == sorted(2 * [f"seed-0/{n}_0000{k}" for n in PAIR for k in (3, 4)])
    row = next(r for r in loaded if r["source"] == "seed-0/puncta_00004" and r["series"] == "STED")
    one = decode(row)
    field = simulate_field("puncta", seed=0, index=4, settings=SMALL)
    np.testing.assert_array_equal(one["pixels"][0].numpy(), field.image)
    np.testing.assert_array_equal(one["mask"].numpy(), field.mask)
    assert loaded.features["label"].int2str(int(one["label"])) == "puncta"
    expected = fit_intensity_range(field.image[None])[0]
    np.testing.assert_allclose(one["intensity_range"].numpy(), expected, rtol=1e-6)
    assert row["pixel_size_nm"] == [15.0, 15.0]
    assert json.loads(row["metadata"])["simulated"] is True
    assert len(load_dataset(str(tmp_path), split="train")) == 2 * 6
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "simulated" in card
    assert str(tmp_path) not in card + (tmp_path / "manifest.json").read_text(encoding="utf-8")


def test_mixed_scenes_have_masks_but_no_label(tmp_path: Path) -> None:
    simulate(tmp_path / "tiff", per_structure=3, **SIZE, mixed=True, workers=1)
    masks = sorted((tmp_path / "tiff" / "masks").iterdir())
    assert [mask.name for mask in masks] == [f"mixed_0000{k}.tif" for k in range(3)]
    assert all(2 <= len(set(np.unique(tifffile.imread(mask))) - {0}) <= 4 for mask in masks)
    simulate(tmp_path / "set", structures=PAIR, per_structure=6, **SIZE, mixed=True, format="dataset", workers=1)
    rows = load_dataset(str(tmp_path / "set"), split="train")
    assert rows["label"][0] is None
    assert set(np.unique(decode(rows[0])["mask"])) == {0, class_id("rings"), class_id("puncta")}


def _interrupt_after(monkeypatch: pytest.MonkeyPatch, fields: int) -> list[int]:
    """Simulate a full disk after a number of fields; return a list with the number of simulated fields."""
    simulated = [0]

    def counting(*arguments: Any, **options: Any) -> object:
        simulated[0] += 1
        if simulated[0] > fields:
            raise OSError(28, "No space left on device")
        return simulate_field(*arguments, **options)

    monkeypatch.setattr(jobs, "simulate_field", counting)
    return simulated


@pytest.mark.parametrize("kind", ["tiff", "dataset"])
def test_an_interrupted_run_resumes_with_the_same_result(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PER_PART", 4)

    def run(folder: Path) -> Manifest:
        made = simulate(folder, structures=PAIR, per_structure=5, **SIZE, format=kind, workers=1)
        return made.manifest

    run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 5)
        with pytest.raises(UserError, match="No space left on device.*run the same command again"):
            run(tmp_path / "cut")
        assert Manifest.load(tmp_path / "cut" / "manifest.json").ended is None
    with monkeypatch.context() as patch:
        simulated = _interrupt_after(patch, 100)
        assert len(run(tmp_path / "cut").items) == 10
        assert simulated[0] == (5 if kind == "tiff" else 6)
        run(tmp_path / "cut")
        assert simulated[0] == (5 if kind == "tiff" else 6), "a finished set is not simulated again"

    def content(folder: Path) -> dict[str, bytes]:
        files = (path for suffix in ("*.tif", "data/*.parquet") for path in folder.rglob(suffix))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    assert content(tmp_path / "whole") == content(tmp_path / "cut") != {}


def test_other_settings_are_refused_and_overwrite_starts_from_scratch(tmp_path: Path) -> None:
    simulate(tmp_path, structures=PAIR, per_structure=2, **SIZE, workers=1)
    with pytest.raises(UserError, match="made with other settings"):
        simulate(tmp_path, structures=PAIR, per_structure=3, **SIZE, workers=1)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    simulate(tmp_path, structures=["fibres"], per_structure=1, **SIZE, workers=1, overwrite=True)
    assert [file.name for file in sorted((tmp_path / "images").rglob("*.tif"))] == ["fibres_00000.tif"]
    assert (tmp_path / "notes.txt").is_file()


def test_a_deleted_file_is_simulated_again(tmp_path: Path) -> None:
    def run() -> Path:
        return simulate(tmp_path, structures=PAIR, per_structure=1, **SIZE, workers=1).output

    lost = run() / "masks" / "rings" / "rings_00000.tif"
    before = lost.read_bytes()
    lost.unlink()
    run()
    assert lost.read_bytes() == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds other files"):
            simulate(tmp_path, per_structure=1, overwrite=overwrite)
    with pytest.raises(UserError, match="is a file"):
        simulate(tmp_path / "notes.txt", per_structure=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"structures": ["rod"]}, "unknown structure 'rod'"),
        ({"format": "png"}, "format 'png' is unknown; choose tiff or dataset"),
        ({"engine": "mine"}, "engine 'mine' is unknown"),
        ({"structures": ["rings"], "mixed": True}, "two structures or more"),
        ({"per_structure": 0}, "at least 1"),
        ({"workers": 0}, "at least 1"),
        ({"seed": -1}, "at least 0"),
    ],
)
def test_invalid_arguments_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        simulate(tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


def test_spawned_workers_write_the_same_files_as_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["data", "simulate", "--structures", "rings", "--per-structure", "70", "--height", "24", "--width", "24"]
    for workers in ("1", "2"):
        assert main([*common, "--workers", workers, "--output", str(tmp_path / workers), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.split("}\n{")[0] + "}")
    assert (result["images"], result["failed"]) == (70, 0)
    for one in sorted((tmp_path / "1" / "images").rglob("*.tif")):
        other = tmp_path / "2" / one.relative_to(tmp_path / "1")
        np.testing.assert_array_equal(tifffile.imread(one), tifffile.imread(other))
