from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from stedfm_hf import StedFmConfig, StedFmForImageClassification, StedFmForPreTraining
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from stedfm_hf.modeling.layers_stedfm import sincos_position_table
from tests import parity

LARGE_ARE_SLOW = [
    *parity.ARCHITECTURES[:-2],
    *(pytest.param(each, marks=pytest.mark.slow) for each in parity.ARCHITECTURES[-2:]),
]


@pytest.fixture(scope="module", params=LARGE_ARE_SLOW)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(architecture: str) -> Iterator[StedFmForPreTraining]:
    model = StedFmForPreTraining(StedFmConfig(**ARCHITECTURES[f"stedfm-vit-{architecture}"])).eval()
    model.load_state_dict(parity.our_state_dict(parity.reference_state_dict(architecture)), strict=True)
    yield model


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_tokens_predictions_and_loss(architecture: str, model: StedFmForPreTraining, implementation: str) -> None:
    expected = {name: torch.from_numpy(array) for name, array in parity.results(architecture).items()}
    pixel_values = parity.images(len(expected["noise"]), model.config.image_size)
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        tokens = model.stedfm(pixel_values).last_hidden_state
        ids_keep = expected["idx_keep"][:, 1:] - 1
        encoded = model.stedfm.encoder(model.stedfm.embeddings(pixel_values, ids_keep=ids_keep)).last_hidden_state
        output = model(pixel_values, noise=expected["noise"])
    within: Any = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(tokens, expected["tokens"], **within)
    torch.testing.assert_close(model.stedfm.norm(encoded), expected["encoded_keep"], **within)
    assert torch.equal(output.ids_masked, expected["idx_mask"] - 1)
    torch.testing.assert_close(output.logits, expected["decoder_pred"], **within)
    torch.testing.assert_close(output.loss, expected["loss"].float(), rtol=1e-6, atol=0)


def test_gradients(architecture: str, model: StedFmForPreTraining) -> None:
    noise = torch.from_numpy(parity.results(architecture)["noise"])
    model.zero_grad()
    model(parity.images(len(noise), model.config.image_size), noise=noise).loss.backward()
    norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    model.zero_grad()
    expected = parity.REFERENCE[architecture]["grad_norms"]
    assert {parity.our_key(key) for key in expected} - {None} == set(norms)
    for key, norm in expected.items():
        name = parity.our_key(key)
        if name is not None:
            assert norms[name] == pytest.approx(norm, rel=1e-4), name


def test_the_reference_saves_nothing_else(architecture: str, model: StedFmForPreTraining) -> None:
    reference = parity.reference_state_dict(architecture)
    assert set(parity.our_state_dict(reference)) == set(model.state_dict())
    left = {key for key in reference if parity.our_key(key) is None}
    tables = {"backbone.vit.pos_embed", "decoder.decoder_pos_embed"}
    assert left == tables | {"backbone.mask_token", "backbone.vit.head.weight", "backbone.vit.head.bias"}


@pytest.mark.parametrize(("name", "grid", "dim"), [("64-p8", 8, 128), ("tiny", 14, 192), ("small", 14, 384)])
def test_position_tables(name: str, grid: int, dim: int) -> None:
    expected = parity.results("sincos_tables")
    for key, width in (("pos_embed", dim), ("decoder_pos_embed", 512)):
        table = torch.from_numpy(expected[f"{name}_{key}"][0])
        torch.testing.assert_close(sincos_position_table(grid, grid, width), table, rtol=0, atol=1e-5)


def test_classifier() -> None:
    expected = {name: torch.from_numpy(array) for name, array in parity.results("classifier_small").items()}
    model = StedFmForImageClassification(StedFmConfig(num_labels=4)).eval()
    model.load_state_dict(parity.our_state_dict(parity.classifier_state_dict()), strict=True)
    with torch.no_grad():
        output = model(parity.images(2, 224))
    torch.testing.assert_close(output.logits, expected["classifier_logits"], rtol=0, atol=1e-5)
    torch.testing.assert_close(output.pooler_output, expected["classifier_features"], rtol=0, atol=1e-5)
