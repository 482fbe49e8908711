"""Exports to ONNX and OpenVINO: the same outputs at every size, and what the files record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from stedfm_hf import StedFmForImageClassification, StedFmForPreTraining, StedFmForSemanticSegmentation
from stedfm_hf.exports.kinds import Kind, encoder_of
from stedfm_hf.exports.onnx_format import Graph, export_onnx, matrix_pool
from stedfm_hf.exports.openvino_format import export_openvino
from stedfm_hf.exports.runtime_models import load_runtime_model
from stedfm_hf.runs import UserError
from tests.exports.exported_models import difference, shared_graphs, trained
from tests.models import pixels

WRITERS = {"onnx": export_onnx, "openvino": export_openvino}
LOW = {"onnx": "int8", "openvino": "bfloat16"}
SIZES = [(64, 64), (48, 112)]
CLOSE = 1e-4
_CLASSES: dict[str, Any] = {
    "encoder": StedFmForPreTraining,
    "classifier": StedFmForImageClassification,
    "segmenter": StedFmForSemanticSegmentation,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that exports a model once: (model, runtime model)."""

    @cache
    def make(backend: str, kind: Kind, architecture: str, precision: str, **changes: Any) -> tuple[Any, Any]:
        model = trained(_CLASSES[kind], architecture, **changes)
        folder = tmp_path_factory.mktemp(f"{backend}-{kind}")
        comparison = WRITERS[backend](model, folder, weights_sha256="ab" * 32, precision=precision)
        comparison.check(precision)
        assert comparison.largest <= CLOSE or precision != "float32"
        return encoder_of(model) if kind == "encoder" else model, load_runtime_model(folder, kind, backend, "test")

    return make


@pytest.fixture(scope="module", autouse=True)
def _shared_graphs() -> Iterator[None]:
    with shared_graphs():
        yield


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():  # as callers may have it; the exporter must work all the same
        yield


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("backend", "architecture"),
    [
        ("onnx", "64-p8"),
        ("openvino", "64-p8"),
        pytest.param("onnx", "tiny-p16", marks=pytest.mark.slow),
        pytest.param("openvino", "tiny-p16", marks=pytest.mark.slow),
    ],
)
def test_encoder(backend: str, architecture: str, size: tuple[int, int], exported: Any) -> None:
    layers = 1 if architecture == "64-p8" else 2  # one, as the models of other tests, whose graphs are shared
    model, runtime = exported(backend, "encoder", architecture, "float32", num_hidden_layers=layers)
    for batch in (1, 3):
        found, expected = runtime(pixels(batch, *size)), model(pixels(batch, *size))
        assert difference(found.last_hidden_state, expected.last_hidden_state) <= CLOSE
        assert difference(found.pooler_output, expected.pooler_output) <= CLOSE
    assert (runtime.precision, runtime.weights_sha256) == ("float32", "ab" * 32)


@pytest.mark.parametrize("backend", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_classifier_and_its_encoder(backend: str, exported: Any) -> None:
    model, runtime = exported(backend, "classifier", "64-p8", "float32", num_labels=2, num_hidden_layers=1)
    images = pixels(2, 48, 112)
    expected = model(images)
    assert difference(runtime(images).logits, expected.logits) <= CLOSE
    assert difference(runtime.base_model(images).pooler_output, expected.pooler_output) <= CLOSE
    assert difference(runtime.classify(expected.pooler_output), expected.logits) <= CLOSE


@pytest.mark.parametrize(
    ("backend", "decoder"),
    [
        pytest.param("openvino", "upernet", marks=pytest.mark.slow),
        pytest.param("onnx", "upernet", marks=pytest.mark.slow),
        pytest.param("onnx", "linear", marks=pytest.mark.slow),
        pytest.param("onnx", "unetr", marks=pytest.mark.slow),
        pytest.param("openvino", "unetr", marks=pytest.mark.slow),
    ],
)
def test_segmenter(backend: str, decoder: str, exported: Any) -> None:
    model, runtime = exported(backend, "segmenter", "64-p8", "float32", decoder=decoder, target_type="multi_label")
    for size in ((64, 64), (40, 88), (104, 56)):
        expected = model(pixels(2, *size)).logits
        found = runtime(pixels(2, *size)).logits
        assert difference(found, expected) <= CLOSE
        assert difference(runtime.probabilities(found), model.probabilities(expected)) <= CLOSE


@pytest.mark.parametrize(("backend", "precision"), LOW.items())
def test_low_precision_keeps_the_direction_of_embeddings(backend: str, precision: str, exported: Any) -> None:
    model, runtime = exported(backend, "encoder", "64-p8", precision, num_hidden_layers=1)
    images = pixels(8, 64, 64)
    found, expected = runtime(images).pooler_output, model(images).pooler_output
    assert float(torch.nn.functional.cosine_similarity(found, expected).min()) >= 0.99
    assert difference(found, expected) > 0
    assert runtime.precision == precision


def test_the_folder_holds_the_configuration_without_code(tmp_path: Path) -> None:
    model = trained(StedFmForPreTraining, num_hidden_layers=1)
    model.config.auto_map = {"AutoModel": "modeling_stedfm.StedFmModel"}
    export_onnx(model, tmp_path, weights_sha256="ab")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["StedFmModel"] and "auto_map" not in config
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.onnx"]
    assert model.config.auto_map  # that of the model stays
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(UserError, match="is an exported encoder, and this needs a segmenter"):
        load_runtime_model(tmp_path, "segmenter", "onnx", "test")
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(UserError, match="model.onnx cannot be loaded"):
        load_runtime_model(tmp_path, "encoder", "onnx", "test")


@pytest.mark.parametrize("size", [(64, 64), (40, 88)])
def test_the_graph_of_upernet_has_no_pooling_of_a_fixed_size(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(StedFmForSemanticSegmentation)
    expected = model(pixels(1, *size)).logits
    monkeypatch.setattr(torch.nn.functional, "adaptive_avg_pool2d", None)
    (found,) = Graph(model)(pixels(1, *size))
    assert difference(found, expected) <= 1e-5
    with pytest.raises(TypeError):
        model(pixels(1, *size))


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_pooling_by_matrices_is_adaptive_pooling(size: int) -> None:
    for shape in ((1, 1), (2, 5), (4, 9), (6, 6), (13, 7)):
        maps = torch.rand(2, 3, *shape)
        assert difference(matrix_pool(maps, size), torch.nn.AdaptiveAvgPool2d(size)(maps)) <= 1e-6
