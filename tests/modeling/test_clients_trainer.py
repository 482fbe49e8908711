"""The stock Trainer on every head: training, accumulation, evaluation and prediction."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from stedfm_hf import StedFmForImageClassification, StedFmForPreTraining
from tests.tiny_models import CLASSES, CLASSIFIERS, HEADS, SEGMENTERS, TRAINABLE, Case, Examples, trainer

PLAIN = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "max_grad_norm": 0}


def update(case: Case, folder: Path, batch_size: int, accumulated: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return how far a step of plain gradient descent on 8 images moves the weights, and its reported loss."""
    model = case.model().float()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
            monkeypatch.setattr(module, "train", lambda mode=True, module=module: module)
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    settings = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulated}
    made = trainer(model, folder, Examples(case, 8), **PLAIN, **settings)
    loss = made.train().training_loss
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before, loss


@pytest.mark.parametrize("case", HEADS, ids=str)
def test_accumulated_batches_are_one_large_batch(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, loss = update(case, tmp_path, 8, 1, monkeypatch)
    parts, loss_of_parts = update(case, tmp_path, 2, 4, monkeypatch)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)
    assert loss_of_parts == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("case", [CLASSIFIERS[0], SEGMENTERS[0]], ids=str)
def test_an_incomplete_batch_counts_by_its_images(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = update(case, tmp_path, 8, 1, monkeypatch)
    parts, _ = update(case, tmp_path, 3, 3, monkeypatch)  # 3, 3 and 2 images
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("case", TRAINABLE, ids=str)
def test_the_trainer_trains_evaluates_and_predicts(case: Case, tmp_path: Path) -> None:
    examples, found = Examples(case, 5), []
    made = trainer(case.model(), tmp_path, examples, per_device_train_batch_size=4, per_device_eval_batch_size=4)
    assert math.isfinite(made.train().training_loss)  # the last batch holds one image
    if case.model_class is StedFmForPreTraining:
        return

    def metrics(evaluated: EvalPrediction) -> dict[str, float]:
        found.append(np.shape(evaluated.predictions))
        return {"mean": float(np.mean(evaluated.predictions))}

    made.compute_metrics = metrics
    assert {"eval_loss", "eval_mean"} <= set(made.evaluate(examples))
    shape = (5, CLASSES) if case.model_class is StedFmForImageClassification else (5, CLASSES, 32, 32)
    predicted = made.predict(examples)
    assert found == [shape, shape] and predicted.predictions.shape == shape


def test_predictions_are_logits_with_tuples_too(tmp_path: Path) -> None:
    made = trainer(CLASSIFIERS[0].model(return_dict=False), tmp_path)
    assert made.predict(Examples(CLASSIFIERS[0], 4)).predictions.shape == (4, CLASSES)


def test_the_encoder_of_a_classifier_still_predicts_its_pooled_features(tmp_path: Path) -> None:
    model = CLASSIFIERS[0].model()
    model.save_pretrained(tmp_path / "saved")
    assert "keys_to_ignore_at_inference" not in (tmp_path / "saved" / "config.json").read_text()
    encoder = type(model.stedfm).from_pretrained(tmp_path / "saved")
    examples: Any = [{"pixel_values": image} for image in CLASSIFIERS[0].inputs(2)["pixel_values"]]
    _, pooled = trainer(encoder, tmp_path).predict(examples).predictions
    assert pooled.shape == (2, 32)


def test_pretraining_refuses_labels_that_it_would_not_use() -> None:
    with pytest.raises(TypeError, match="unknown argument labels"):
        TRAINABLE[0].model()(**TRAINABLE[0].inputs(), labels=torch.zeros(2))


def test_a_training_resumes_from_a_checkpoint(tmp_path: Path) -> None:
    case = CLASSIFIERS[0]
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "per_device_train_batch_size": 2}
    first = trainer(case.model(), tmp_path, Examples(case, 8), **settings)
    first.train()
    second = trainer(case.model(seed=1), tmp_path, Examples(case, 8), **settings)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], value)


def test_label_smoothing_is_obeyed(tmp_path: Path) -> None:
    case = CLASSIFIERS[0]
    losses = [
        trainer(case.model().eval(), tmp_path, label_smoothing_factor=factor).evaluate(Examples(case, 4))["eval_loss"]
        for factor in (0.0, 0.5)
    ]
    assert losses[0] != losses[1] and all(map(math.isfinite, losses))
