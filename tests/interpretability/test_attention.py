from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch.nn import functional

from stedfm_hf import StedFmBackbone, StedFmForImageClassification, StedFmForPreTraining, StedFmModel
from stedfm_hf.interpretability import AGGREGATES, attention, attention_maps, attention_rows, attentions
from stedfm_hf.runs import UserError
from tests.models import pixels
from tests.tiny_models import Case

SIZES = [(32, 32), (48, 80), (8, 8), (136, 24)]
ENCODER, CLASSIFIER = Case(StedFmModel), Case(StedFmForImageClassification)
BLOCKS, HEADS = 3, 2


def model_of(case: Case = ENCODER, **changes: Any) -> Any:
    """A model with large weights, so that attention is far from uniform."""
    model = case.model(num_hidden_layers=BLOCKS, **changes).eval()
    with torch.no_grad():
        for layer in model.base_model.encoder.layers:
            layer.attention.qkv.weight.mul_(4)
    return model


def literal_attention(model: Any, images: torch.Tensor) -> torch.Tensor:
    """softmax(q kᵀ / √d) of each block (B, blocks, heads, T, T), from the weights of the layers."""
    encoder = model.base_model
    tokens, found = encoder.embeddings(images), []
    for layer in encoder.encoder.layers:
        q, k, _ = layer.attention.qkv(layer.norm1(tokens)).chunk(3, dim=-1)
        heads = [each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in (q, k)]
        found.append(torch.softmax(heads[0] @ heads[1].mT / math.sqrt(heads[0].shape[-1]), dim=-1))
        tokens = layer(tokens)
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_the_reference_map_is_the_published_formula(size: tuple[int, int]) -> None:
    model, images = model_of(), pixels(2, *size)
    weights, grid = literal_attention(model, images), (size[0] // 8, size[1] // 8)
    for number in range(2):
        total = torch.zeros(size)
        for block in range(BLOCKS):
            row = weights[number, block, :, 0, 1:].mean(dim=0).reshape(grid)
            resized = functional.interpolate(row[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
            if resized.max() - resized.min() > 1e-5 * resized.max():  # else the block is constant
                total += (resized - resized.min()) / (resized.max() - resized.min())
        found = attention_maps(model, images[number : number + 1], aggregate="reference")[0]
        assert found.shape == size
        assert (found - total).abs().max() <= 1e-5


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_eager_and_sdpa_agree_and_a_batch_equals_its_images(aggregate: str, size: tuple[int, int]) -> None:
    eager, fused = (model_of(CLASSIFIER, attn_implementation=name) for name in ("eager", "sdpa"))
    images = pixels(3, *size)
    found = attention_maps(eager, images, aggregate=aggregate)
    assert found.shape == (3, *(size if aggregate == "reference" else (size[0] // 8, size[1] // 8)))
    assert found.isfinite().all() and found.dtype == torch.float32
    bound = 1e-5 * max(1.0, float(found.abs().max()))
    assert (attention_maps(fused, images, aggregate=aggregate) - found).abs().max() <= bound
    single = torch.cat([attention_maps(eager, image[None], aggregate=aggregate) for image in images])
    assert (single - found).abs().max() <= bound
    assert eager.config._attn_implementation == "eager" and fused.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("model_class", [StedFmModel, StedFmBackbone, StedFmForPreTraining])
@torch.no_grad()
def test_the_weights_are_those_of_the_model(model_class: type[Any]) -> None:
    model, images = model_of(Case(model_class)), pixels(2, 24, 40)
    found = attentions(model, images)
    assert found.shape == (2, BLOCKS, HEADS, 16, 16)
    encoder = model.base_model
    own = encoder.encoder(encoder.embeddings(images), output_attentions=True).attentions
    assert torch.allclose(found, torch.stack(own, dim=1), atol=1e-6)
    assert torch.allclose(found, literal_attention(model, images), atol=1e-6)
    assert torch.allclose(found.sum(dim=-1), torch.ones(()), atol=1e-5)
    assert torch.allclose(attention_rows(model, images), found[:, :, :, 0], atol=1e-6)
    assert torch.allclose(attention_rows(model, images, query=(1, 3)), found[:, :, :, 1 + 5 + 3], atol=1e-6)


def test_mean_and_last_and_single_blocks_and_heads_are_parts_of_the_weights() -> None:
    model, images = model_of(), pixels(1, 24, 40)
    maps = attentions(model, images)[0, :, :, 0, 1:].unflatten(-1, (3, 5))

    def found(**arguments: Any) -> torch.Tensor:
        return attention_maps(model, images, **arguments)[0]

    assert torch.allclose(found(), maps.mean(dim=(0, 1)), atol=1e-6)
    assert torch.allclose(found(aggregate="last"), maps[-1].mean(dim=0), atol=1e-6)
    assert torch.allclose(found(block=1), maps[1].mean(dim=0), atol=1e-6)
    assert torch.allclose(found(head=0), maps[:, 0].mean(dim=0), atol=1e-6)
    assert torch.allclose(found(block=0, head=1), maps[0, 1], atol=1e-6)


@pytest.mark.parametrize("query", [None, (2, 1)])
def test_rollout_is_the_product_of_the_blocks(query: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_NUMBERS", 100)  # parts of a few rows
    model, images = model_of(), pixels(2, 24, 40)
    identity = torch.eye(16)
    product = identity.expand(2, 16, 16)
    for weights in attentions(model, images).mean(dim=2).unbind(1):
        product = (0.5 * weights + 0.5 * identity) @ product
    assert torch.allclose(product.sum(dim=-1), torch.ones(()), atol=1e-5)
    row = product[:, 0 if query is None else 1 + 2 * 5 + 1]
    found = attention_maps(model, images, aggregate="rollout", query=query)
    assert torch.allclose(found, row[:, 1:].unflatten(-1, (3, 5)), atol=1e-6)
    # With the class token, which the map leaves out, a row sums to 1.
    assert torch.allclose(found.sum(dim=(1, 2)) + row[:, 0], torch.ones(()), atol=1e-5)


@pytest.mark.parametrize(("pooling", "query"), [("avg", None), ("token", None), ("avg", (0, 4))])
def test_the_gradient_map_is_the_published_rule(
    pooling: str, query: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_NUMBERS", 100)
    model, image = model_of(CLASSIFIER, pooling=pooling, attn_implementation="eager"), pixels(1, 24, 40)
    output = model(image, output_attentions=True)
    gradients = torch.autograd.grad(output.logits[0, 2], output.attentions)
    relevance = torch.eye(16)
    for weights, gradient in zip(output.attentions, gradients, strict=True):
        relevance = relevance + (weights * gradient)[0].clamp(min=0).mean(dim=0).detach() @ relevance
    relevance = relevance - torch.eye(16)
    if query is not None:
        row = relevance[1 + 4]
    else:
        row = relevance[0] if pooling == "token" else relevance[1:].mean(dim=0)
    expected = row[1:].unflatten(0, (3, 5))
    found = attention_maps(model, image, aggregate="gradient", label=2, query=query)[0]
    assert expected.max() > 0
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.max()))


def test_the_gradient_map_takes_the_predicted_class_by_default() -> None:
    model, images = model_of(CLASSIFIER), pixels(4)
    with torch.no_grad():
        model.classifier.weight.mul_(10)
        labels = model(images).logits.argmax(dim=1).tolist()
    found = attention_maps(model, images, aggregate="gradient")
    for number, label in enumerate(labels):
        one = attention_maps(model, images[number : number + 1], aggregate="gradient", label=label)
        assert torch.allclose(found[number], one[0], rtol=1e-3, atol=1e-7)


def test_gradients_work_without_trainable_weights_and_in_inference_mode() -> None:
    model, images = model_of(CLASSIFIER), pixels(1)
    expected = attention_maps(model, images, aggregate="gradient", label=0)
    assert all(each.grad is None for each in model.parameters())
    model.requires_grad_(False)
    with torch.inference_mode():
        assert torch.equal(attention_maps(model, pixels(1), aggregate="gradient", label=0), expected)
    with torch.no_grad():
        assert torch.equal(attention_maps(model, images, aggregate="gradient", label=0), expected)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_half_precision_and_blank_images_have_finite_maps(aggregate: str) -> None:
    model = model_of(CLASSIFIER)
    blank = torch.zeros(1, 1, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = attention_maps(model, blank, aggregate=aggregate)
        assert exact.isfinite().all()
        half = attention_maps(model.to(torch.bfloat16), blank, aggregate=aggregate)
    assert half.isfinite().all() and half.dtype == torch.float32
    assert (half - exact).abs().max() <= 0.25 * max(float(exact.abs().max()), 1e-6)


def test_a_constant_map_is_zero_in_the_reference() -> None:
    model = model_of()
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.attention.qkv.weight.zero_()  # equal attention to all tokens
    assert (attention_maps(model, pixels(1), aggregate="reference") == 0).all()


def test_no_hook_remains_after_an_error() -> None:
    model = model_of()
    with pytest.raises(ValueError, match="multiples of the patch size"):
        attention_maps(model, pixels(1, 30, 32))
    model.encoder.layers[1].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attention_maps(model, pixels(1))
    layer = model.encoder.layers[0].attention
    assert not layer.qkv._forward_hooks and not layer.out_proj._forward_pre_hooks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aggregate": "max"}, "'max' is unknown; choose one of mean, last, rollout, gradient, reference"),
        ({"block": 3}, "block 3 does not exist; give a number from 0 to 2"),
        ({"block": -1}, "block -1 does not exist; give a number from 0 to 2"),
        ({"head": 2}, "head 2 does not exist; give a number from 0 to 1"),
        ({"query": (3, 0)}, "row of query 3 does not exist; give a number from 0 to 2"),
        ({"query": (0, -1)}, "column of query -1 does not exist; give a number from 0 to 4"),
        ({"query": (1, 2, 3)}, "is not a row and a column"),
        ({"aggregate": "gradient", "label": 3}, "label 3 does not exist; give a number from 0 to 2"),
        ({"label": 0}, "label 0 does not belong to the aggregate 'mean'; leave it out, or choose gradient"),
        ({"aggregate": "last", "block": 0}, "block 0 does not belong to the aggregate 'last'"),
        ({"aggregate": "rollout", "head": 0}, "head 0 does not belong to the aggregate 'rollout'"),
        ({"aggregate": "reference", "query": (0, 0)}, "does not belong to the aggregate 'reference'"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        attention_maps(model_of(CLASSIFIER), pixels(1, 24, 40), **arguments)
    assert message in str(error.value)


def test_gradient_maps_need_a_classifier_in_evaluation_mode() -> None:
    with pytest.raises(UserError, match="needs a classifier, and a StedFmModel has no logits"):
        attention_maps(model_of(), pixels(1), aggregate="gradient")
    with pytest.raises(UserError, match="evaluation mode"):
        attention_maps(model_of(CLASSIFIER).train(), pixels(1), aggregate="gradient")
    with pytest.raises(UserError, match="use float32 or bfloat16"):
        attention_maps(model_of(CLASSIFIER).half(), pixels(1), aggregate="gradient")


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(UserError, match="load the model with the backend torch"):
        attention_maps(torch.nn.Linear(1, 1), pixels(1))  # type: ignore[arg-type]  # another class than a STED-FM model: it is refused
