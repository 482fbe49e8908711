"""`stedfm finder fit` and `stedfm find` on files: tables, maps, ROIs, resuming and refused input."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
import torch
from PIL import Image

from stedfm_hf import StedFmModel
from stedfm_hf.acquisition import Stage, find, fit_finder, load_finder
from stedfm_hf.acquisition.finding_run import find_writer
from stedfm_hf.acquisition.settings import FindSettings
from stedfm_hf.cli import main
from stedfm_hf.runs import UserError
from stedfm_hf.runs.options import REFERENCE
from tests.models import tiny_config

SHAPE = (64, 80)
SPOTS = {0: (20, 28), 1: (44, 60), 2: (36, 20)}
STAGE = [[0.05, 0, 100], [0, 0.05, 200]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and three noisy images with one bright square each, of which there are masks and clicks."""
    root = tmp_path_factory.mktemp("find")
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(root / "model")
    clicks = ["path,y_px,x_px,class"]
    for number, (y, x) in SPOTS.items():
        pixels = np.random.default_rng(number).poisson(3, SHAPE).astype(np.uint16)
        mask = np.zeros(SHAPE, np.uint8)
        mask[y - 4 : y + 4, x - 4 : x + 4] = 1
        pixels[mask > 0] += 200
        for folder, array in (("images", pixels), ("masks", mask)):
            (root / "annotated" / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(
                root / "annotated" / folder / f"{number}.tif",
                array,
                imagej=True,
                resolution=(20, 20),
                metadata={"unit": "um"},
            )
        clicks += [f"{number}.tif,{y},{x},spot", f"{number}.tif,4,4,background"]
    (root / "clicks.csv").write_text("\n".join(clicks) + "\n")
    (root / "stage.json").write_text(json.dumps(STAGE))
    return root


def fitted(world: Path, output: Path, **options: Any) -> Path:
    if "clicks" not in options:
        options = {"dataset": world / "annotated", "classes": ["spot"]} | options
    else:
        options = {"dataset": world / "annotated" / "images"} | options
    result = fit_finder(output=output, model=world / "model", device="cpu", **options)
    assert result.exit_status == 0 and result.record["classes"] == ["spot"]
    return output


@pytest.mark.parametrize("method", ["templates", "prototypes", "logistic", "forest"])
def test_every_method_finds_the_squares(method: str, world: Path, tmp_path: Path) -> None:
    finder = fitted(world, tmp_path / "finder", method=method)
    validation = load_finder(finder).record["validation"]
    assert validation["folds"] == 3 and validation["average_precision"]["spot"] > 0.5
    result = find(world / "annotated" / "images", finder, tmp_path / "found", device="cpu", region_size_px=16)
    best = {row["path"]: row for row in reversed(result.table.to_pylist()) if row["rank"] == 1}
    for number, (y, x) in SPOTS.items():
        row = best[f"{number}.tif"]
        assert abs(row["centre_y_px"] - y) <= 8 and abs(row["centre_x_px"] - x) <= 8
        assert row["label"] == "spot" and row["height_um"] == pytest.approx(0.8)


def test_the_files_of_a_field_agree_with_each_other(world: Path, tmp_path: Path) -> None:
    finder = fitted(world, tmp_path / "finder", clicks=world / "clicks.csv", method="logistic")
    options = ["--finder", str(finder), "--output", str(tmp_path / "found"), "--device", "cpu", "--count", "3"]
    options += ["--region-size-um", "0.8", "--stage", str(world / "stage.json"), "--min-score", "0.01"]
    assert main(["find", str(world / "annotated" / "images"), *options]) == 0
    frame = pd.read_parquet(tmp_path / "found" / "regions.parquet")
    assert len(pd.read_csv(tmp_path / "found" / "regions.csv")) == len(frame)
    assert (frame["height_px"] == 16).all()
    stage = Stage({}, np.array(STAGE))
    for path, rows in frame.groupby("path"):
        first = rows.iloc[0]
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1)) and rows["score"].is_monotonic_decreasing
        where = stage.position_um(str(path), y=first["centre_y_px"], x=first["centre_x_px"])
        assert (first["stage_x_um"], first["stage_y_um"]) == pytest.approx(where)
        with tifffile.TiffFile(tmp_path / "found" / first["map_file"]) as file:
            scores, tags = file.asarray(), file.pages.first.tags
            assert file.imagej_metadata is not None and file.imagej_metadata["unit"] == "um"
        assert scores.dtype == np.float32 and scores.shape == (8, 10)
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == pytest.approx(1 / 0.4)  # 8 px of 50 nm
        assert scores.max() == pytest.approx(first["score"])
        rois = roifile.roiread(tmp_path / "found" / f"{path}.rois1.zip")
        assert isinstance(rois, list) and len(rois) == len(rows) and rois[0].top == round(first["y_px"])
        with Image.open(tmp_path / "found" / first["overlay_file"]) as image:
            image.verify()


def test_a_click_of_the_background_counts_wherever_it_is(world: Path, tmp_path: Path) -> None:
    table = tmp_path / "clicks.csv"
    head = "path,y_px,x_px,class\n0.tif,20,28,spot\n"
    table.write_text(f"{head}0.tif,40,40,background\n")
    record = load_finder(fitted(world, tmp_path / "finder", clicks=table)).record
    assert record["patches"]["background"] > 0 and record["min_scores"][0] > -1 and record["warning"] is None
    table.write_text(f"{head}0.tif,20,29,background\n")
    with pytest.raises(UserError, match="click the background further away"):
        fitted(world, tmp_path / "touching", clicks=table)


def test_a_finder_without_background_warns(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clicks.csv").write_text("path,y_px,x_px,class\n0.tif,32,40,spot\n")
    options = ["--output", str(tmp_path / "finder"), "--model", str(world / "model"), "--device", "cpu"]
    options += ["--clicks", str(tmp_path / "clicks.csv"), "--click-radius-px", "60"]
    assert main(["finder", "fit", "--dataset", str(world / "annotated" / "images"), *options]) == 0
    assert "warning: no patch is background, so that the finder accepts every patch" in capsys.readouterr().out


def test_a_finished_folder_takes_new_files(world: Path, tmp_path: Path) -> None:
    finder, images = fitted(world, tmp_path / "finder"), world / "annotated" / "images"
    options: dict[str, Any] = {"finder": finder, "output": tmp_path / "found", "device": "cpu", "region_size_px": 16}
    find(images / "0.tif", **options)
    both = find([images / "0.tif", images / "1.tif"], **options)
    assert set(both.table["path"].to_pylist()) == {"0.tif", "1.tif"}
    whole = find([images / "0.tif", images / "1.tif"], **options | {"output": tmp_path / "whole"})
    assert whole.table.equals(both.table)
    with pytest.raises(UserError, match="count"):
        find(images, **options, count=1)


@pytest.mark.parametrize(
    ("method", "protocol"), [("templates", "default"), ("forest", "default"), ("forest", REFERENCE)]
)
def test_another_process_can_score(method: str, protocol: str, world: Path, tmp_path: Path) -> None:
    finder = fitted(world, tmp_path / "finder", method=method, protocol=protocol)
    stored = load_finder(finder)
    encoder = stored.load_encoder(world / "model", device="cpu")
    settings = FindSettings([], finder, output=tmp_path / "found")
    writer = find_writer(settings, tmp_path / "found", stored, encoder, Stage({}, np.array(STAGE)))
    pixels = np.random.default_rng(0).random((1, *SHAPE), np.float32)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(writer)).score(pixels), writer.score(pixels))


def test_the_reference_protocol_writes_maps_of_pixels(world: Path, tmp_path: Path) -> None:
    finder = fitted(world, tmp_path / "finder", protocol="reference")
    images = world / "annotated" / "images" / "0.tif"
    result = find(images, finder, tmp_path / "found", device="cpu", protocol="reference", region_size_px=16)
    values = tifffile.imread(tmp_path / "found" / "0.tif.scores1.tif")
    assert values.shape == SHAPE and np.isclose(values, values.min()).mean() >= 0.95
    assert all(row["height_px"] == 16 for row in result.table.to_pylist())
    with pytest.raises(UserError, match="was fitted with --protocol reference"):
        find(images, finder, tmp_path / "other", device="cpu", protocol="default")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,y_px\n0.tif,3\n", "has no column x_px"),
        ("path,y_px,x_px\n", "has no row"),
        ("path,y_px,x_px\nnone.tif,3,3\n", r"line 2: no image none\.tif"),
        ("path,y_px,x_px\n0.tif,a,b\n", "line 2: y_px and x_px are not numbers"),
        ("path,y_px,x_px\n0.tif,3,999\n", "x = 999 is outside of the image"),
        ("path,y_px,x_px,class\n0.tif,3,9,background\n", "marks the background only"),
    ],
)
def test_wrong_clicks_are_refused(table: str, message: str, world: Path, tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        fitted(world, tmp_path / "finder", clicks=tmp_path / "clicks.csv")


def test_a_changed_model_or_record_is_refused(world: Path, tmp_path: Path) -> None:
    finder, images = fitted(world, tmp_path / "finder"), world / "annotated" / "images"
    torch.manual_seed(1)
    StedFmModel(tiny_config()).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="has other weights than the model of the finder"):
        find(images, finder, tmp_path / "found", device="cpu", model=tmp_path / "other")
    for record, message in (({"version": 2}, "this version"), ({"version": 1}, "lacks method")):
        (finder / "finder.json").write_text(json.dumps(record))
        with pytest.raises(UserError, match=message):
            find(images, finder, tmp_path / "found", device="cpu")
    with pytest.raises(UserError, match=r"has no finder\.json"):
        find(images, world / "model", tmp_path / "found", device="cpu")


def test_a_field_without_regions_says_why(world: Path, tmp_path: Path) -> None:
    finder = fitted(world, tmp_path / "finder")
    result = find(world / "annotated" / "images" / "0.tif", finder, tmp_path / "found", device="cpu", min_score=7.5)
    highest = float(tifffile.imread(tmp_path / "found" / "0.tif.scores1.tif").max())
    why = f"no score reaches the smallest score of a region, which is 7.5 for spot; the highest is {highest:.4g}"
    assert result.table.num_rows == 0 and result.manifest.items["0.tif"].reason == why
    assert result.summary().startswith(f"0.tif: {why}\n") and result.exit_status == 0


def test_a_size_in_micrometres_needs_the_pixel_size(world: Path, tmp_path: Path) -> None:
    finder = fitted(world, tmp_path / "finder")
    np.save(tmp_path / "plain.npy", np.random.default_rng(0).poisson(3, SHAPE))
    result = find(tmp_path / "plain.npy", finder, tmp_path / "found", device="cpu", region_size_um=1.0)
    assert result.exit_status == 1
    (reason,) = result.manifest.failures().values()
    assert "has no pixel size; give --region-size-px" in str(reason)
