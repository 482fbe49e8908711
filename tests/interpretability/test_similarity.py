from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from stedfm_hf import StedFmForImageClassification, StedFmModel
from stedfm_hf.interpretability import compare_tokens, token_similarity
from stedfm_hf.runs import UserError
from tests.models import pixels
from tests.tiny_models import Case

ENCODER = Case(StedFmModel)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_similarities_are_cosines_of_normalised_tokens(size: tuple[int, int]) -> None:
    one, two = (ENCODER.model(seed=seed).eval() for seed in (0, 1))
    images = pixels(2, *size)
    found = token_similarity(one, two, images, include_class_token=True).numpy()
    with torch.no_grad():
        a, b = (model(images).last_hidden_state.numpy().astype(np.float64) for model in (one, two))
    expected = (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert np.allclose(found, expected, atol=1e-6)
    assert np.array_equal(token_similarity(one, two, images).numpy(), found[:, 1:])


def test_an_unchanged_model_has_similarity_one_in_any_precision() -> None:
    model = ENCODER.model().eval()
    headed = Case(StedFmForImageClassification).model().eval()
    headed.stedfm.load_state_dict(model.state_dict())
    assert torch.allclose(token_similarity(model, headed, pixels(1)), torch.ones(()), atol=1e-6)
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert torch.allclose(token_similarity(model, half, pixels(1)), torch.ones(()), atol=1e-3)


def test_blank_images_have_finite_similarities() -> None:
    one, two = (ENCODER.model(seed=seed).eval() for seed in (0, 1))
    found = token_similarity(one, two, torch.zeros(1, 1, 32, 32))
    assert found.isfinite().all() and (found.abs() <= 1).all()
    assert compare_tokens(np.zeros((2, 4), np.float32), np.ones((2, 4), np.float32)).tolist() == [0, 0]


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"patch_size": 16}, {"num_channels": 2}])
def test_models_of_another_architecture_are_refused(change: dict[str, int]) -> None:
    (name, value) = next(iter(change.items()))
    with pytest.raises(UserError, match=f"{name} .* and {value} cannot be compared"):
        token_similarity(ENCODER.model(), ENCODER.model(**change), pixels(1))


def test_tokens_at_other_positions_are_refused() -> None:
    with pytest.raises(UserError, match="cannot be compared at each position"):
        compare_tokens(np.zeros((2, 3, 4)), np.zeros((3, 2, 4)))
