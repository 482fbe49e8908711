"""`stedfm export`: folder, README, manifest and messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from stedfm_hf import (
    StedFmForImageClassification,
    StedFmForPreTraining,
    StedFmForSemanticSegmentation,
    StedFmImageProcessor,
)
from stedfm_hf.cli import main
from stedfm_hf.hub.export import export
from stedfm_hf.inference import load_classifier, load_encoder, load_segmenter
from stedfm_hf.runs import UserError
from tests.docs.blocks import read_blocks
from tests.exports.exported_models import shared_graphs, trained


@pytest.fixture(scope="module", autouse=True)
def _shared_graphs() -> Iterator[None]:
    with shared_graphs():
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current folder with a model of every kind and an image of the crop size."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tests.docs.blocks.ROOT", tmp_path)
    names = {0: "background", 1: "rings"}
    processor = StedFmImageProcessor(patch_size=8, size=64, percentiles=(1, 99))
    for name, model in {
        "mae": trained(StedFmForPreTraining, num_hidden_layers=1),
        "classifier": trained(StedFmForImageClassification, id2label=names, num_hidden_layers=1),
        "segmenter": trained(StedFmForSemanticSegmentation, id2label=names, decoder="linear", num_hidden_layers=1),
    }.items():
        processor.save_pretrained(name)
        model.save_pretrained(name)
    tifffile.imwrite("cell.tif", np.random.default_rng(0).integers(0, 4000, (64, 64)).astype(np.uint16))
    return tmp_path


def run_readme(folder: str) -> dict[str, Any]:
    """Run the Python code of a README, and return its variables."""
    namespace: dict[str, Any] = {}
    for block in read_blocks(Path(folder, "README.md").resolve()):
        if block.language == "python":
            exec(compile(block.code, folder, "exec"), namespace)
    return namespace


def prepared(loaded: Any) -> torch.Tensor:
    return torch.from_numpy(loaded.processor.prepare("cell.tif"))[None]


@pytest.mark.parametrize(
    ("format", "precision", "tolerance"),
    [
        ("transformers", "float32", 2e-5),
        ("onnx", "int8", 0.2),
        pytest.param("openvino", "bfloat16", 0.1, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_the_code_of_the_readme_computes_the_embedding(
    format: str, precision: str, tolerance: float, folder: Path
) -> None:
    result = export("mae", format, "exported", encoder_only=True, precision=precision)
    loaded = load_encoder("mae", device="cpu")
    embedding = run_readme("exported")["embedding"]
    expected = loaded.model(prepared(loaded)).pooler_output.numpy()
    np.testing.assert_allclose(np.asarray(embedding), expected, atol=tolerance)
    assert result.largest_difference <= 10 * tolerance
    assert f"{result.largest_difference:.2g}" in Path("exported/README.md").read_text()
    assert not list(Path("exported").glob("*.py"))


@pytest.mark.parametrize(
    ("model", "format"),
    [
        ("classifier", "transformers"),
        pytest.param("classifier", "openvino", marks=pytest.mark.slow),
        pytest.param("segmenter", "onnx", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_the_code_of_the_readme_computes_probabilities(model: str, format: str, folder: Path) -> None:
    export(model, format, "exported")
    loaded: Any = (load_classifier if model == "classifier" else load_segmenter)(model, device="cpu")
    logits = loaded.model(prepared(loaded)).logits
    found = run_readme("exported")["probabilities"]
    np.testing.assert_allclose(found, logits.softmax(dim=1).numpy(), atol=1e-4)
    assert "background, rings" in Path("exported", "README.md").read_text()


def test_the_command_prints_the_difference_and_writes_a_manifest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "mae", "--format", "timm", "--output", "out", "--image-size", "96"]
    assert main(words) == 0
    assert "largest difference from the PyTorch model: " in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    assert "out: is finished" in printed.err
    facts = json.loads(printed.out)
    assert facts["largest_difference"] <= 2e-5 and facts["compared_sizes"] == [[96, 96]]
    record = json.loads(Path("out/manifest.json").read_text())
    assert record["settings"]["format"] == "timm" and record["model"] == "mae" and record["weights_sha256"]
    assert main([*words[:-1], "64"]) == 2
    assert "image_size: 96 before, 64 now" in capsys.readouterr().err
    assert main([*words[:-1], "64", "--overwrite"]) == 0
    assert sorted(file.name for file in Path("out").iterdir()) == [
        "README.md",
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]


def test_a_masked_autoencoder_keeps_its_decoder_in_transformers(folder: Path) -> None:
    export("mae", "transformers", "out")
    assert json.loads(Path("out/config.json").read_text())["architectures"] == ["ViTMAEForPreTraining"]
    assert "--encoder-only" in Path("out/README.md").read_text() and "patches" in run_readme("out")


def test_the_licence_of_the_model_is_kept(folder: Path) -> None:
    Path("mae/README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Mine\n")
    export("mae", "timm", "out")
    assert "\nlicense: cc-by-4.0\n" in Path("out/README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mae --format timm --precision int8", "--format timm has no precision int8; use --format onnx"),
        ("mae --format onnx --precision bfloat16", "onnx has no precision bfloat16; choose float32 or int8"),
        ("mae --format onnx --image-size 64", "takes images of every size; remove --image-size"),
        ("mae --format timm --image-size 60", "image size 60 is not a multiple of the patch size of the model, 8"),
        ("mae --format torchscript", "format 'torchscript' is unknown"),
        ("segmenter --format transformers", "export the segmenter with --format onnx"),
        ("nowhere --format onnx", "model nowhere: no such folder"),
    ],
)
def test_wrong_arguments_get_one_line(
    words: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *words.split(), "--output", "out"]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1
    assert not Path("out").exists()


def test_an_export_that_differs_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stedfm_hf.exports import timm_format

    network = timm_format._like_timm

    def wrong(path: Path) -> Any:
        run = network(path)
        return lambda images: {name: value + 0.5 for name, value in run(images).items()}

    monkeypatch.setattr(timm_format, "_import_timm", lambda: None)
    monkeypatch.setattr(timm_format, "_like_timm", wrong)
    with pytest.raises(UserError, match=r"differs from the model by 0\.5"):
        export("mae", "timm", "out")
    assert not Path("out").exists() and not [each for each in folder.iterdir() if each.name.startswith(".out")]
