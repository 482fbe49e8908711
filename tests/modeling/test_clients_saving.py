"""Save and load give the same outputs: folders, subfolders, adapters, checkpoints and the Hub."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from huggingface_hub import HfApi, RepoUrl
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

from stedfm_hf import StedFmForImageClassification, StedFmImageProcessor, StedFmModel, adapt_channels
from tests.models import tiny_config
from tests.tiny_models import ALL, CLASSIFIERS, HEADS, SEGMENTERS, Case, Examples, outputs, trainer


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_a_loaded_model_gives_the_outputs_of_the_saved_one(case: Case, tmp_path: Path) -> None:
    model = case.model()
    with torch.no_grad():
        model.train()(**case.inputs(4))  # running statistics that are not the initial ones
    expected = outputs(model.eval(), case.inputs())
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = case.model_class.from_pretrained(tmp_path)
    assert_same(outputs(loaded, case.inputs()), expected)
    assert_same(outputs(copy.deepcopy(loaded), case.inputs()), expected)
    output = loaded(**case.inputs())
    assert pickle.loads(pickle.dumps(output)).keys() == output.keys()


def adapted(case: Case, base: Path, head: str | None) -> Any:
    model = case.model_class.from_pretrained(base)
    return get_peft_model(model, LoraConfig(target_modules=["qkv"], modules_to_save=[head] if head else None))


@pytest.mark.parametrize("with_head", [True, False])
@pytest.mark.parametrize("case", HEADS, ids=str)
def test_an_adapter_has_all_that_was_trained(case: Case, with_head: bool, tmp_path: Path) -> None:
    case.model().save_pretrained(tmp_path / "base")
    name = "classifier" if case.model_class is StedFmForImageClassification else "decode_head"
    model = adapted(case, tmp_path / "base", name if with_head else None)
    made = trainer(model, tmp_path, Examples(case, 5), per_device_train_batch_size=4, learning_rate=1e-2)
    made.train()
    expected = outputs(model.eval(), case.inputs())
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(case.model_class.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    assert_same(outputs(loaded.eval(), case.inputs()), expected)
    merged = loaded.merge_and_unload()
    for found, value in zip(outputs(merged, case.inputs()).values(), expected.values(), strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    assert_same(
        outputs(case.model_class.from_pretrained(tmp_path / "merged"), case.inputs()), outputs(merged, case.inputs())
    )


def test_an_adapter_of_transformers_is_saved_alone(tmp_path: Path) -> None:
    case = CLASSIFIERS[0]
    case.model().save_pretrained(tmp_path / "base")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    model.add_adapter(LoraConfig(target_modules=["qkv"], modules_to_save=["classifier"]))
    made = trainer(model, tmp_path / "runs", Examples(case, 8), save_strategy="epoch", learning_rate=0.1)
    made.train()
    model.save_pretrained(tmp_path / "adapter")
    saved = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "preprocessor_config.json"} <= saved
    assert "config.json" not in saved and not [name for name in saved if name.endswith(".py")]
    assert (tmp_path / "runs" / "checkpoint-1" / "adapter_model.safetensors").exists()
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "adapter")
    assert_same(outputs(loaded.eval(), case.inputs()), outputs(model.eval(), case.inputs()))


@pytest.mark.parametrize("folder_exists", [False, True])
def test_a_push_sends_the_whole_folder(folder_exists: bool, tmp_path: Path) -> None:
    folder, sent = tmp_path / "model", set[str]()
    model = CLASSIFIERS[0].model()
    if folder_exists:
        model.save_pretrained(folder)
        (folder / "checkpoint-1").mkdir()
        (folder / "checkpoint-1" / "optimizer.pt").write_bytes(b"")

    def create_repo(self: Any, repo_id: str, **settings: Any) -> Any:
        return mock.Mock(spec=RepoUrl, repo_id=repo_id)

    def create_commit(self: Any, repo_id: str, operations: Any, **settings: Any) -> None:
        sent.update(operation.path_in_repo for operation in operations)

    with mock.patch.multiple(HfApi, create_repo=create_repo, create_commit=create_commit):
        model.save_pretrained(folder, push_to_hub=True, repo_id="lab/tiny")
        assert sent == {file.name for file in folder.iterdir() if file.is_file()}
        sent.clear()
        model.push_to_hub("lab/tiny")
    assert sent == {file.name for file in folder.iterdir() if file.is_file()}


def test_the_processor_of_a_subfolder_goes_along(tmp_path: Path) -> None:
    model = StedFmModel(tiny_config())
    model.save_pretrained(tmp_path / "all")
    processor = StedFmImageProcessor(normalization="minmax", patch_size=8, size=48)
    processor.save_pretrained(tmp_path / "all" / "average")
    model.save_pretrained(tmp_path / "all" / "average")
    loaded = AutoModel.from_pretrained(tmp_path / "all", subfolder="average")
    (tmp_path / "all" / "average" / "preprocessor_config.json").unlink()  # it is not looked up again
    loaded.save_pretrained(tmp_path / "saved")
    found = AutoImageProcessor.from_pretrained(tmp_path / "saved")
    assert found.normalization == "minmax" and found.size == {"height": 48, "width": 48}


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    StedFmModel(tiny_config()).save_pretrained(tmp_path / "rank-1", is_main_process=False)
    assert not [file for file in (tmp_path / "rank-1").rglob("*") if file.is_file()]


@pytest.mark.parametrize("how", ["mean", "repeat", "sum"])
@pytest.mark.parametrize("case", ALL, ids=str)
def test_adapted_channels(case: Case, how: Any, tmp_path: Path) -> None:
    model, inputs = case.model().eval(), case.inputs()
    expected = outputs(model, inputs)
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    adapt_channels(model, 3, how=how)
    assert {name for name, weight in model.named_parameters() if not weight.requires_grad} == frozen
    several = inputs | {"pixel_values": inputs["pixel_values"].expand(-1, 3, -1, -1)}
    found = outputs(model, several)
    if how == "mean":
        for name in expected.keys() - {"loss", "logits"} if "PreTraining" in str(case) else expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4, msg=name)
    model.save_pretrained(tmp_path)
    assert_same(outputs(case.model_class.from_pretrained(tmp_path), several), found)


@pytest.mark.parametrize("case", SEGMENTERS, ids=str)
def test_a_loaded_segmenter_trains_in_several_processes(case: Case, tmp_path: Path) -> None:
    case.model().save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path).train()
    for model in (case.model().train(), loaded, loaded.requires_grad_(True)):
        model.zero_grad()
        model(**case.inputs()).loss.backward()
        assert not [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
