"""Packages of bioimage.io: checked and run by its own library."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stedfm_hf import StedFmForSemanticSegmentation, StedFmImageProcessor, StedFmModel
from stedfm_hf.cards.checks import card_problems
from stedfm_hf.exports.bioimageio_format import PACKAGE_FILE, export_bioimageio
from stedfm_hf.runs import UserError
from tests.exports.exported_models import shared_graphs, trained

pytest.importorskip("bioimageio.core")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module", autouse=True)
def _shared_graphs() -> Iterator[None]:
    with shared_graphs():
        yield


def segmenter(**changes: Any) -> Any:
    names = {0: "background", 1: "rings", 2: "puncta"}
    return trained(StedFmForSemanticSegmentation, id2label=names, num_hidden_layers=1, **changes)


def export(model: Any, folder: Path, processor: Any = None, **changes: Any) -> Any:
    folder.mkdir()
    processor = processor or StedFmImageProcessor(patch_size=model.config.patch_size, size=model.config.image_size)
    arguments = {
        "name": "segmenter",
        "title": "my/segmenter 1.0",
        "weights_sha256": "0" * 64,
        "licence": "cc-by-4.0",
        **changes,
    }
    return export_bioimageio(model, processor, folder, **arguments)


def test_the_package_gives_the_probabilities_of_the_model_and_describes_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    model = segmenter(decoder="linear")
    comparison = export(model, tmp_path / "out")
    assert comparison.largest < 1e-4
    with zipfile.ZipFile(tmp_path / "out" / PACKAGE_FILE) as archive:
        names = set(archive.namelist())
        facts = yaml.safe_load(archive.read("rdf.yaml"))
    assert {"model.onnx", "cover.png", "documentation.md", "test_image.npy", "test_probabilities.npy"} <= names
    assert facts["name"] == "my_segmenter 1_0" and facts["license"] == "CC-BY-4.0"
    (image,), (output,) = facts["inputs"], facts["outputs"]
    assert [axis["type"] for axis in image["axes"]] == ["batch", "channel", "space", "space"]
    assert image["axes"][2]["size"] == {"min": 64, "step": 8}
    assert output["axes"][1]["channel_names"] == ["background", "rings", "puncta"]
    assert output["axes"][2]["halo"] == 8
    scaling = next(each for each in image["preprocessing"] if each["id"] == "scale_range")
    assert (scaling["kwargs"]["min_percentile"], scaling["kwargs"]["max_percentile"]) == (0.1, 99.9)
    assert card_problems((tmp_path / "out" / "README.md").read_text(), "model") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "processor"),
    [
        ({"decoder": "upernet"}, {}),
        ({"decoder": "linear", "target_type": "multi_label"}, {"normalization": "minmax"}),
        ({"decoder": "unetr", "num_channels": 2}, {"normalization": "fixed", "intensity_range": (2.0, 60.0)}),
    ],
)
def test_every_decoder_target_and_scaling(tmp_path: Path, changes: Any, processor: Any) -> None:
    model = segmenter(**changes)
    settings = StedFmImageProcessor(patch_size=model.config.patch_size, size=model.config.image_size, **processor)
    assert export(model, tmp_path / "out", settings).largest < 1e-4


def test_what_cannot_be_expressed_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a segmenter; export other models with --format onnx"):
        export(trained(StedFmModel, num_hidden_layers=1), tmp_path / "encoder")
    with pytest.raises(UserError, match=r"cannot express the scaling of this model \(none\)"):
        export(segmenter(), tmp_path / "none", StedFmImageProcessor(patch_size=8, normalization="none"))


def test_an_unknown_licence_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stedfm_hf.exports.bioimageio_format._check", lambda core, path: None)  # it runs the model
    export(segmenter(decoder="linear"), tmp_path / "out", licence="other")
    with zipfile.ZipFile(tmp_path / "out" / PACKAGE_FILE) as archive:
        assert yaml.safe_load(archive.read("rdf.yaml")).get("license") is None
