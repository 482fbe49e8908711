"""The network before its first step: standardised input, the mean as prediction, a seed of its own."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from stedfm_hf.modeling.modeling_stedfm_mae import StedFmForPreTraining
from stedfm_hf.training.network import isolated_rng, standardise_input, standardised_network
from tests.models import tiny_config


def test_standardisation_is_folded_into_the_patch_embedding() -> None:
    torch.manual_seed(0)
    plain = StedFmForPreTraining(tiny_config())
    torch.manual_seed(0)
    folded = StedFmForPreTraining(tiny_config())
    standardise_input(folded.stedfm, mean=0.2, std=0.1)
    pixels, noise = torch.rand(2, 1, 32, 32), torch.rand(2, 16)
    torch.testing.assert_close(
        folded.stedfm.embeddings(pixels), plain.stedfm.embeddings((pixels - 0.2) / 0.1), rtol=1e-4, atol=1e-5
    )
    assert folded(pixels, noise=noise).loss != plain(pixels, noise=noise).loss


def test_a_new_network_predicts_the_mean() -> None:
    network = standardised_network(tiny_config(), mean=0.3, std=0.1, seed=0).eval()
    pixels, noise = torch.rand(4, 1, 32, 32), torch.rand(4, 16)
    with torch.no_grad():
        output = network(pixels, noise=noise)
    assert output.ids_masked is not None
    constant = (network.targets(pixels, output.ids_masked) - 0.3).square().mean()
    assert float(output.loss) == pytest.approx(float(constant), rel=0.02)


def test_a_seed_gives_the_same_weights_and_leaves_the_generators_of_the_caller_alone() -> None:
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(5)
    expected = torch.rand(3), random.random(), np.random.rand()
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(5)
    one, same, other = (standardised_network(tiny_config(), mean=0.3, std=0.1, seed=seed) for seed in (0, 0, 1))
    with isolated_rng(7):
        torch.rand(2), random.random(), np.random.rand()
    assert torch.equal(torch.rand(3), expected[0]) and (random.random(), np.random.rand()) == expected[1:]
    assert torch.equal(one.decoder.head.weight, same.decoder.head.weight)
    assert not torch.equal(one.decoder.head.weight, other.decoder.head.weight)
