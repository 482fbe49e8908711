"""Every standard argument, configuration field and keyword is obeyed or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForImageClassification

from stedfm_hf import StedFmConfig, StedFmForImageClassification, StedFmForPreTraining, StedFmForSemanticSegmentation
from tests.models import pixels, tiny_config
from tests.tiny_models import ALL, CLASSIFIERS, SEGMENTERS, Case


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    StedFmForPreTraining(tiny_config()).save_pretrained(folder)
    return folder


TARGETS = torch.tensor([[1.0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize(
    ("problem_type", "labels", "loss"),
    [
        ("multi_label_classification", TARGETS, functional.binary_cross_entropy_with_logits),
        ("regression", 3 * TARGETS[:, :1], functional.mse_loss),
        ("single_label_classification", torch.tensor([0, 2, 1, 1]), functional.cross_entropy),
    ],
)
def test_problem_type_sets_the_loss(pretrained: Path, problem_type: str, labels: Any, loss: Any) -> None:
    number = labels.shape[1] if labels.ndim == 2 else 3
    at_load = AutoModelForImageClassification.from_pretrained(
        pretrained, num_labels=number, problem_type=problem_type
    ).eval()
    later = AutoModelForImageClassification.from_pretrained(pretrained, num_labels=number).eval()
    later.config.problem_type = problem_type
    for model in (at_load, later):
        output = model(pixels(4), labels=labels)
        torch.testing.assert_close(output.loss, loss(output.logits, labels))


def test_problem_type_and_target_type_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="problem_type 'regression' and target_type 'soft' differ"):
        tiny_config(problem_type="regression", target_type="soft")
    config = tiny_config(problem_type="multi_label_classification")
    assert config.target_type == "multi_label"
    config.target_type = "soft"
    assert config.problem_type is None
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path, problem_type="regression").target_type == "regression"
    with pytest.raises(ValueError, match="differ"):
        AutoConfig.from_pretrained(tmp_path, problem_type="regression", target_type="soft")
    segmenter = StedFmForSemanticSegmentation(tiny_config(problem_type="multi_label_classification"))
    assert segmenter(pixels(1), labels=torch.zeros(1, 2, 32, 32)).loss.isfinite()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of"),
        ({"target_type": "single"}, "target_type must be one of"),
        ({"decoder": "unet"}, "decoder must be one of"),
        ({"segmentation_loss": "bce_dice"}, "segmentation_loss 'bce_dice'"),
        ({"mask_ratio": 1.5}, "mask_ratio must be in"),
        ({"patch_size": 7}, "not a multiple of patch_size"),
    ],
)
def test_a_setting_at_load_is_checked_as_in_the_configuration(
    pretrained: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AutoModelForImageClassification.from_pretrained(pretrained, **changes)


def test_settings_at_load_decide_what_follows_from_them(pretrained: Path) -> None:
    config = AutoConfig.from_pretrained(pretrained, num_hidden_layers=1, id2label={0: "rings"})
    assert config.stage_names == ["stem", "stage1"] and config.out_features == ["stage1"]
    assert config.num_labels == 1 and config.label2id == {"rings": 0}
    named = AutoConfig.from_pretrained(pretrained, label2id={"rings": 0, "fibres": 1, "none": 2})
    assert named.num_labels == 3 and named.id2label == {0: "rings", 1: "fibres", 2: "none"}
    assert AutoConfig.from_pretrained(pretrained, num_labels=5).id2label[4] == "LABEL_4"
    assert AutoConfig.from_pretrained(pretrained, out_indices=[1]).out_features == ["stage1"]


@pytest.mark.parametrize(
    ("case", "labels"),
    [
        (CLASSIFIERS[0], torch.rand(2, 3)),
        (CLASSIFIERS[0], torch.rand(2)),
        (CLASSIFIERS[1], torch.zeros(2)),
        (CLASSIFIERS[3], torch.zeros(3, 2)),
        (SEGMENTERS[0], torch.rand(2, 32, 32)),
    ],
)
def test_labels_of_another_type_are_refused_with_the_setting(case: Case, labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="target_type"):
        case.model()(pixels(), labels=labels)


@pytest.mark.parametrize("model_class", [StedFmForImageClassification, StedFmForSemanticSegmentation])
def test_one_class_without_a_loss_is_refused(model_class: type[Any]) -> None:
    size = (32, 32) if model_class is StedFmForSemanticSegmentation else ()
    with pytest.raises(ValueError, match="target_type"):
        model_class(tiny_config(num_labels=1))(pixels(), labels=torch.zeros(2, *size, dtype=torch.long))


def test_labels_of_minus_100_are_ignored() -> None:
    for case in (CLASSIFIERS[0], SEGMENTERS[0]):
        model, labels = case.model().eval(), torch.randint(0, 3, case.labels(2).shape)
        labels[1] = -100
        found = model(pixels(2), labels=labels).loss
        alone = model(pixels(2)[:1], labels=labels[:1]).loss
        # Classifiers take the mean over labels, segmenters over images, as without ignored labels.
        torch.testing.assert_close(found * (2 if case is SEGMENTERS[0] else 1), alone)
        assert model(pixels(2), labels=torch.full_like(labels, -100)).loss == 0


@pytest.mark.parametrize("case", ALL, ids=str)
def test_unknown_arguments_of_a_call_are_refused_by_name(case: Case) -> None:
    model = case.model().eval()
    with pytest.raises(TypeError, match="unknown argument attention_mask"):
        model(**case.inputs(), attention_mask=torch.ones(2, 16))
    model(**case.inputs(), attention_mask=None, use_cache=False)


@pytest.mark.parametrize("case", [case for case in ALL if case.model_class is not StedFmForPreTraining], ids=str)
def test_single_hidden_states_can_be_selected(case: Case) -> None:
    model, inputs = case.model().eval(), case.inputs()
    every, last = (model(**inputs, output_hidden_states=which).hidden_states for which in (True, [-1]))
    assert len(every) == len(last) == 3 and last[0] is None and last[1] is None
    assert torch.equal(last[2], every[2])


def test_there_is_no_text_configuration() -> None:
    config = tiny_config()
    assert config.get_text_config(decoder=True) is config


def test_feed_forward_chunks_change_nothing() -> None:
    whole, chunked = (ALL[0].model(chunk_size_feed_forward=size).eval() for size in (0, 3))
    assert chunked.encoder.layers[0].mlp.chunk_size == 3
    torch.testing.assert_close(chunked(pixels()).last_hidden_state, whole(pixels()).last_hidden_state)


def test_labels_that_contradict_each_other_are_refused(pretrained: Path) -> None:
    for changes in ({"num_labels": 3, "id2label": {0: "a", 1: "b"}}, {"id2label": {0: "a"}, "label2id": {"b": 0}}):
        with pytest.raises(ValueError, match="id2label"):
            AutoConfig.from_pretrained(pretrained, **changes)
        with pytest.raises(ValueError, match="id2label"):
            tiny_config(**changes)


def test_the_default_configuration_is_unchanged() -> None:
    assert StedFmConfig().target_type == "single_label" and StedFmConfig().problem_type is None
