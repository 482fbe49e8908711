from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stedfm_hf import StedFmConfig, StedFmForImageClassification, StedFmForPreTraining, StedFmModel
from tests.models import pixels, tiny_config


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return StedFmForPreTraining(StedFmConfig(num_hidden_layers=2)).state_dict()


def test_matrices_are_xavier_uniform(weights: dict[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        if weight.ndim == 2:
            bound = (6 / sum(weight.shape)) ** 0.5
            assert weight.abs().max() <= bound, name
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02), name


def test_biases_are_zero_but_that_of_the_patch_projection(weights: dict[str, torch.Tensor]) -> None:
    for name, bias in weights.items():
        if name.endswith("patch_embeddings.bias"):
            assert bias.abs().max() <= 1 / 16 and bias.std().item() == pytest.approx(1 / 16 / 3**0.5, rel=0.1)
        elif name.endswith("bias"):
            assert not bias.any(), name
        elif "norm" in name:
            assert torch.equal(bias, torch.ones_like(bias)), name


def test_tokens_are_normal(weights: dict[str, torch.Tensor]) -> None:
    for name in ("stedfm.embeddings.cls_token", "decoder.mask_token"):
        assert weights[name].std().item() == pytest.approx(0.02, rel=0.15)


def test_positions_are_there_from_the_start() -> None:
    """Two equal patches at different places must not look alike to a model made from scratch."""
    tokens = StedFmModel(tiny_config()).eval()(torch.ones(1, 1, 32, 32)).last_hidden_state
    assert (tokens[0, 1] - tokens[0, 2]).abs().max() > 0.01


def test_what_a_folder_lacks_is_drawn_and_what_it_has_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = StedFmModel(tiny_config())
    encoder.save_pretrained(tmp_path)
    model, report = StedFmForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == {name for name in model.state_dict() if name.startswith("decoder.")}
    for name, weight in encoder.state_dict().items():
        assert torch.equal(weight, model.state_dict()[f"stedfm.{name}"]), name
    assert model.decoder.head.weight.std() > 0.1 and model.decoder.mask_token.std() > 0.01
    assert torch.isfinite(model(pixels()).loss)


def test_the_classifier_starts_as_torch_would(tmp_path: Path) -> None:
    torch.manual_seed(0)
    StedFmModel(tiny_config()).save_pretrained(tmp_path)
    model = StedFmForImageClassification.from_pretrained(tmp_path, num_labels=500)
    bound = 32**-0.5
    assert model.classifier.weight.abs().max() <= bound
    assert model.classifier.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert model.batch_norm.running_var.tolist() == [1.0] * 32
