"""Which weights are trained, and a head that is a probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from stedfm_hf.evaluation.probe import DEFAULT_C, fit_layer, fit_predict
from stedfm_hf.labels.labelled import LabelledImages, read_labelled
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.runs import UserError
from stedfm_hf.training.classification.objective import probabilities_of
from stedfm_hf.training.classification.trainer import ClassificationTrainer, features_of, logits_of, set_head
from stedfm_hf.training.classify import new_network
from stedfm_hf.training.finetuning.network import merge_adapters
from stedfm_hf.training.finetuning.settings import ClassificationSettings
from tests.training.classification.small_runs import run


@pytest.fixture(scope="module")
def train(crops: Path) -> LabelledImages:
    return read_labelled(crops)["train"]


def network_of(encoder: Path, train: LabelledImages, mode: Any, **more: Any) -> StedFmForImageClassification:
    settings = ClassificationSettings(str(encoder), "lab/crops", output="run", mode=mode, **more)
    return new_network(settings, train, seed=1, images=train)


def trained(network: StedFmForImageClassification) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_trained_weights(encoder: Path, train: LabelledImages) -> None:
    head = {"classifier.weight", "classifier.bias"}
    assert trained(network_of(encoder, train, "linear-probe")) == head
    last = trained(network_of(encoder, train, "last-blocks", blocks=1))
    assert head < last and "stedfm.norm.weight" in last
    assert {name.split(".")[3] for name in last if ".layers." in name} == {
        "1"
    } and "stedfm.embeddings.cls_token" not in last
    whole = network_of(encoder, train, "full")
    assert trained(whole) == {name for name, _ in whole.named_parameters()}


def test_adapters_change_nothing_at_first_and_are_merged_exactly(encoder: Path, train: LabelledImages) -> None:
    pytest.importorskip("peft")
    images = [train.image(number) for number in range(4)]
    plain = network_of(encoder, train, "linear-probe")
    adapted = network_of(encoder, train, "lora", lora_rank=2)
    before = features_of(adapted, images)
    assert before == pytest.approx(features_of(plain, images), abs=1e-6)
    adapters = [name for name in trained(adapted) if "lora" in name]
    assert len(adapters) == 2 * 2 * 2 and trained(adapted) - set(adapters) == {"classifier.weight", "classifier.bias"}
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    moved = features_of(adapted, images)
    merge_adapters(adapted)
    assert np.abs(moved - before).max() > 1e-3 and features_of(adapted, images) == pytest.approx(moved, abs=1e-5)
    assert adapted.state_dict().keys() == plain.state_dict().keys()


def test_the_head_is_reset_if_the_model_has_one(encoder: Path, train: LabelledImages, tmp_path: Path) -> None:
    first = network_of(encoder, train, "full")
    set_head(first, mean=np.ones(32), variance=np.ones(32), weight=np.full((2, 32), 7.0), bias=np.zeros(2))
    first.save_pretrained(tmp_path)
    again = network_of(tmp_path, train, "linear-probe")
    assert (
        float(again.classifier.weight.detach().abs().max()) < 1
        and float(dict(again.named_buffers())["classifier.batch_norm.running_mean"].abs().max()) == 0
    )
    assert torch.equal(network_of(tmp_path, train, "full").classifier.weight, again.classifier.weight)


def test_a_probe_on_cached_features_equals_one_through_the_network(encoder: Path, crops: Path) -> None:
    splits = read_labelled(crops)
    train, test = splits["train"], splits["test"]
    network = network_of(encoder, train, "linear-probe")
    vectors, queries = (features_of(network, [*part]).astype(np.float64) for part in (train, test))
    mean, spread = vectors.mean(axis=0), vectors.std(axis=0)
    scaled, asked = (vectors - mean) / spread, (queries - mean) / spread
    found = fit_predict(scaled, train.labels, asked, task="classes", classes=2, C=0.1)
    probe = LogisticRegression(C=0.1, max_iter=1000).fit(scaled, train.labels)
    weight, bias = fit_layer(scaled, train.labels, task="classes", classes=2, C=0.1)
    variance = spread**2 - network.batch_norm.eps
    set_head(network, mean=mean, variance=variance, weight=weight, bias=bias)
    through = logits_of(network, features_of(network, [*test]))
    assert through[:, 1] - through[:, 0] == pytest.approx(probe.decision_function(asked), abs=1e-3)
    assert probabilities_of(through, "classes") == pytest.approx(found, abs=1e-3)
    assert np.ptp(found[:, 0]) > 0.1


@pytest.mark.parametrize("words", ["--mode full", "--mode last-blocks --blocks 1", "--mode full --target size"])
def test_the_head_starts_from_a_probe(
    words: str, encoder: Path, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, np.ndarray] = {}

    def start(trainer: ClassificationTrainer) -> None:
        original(trainer)
        items, data = trainer.training.items, trainer.training.data
        features = features_of(trainer.network, [*items]).astype(np.float64)
        scaled = (features - features.mean(axis=0)) / np.sqrt(features.var(axis=0) + trainer.network.batch_norm.eps)
        labels = trainer.objective.targets(data.labels).numpy()
        started["found"] = probabilities_of(logits_of(trainer.network, features.astype(np.float32)), data.task)
        started["expected"] = fit_predict(
            scaled, labels, scaled, task=data.task, classes=len(data.classes), C=DEFAULT_C
        )

    original = ClassificationTrainer.before_first_step
    monkeypatch.setattr(ClassificationTrainer, "before_first_step", start)
    run(encoder, crops, tmp_path / "run", f"{words} --max-steps 1 --num-evaluations 1")
    np.testing.assert_allclose(started["found"], started["expected"], atol=1e-4)
    assert np.ptp(started["found"]) > 0.1


def test_modes_whose_head_starts_from_a_probe() -> None:
    def starts(mode: str, **more: Any) -> bool:
        return ClassificationSettings("demo", "lab/crops", output="run", mode=mode, **more).starts_from_probe

    assert starts("full") and starts("last-blocks", blocks=1)
    assert not starts("linear-probe") and not starts("from-scratch") and not starts("full", head_init="random")
    with pytest.raises(UserError, match="--head-init probe needs a pretrained encoder"):
        starts("from-scratch", head_init="probe")


def test_a_folder_that_is_not_a_model_is_refused(train: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the folder has no config.json"):
        network_of(tmp_path, train, "full")
