"""Publishing on a Hub on this machine: checks, uploads, resuming, consent, and the circle back to a model."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from datasets import load_dataset
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import AutoImageProcessor, AutoModel, Trainer, TrainingArguments

from stedfm_hf import (
    StedFmForImageClassification,
    StedFmForPreTraining,
    StedFmForSemanticSegmentation,
    StedFmImageProcessor,
)
from stedfm_hf.cards.finetuned import render_finetuned_card
from stedfm_hf.cli import main
from stedfm_hf.data import stream
from stedfm_hf.hub.endpoint import ENDPOINT_FILES
from stedfm_hf.hub.export import export
from stedfm_hf.hub.loading_check import check_loading
from stedfm_hf.hub.publish import publish
from stedfm_hf.modeling.card_stedfm import CARD
from stedfm_hf.runs import UserError, counted
from tests.cards.test_finetuned_card import LEAST
from tests.data.assembled import labelled_crops, write_repo
from tests.hub_server import TOKEN, Hub, environment_of, hub_server, use_hub
from tests.models import pixels, tiny_config

ID = "flclab/stedfm-vit-small"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as hub:
        use_hub(hub, monkeypatch)
        yield hub


def write_model(folder: Path, kind: Any = StedFmForPreTraining) -> Path:
    """Save a tiny model whose weights are not the initial ones, with a card."""
    torch.manual_seed(1)
    model = kind(tiny_config(num_labels=2))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    model.save_pretrained(folder)
    facts = dataclasses.replace(LEAST, name=folder.name, config=model.config.to_dict(), licence="mit")
    (folder / CARD).write_text(render_finetuned_card(facts), encoding="utf-8")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the two interpreters that load the model, which other tests start."""
    monkeypatch.setattr("stedfm_hf.hub.kinds.check_loading", lambda folder: [])


READ = """
import sys, torch
from safetensors.torch import save_file
hub_id, output, how = sys.argv[1:]
if how == "without":
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "stedfm_hf":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Blocked())
else:
    import stedfm_hf
from transformers import AutoImageProcessor, AutoModel
arguments = {"trust_remote_code": True} if how == "without" else {}
model = AutoModel.from_pretrained(hub_id, **arguments).eval()
AutoImageProcessor.from_pretrained(hub_id, **arguments)
images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    save_file({"tokens": model(images).last_hidden_state}, output)
"""


def tokens_of(model: Any) -> torch.Tensor:
    """Return the tokens that a model computes from the image of `READ`."""
    with torch.no_grad():
        tokens: torch.Tensor = model.eval()(pixels()).last_hidden_state
    return tokens


def test_a_published_model_is_complete_and_loads_by_its_id(hub: Hub, model: Path, quick: None, tmp_path: Path) -> None:
    published = publish(model, ID, tag="v1")
    stored = hub.model(ID)
    assert published.url == f"{hub.url}/{ID}" and stored.private and stored.tags == {"v1": stored.commits[-1].oid}
    wanted = {path.name for path in model.iterdir()} | {file.name for file in ENDPOINT_FILES}
    assert set(stored.files) - {".gitattributes"} == wanted
    loaded = AutoModel.from_pretrained(ID, cache_dir=tmp_path)
    AutoImageProcessor.from_pretrained(ID, cache_dir=tmp_path)
    assert torch.equal(tokens_of(loaded), tokens_of(AutoModel.from_pretrained(model)))


@pytest.mark.slow
def test_a_published_model_loads_by_its_id_with_and_without_the_package(hub: Hub, model: Path, tmp_path: Path) -> None:
    publish(model, ID)
    for how in ("with", "without"):
        output = tmp_path / f"{how}.safetensors"
        run = subprocess.run(
            [sys.executable, "-c", READ, ID, str(output), how],
            env=environment_of(hub, tmp_path / f"cache-{how}"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        assert torch.equal(load_file(output)["tokens"], tokens_of(AutoModel.from_pretrained(model)))


def test_a_published_data_set_is_streamed_from_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDFM_CACHE", str(tmp_path / "cache"))
    write_repo(tmp_path / "crops", labelled_crops(24))
    publish(tmp_path / "crops", "lab/crops", licence="cc0-1.0")
    rows = list(load_dataset("lab/crops", split="train", streaming=True))
    batches = stream("lab/crops", "train", batch_size=4, rank=0, world_size=1, seed=0)
    assert 0 < sum(len(batch["pixels"]) for batch in batches) <= len(rows) < 24


def test_the_same_content_makes_no_second_commit(hub: Hub, model: Path, quick: None) -> None:
    publish(model, ID)
    commits, puts = len(hub.model(ID).commits), len(hub.puts)
    again = publish(model, ID)
    assert (len(hub.model(ID).commits), len(hub.puts)) == (commits, puts)
    assert again.uploaded == again.removed == () and "nothing has changed" in again.summary()
    tagged = publish(model, ID, tag="v1")
    assert len(hub.model(ID).commits) == commits and tagged.tag == "v1" and "v1" in hub.model(ID).tags
    publish(model, ID, tag="v1")


def test_an_interrupted_upload_resumes_and_is_tagged_only_when_it_is_complete(
    hub: Hub, model: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.cut_commits = 1000
    with pytest.raises(UserError, match="the upload stopped .*run the same command again to resume"):
        publish(model, ID, tag="v1")
    assert hub.model(ID).tags == {}
    hub.cut_commits = 0
    publish(model, ID, tag="v1")
    assert set(hub.model(ID).tags) == {"v1"} and len(set(hub.puts)) == len(hub.puts)


def test_a_connection_that_breaks_in_a_large_file_is_tried_again(
    hub: Hub, model: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.cut_puts = 1
    publish(model, ID)
    assert hub.model(ID).files["model.safetensors"] == (model / "model.safetensors").read_bytes()


def test_other_content_is_replaced_only_with_consent(hub: Hub, model: Path, quick: None, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/config.json").write_text('{"model_type": "bert"}')
    stored = hub.add("model", ID, tmp_path / "theirs", private=True)
    with pytest.raises(UserError, match=r"has other content, which would be replaced \(config.json\).*--overwrite"):
        publish(model, ID)
    assert len(stored.commits) == 1
    publish(model, ID, overwrite=True)
    assert stored.files["config.json"] == (model / "config.json").read_bytes()


def test_a_tag_of_an_earlier_version_is_not_moved(hub: Hub, model: Path, quick: None) -> None:
    publish(model, ID, tag="v1")
    commits = len(hub.model(ID).commits)
    (model / CARD).write_text((model / CARD).read_text() + "\nMore.\n")
    with pytest.raises(UserError, match="has the tag v1 on an earlier version"):
        publish(model, ID, tag="v1", overwrite=True)
    assert len(hub.model(ID).commits) == commits


def add_pickle(folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(pickle.dumps({"a": 1}))


def add_hidden_pickle(folder: Path) -> None:
    (folder / "notes.dat").write_bytes(pickle.dumps({"a": 1}))


def add_old_pickle(folder: Path) -> None:
    (folder / "notes.dat").write_bytes(pickle.dumps({"a": [1, 2]}, protocol=0))


def add_pickle_next_to_openvino(folder: Path) -> None:
    (folder / "model.bin").write_bytes(pickle.dumps({"a": 1}))
    (folder / "model.xml").write_text("<net/>")


def add_object_array(folder: Path) -> None:
    np.savez(folder / "arrays.npz", a=np.array([{"b": 1}], dtype=object))


def add_torch_file(folder: Path) -> None:
    torch.save({"a": torch.zeros(2)}, folder / "weights.data")


def add_token(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("token: hf_" + "abcDEF123" * 4)


def add_token_next_to_path(folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps({"data": f"/home/ada/{'hf_' + 'abcDEF123' * 4}"}))


def add_path(folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps({"data": "/home/ada/images"}))


def add_link(folder: Path) -> None:
    (folder.parent / "outside.json").write_text("{}")
    (folder / "more.json").symlink_to(folder.parent / "outside.json")


def remove_licence(folder: Path) -> None:
    (folder / CARD).write_text((folder / CARD).read_text().replace("license: mit\n", ""))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (add_pickle, "training_args.bin: is a pickle"),
        (add_hidden_pickle, "notes.dat: is a pickle"),
        (add_old_pickle, "notes.dat: is a pickle"),
        (add_pickle_next_to_openvino, "model.bin: is a pickle"),
        (add_object_array, "arrays.npz: is a pickle"),
        (add_torch_file, "weights.data: is a pickle"),
        (add_token, "recipe.yaml: contains a token of the Hub"),
        (add_path, "metrics.json: contains an absolute path"),
        (add_link, "more.json: is a link to a file outside"),
        (remove_licence, "README.md: has no licence; give --licence"),
        (lambda folder: (folder / CARD).unlink(), "README.md: does not exist"),
    ],
)
def test_a_folder_with_a_problem_is_not_published(
    hub: Hub, model: Path, quick: None, spoil: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(model)
    with pytest.raises(UserError, match=r"has 1 problem \(listed above\); nothing was uploaded"):
        publish(model, ID)
    assert words in capsys.readouterr().err and not hub.repositories
    dry = publish(model, ID, dry_run=True)
    assert dry.exit_status == 1 and any(words in each for each in dry.findings) and not hub.repositories


def test_a_message_about_a_path_shows_no_part_of_a_token(hub: Hub, model: Path, quick: None) -> None:
    add_token_next_to_path(model)
    findings = publish(model, ID, dry_run=True).findings
    assert len(findings) == 2 and not any("abcDEF" in each for each in findings)


def test_the_card_is_the_last_commit_and_the_tag_is_on_it(hub: Hub, model: Path, quick: None) -> None:
    publish(model, ID, tag="v1")
    stored = hub.model(ID)
    before, last = stored.commits[-2:]
    assert set(last.files) - set(before.files) == {CARD} and stored.tags == {"v1": last.oid}


def test_a_licence_is_written_into_the_card(hub: Hub, model: Path, quick: None) -> None:
    remove_licence(model)
    publish(model, ID, licence="cc-by-4.0", dry_run=True)
    assert "cc-by-4.0" not in (model / CARD).read_text()
    publish(model, ID, licence="cc-by-4.0")
    assert huggingface_hub.ModelCard(hub.model(ID).files[CARD].decode()).data.to_dict()["license"] == "cc-by-4.0"
    with pytest.raises(UserError, match="licence 'mitt' is unknown to the Hub; did you mean mit"):
        publish(model, ID, licence="mitt")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('OUTPUTS', json.dumps({'logits': 1}))", []),
        ("print('OUTPUTS', json.dumps({'logits': sys.argv[2]}))", ["returns other values without stedfm-hf (logits)"]),
        ("import stedfm_hf; print('OUTPUTS {}')", ["the model does not load without stedfm-hf"]),
        ("1 / 0", ["does not load with stedfm-hf (ZeroDivisionError", "does not load without stedfm-hf"]),
    ],
)
def test_differences_between_interpreters_are_found(
    code: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stedfm_hf.hub.loading_check._LOAD", f"import json, sys\n{code}")
    findings = check_loading(tmp_path)
    assert len(findings) == len(words)
    assert all(each in str(finding) for each, finding in zip(words, findings, strict=True))


@pytest.mark.slow
def test_code_of_another_version_is_found(model: Path) -> None:
    code = model / "layers_stedfm.py"
    changed = code.read_text().replace("self.activation(self.fc1", "2 * self.activation(self.fc1")
    assert changed != code.read_text()
    code.write_text(changed)
    (finding,) = publish(model, ID, dry_run=True).findings
    assert "returns other values without stedfm-hf" in finding


@pytest.mark.slow
def test_incomplete_weights_are_found(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights.popitem()
    save_file(weights, model / "model.safetensors")
    assert any("does not load" in each for each in publish(model, ID, dry_run=True).findings)


def test_a_data_set_and_a_space_are_published(hub: Hub, tmp_path: Path) -> None:
    write_repo(tmp_path / "crops", labelled_crops(24))
    assert publish(tmp_path / "crops", "lab/crops", licence="cc0-1.0").kind == "data set"
    assert "index.json" in hub.dataset("lab/crops").files
    space = tmp_path / "space"
    space.mkdir()
    front = "---\ntitle: STED-FM\nsdk: gradio\nsdk_version: 6.31.0\napp_file: app.py\nlicense: mit\n---\n"
    (space / CARD).write_text(front)
    with pytest.raises(UserError, match="1 problem"):
        publish(space, "lab/app")
    (space / "app.py").write_text("from stedfm_hf.app import build_app\n")
    assert publish(space, "lab/app").url == f"{hub.url}/spaces/lab/app"


@pytest.mark.parametrize("format", ["transformers", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_export_is_published(hub: Hub, tmp_path: Path, format: str) -> None:
    write_model(tmp_path / "classifier", StedFmForImageClassification)
    export(tmp_path / "classifier", format, tmp_path / "exported")
    published = publish(tmp_path / "exported", "lab/exported")
    assert published.kind == "export" and CARD in hub.model("lab/exported").files


def write_pipeline(folder: Path) -> Path:
    """Save a tiny pipeline of diffusers with a card."""
    blocks: dict[str, Any] = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    network = UNet2DModel(8, 1, 1, block_out_channels=(4,), norm_num_groups=2, layers_per_block=1, **blocks)
    pipeline: Any = DDPMPipeline(network, DDPMScheduler())
    pipeline.save_pretrained(folder)
    facts = dataclasses.replace(LEAST, licence="mit")
    (folder / CARD).write_text(render_finetuned_card(facts), encoding="utf-8")
    return folder


def test_a_pipeline_is_published_with_its_folders(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stedfm_hf.hub.kinds.check_pipeline_loading", lambda folder: [])
    assert publish(write_pipeline(tmp_path / "pipeline"), "lab/pipeline").kind == "pipeline"
    assert {"model_index.json", "unet/diffusion_pytorch_model.safetensors"} <= set(hub.model("lab/pipeline").files)


@pytest.mark.slow
def test_a_pipeline_that_does_not_load_is_found(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "pipeline")
    assert publish(folder, "lab/pipeline", dry_run=True).findings == ()
    (folder / "unet/config.json").unlink()
    findings = publish(folder, "lab/pipeline", dry_run=True).findings
    assert len(findings) == 2 and all("the pipeline does not load with" in each for each in findings)


def test_a_refusal_is_one_line_without_the_token(
    hub: Hub, model: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses = True
    assert main(["publish", str(model), ID]) == 2
    printed = capsys.readouterr()
    assert "the token has no write access" in printed.err and TOKEN not in printed.out + printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda hub, patch: hub.namespaces.clear(), "the token has no write access"),
        (lambda hub, patch: setattr(hub, "role", "read"), "the token has no write access"),
        (lambda hub, patch: patch.setenv("HF_TOKEN", "hf_" + "other" * 7), "the Hub does not accept the token"),
    ],
)
def test_owner_and_token_are_checked_before_the_folder(
    hub: Hub,
    model: Path,
    prepare: Any,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def find(*given: Any, **options: Any) -> list[Any]:
        raise AssertionError("the folder was checked")

    monkeypatch.setattr("stedfm_hf.hub.publish.find_problems", find)
    prepare(hub, monkeypatch)
    assert main(["publish", str(model), ID]) == 2
    assert words in (printed := capsys.readouterr().err) and printed.count("\n") == 1
    assert {each.split()[1] for each in hub.requests} == {"/api/whoami-v2"}


def test_a_dry_run_asks_nothing_of_the_hub(hub: Hub, model: Path, quick: None) -> None:
    publish(model, ID, dry_run=True)
    assert hub.requests == []


def test_a_dry_run_lists_what_is_not_published(model: Path, quick: None) -> None:
    for name in ("notes.txt", "manifest.json", "checkpoint-10/optimizer.pt", ".cache/hidden"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("{}")
    published = publish(model, ID, dry_run=True)
    assert published.left_out == ("checkpoint-10/", "manifest.json", "notes.txt")
    assert "not published: checkpoint-10/, manifest.json, notes.txt" in published.summary()


def test_the_summary_counts_uploaded_and_removed_files(hub: Hub, tmp_path: Path) -> None:
    write_repo(tmp_path / "crops", labelled_crops(24))
    first = publish(tmp_path / "crops", "lab/crops", licence="cc0-1.0")
    assert f"{len(first.files)} files uploaded, private" in first.summary() and "removed" not in first.summary()
    shutil.rmtree(tmp_path / "crops")
    write_repo(tmp_path / "crops", labelled_crops(8))
    again = publish(tmp_path / "crops", "lab/crops", licence="cc0-1.0", overwrite=True)
    assert again.removed and f", {counted(len(again.removed), 'file')} removed, private" in again.summary()


def test_nobody_is_logged_in(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server() as hub:
        use_hub(hub, monkeypatch, token=None)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
        with pytest.raises(UserError, match="not logged in to the Hub; run `hf auth login`"):
            publish(model, ID)


class Images(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": pixels(1, seed=number)[0], "labels": torch.tensor(number % 2)}


def test_push_to_hub_keeps_the_card(hub: Hub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "classifier", StedFmForImageClassification)
    card = (folder / CARD).read_text()
    loaded = StedFmForImageClassification.from_pretrained(folder)
    loaded.push_to_hub("lab/pushed")
    assert hub.model("lab/pushed").files[CARD].decode() == card
    loaded.save_pretrained(folder, push_to_hub=True, repo_id="lab/saved")
    assert hub.model("lab/saved").files[CARD].decode() == card == (folder / CARD).read_text()
    StedFmImageProcessor.from_pretrained(folder).push_to_hub("lab/pushed")
    assert hub.model("lab/pushed").files[CARD].decode() == card
    StedFmImageProcessor().push_to_hub("lab/processor")
    assert CARD not in hub.model("lab/processor").files
    StedFmForSemanticSegmentation(tiny_config(num_labels=2)).push_to_hub("lab/new")
    new = huggingface_hub.ModelCard(hub.model("lab/new").files[CARD].decode())
    assert (
        new.data.to_dict()["pipeline_tag"] == "image-segmentation" and "[More Information Needed]" not in new.content
    )


def test_the_trainer_pushes_complete_folders(hub: Hub, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "classifier", StedFmForImageClassification)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        push_to_hub=True,
        hub_model_id="lab/trained",
        hub_token=TOKEN,
        max_steps=2,
        save_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=StedFmForImageClassification.from_pretrained(folder),
        args=arguments,
        train_dataset=Images(),
        processing_class=StedFmImageProcessor.from_pretrained(folder),
    )
    trainer.train()
    trainer.push_to_hub()
    files = hub.model("lab/trained").files
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "modeling_stedfm.py"} <= set(files)
