from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from stedfm_hf import StedFmForImageClassification, StedFmModel
from stedfm_hf.cli import main
from stedfm_hf.images import read_image
from stedfm_hf.inference import classify
from stedfm_hf.interpretability import explain
from stedfm_hf.interpretability.writing import ExplanationWriter
from stedfm_hf.runs import UserError
from tests.models import tiny_config

CLASSES = {0: "rings", 1: "fibres", 2: "puncta"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("encoder", "other")):
        torch.manual_seed(seed)
        StedFmModel(tiny_config()).save_pretrained(root / name)
    for name, changes in {
        "classifier": {},
        "token": {"pooling": "token"},
        "values": {"target_type": "regression"},
    }.items():
        torch.manual_seed(2)
        model = StedFmForImageClassification(tiny_config(id2label=CLASSES, **changes)).eval()
        with torch.no_grad():
            model.batch_norm.running_mean.uniform_(-1, 1)
            model.classifier.weight.mul_(20)
        model.save_pretrained(root / name)
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three files: of the size of a tile, with incomplete patches, and a field; the pixel size is 50 nm."""
    for number, shape in enumerate([(32, 32), (29, 27), (75, 50)]):
        put(tmp_path / "images" / f"{number}.tif", shape, number)
    return tmp_path / "images"


def put(file: Path, shape: tuple[int, int], seed: int = 0) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    pixels = np.random.default_rng(seed).integers(0, 60000, shape).astype(np.uint16)
    tifffile.imwrite(file, pixels, imagej=True, resolution=(20, 20), metadata={"unit": "um"})


def run(images: Any, model: Path, output: Path, **options: Any) -> pd.DataFrame:
    result = explain(images, output, model=model, device="cpu", **options)
    assert result.exit_status == 0
    frame: pd.DataFrame = pd.read_parquet(output / "explanations.parquet")
    assert len(frame) == result.table.num_rows
    return frame


def map_of(output: Path, row: Any) -> np.ndarray:
    return np.atleast_3d(tifffile.imread(output / row["map_file"]))[..., 0]


def logits(images: Path, model: Path, tmp_path: Path) -> np.ndarray:
    """Logits of `classify`, up to the same number in a row, without the field in tiles."""
    table = classify(images, model=model, output=tmp_path / "classes.parquet", device="cpu").table
    return np.log(np.column_stack([table[f"p_{name}"].to_numpy() for name in CLASSES.values()]))


def test_maps_of_images_of_a_tile_sum_to_the_logits_of_classify(models: Path, images: Path, tmp_path: Path) -> None:
    sums = []
    for number, name in CLASSES.items():
        frame = run(images, models / "classifier", tmp_path / name, label=name)
        assert frame["exact"].tolist() == [True, True, False] and set(frame["label"]) == {name}
        sums.append([map_of(tmp_path / name, row).sum(dtype=float) for _, row in frame.iterrows()])
        np.testing.assert_allclose(sums[number], frame["logit"], atol=1e-5)
    expected = logits(images, models / "classifier", tmp_path)
    found = np.array(sums).T
    np.testing.assert_allclose(np.diff(found[:2]), np.diff(expected[:2]), atol=1e-4)
    # Tiles of the field differ, so that its blended evidence is another number, but not far away.
    assert np.abs(np.diff(found[2]) - np.diff(expected[2])).max() < 0.5 * np.ptp(expected[2])


def test_the_predicted_class_is_explained_by_default(models: Path, images: Path, tmp_path: Path) -> None:
    frame = run(images, models / "classifier", tmp_path / "out")
    table = classify(images, model=models / "classifier", output=tmp_path / "classes.parquet", device="cpu").table
    assert frame["method"].tolist() == ["logit"] * 3
    assert frame["label"].tolist() == frame["predicted"].tolist()
    assert frame["label"].tolist()[:2] == table["label"].to_pylist()[:2]


def test_a_field_without_tiles_sums_to_its_logit(models: Path, images: Path, tmp_path: Path) -> None:
    frame = run(images, models / "classifier", tmp_path / "out", tile_size=None, label=0)
    table = classify(images, model=models / "classifier", device="cpu", tile_size=None).table
    assert frame["exact"].all()
    other = run(images, models / "classifier", tmp_path / "other", tile_size=None, label=1)
    odds = np.log(table["p_rings"].to_numpy() / table["p_fibres"].to_numpy())
    np.testing.assert_allclose(frame["logit"] - other["logit"], odds, atol=1e-4)


def test_maps_have_the_pixel_size_of_patches_and_figures_are_images(
    models: Path, images: Path, tmp_path: Path
) -> None:
    frame = run(images, models / "classifier", tmp_path / "out")
    for (_, row), shape in zip(frame.iterrows(), [(4, 4), (4, 4), (10, 7)], strict=True):
        image = read_image(tmp_path / "out" / row["map_file"])
        assert image.array.shape == (1, *shape) and image.array.dtype == np.float32
        assert image.pixel_size_nm == pytest.approx((400, 400))
        at = np.unravel_index(image.array[0].argmax(), shape)
        assert (row["peak_y_px"], row["peak_x_px"]) == (at[0] * 8, at[1] * 8)
        assert row["peak_value"] == image.array.max()
        assert Image.open(tmp_path / "out" / row["overlay_file"]).format == "PNG"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"aggregate": "last"},
        {"aggregate": "rollout"},
        {"block": 1, "head": 0},
        {"protocol": "reference"},
    ],
    ids=str,
)
def test_attention_of_any_model_and_size(models: Path, images: Path, tmp_path: Path, options: Any) -> None:
    frame = run(images, models / "encoder", tmp_path / "out", **options)
    assert set(frame["method"]) == {"attention"}
    shapes = [map_of(tmp_path / "out", row).shape for _, row in frame.iterrows()]
    if options.get("protocol") == "reference":
        assert shapes == [(32, 32), (29, 27), (75, 50)]
        assert frame["peak_value"].between(0, 2).all()  # two blocks, each from 0 to 1
    else:
        assert shapes == [(4, 4), (4, 4), (10, 7)]


def test_gradient_weighted_attention_explains_a_class(models: Path, images: Path, tmp_path: Path) -> None:
    frames = [
        run(
            images, models / "classifier", tmp_path / str(label), method="attention", aggregate="gradient", label=label
        )
        for label in (0, 1, None)
    ]
    one, two, predicted = (np.array(frame["peak_value"]) for frame in frames)
    assert (one != two).all() and (predicted > 0).all()


def test_the_attention_of_a_patch_covers_the_tile_around_it(models: Path, images: Path, tmp_path: Path) -> None:
    frame = run(images / "2.tif", models / "encoder", tmp_path / "out", query=(70.0, 3.0))
    values = map_of(tmp_path / "out", frame.iloc[0])
    assert np.isfinite(values[6:, :4]).all() and np.isnan(values[:6]).all() and np.isnan(values[:, 4:]).all()
    assert np.nansum(values) == pytest.approx(1, abs=0.2)


def test_a_query_outside_an_image_fails_this_image(models: Path, images: Path, tmp_path: Path) -> None:
    result = explain(images, tmp_path / "out", model=models / "encoder", device="cpu", query=(70.0, 3.0))
    assert result.exit_status == 1 and result.table["path"].to_pylist() == ["2.tif"]
    assert "outside the image of 32 x 32 pixels" in result.manifest.failures()["0.tif"]


def test_components_of_a_run_project_other_images(models: Path, images: Path, tmp_path: Path) -> None:
    frame = run(images, models / "encoder", tmp_path / "out", method="pca")
    again = run(images / "1.tif", models / "encoder", tmp_path / "again", method="pca", components=tmp_path / "out")
    first, second = (tifffile.imread(folder / "1.tif.map1.tif") for folder in (tmp_path / "out", tmp_path / "again"))
    assert first.shape == (3, 4, 4)
    np.testing.assert_array_equal(first, second)
    assert frame["foreground_fraction"].tolist() == [1, 1, 1] and len(again) == 1
    with pytest.raises(UserError, match="another encoder"):
        run(images, models / "other", tmp_path / "bad", method="pca", components=tmp_path / "out")


def test_background_is_not_projected(models: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 9000, (32, 32)).astype(np.uint16)
    pixels[:16] += 10000
    tifffile.imwrite(tmp_path / "half.tif", pixels)
    options: Any = {"method": "pca", "foreground": "otsu", "normalization": "minmax"}
    frame = run(tmp_path / "half.tif", models / "encoder", tmp_path / "out", **options)
    values = tifffile.imread(tmp_path / "out" / "half.tif.map1.tif")
    assert frame["foreground_fraction"].tolist() == [0.5]
    assert np.isfinite(values[:, :2]).all() and np.isnan(values[:, 2:]).all()


def test_a_model_is_similar_to_itself(models: Path, images: Path, tmp_path: Path) -> None:
    same = run(images, models / "encoder", tmp_path / "same", method="similarity", compare_with=models / "encoder")
    other = run(images, models / "encoder", tmp_path / "other", method="similarity", compare_with=models / "other")
    np.testing.assert_allclose(same["min_similarity"], 1, atol=1e-6)
    np.testing.assert_allclose(1 - other["min_similarity"], other["peak_value"], atol=1e-6)
    assert (other["mean_similarity"] < 0.9).all()
    assert "is compared with" in (tmp_path / "other" / "report.html").read_text(encoding="utf-8")


def test_an_image_corresponds_to_itself(models: Path, images: Path, tmp_path: Path) -> None:
    options: Any = {"method": "correspondence", "reference_image": images / "2.tif"}
    frame = run(images, models / "encoder", tmp_path / "out", **options)
    similarity, y, x, mutual = tifffile.imread(tmp_path / "out" / "2.tif.map1.tif")
    np.testing.assert_allclose(similarity, 1, atol=1e-6)
    np.testing.assert_array_equal(y[:, 0], np.arange(10) * 8)
    np.testing.assert_array_equal(x[0], np.arange(7) * 8)
    assert mutual.all() and frame["mutual_patches"].tolist()[2] == 70
    assert "The reference image, on the right, is" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_more_than_one_series_and_channel(models: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "stack.npz", a=np.eye(32), b=np.ones((32, 40)))
    tifffile.imwrite(tmp_path / "two.tif", np.zeros((2, 32, 32), np.uint16), imagej=True, metadata={"axes": "CYX"})
    frame = run([tmp_path / "stack.npz", tmp_path / "two.tif"], models / "classifier", tmp_path / "out")
    assert frame["map_file"].tolist() == [f"{name}.map{n}.tif" for name in ("stack.npz", "two.tif") for n in (1, 2)]
    one = run(tmp_path / "two.tif", models / "classifier", tmp_path / "one", channel=1)
    assert len(one) == 1


def test_failed_files_are_listed_and_a_second_run_resumes(
    models: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "damaged.tif").write_bytes(b"II*\0")
    words = ["explain", str(images), "--model", str(models / "classifier"), "--output", str(tmp_path / "out")]
    assert main([*words, "--device", "cpu", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["done"], record["failed"], record["maps"]) == (3, 1, 3)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "damaged.tif" in page and 'src="data:image/png' in page and "http" not in page.partition("<body>")[2]
    before = (tmp_path / "out" / "0.tif.map1.tif").stat().st_mtime_ns
    put(images / "damaged.tif", (40, 40), 5)
    assert main([*words, "--device", "cpu"]) == 0
    assert len(pd.read_parquet(tmp_path / "out" / "explanations.parquet")) == 4
    assert (tmp_path / "out" / "0.tif.map1.tif").stat().st_mtime_ns == before
    assert main([*words, "--device", "cpu", "--label", "rings"]) == 2
    assert main([*words, "--device", "cpu", "--label", "rings", "--overwrite"]) == 0


def test_an_interrupted_run_resumes(
    models: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained: list[str] = []
    once = ExplanationWriter.__call__

    def interrupt(writer: ExplanationWriter, fact: Any, pixels: np.ndarray) -> Any:
        explained.append(fact["path"])
        if len(explained) == 3:
            raise KeyboardInterrupt
        return once(writer, fact, pixels)

    monkeypatch.setattr("stedfm_hf.inference.stepwise.CHUNK", 1)
    monkeypatch.setattr(ExplanationWriter, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(images, models / "classifier", tmp_path / "out")
    assert not (tmp_path / "out" / "report.html").exists()
    frame = run(images, models / "classifier", tmp_path / "out")
    assert explained == ["0.tif", "1.tif", "2.tif", "2.tif"] and len(frame) == 3
    assert (tmp_path / "out" / "report.html").exists()


def test_maps_of_resampled_images_have_the_pixel_size_of_the_file(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "classifier", tmp_path / "model")
    config = tmp_path / "model" / "preprocessor_config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) | {"target_pixel_size_nm": 25}
    config.write_text(json.dumps(settings), encoding="utf-8")
    put(tmp_path / "a.tif", (16, 32))
    frame = run(tmp_path / "a.tif", tmp_path / "model", tmp_path / "out")
    image = read_image(tmp_path / "out" / frame["map_file"][0])
    assert image.array.shape == (1, 4, 8) and image.pixel_size_nm == pytest.approx((200, 200))
    row, col = np.unravel_index(image.array[0].argmax(), (4, 8))
    assert (frame["peak_y_px"][0], frame["peak_x_px"][0]) == (4 * row, 4 * col)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "logit", "query": (1.0, 1.0)},
            "--query does not fit the method logit; remove it, or use --method attention",
        ),
        ({"method": "pca", "label": "rings"}, "--label does not fit the method pca"),
        ({"method": "attention", "compare_with": "demo"}, "--compare-with does not fit"),
        ({"method": "similarity"}, "needs --compare-with MODEL"),
        ({"method": "correspondence"}, "needs --reference-image FILE"),
        ({"method": "attention", "label": 0}, "--label needs --aggregate gradient"),
        ({"method": "attention", "protocol": "reference", "block": 1}, "--protocol reference fixes --block"),
        ({"method": "attention", "aggregate": "last", "block": 1}, "--aggregate combines the blocks"),
        ({"method": "attention", "aggregate": "rollout", "head": 1}, "combines the heads"),
        ({"method": "attention", "block": 2}, "block 2 does not exist"),
        ({"label": "cells"}, "label 'cells' is unknown; choose rings, fibres, puncta"),
        ({"label": 3}, "label 3 is unknown"),
        ({"block": 1}, "--block does not fit the method logit"),
        ({"method": "pca", "components": "nowhere"}, "nowhere"),
        ({"method": "pca", "components": "a", "foreground": "otsu"}, "remove --foreground"),
        ({"tile_overlap": 12}, "tile overlap 12"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    models: Path, images: Path, tmp_path: Path, options: Any, message: str
) -> None:
    with pytest.raises(UserError) as error:
        explain(images, tmp_path / "out", model=models / "classifier", device="cpu", **options)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_models_without_exact_logit_maps(models: Path, images: Path, tmp_path: Path) -> None:
    frame = run(images, models / "token", tmp_path / "out")
    assert set(frame["method"]) == {"attention"}
    with pytest.raises(UserError, match="averages the patch tokens"):
        run(images, models / "token", tmp_path / "bad", method="logit")
    with pytest.raises(UserError, match="--label needs --aggregate gradient"):  # also if the model decides the method
        run(images, models / "encoder", tmp_path / "bad", label="rings")
    with pytest.raises(UserError, match="choose one with --label"):
        run(images, models / "values", tmp_path / "bad")
    with pytest.raises(UserError, match="has no classifier"):
        run(images, models / "encoder", tmp_path / "bad", method="logit")
    with pytest.raises(UserError, match="has no classifier"):
        run(images, models / "encoder", tmp_path / "bad", method="attention", aggregate="gradient")
    assert run(images, models / "values", tmp_path / "one", label="rings")["exact"].tolist() == [True, True, False]
