"""The preparation of a sample is a function of (seed, epoch, sample), and its condition is that of the shown crop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.modeling.modeling_stedfm import StedFmModel
from stedfm_hf.training.generation.conditions import ClassCondition, EmbeddingCondition
from stedfm_hf.training.generation.preparation import GenerationPreparation
from stedfm_hf.training.preparation import Preparation
from stedfm_hf.training.random_numbers import random_normal, sample_keys

PREPARATION = GenerationPreparation(seed=3, image_size=16, condition_dropout=0.3)


def batch(count: int = 64, *, size: int = 16) -> dict[str, Any]:
    pixels = torch.randint(0, 255, (count, 1, size, size), generator=torch.Generator().manual_seed(0))
    return {
        "pixels": pixels.to(torch.uint8),
        "intensity_range": torch.tensor([[0.0, 255.0]]).expand(count, 2),
        "index": torch.arange(count),
        "label": torch.arange(count) % 3,
    }


def take(whole: dict[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    return {name: values[rows] for name, values in whole.items()}


def test_a_sample_does_not_depend_on_its_batch() -> None:
    whole = PREPARATION(batch(), epoch=2)
    rows = torch.tensor([40, 3, 17])
    part = PREPARATION(take(batch(), rows), epoch=2)
    for name, values in part.items():
        assert torch.equal(values, whole[name][rows]), name


def test_epochs_and_seeds_differ() -> None:
    first, next_epoch = PREPARATION(batch(), epoch=0), PREPARATION(batch(), epoch=1)
    other = GenerationPreparation(seed=4, image_size=16, condition_dropout=0.3)(batch(), epoch=0)
    for name, values in first.items():
        assert not torch.equal(values, next_epoch[name]) and not torch.equal(values, other[name]), name


def test_noise_is_normal_and_times_are_uniform() -> None:
    ready = GenerationPreparation(seed=0, image_size=16)(batch(4000), epoch=0)
    noise = ready["noise"].flatten().numpy()
    assert stats.kstest(noise[:50_000], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.01
    assert ready["times"].min() >= 0 and ready["times"].max() <= 999
    assert stats.kstest(ready["times"].numpy() / 1000.0, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(ready["times"].numpy(), ready["noise"].flatten(1).mean(dim=1).numpy())[0, 1]) < 0.1


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_conditions_are_dropped_with_their_probability(dropout: float) -> None:
    preparation = GenerationPreparation(seed=0, image_size=16, condition_dropout=dropout)
    kept = preparation(batch(4000), epoch=0)["keep"].float().mean()
    assert float(kept) == pytest.approx(1.0 - dropout, abs=0.03 * bool(dropout))


def test_images_are_augmented_as_in_pretraining() -> None:
    images = PREPARATION.images(batch(size=20), epoch=1)
    expected = Preparation(3, image_size=16, patches=1)(batch(size=20), epoch=1)["pixel_values"]
    assert torch.equal(images, expected)
    plain = GenerationPreparation(seed=3, image_size=16, augment=False).images(batch(), epoch=1)
    torch.testing.assert_close(plain, batch()["pixels"] / 255.0)


def test_the_condition_is_the_embedding_of_the_crop_that_is_shown() -> None:
    torch.manual_seed(0)
    config = StedFmConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    encoder = StedFmModel(config).eval()
    images = PREPARATION.images(batch(8), epoch=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = EmbeddingCondition(encoder)(images, batch(8))["condition"]
    with torch.no_grad():
        assert torch.equal(found, encoder(images).pooler_output)
    assert found.dtype == torch.float32 and not any(each.requires_grad for each in encoder.parameters())


def test_the_condition_is_the_class() -> None:
    condition = ClassCondition()
    assert condition.columns == ("label",)
    assert condition(torch.zeros(4, 1, 8, 8), batch(4))["class_labels"].tolist() == [0, 1, 2, 0]


def test_normal_numbers_of_purposes_and_samples_are_independent() -> None:
    keys = sample_keys(0, 0, torch.arange(200))
    first, second = random_normal(keys, 51, purpose=1), random_normal(keys, 51, purpose=2)
    assert first.shape == (200, 51) and torch.isfinite(first).all()
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1].flatten(), first[1:].flatten())[0, 1]) < 0.03
