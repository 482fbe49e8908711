from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoBackbone, AutoModel, UperNetConfig, UperNetForSemanticSegmentation

from stedfm_hf import StedFmBackbone, StedFmForImageClassification, StedFmForPreTraining, StedFmModel
from stedfm_hf.modeling.layers_stedfm import patchify, sincos_position_table, unpatchify
from tests.models import pixels, tiny_config


@pytest.fixture(scope="module")
def model() -> StedFmModel:
    torch.manual_seed(0)
    return StedFmModel(tiny_config()).eval()


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_patchify_is_undone_by_unpatchify(channels: int, rows: int, cols: int, size: int) -> None:
    images = pixels(2, rows * size, cols * size, channels)
    patches = patchify(images, size)
    assert patches.shape == (2, rows * cols, size * size * channels)
    assert torch.equal(unpatchify(patches, size, rows * size, cols * size), images)


def test_patches_are_in_raster_order_and_hold_row_column_channel() -> None:
    image = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    second = patchify(image, 2)[0, 1]
    assert second.tolist() == [2, 26, 3, 27, 8, 32, 9, 33]


@given(st.integers(1, 9), st.integers(1, 9))
def test_positions_depend_on_row_and_column_alone(rows: int, cols: int) -> None:
    table = sincos_position_table(rows, cols, 16)
    assert not table[0].any()
    grid = table[1:].reshape(rows, cols, 16)
    assert torch.equal(grid[..., :8], grid[:1, :, :8].expand(rows, cols, 8))
    assert torch.equal(grid[..., 8:], grid[:, :1, 8:].expand(rows, cols, 8))
    assert torch.equal(
        grid, sincos_position_table(rows + 2, cols + 3, 16)[1:].reshape(rows + 2, cols + 3, 16)[:rows, :cols]
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (16, 40), (64, 24)])
def test_any_multiple_of_the_patch_size(model: StedFmModel, height: int, width: int) -> None:
    output = model(pixels(2, height, width))
    patches = height * width // 64
    assert output.last_hidden_state.shape == (2, 1 + patches, 32)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, 1:].mean(dim=1))


def test_token_pooling(model: StedFmModel) -> None:
    other = StedFmModel(tiny_config(pooling="token")).eval()
    other.load_state_dict(model.state_dict())
    output = other(pixels())
    assert torch.equal(output.pooler_output, output.last_hidden_state[:, 0])


def test_the_encoder_has_no_chance_in_it(model: StedFmModel) -> None:
    assert torch.equal(model(pixels()).last_hidden_state, model(pixels()).last_hidden_state)
    training = model.train()(pixels()).last_hidden_state
    assert torch.equal(training, model.eval()(pixels()).last_hidden_state)


@pytest.mark.parametrize(
    ("pixel_values", "message"),
    [
        (pixels(2, 30, 32), "multiples of the patch size 8"),
        (pixels(channels=3), "3 channels but the model takes 1"),
        (pixels()[0], "batch, channels, height, width"),
        (pixels().mul(255).to(torch.uint8), "floats in"),
    ],
)
def test_unfit_pixel_values_are_named(model: StedFmModel, pixel_values: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(pixel_values)


def test_other_sizes_can_be_refused(model: StedFmModel) -> None:
    model(pixels(), interpolate_pos_encoding=False)
    with pytest.raises(ValueError, match="allows only 32x32"):
        model(pixels(2, 32, 40), interpolate_pos_encoding=False)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_hidden_states_and_attentions(implementation: str) -> None:
    model = StedFmModel._from_config(tiny_config(), attn_implementation=implementation).eval()
    output = model(pixels(), output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, 17, 32)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 2, 17, 17)] * 2
    torch.testing.assert_close(output.attentions[0].sum(dim=-1), torch.ones(2, 2, 17))
    torch.testing.assert_close(model.norm(output.hidden_states[-1]), output.last_hidden_state)
    assert model(pixels()).attentions is None
    torch.testing.assert_close(model(pixels()).last_hidden_state, output.last_hidden_state)


def test_tuples_instead_of_outputs(model: StedFmModel) -> None:
    tokens, pooled = model(pixels(), return_dict=False)
    assert tokens.shape == (2, 17, 32) and pooled.shape == (2, 32)


@pytest.mark.parametrize("cls", [StedFmModel, StedFmForPreTraining, StedFmForImageClassification])
def test_checkpointing_changes_no_gradient(cls: type[StedFmModel]) -> None:
    torch.manual_seed(0)
    model = cls(tiny_config()).train()
    kwargs = {"noise": torch.rand(2, 16)} if cls is StedFmForPreTraining else {}
    gradients = []
    for enable in (False, True):
        if enable:
            model.activation_checkpointing_enable()
        model.zero_grad()
        output = model(pixels(), **kwargs)
        (output.loss if output.get("loss") is not None else output[0].square().mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


@pytest.mark.slow
@pytest.mark.parametrize("cls", [StedFmModel, StedFmForPreTraining, StedFmBackbone])
def test_one_graph(cls: type[StedFmModel]) -> None:
    torch.manual_seed(0)
    model = cls(tiny_config()).eval()
    kwargs = {"noise": torch.rand(2, 16)} if cls is StedFmForPreTraining else {}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(pixels(), **kwargs)
    expected = model(pixels(), **kwargs)
    first = (lambda output: output.feature_maps[0]) if cls is StedFmBackbone else (lambda output: output.to_tuple()[0])
    torch.testing.assert_close(first(compiled), first(expected), rtol=1e-5, atol=1e-6)


def test_training_after_inference_mode() -> None:
    model = StedFmForPreTraining(tiny_config())
    with torch.inference_mode():
        model(pixels(2, 24, 56))
    model(pixels(2, 24, 56)).loss.backward()


def test_backbone_maps_are_the_hidden_states(model: StedFmModel) -> None:
    backbone = StedFmBackbone(tiny_config(out_indices=[0, 1, 2], apply_layernorm=False)).eval()
    backbone.load_state_dict(model.state_dict())
    images = pixels(2, 16, 24)
    expected = model(images, output_hidden_states=True)
    maps = backbone(images).feature_maps
    states = (*expected.hidden_states[:2], expected.last_hidden_state)
    for feature_map, hidden_states in zip(maps, states, strict=True):
        torch.testing.assert_close(feature_map.flatten(2).transpose(1, 2), hidden_states[:, 1:])
    assert backbone.channels == [32, 32, 32]


def test_a_stock_segmenter_stands_on_the_backbone() -> None:
    config = UperNetConfig(
        backbone_config=tiny_config(num_hidden_layers=4, out_indices=[1, 2, 3, 4]),
        hidden_size=16,
        num_labels=2,
        use_auxiliary_head=False,
    )
    segmenter = UperNetForSemanticSegmentation(config).eval()
    assert isinstance(segmenter.backbone, StedFmBackbone)
    assert segmenter(pixels()).logits.shape == (2, 2, 32, 32)


def test_auto_classes_build_from_the_configuration() -> None:
    assert type(AutoModel.from_config(tiny_config())) is StedFmModel
    assert type(AutoBackbone.from_config(tiny_config())) is StedFmBackbone


@pytest.mark.parametrize(
    ("target_type", "labels"),
    [
        ("single_label", torch.tensor([0, 2])),
        ("multi_label", torch.tensor([[0, 1, 1], [1, 0, 0]])),
        ("soft", torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])),
        ("regression", torch.tensor([[0.1, 2.0, -1.0], [5.0, 0.0, 0.0]])),
    ],
)
def test_losses_of_the_classifier(target_type: str, labels: torch.Tensor) -> None:
    model = StedFmForImageClassification(tiny_config(num_labels=3, target_type=target_type)).eval()
    output = model(pixels(), labels=labels)
    logits = output.logits
    expected = {
        "single_label": lambda: -logits.log_softmax(1)[[0, 1], labels].mean(),
        "soft": lambda: -(labels * logits.log_softmax(1)).sum(1).mean(),
        "multi_label": lambda: -torch.where(labels == 1, logits.sigmoid(), 1 - logits.sigmoid()).log().mean(),
        "regression": lambda: (logits - labels).square().mean(),
    }[target_type]()
    assert list(output)[0] == "loss"
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(model.classify(output.pooler_output), logits)


def test_regression_of_one_value_takes_a_flat_label() -> None:
    model = StedFmForImageClassification(tiny_config(num_labels=1, target_type="regression")).eval()
    output = model(pixels(), labels=torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - torch.tensor([1.0, 2.0])).square().mean())
