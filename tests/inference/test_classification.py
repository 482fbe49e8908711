from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image
from transformers import pipeline

from stedfm_hf import (
    StedFmConfig,
    StedFmForImageClassification,
    StedFmForPreTraining,
    StedFmImageProcessor,
    StedFmModel,
    adapt_channels,
)
from stedfm_hf.cli import main
from stedfm_hf.images import read_image
from stedfm_hf.inference import classify, load_classifier
from stedfm_hf.inference.maps import tile_map
from stedfm_hf.inference.preparation import Preparation
from stedfm_hf.runs import Manifest, UserError
from tests.models import tiny_config

CLASSES = ["rings", "rings long", "β-fibres, µ"]
COLUMNS = [f"p_{name}" for name in CLASSES]


def counts(shape: tuple[int, ...] = (32, 32), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60000, shape).astype(np.uint16)


def save(folder: Path, **changes: Any) -> Path:
    """A classifier whose answers differ from image to image: a fresh head hardly tells them apart."""
    torch.manual_seed(0)
    model = StedFmForImageClassification(tiny_config(**changes)).eval()
    with torch.no_grad():
        model.batch_norm.running_mean.uniform_(-1, 1)
        model.classifier.weight.mul_(20)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "sorter", id2label=dict(enumerate(CLASSES)))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five files in two folders, two of them larger than the model's crops."""
    root = tmp_path / "images"
    for index in range(5):
        file = root / ("a" if index % 2 else "b") / f"{index}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(file, counts((32, 32) if index < 3 else (75, 40 + index), seed=index))
    return root


def by_pipeline(folder: Path, image: Any, **kwargs: Any) -> dict[str, float]:
    ask = pipeline("stedfm-image-classification", model=str(folder), device="cpu")
    return {entry["label"]: entry["score"] for entry in ask(image, top_k=99, **kwargs)}


def test_one_row_per_image_and_the_pipeline_agrees(folder: Path, images: Path, tmp_path: Path) -> None:
    result = classify(images, model=folder, output=tmp_path / "classes.parquet", device="cpu")
    frame: Any = pd.read_parquet(tmp_path / "classes.parquet")
    about = ["path", "series", "channel", "height", "width", "pixel_size_nm"]
    assert list(frame) == [*about, "label", *COLUMNS, "model", "weights_sha256"]
    assert frame["path"].tolist() == ["a/1.tif", "a/3.tif", "b/0.tif", "b/2.tif", "b/4.tif"]
    for _, row in frame.iterrows():
        expected = by_pipeline(folder, images / row["path"])
        assert row[COLUMNS].tolist() == pytest.approx([expected[name] for name in CLASSES], abs=1e-6)
        assert row["label"] == max(expected, key=lambda name: expected[name])
        assert (row["height"], row["width"]) == tifffile.imread(images / row["path"]).shape
        assert row["model"] == "sorter" and len(row["weights_sha256"]) == 64
    assert (frame[COLUMNS].dtypes == np.float32).all()
    np.testing.assert_allclose(frame[COLUMNS].sum(axis=1), 1, atol=1e-6)
    assert len(frame[COLUMNS].round(3).drop_duplicates()) == 5, "every image got the same answer"
    assert result.manifest.exit_status == 0 and result.table.num_rows == 5
    assert Manifest.load(tmp_path / "classes.parquet.manifest.json").settings["predictions"] == COLUMNS


@pytest.mark.parametrize("tile_size", [16, None])
def test_the_pipeline_agrees_on_other_tiles(folder: Path, images: Path, tile_size: int | None) -> None:
    frame: Any = classify(images / "a" / "3.tif", model=folder, tile_size=tile_size, device="cpu").table.to_pandas()
    expected = by_pipeline(folder, images / "a" / "3.tif", tile_size=tile_size)
    assert frame.loc[0, COLUMNS].tolist() == pytest.approx([expected[name] for name in CLASSES], abs=1e-6)


def test_a_crop_gets_the_answer_of_the_network(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "crop.npy", counts())
    frame: Any = classify(tmp_path / "crop.npy", model=folder, device="cpu").table.to_pandas()
    model = StedFmForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(StedFmImageProcessor(patch_size=8)(counts(), return_tensors="pt")["pixel_values"]).logits[0]
    assert frame.loc[0, COLUMNS].tolist() == pytest.approx(logits.softmax(0).tolist(), abs=1e-6)


def test_the_class_token_is_pooled_where_the_model_says_so(images: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "token", id2label=dict(enumerate(CLASSES)), pooling="token")
    frame: Any = classify(images / "a" / "3.tif", model=model, device="cpu").table.to_pandas()
    expected = by_pipeline(model, images / "a" / "3.tif")
    assert frame.loc[0, COLUMNS].tolist() == pytest.approx([expected[name] for name in CLASSES], abs=1e-6)


def test_several_labels_have_a_probability_each_and_no_single_label(images: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "multi", id2label={0: "actin", 1: "tubulin"}, target_type="multi_label")
    frame: Any = classify(images, model=model, maps=tmp_path / "maps", device="cpu").table.to_pandas()
    assert list(frame)[6:9] == ["p_actin", "p_tubulin", "map"]
    for _, row in frame.iterrows():
        assert by_pipeline(model, images / row["path"]) == pytest.approx(
            {"actin": row["p_actin"], "tubulin": row["p_tubulin"]}, abs=1e-6
        )
    assert (abs(frame["p_actin"] + frame["p_tubulin"] - 1) > 1e-3).any()


def test_regression_gives_values(images: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "values", id2label={0: "resolution_nm"}, target_type="regression")
    frame: Any = classify(images, model=model, maps=tmp_path / "maps", device="cpu").table.to_pandas()
    assert list(frame)[6:9] == ["value_resolution_nm", "map", "model"]
    for _, row in frame.iterrows():
        expected = by_pipeline(model, images / row["path"])["resolution_nm"]
        assert row["value_resolution_nm"] == pytest.approx(expected, abs=1e-5)
    assert frame["map"].notna().sum() == 2


def test_a_dataset_and_channels(folder: Path, tmp_path: Path) -> None:
    pictures = [Image.fromarray(counts(seed=i)) for i in range(2)]
    rows = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1]}).cast_column("image", datasets.Image())
    (tmp_path / "repo" / "data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "repo" / "data" / "train-00000-of-00001.parquet")
    np.save(tmp_path / "two.npy", counts((2, 32, 40)))
    frame: Any = classify([tmp_path / "repo", tmp_path / "two.npy"], model=folder, device="cpu").table.to_pandas()
    assert frame["path"].tolist() == ["two.npy", "two.npy", "train/0", "train/1"]
    assert frame["channel"].tolist()[:2] == ["0", "1"]
    expected = by_pipeline(folder, counts((2, 32, 40))[1])
    assert frame.loc[1, COLUMNS].tolist() == pytest.approx([expected[name] for name in CLASSES], abs=1e-6)


def test_csv_opens_with_the_same_numbers(folder: Path, images: Path, tmp_path: Path) -> None:
    expected = classify(images, model=folder, output=tmp_path / "classes.parquet", device="cpu").table
    assert classify(images, model=folder, output=tmp_path / "classes.csv", device="cpu").table.equals(expected)
    frame: Any = pd.read_csv(tmp_path / "classes.csv")
    assert np.array_equal(frame[COLUMNS].to_numpy(np.float32), expected.to_pandas()[COLUMNS].to_numpy())
    assert {"pixel_size_y_nm", "label"} <= set(frame)


def half_and_half(path: Path, size: tuple[int, int] = (64, 100), **kwargs: Any) -> np.ndarray:
    """Noise at the left, stripes at the right."""
    image = counts(size)
    image[:, size[1] // 2 :] = (np.arange(size[0])[:, None] // 4 % 2) * 50000
    tifffile.imwrite(path, image, **kwargs)
    return image


def test_a_map_holds_the_answer_of_every_window(folder: Path, tmp_path: Path) -> None:
    image = half_and_half(
        tmp_path / "field.tif", imagej=True, resolution=(50, 40), metadata={"unit": "um", "axes": "YX"}
    )
    table = classify(
        tmp_path / "field.tif", model=folder, maps=tmp_path / "maps", map_stride=16, tile_size=16, device="cpu"
    ).table
    (name,) = table["map"].to_pylist()
    values = tifffile.imread(tmp_path / "maps" / name)
    assert name == "field.tif.map1.tif" and values.shape == (3, 4, 7) and values.dtype == np.float32
    # The tile_size of a cell is centred on it, and moved inward at the border; the scaling is that of the whole field.
    scaled = StedFmImageProcessor().prepare(image)[0]
    for row, col in np.ndindex(4, 7):
        top, left = min(max(16 * row - 8, 0), 64 - 32), min(max(16 * col - 8, 0), 100 - 32)
        tile_size = by_pipeline(folder, scaled[top : top + 32, left : left + 32], normalization="none")
        assert values[:, row, col].tolist() == pytest.approx([tile_size[name] for name in CLASSES], abs=1e-5)
    assert np.abs(values[:, :, 0] - values[:, :, -1]).max() > 0.1


@pytest.mark.figures
def test_a_map_opens_in_place_in_imagej(folder: Path, tmp_path: Path) -> None:
    half_and_half(tmp_path / "sized.tif", imagej=True, resolution=(50, 40), metadata={"unit": "um", "axes": "YX"})
    np.save(tmp_path / "unsized.npy", counts((64, 64)))
    inputs = [tmp_path / "sized.tif", tmp_path / "unsized.npy"]
    classify(inputs, model=folder, maps=tmp_path / "maps", map_stride=16, device="cpu")
    read = read_image(tmp_path / "maps" / "sized.tif.map1.tif")
    assert read.pixel_size_nm == pytest.approx((16 * 25, 16 * 20), rel=1e-6) and read.array.shape == (3, 4, 7)
    with tifffile.TiffFile(tmp_path / "maps" / "sized.tif.map1.tif") as tif:
        about = tif.imagej_metadata
        assert tif.series[0].axes == "CYX" and about is not None and about["channels"] == 3
        assert about["Labels"] == CLASSES and (about["min"], about["max"]) == (0, 1)
        assert json.loads(about["Info"])["path"] == "sized.tif"
    with tifffile.TiffFile(tmp_path / "maps" / "unsized.npy.map1.tif") as tif:
        assert tif.imagej_metadata is not None and tif.imagej_metadata["unit"] == "pixel"
        numerator, denominator = tif.pages.first.tags["XResolution"].value
        assert denominator / numerator == pytest.approx(16)
    for name in ("sized.tif", "unsized.npy"):
        with Image.open(tmp_path / "maps" / f"{name}.map1.png") as picture:
            assert min(picture.size) > 300


def test_cells_are_as_large_as_they_are_in_the_file(folder: Path, tmp_path: Path) -> None:
    model = StedFmForImageClassification.from_pretrained(folder)
    StedFmImageProcessor(patch_size=8, target_pixel_size_nm=10).save_pretrained(tmp_path / "finer")
    model.save_pretrained(tmp_path / "finer")
    half_and_half(tmp_path / "f.tif", (32, 32), imagej=True, resolution=(50, 50), metadata={"unit": "um"})
    classify(tmp_path / "f.tif", model=tmp_path / "finer", maps=tmp_path / "maps", map_stride=32, device="cpu")
    read = read_image(tmp_path / "maps" / "f.tif.map1.tif")
    assert read.array.shape == (3, 2, 2) and read.pixel_size_nm == pytest.approx((320, 320))


def test_only_images_larger_than_a_crop_have_a_map(folder: Path, images: Path, tmp_path: Path) -> None:
    table = classify(images, model=folder, maps=tmp_path / "maps", device="cpu").table
    assert table["map"].to_pylist() == [None, "a/3.tif.map1.tif", None, None, "b/4.tif.map1.tif"]
    written = sorted(file.relative_to(tmp_path / "maps").as_posix() for file in (tmp_path / "maps").rglob("*.*"))
    assert written == [f"{name}.map1.{kind}" for name in ("a/3.tif", "b/4.tif") for kind in ("png", "tif")]
    assert tifffile.imread(tmp_path / "maps" / "a" / "3.tif.map1.tif").shape == (3, 5, 3)  # 75 x 43, half of 32


@pytest.mark.parametrize(("shape", "tile_size", "stride"), [((40, 7), 16, 5), ((16, 16), 16, 16), ((33, 90), 16, 1)])
def test_cells_cover_the_field_and_windows_stay_inside(shape: tuple[int, int], tile_size: int, stride: int) -> None:
    seen: list[tuple[int, ...]] = []

    def middle(tiles: Any) -> Any:
        for each in tiles:
            seen.append(each.shape[1:])
            yield each[:, each.shape[1] // 2, each.shape[2] // 2]

    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    values = tile_map(middle, np.stack([ys, xs]), tile_size, stride)
    assert values.shape == (2, -(-shape[0] // stride), -(-shape[1] // stride))
    assert set(seen) == {(min(tile_size, shape[0]), min(tile_size, shape[1]))}
    assert len(seen) == len(np.unique(values[0])) * len(np.unique(values[1])), "a tile_size was computed twice"
    assert (np.diff(values[0], axis=0) >= 0).all() and (np.diff(values[1], axis=1) >= 0).all()


def test_a_bad_file_costs_only_itself(folder: Path, images: Path, tmp_path: Path, capsys: Any) -> None:
    (images / "a" / "2.tif").write_bytes(b"II*\0nothing")
    output = tmp_path / "classes.parquet"
    words = ["classify", str(images), "--model", str(folder), "--output", str(output), "--device", "cpu"]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "a/2.tif" in printed.err and "5 rows from 5 files, 1 failed" in printed.out
    tifffile.imwrite(images / "a" / "2.tif", counts())
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["rows"] == 6 and sum(answer["labels"].values()) == 6 and "maps" not in answer


def test_answers_that_are_no_numbers_never_reach_the_table(folder: Path, images: Path, tmp_path: Path) -> None:
    broken = StedFmForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        broken.classifier.bias[0] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    result = classify(images, model=tmp_path / "broken", maps=tmp_path / "maps", device="cpu")
    assert result.table.num_rows == 0 and len(result.manifest.failures()) == 5
    assert all("not finite" in reason for reason in result.manifest.failures().values())


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.inference.stepwise.CHUNK", 2)
    monkeypatch.setattr("stedfm_hf.inference.source_batches.AHEAD", (1, 2**20))
    classify(images, model=folder, output=tmp_path / "whole.parquet", maps=tmp_path / "maps", device="cpu")
    read, left = Preparation.__call__, itertools.count(3, -1)

    def stop(self: Preparation, source: Any) -> Any:
        if next(left) <= 0:
            raise KeyboardInterrupt
        return read(self, source)

    monkeypatch.setattr(Preparation, "__call__", stop)
    output = tmp_path / "stopped.parquet"
    with pytest.raises(KeyboardInterrupt):
        classify(images, model=folder, output=output, maps=tmp_path / "maps", device="cpu")
    assert not output.exists()
    monkeypatch.setattr(Preparation, "__call__", read)
    classify(images, model=folder, output=output, maps=tmp_path / "maps", device="cpu")
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(UserError, match="map_stride: 16 before, 8 now"):
        classify(images, model=folder, output=output, maps=tmp_path / "maps", map_stride=8, device="cpu")


def test_a_model_of_several_channels(folder: Path, tmp_path: Path) -> None:
    wide = adapt_channels(StedFmForImageClassification.from_pretrained(folder), 2)
    wide.save_pretrained(tmp_path / "wide")
    np.save(tmp_path / "two.npy", counts((2, 70, 40)))
    table = classify(tmp_path / "two.npy", model=tmp_path / "wide", maps=tmp_path / "maps", device="cpu").table
    assert table["channel"].to_pylist() == ["0+1"] and table["map"].to_pylist() == ["two.npy.map1.tif"]


@pytest.mark.parametrize("kind", [StedFmModel, StedFmForPreTraining])
def test_a_model_without_a_classifier_is_refused(kind: type[Any], images: Path, tmp_path: Path, capfd: Any) -> None:
    kind(tiny_config()).save_pretrained(tmp_path / "other")
    capfd.readouterr()
    with pytest.raises(UserError, match=f"no classifier, it is a {kind.__name__}.*stedfm finetune classification"):
        classify(images, model=tmp_path / "other", device="cpu")
    assert "random" not in capfd.readouterr().err


def test_a_head_that_is_claimed_but_not_there_is_no_random_head(images: Path, tmp_path: Path) -> None:
    StedFmModel(tiny_config()).save_pretrained(tmp_path / "claims")
    config = json.loads((tmp_path / "claims" / "config.json").read_text())
    config["architectures"] = ["StedFmForImageClassification"]
    (tmp_path / "claims" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="weights are missing"):
        load_classifier(tmp_path / "claims", device="cpu")


@pytest.mark.parametrize(
    ("id2label", "message"),
    [
        ({0: "a", 1: "b", 2: "a"}, "more than one of the labels is named 'a'"),
        ({0: "a", 1: "b", 3: "c"}, "must name 0 to 2"),
    ],
)
def test_class_names_that_make_no_columns(
    id2label: dict[int, str], message: str, images: Path, tmp_path: Path
) -> None:
    model = save(tmp_path / "names", id2label={0: "a", 1: "b", 2: "c"})
    config = StedFmConfig.from_pretrained(model)
    config.id2label = id2label
    config.save_pretrained(model)
    with pytest.raises(UserError, match=message):
        classify(images, model=model, device="cpu")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"model": "demo"}, "demo: has no classifier"),
        ({"model": "./no-such-folder"}, "no such folder"),
        ({"inputs": "missing.tif"}, "missing.tif"),
        ({"inputs": []}, "no input"),
        ({"output": "table.xlsx"}, "parquet or"),
        ({"tile_size": 12}, "multiple of 8"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"normalization": "fixed"}, "intensity range"),
        ({"map_stride": 8}, "--map-stride needs --maps"),
        ({"maps": "MAPS", "map_stride": 33}, "map stride 33 is out of range: 1 to 32"),
        ({"maps": "IMAGES"}, "contains input images"),
        ({"maps": "IMAGES/a", "inputs": "IMAGES/a/1.tif"}, "contains input images"),
        ({"maps": __file__}, "is a file; give a folder"),
    ],
)
def test_mistakes_are_named(folder: Path, images: Path, kwargs: dict[str, Any], message: str, tmp_path: Path) -> None:
    places = {"IMAGES": str(images), "MAPS": str(tmp_path / "maps")}
    for key, place in itertools.product(kwargs, places):
        if isinstance(kwargs[key], str):
            kwargs = kwargs | {key: kwargs[key].replace(place, places[place])}
    with pytest.raises(UserError, match=message):
        classify(**{"inputs": images, "model": folder, "device": "cpu", **kwargs})


def test_an_output_that_cannot_be_written_is_told_in_a_line(
    folder: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    words = ["classify", str(images), "--model", str(folder), "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "file" / "classes.parquet")]) == 2
    assert "Traceback" not in (error := capsys.readouterr().err) and "stedfm: error: " in error
    maps = ["--output", str(tmp_path / "classes.csv"), "--maps", str(tmp_path / "maps"), "--map-stride", "16"]
    assert main([*words, *maps]) == 0
    out = capsys.readouterr().out
    assert "5 rows from 5 files" in out and "maps: 2" in out
