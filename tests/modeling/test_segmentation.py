"""The segmentation model: shapes, losses, decoders, and what it gives up for few masks and small batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForSemanticSegmentation

from stedfm_hf import StedFmConfig, StedFmForPreTraining, StedFmForSemanticSegmentation, StedFmModel
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES
from tests.models import pixels, tiny_config

DECODERS = ("upernet", "unetr", "linear")


def build(**changes: Any) -> StedFmForSemanticSegmentation:
    torch.manual_seed(0)
    return StedFmForSemanticSegmentation(tiny_config(**{"num_labels": 3, **changes}))


def labels_for(target_type: str, batch: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if target_type == "single_label":
        return torch.randint(0, 3, (batch, height, width), generator=generator)
    values = torch.rand(batch, 3, height, width, generator=generator)
    return values.round() if target_type == "multi_label" else values


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (40, 64)])
def test_every_decoder_gives_logits_of_the_size_of_the_image(decoder: str, height: int, width: int) -> None:
    model = build(decoder=decoder).eval()
    with torch.no_grad():
        output = model(pixels(2, height, width))
    assert output.logits.shape == (2, 3, height, width) and output.loss is None and output.hidden_states is None


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("target_type", ["single_label", "multi_label", "soft", "regression"])
def test_a_step_on_a_batch_of_one_reaches_every_weight(decoder: str, target_type: str) -> None:
    model = build(decoder=decoder, target_type=target_type, use_auxiliary_head=True).train()
    model(pixels(1), labels=labels_for(target_type, 1, 32, 32)).loss.backward()
    untouched = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    # The reference's full decoder takes layers without the final norm.
    assert untouched == (["stedfm.norm.weight", "stedfm.norm.bias"] if decoder == "unetr" else [])


def test_an_image_of_upernet_does_not_see_its_neighbours_in_the_batch() -> None:
    model, images = build().train(), pixels(3)
    with torch.no_grad():
        alone, together = model(images[:1]).logits, model(images).logits[:1]
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        name if name.endswith(("64-p8", "large")) else pytest.param(name, marks=pytest.mark.slow)
        for name in ARCHITECTURES
    ],
)
def test_upernet_costs_no_more_than_the_encoder(name: str) -> None:
    config = StedFmConfig(**ARCHITECTURES[name], num_labels=4)
    with torch.device("meta"):
        model = StedFmForSemanticSegmentation(config).eval()
        image = torch.empty(1, 1, config.image_size, config.image_size)
        with FlopCounterMode(display=False) as whole, torch.no_grad():
            model(image)
        with FlopCounterMode(display=False) as encoder, torch.no_grad():
            model.stedfm(image)
    assert 0 < whole.get_total_flops() - encoder.get_total_flops() < encoder.get_total_flops()


@pytest.mark.parametrize("target_type", ["single_label", "multi_label", "soft", "regression"])
def test_pixels_that_do_not_count_change_nothing(target_type: str) -> None:
    model = build(target_type=target_type)
    logits, labels = torch.randn(2, 3, 8, 8), labels_for(target_type, 2, 8, 8)
    region = torch.zeros(2, 8, 8)
    region[:, :, :4] = 1
    inside = model.target_loss(logits, labels, region)
    others = logits.clone()
    others[..., 4:] = 9.0
    ignored = labels.clone()
    ignored[..., 4:] = 255
    torch.testing.assert_close(model.target_loss(others, labels, region), inside)
    torch.testing.assert_close(model.target_loss(others, ignored), inside)
    nothing = model.target_loss(logits, torch.full_like(labels, 255))
    assert nothing.isfinite() and (nothing == 0 or target_type in ("multi_label", "soft"))


def test_losses_by_hand() -> None:
    logits = torch.randn(2, 3, 4, 4)
    classes = labels_for("single_label", 2, 4, 4)
    torch.testing.assert_close(build().target_loss(logits, classes), nn.functional.cross_entropy(logits, classes))
    planes = nn.functional.one_hot(classes, 3).movedim(-1, 1).float()
    squared = build(segmentation_loss="mse", decoder="linear").target_loss(logits, classes)
    torch.testing.assert_close(squared, nn.functional.mse_loss(logits, planes))
    squared = build(segmentation_loss="mse", decoder="unetr", target_type="multi_label").target_loss(logits, planes)
    torch.testing.assert_close(squared, nn.functional.mse_loss(logits.sigmoid(), planes))
    perfect = build(target_type="multi_label").target_loss(40 * planes - 20, planes)
    assert perfect < 1e-4 < build(target_type="multi_label").target_loss(20 - 40 * planes, planes)


def test_probabilities() -> None:
    logits = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(build().probabilities(logits), logits.softmax(1))
    torch.testing.assert_close(build(target_type="soft").probabilities(logits), logits.sigmoid())
    legacy = build(segmentation_loss="mse", decoder="linear", target_type="multi_label")
    torch.testing.assert_close(legacy.probabilities(logits), logits.clamp(0, 1))
    torch.testing.assert_close(build(target_type="regression").probabilities(logits), logits)


@pytest.mark.parametrize(("changes", "shape"), [({}, (1, 3, 8, 8)), ({"target_type": "multi_label"}, (1, 8, 8))])
def test_labels_of_another_shape_are_refused(changes: dict[str, Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"labels must have the shape \(1, "):
        build(**changes).target_loss(torch.zeros(1, 3, 8, 8), torch.zeros(shape))


@pytest.mark.parametrize("target_type", ["single_label", "multi_label"])
def test_a_region_of_another_shape_is_refused(target_type: str) -> None:
    model, labels = build(target_type=target_type), labels_for(target_type, 2, 8, 8)
    with pytest.raises(ValueError, match=r"a region is \(B, H, W\), .*\(2, 1, 8, 8\)"):
        model.target_loss(torch.zeros(2, 3, 8, 8), labels, torch.ones(2, 1, 8, 8))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="power|doubles"):
        build(decoder="unetr", patch_size=6, image_size=36)
    with pytest.raises(ValueError, match="decoder must be one of"):
        build(decoder="unet")


@pytest.mark.parametrize("target_type", ["single_label", "multi_label", "soft", "regression"])
@pytest.mark.parametrize("loss", ["auto", "cross_entropy", "bce_dice", "mse"])
def test_every_loss_has_its_targets(loss: str, target_type: str) -> None:
    meant = {"cross_entropy": ["single_label"], "bce_dice": ["multi_label", "soft"]}
    if target_type in meant.get(loss, [target_type]):
        labels = labels_for(target_type, 1, 32, 32)
        assert build(target_type=target_type, segmentation_loss=loss)(pixels(1), labels).loss.isfinite()
    else:
        with pytest.raises(ValueError, match=f"'{loss}' is one of .* targets, not of {target_type} ones"):
            build(target_type=target_type, segmentation_loss=loss)


def test_folders_load_as_one_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An encoder out of a segmentation model, and a segmentation model on a pretrained encoder."""
    model = build(decoder="unetr").eval()
    model.save_pretrained(tmp_path / "segmenter")
    again = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "segmenter")
    encoder = AutoModel.from_pretrained(tmp_path / "segmenter")
    assert type(again) is StedFmForSemanticSegmentation and type(encoder) is StedFmModel
    assert "UNEXPECTED" not in caplog.text
    image = pixels(1)
    with torch.no_grad():
        assert torch.equal(again.eval()(image).logits, model(image).logits)
        assert torch.equal(encoder(image).last_hidden_state, model.stedfm(image).last_hidden_state)
    StedFmForPreTraining(tiny_config()).save_pretrained(tmp_path / "mae")
    started = StedFmForSemanticSegmentation.from_pretrained(tmp_path / "mae", num_labels=2)
    assert started.decode_head.head.classifier.out_channels == 2
