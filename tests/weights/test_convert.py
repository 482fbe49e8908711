from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForSemanticSegmentation,
)

from stedfm_hf import StedFmBackbone
from stedfm_hf.runs.errors import UserError
from stedfm_hf.weights import archives, official
from stedfm_hf.weights.convert import Conversion, convert
from tests import parity
from tests.server import Site, serve

LEFT_OVERS = {
    "backbone.mask_token",
    "backbone.vit.head.weight",
    "backbone.vit.head.bias",
    "backbone.vit.pos_embed",
    "decoder.decoder_pos_embed",
}
EXTRA = {"epoch": 999, "global_step": 0, "pytorch-lightning_version": "2.4.0", "loops": {}, "callbacks": {}}
STATE = parity.reference_state_dict("64-p8")


def write(path: Path, state: dict[str, Any] | None = None) -> Path:
    """A Lightning file as the authors' training writes it."""
    torch.save({**EXTRA, "state_dict": STATE if state is None else state}, path)
    return path


def changed(**tensors: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The stand-in state dict with some tensors replaced or (None) left out; `__` stands for a dot in the keys."""
    new = {key.replace("__", "."): tensor for key, tensor in tensors.items()}
    return {key: tensor for key, tensor in {**STATE, **new}.items() if tensor is not None}


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Conversion:
    folder = tmp_path_factory.mktemp("converted")
    return convert(write(folder / "pl_checkpoint-999.pth"), folder / "stedfm-vit-64-p8")


@pytest.mark.parametrize("architecture", ["64-p8", "tiny", "small"])
def test_every_tensor_arrives_and_only_left_overs_stay(tmp_path: Path, architecture: str) -> None:
    state = parity.reference_state_dict(architecture)
    report = convert(write(tmp_path / "weights.pth", state), tmp_path / "model")
    assert report.architecture == f"stedfm-vit-{architecture}" and report.kind == "pretraining"
    assert set(report.dropped) == LEFT_OVERS
    model, loading = AutoModelForPreTraining.from_pretrained(report.output, output_loading_info=True)
    assert not any(loading.values())
    expected = parity.our_state_dict(state)
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_converted_encoder_gives_the_tokens_of_the_reference(report: Conversion) -> None:
    fixture = parity.results("64-p8")
    model = AutoModel.from_pretrained(report.output).eval()
    with torch.no_grad():
        tokens = model(parity.images(len(fixture["tokens"]), 64)).last_hidden_state
    assert (tokens - torch.from_numpy(fixture["tokens"])).abs().max() <= 1e-5


def test_the_folder_is_complete(report: Conversion) -> None:
    processor = AutoImageProcessor.from_pretrained(report.output)
    assert processor.patch_size == 8
    assert AutoModelForImageClassification.from_pretrained(report.output, num_labels=3).config.num_labels == 3
    assert StedFmBackbone.from_pretrained(report.output).config.hidden_size == 128
    card = (report.output / "README.md").read_text(encoding="utf-8")
    assert "stedfm-vit-64-p8" in card and "1,594,880" in card and "pl_checkpoint-999.pth" in card


def test_the_record_says_where_everything_came_from(report: Conversion) -> None:
    text = (report.output / "manifest.json").read_text(encoding="utf-8")
    record = json.loads(text)
    source = report.output.parent / "pl_checkpoint-999.pth"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert record["settings"] == {"source": "pl_checkpoint-999.pth", "source_sha256": digest}
    weights = (report.output / "model.safetensors").read_bytes()
    assert record["options"]["weights_sha256"] == report.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert record["options"]["dropped"] == report.dropped
    assert str(report.output.parent) not in text and record["versions"]["torch"] == torch.__version__
    assert sorted(os.listdir(report.output.parent)) == ["pl_checkpoint-999.pth", report.output.name]


def test_left_overs_are_optional_and_half_precision_is_widened(tmp_path: Path) -> None:
    state = {key: tensor.half() for key, tensor in STATE.items() if key not in LEFT_OVERS or key.endswith("pos_embed")}
    report = convert(write(tmp_path / "half.pth", state), tmp_path / "model")
    assert set(report.dropped) == {"backbone.vit.pos_embed", "decoder.decoder_pos_embed"}
    model = AutoModelForPreTraining.from_pretrained(report.output)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_classifier_with_its_criterion(tmp_path: Path) -> None:
    state = parity.classifier_state_dict()
    path = tmp_path / "classifier.pth"
    torch.save(
        {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {}, "loss": torch.nn.CrossEntropyLoss()}, path
    )
    report = convert(path, tmp_path / "model")
    assert (report.kind, report.architecture) == ("classification", "stedfm-vit-small")
    assert report.manifest.options["not_rebuilt"] == ["torch.nn.modules.loss.CrossEntropyLoss"]
    assert set(report.dropped) <= {"backbone.pos_embed", "backbone.head.weight", "backbone.head.bias"}
    model, loading = AutoModelForImageClassification.from_pretrained(report.output, output_loading_info=True)
    assert not any(loading.values()) and model.config.num_labels == 4
    fixture = parity.results("classifier_small")
    with torch.no_grad():
        logits = model.eval()(parity.images(len(fixture["classifier_logits"]), 224)).logits
    assert (logits - torch.from_numpy(fixture["classifier_logits"])).abs().max() <= 1e-5
    assert "pipeline_tag: image-classification" in (report.output / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["bare", "zip", "several in a zip", "safetensors"])
def test_the_other_forms_of_a_source(tmp_path: Path, form: str, report: Conversion) -> None:
    member = None
    if form == "bare":
        source = tmp_path / "weights.pt"
        torch.save(STATE, source)
    elif form == "safetensors":
        source = tmp_path / "weights.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in STATE.items()}, source)
    else:
        whole = write(tmp_path / "whole.pth").read_bytes()
        members = {
            "notes.txt": b"hello",
            "__MACOSX/._pl_checkpoint-999.pth": b"junk",
            "models/pl_checkpoint-999.pth": whole,
        }
        if form == "several in a zip":  # the last one counts, as for the reference
            members = {"a.pth": b"not even read", **members}
        source = zipped(tmp_path / "mae.zip", members)
        member = "models/pl_checkpoint-999.pth"
    found = convert(source, tmp_path / "model")
    assert found.manifest.options["member"] == member and found.weights_sha256 == report.weights_sha256


def test_official_weights_are_fetched_by_name(
    tmp_path: Path, loopback: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = zipped(tmp_path / "mae.zip", {"pl_checkpoint-999.pth": write(tmp_path / "whole.pth").read_bytes()})
    with serve(Site(source.read_bytes()), "mae-small-sted.zip") as site:
        weights = official.OfficialWeights("MAE_SMALL_STED", "stedfm-vit-small", "STED", url=site.url, licence="mit")
        monkeypatch.setitem(official.OFFICIAL_WEIGHTS, "MAE_SMALL_STED", weights)
        report = convert("mae_small_sted", tmp_path / "model")
        assert report.manifest.settings["source"] == "MAE_SMALL_STED" and len(site.requests) == 1
        card = (report.output / "README.md").read_text(encoding="utf-8")
        assert "MAE_SMALL_STED" in card and "license: mit" in card
        by_url = convert(site.url + "?token=secret", tmp_path / "by_url")
        assert by_url.manifest.settings["source"] == site.url and "secret" not in (
            by_url.output / "manifest.json"
        ).read_text(encoding="utf-8")


WIDTH = 128
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "ResNet": ({"conv1.weight": torch.ones(64, 1, 7, 7), "fc.bias": torch.ones(4)}, r"conv1\.weight \(64, 1, 7, 7\)"),
    "other depth": ({key: value for key, value in STATE.items() if ".blocks.7." not in key}, r"\(128, 7, 8\)"),
    "segmentation head of a piece of an encoder": (
        {
            "backbone.patch_embed.proj.weight": torch.ones(128, 1, 8, 8),
            "classification_head.weight": torch.ones(8, 128),
        },
        r"\(128, 0, 8\)",
    ),
    "missing key": (changed(decoder__decoder_norm__bias=None), r"1 missing \(decoder\.norm\.bias\)"),
    "missing table": (changed(backbone__vit__pos_embed=None), r"1 missing \(backbone\.vit\.pos_embed\)"),
    "unexpected key": (changed(backbone__vit__extra=torch.ones(3)), r"1 unexpected \(backbone\.vit\.extra\)"),
    "deeper decoder": (
        changed(decoder__decoder_blocks__1__norm1__weight=torch.ones(512)),
        r"unexpected \(decoder\.decoder_blocks\.1\.norm1\.weight\)",
    ),
    "wrong shape": (changed(decoder__decoder_norm__bias=torch.ones(3)), r"decoder\.decoder_norm\.bias is \(3,\)"),
    "wrong type": (
        changed(decoder__decoder_norm__bias=torch.ones(512, dtype=torch.int64)),
        r"decoder\.decoder_norm\.bias is \(512,\) int64",
    ),
    "NaN": (changed(backbone__vit__norm__bias=torch.full((WIDTH,), float("nan"))), "NaN"),
    "infinity": (changed(backbone__vit__norm__bias=torch.full((WIDTH,), float("inf"))), "infinite"),
    "learned positions": (
        changed(backbone__vit__pos_embed=STATE["backbone.vit.pos_embed"] + 0.01),
        r"backbone\.vit\.pos_embed is not the fixed sin-cos",
    ),
    "no class token row": (
        changed(backbone__vit__pos_embed=STATE["backbone.vit.pos_embed"][:, 1:]),
        r"backbone\.vit\.pos_embed is not the fixed sin-cos",
    ),
    "stretched tensor": (
        changed(backbone__vit__patch_embed__proj__weight=torch.ones(1).expand(WIDTH, 10**9, 8, 8)),
        "not plain tensors",
    ),
    "sparse tensor": (changed(decoder__decoder_norm__bias=torch.ones(512).to_sparse()), "not plain tensors"),
    "not a tensor": ({**STATE, "backbone.vit.norm.bias": "text"}, "not plain tensors"),
    "empty": ({}, "no weights"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_models_and_broken_weights_are_named_in_one_line(tmp_path: Path, name: str) -> None:
    state, match = WRONG[name]
    source = write(tmp_path / "weights.pth", state)
    with pytest.raises(UserError, match=match) as error:
        convert(source, tmp_path / "model")
    assert "weights.pth" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600
    assert os.listdir(tmp_path) == ["weights.pth"]


@pytest.mark.parametrize("decoder", ["linear", "unetr"])
def test_a_segmentation_result_gives_the_same_maps(tmp_path: Path, decoder: str) -> None:
    """As the reference saves it: with the optimizer, and a dictionary of NumPy numbers that says what is missing."""
    stats: dict[str, list[Any]] = defaultdict(list)
    stats["valid-loss"].append(np.float64(0.25))
    state = parity.segmentation_state_dict(decoder)
    torch.save({"model": state, "optimizer": {}, "stats": stats}, tmp_path / "result.pt")
    report = convert(tmp_path / "result.pt", tmp_path / "model")
    model = AutoModelForSemanticSegmentation.from_pretrained(report.output).eval()
    assert (model.config.decoder, model.config.num_labels, model.config.target_type) == (decoder, 2, "multi_label")
    with torch.no_grad():
        logits = model(parity.images(2, 224)).logits
    found = logits if decoder == "linear" else model.probabilities(logits)
    expected = torch.from_numpy(parity.results("segmentation_small")[decoder])
    torch.testing.assert_close(found[:, :, 3::7, 3::7], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "name",
    ["../evil.pth", "/evil.pth", "a/../../evil.pth", "C:\\evil.pth", "..\\evil.pth", "\\\\host\\share\\evil.pth"],
)
def test_an_archive_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    source = zipped(folder / "mae.zip", {"good.pth": b"weights", name: b"more weights"})
    before = listing(tmp_path)
    with pytest.raises(UserError, match="points outside of the archive"):
        convert(source, folder / "model")
    assert listing(tmp_path) == before


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = zipped(tmp_path / "bomb.zip", {"weights.pth": bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="unpacks to 5 MB"):
        convert(source, tmp_path / "model")
    monkeypatch.setattr(archives, "MAX_RATIO", 10**6)
    monkeypatch.setattr(archives, "MAX_BYTES", 4_000_000)
    with pytest.raises(UserError, match="unpacks to 5 MB"):
        convert(source, tmp_path / "model")
    assert os.listdir(tmp_path) == ["bomb.zip"]


def test_an_archive_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    source = zipped(tmp_path / "liar.zip", {"weights.pth": bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    said, lie = (5_000_000).to_bytes(4, "little"), (100_000).to_bytes(4, "little")
    source.write_bytes(source.read_bytes().replace(said, lie))
    with pytest.raises(UserError, match=r"liar\.zip: cannot be unpacked"):
        convert(source, tmp_path / "model")
    assert os.listdir(tmp_path) == ["liar.zip"]


def test_archives_without_a_readable_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint"):
        convert(zipped(tmp_path / "a.zip", {"notes.txt": b"hello"}), tmp_path / "model")
    with pytest.raises(UserError, match=r"b\.zip \(weights\.pth\): is not a PyTorch checkpoint"):
        convert(zipped(tmp_path / "b.zip", {"weights.pth": b"hello"}), tmp_path / "model")
    whole = zipped(tmp_path / "c.zip", {"weights.pth": write(tmp_path / "whole.pth").read_bytes()})
    whole.write_bytes(whole.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"c\.zip"):
        convert(whole, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("source", ["missing.pth", "MAE_SMALL_STEAD", "MAE_LARGE_STED", "."])
def test_sources_that_are_none(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        convert(source, tmp_path / "model")
    assert str(error.value).startswith(f"{source}: ") and "\n" not in str(error.value)


def test_a_name_like_that_of_official_weights_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file; did you mean MAE_SMALL_STED\?"):
        convert(tmp_path / "MAE_SMALL_STED.zip", tmp_path / "out")
    with pytest.raises(UserError, match=r"no such file\. Give a checkpoint"):
        convert(tmp_path / "mine.ckpt", tmp_path / "out")


def test_an_occupied_folder_is_left_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "weights.pth")
    for dest in (tmp_path / "full", tmp_path / "file"):
        if dest.name == "full":
            dest.mkdir()
            (dest / "thesis.txt").write_text("three years of work")
        else:
            dest.write_text("a file")
    before = listing(tmp_path)
    for dest, overwrite in ((tmp_path / "full", False), (tmp_path / "full", True), (tmp_path / "file", True)):
        with pytest.raises(UserError, match="folder"):
            convert(source, dest, overwrite=overwrite)
    assert listing(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert convert(source, tmp_path / "empty").output == tmp_path / "empty"


def test_replacing_a_conversion_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    source, dest = write(tmp_path / "weights.pth"), tmp_path / "model"
    old = convert(source, dest)
    (dest / "notes.txt").write_text("mine")
    (dest / "figures").mkdir()
    (dest / "figures" / "map.svg").write_text("mine, too")
    before = listing(dest)
    assert convert(source, dest).weights_sha256 == old.weights_sha256 and listing(dest) == before, "is finished"
    write(tmp_path / "broken.pth")
    with pytest.raises(UserError, match=r"other settings \(source: .*--overwrite"):
        convert(tmp_path / "broken.pth", dest)
    torch.save({"state_dict": changed(decoder__decoder_norm__bias=None)}, tmp_path / "broken.pth")
    with pytest.raises(UserError, match="missing"):
        convert(tmp_path / "broken.pth", dest, overwrite=True)
    assert listing(dest) == before

    write(source, changed(backbone__vit__norm__bias=torch.ones(WIDTH)))
    new = convert(source, dest, overwrite=True)
    assert new.weights_sha256 != old.weights_sha256
    after = listing(dest)
    assert after.keys() == before.keys() and after["notes.txt"] == b"mine"
    assert sorted(os.listdir(tmp_path)) == ["broken.pth", "model", "weights.pth"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedModel

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(UserError, match="No space left"):
        convert(write(tmp_path / "weights.pth"), tmp_path / "model")
    assert os.listdir(tmp_path) == ["weights.pth"]
