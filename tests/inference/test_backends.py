"""`embed`, `classify` and `segment` give the same tables with every backend."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from stedfm_hf import StedFmForImageClassification, StedFmForPreTraining, StedFmForSemanticSegmentation
from stedfm_hf.cli import main
from stedfm_hf.exports.folders import write_export
from stedfm_hf.inference import classify, embed, load_classifier, load_encoder, load_segmenter, segment
from stedfm_hf.runs import UserError
from tests.exports.exported_models import shared_graphs, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of images, one of them larger than the crops, and of three models."""
    root = tmp_path_factory.mktemp("backends")
    generator = np.random.default_rng(0)
    (root / "images").mkdir()
    for number, shape in enumerate([(64, 64), (50, 70), (130, 96)]):
        tifffile.imwrite(root / "images" / f"{number}.tif", generator.integers(0, 4000, shape).astype(np.uint16))
    trained(StedFmForPreTraining, num_hidden_layers=1).save_pretrained(root / "encoder")
    trained(StedFmForImageClassification, num_hidden_layers=1, id2label={0: "rings", 1: "fibres"}).save_pretrained(
        root / "classifier"
    )
    names = {0: "background", 1: "rings", 2: "puncta"}  # as in tests/exports/test_bioimageio_format.py
    settings: dict[str, Any] = {"num_hidden_layers": 1, "decoder": "linear"}
    trained(StedFmForSemanticSegmentation, id2label=names, **settings).save_pretrained(root / "segmenter")
    return root


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEDFM_CACHE", str(tmp_path_factory.mktemp("cache")))
        with shared_graphs():
            yield


def columns(table: Any, prefix: str) -> np.ndarray:
    """Return the numbers in the columns whose names begin with a prefix."""
    found = [np.stack(table[name].to_pandas()) for name in table.column_names if name.startswith(prefix)]
    return np.concatenate([each.reshape(len(each), -1) for each in found], axis=1)


def same_facts(table: Any, other: Any, numbers: str) -> bool:
    """Return whether the columns without these numbers are equal."""
    names = [name for name in table.column_names if not name.startswith(numbers)]
    return table.column_names == other.column_names and table.select(names).equals(other.select(names))


@pytest.mark.parametrize(("backend", "pooling"), [("onnx", "avg"), ("onnx", "patch"), ("openvino", "avg")])
def test_embed(backend: str, pooling: str, folder: Path) -> None:
    torch_table = embed(folder / "images", model=folder / "encoder", pooling=pooling, device="cpu").table
    result = embed(folder / "images", model=folder / "encoder", pooling=pooling, backend=backend)
    np.testing.assert_allclose(columns(result.table, "embedding"), columns(torch_table, "embedding"), atol=1e-4)
    assert same_facts(result.table, torch_table, "embedding")
    assert result.manifest.settings["backend"] == backend and result.manifest.settings["precision"] == "float32"


@pytest.mark.parametrize("backend", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_classify(backend: str, folder: Path, tmp_path: Path) -> None:
    tables = []
    for each in ("torch", backend):
        maps = tmp_path / each
        result = classify(folder / "images", folder / "classifier", maps=maps, device="cpu", backend=each)
        tables.append(result.table)
    np.testing.assert_allclose(columns(tables[1], "p_"), columns(tables[0], "p_"), atol=1e-4)
    assert same_facts(tables[1], tables[0], "p_")
    first, second = (tifffile.imread(tmp_path / each / "2.tif.map1.tif") for each in ("torch", backend))
    np.testing.assert_allclose(second, first, atol=1e-4)


@pytest.mark.parametrize("backend", ["openvino", pytest.param("onnx", marks=pytest.mark.slow)])
def test_segment(backend: str, folder: Path, tmp_path: Path) -> None:
    for each in ("torch", backend):
        segment(folder / "images", tmp_path / each, model=folder / "segmenter", device="cpu", backend=each)
    first, second = (tifffile.imread(tmp_path / each / "2.tif.probabilities1.tif") for each in ("torch", backend))
    np.testing.assert_allclose(second, first, atol=1e-4)
    expected, found = (pq.read_table(tmp_path / each / "fields.parquet") for each in ("torch", backend))
    assert same_facts(found, expected, "fraction_")


def test_an_export_is_made_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_encoder(folder / "classifier", backend="onnx", precision="int8")
    assert loaded.precision == "int8" and "exporting the model to onnx (int8) once" in capsys.readouterr().err
    again = load_encoder(folder / "classifier", backend="onnx", precision="int8")
    shutil.copytree(folder / "classifier", tmp_path / "copy")
    load_encoder(tmp_path / "copy", backend="onnx", precision="int8")
    assert capsys.readouterr().err == "" and again.weights_sha256 == loaded.weights_sha256
    assert loaded.weights_sha256 == load_encoder(folder / "classifier", device="cpu").weights_sha256


@pytest.fixture(scope="module")
def export_folder(folder: Path) -> Path:
    """Folder of an encoder that was exported to ONNX."""
    path = folder / "encoder-onnx"
    path.mkdir()
    loaded: Any = load_encoder(folder / "encoder", device="cpu")
    facts: dict[str, Any] = {"format": "onnx", "name": loaded.name, "title": path.name}
    write_export(loaded.model, loaded.processor, path, weights_sha256=loaded.weights_sha256, **facts)
    return path


def test_the_folder_of_an_export_is_a_model(folder: Path, export_folder: Path) -> None:
    expected = embed(folder / "images", model=folder / "encoder", device="cpu").table
    table = embed(folder / "images", model=export_folder, backend="onnx").table
    np.testing.assert_allclose(columns(table, "embedding"), columns(expected, "embedding"), atol=1e-4)
    assert table["weights_sha256"] == expected["weights_sha256"]
    assert set(table["model"].to_pylist()) == {"encoder-onnx"}


def test_the_wrong_backend_or_precision_of_an_export_is_refused(export_folder: Path) -> None:
    for backend, precision, message in (
        ("torch", "float32", "is an export for onnx; add --backend onnx"),
        ("openvino", "float32", "is an export for onnx; use --backend onnx"),
        ("onnx", "int8", "is an export of precision float32; remove --precision int8"),
    ):
        with pytest.raises(UserError, match=message):
            load_encoder(export_folder, backend=backend, precision=precision)
    with pytest.raises(UserError, match="has no classifier"):
        load_classifier(export_folder, backend="onnx")


def test_a_damaged_folder_gets_a_message(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "encoder", tmp_path / "damaged")
    (tmp_path / "damaged" / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json"):
        load_encoder(tmp_path / "damaged", backend="onnx")
    shutil.copy(folder / "encoder" / "config.json", tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="model.safetensors"):
        load_encoder(tmp_path / "damaged", backend="onnx")


def test_models_without_the_head_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="has no classifier"):
        load_classifier(folder / "encoder", backend="onnx")
    with pytest.raises(UserError, match="has no decoder for masks"):
        load_segmenter(folder / "classifier", backend="openvino")


def test_another_backend_does_not_resume_a_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["embed", str(folder / "images"), "--model", str(folder / "encoder"), "--device", "cpu"]
    words += ["--output", str(tmp_path / "table.parquet")]
    assert main(words) == 0
    assert main([*words, "--backend", "onnx"]) == 2
    assert "backend: 'torch' before, 'onnx' now" in capsys.readouterr().err
