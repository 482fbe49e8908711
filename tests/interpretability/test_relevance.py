from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from stedfm_hf import StedFmBackbone, StedFmForImageClassification, StedFmModel
from stedfm_hf.exports.runtime_models import RuntimeClassifier
from stedfm_hf.exports.transformers_format import folded_head
from stedfm_hf.interpretability import check_exact, logit_maps, patch_logits
from stedfm_hf.modeling.tiling_stedfm import encode_images, patch_coverage
from stedfm_hf.runs import UserError
from tests.models import pixels
from tests.tiny_models import CLASSIFIERS, Case

SIZES = [(32, 32), (48, 80), (8, 8), (136, 24)]


def classifier(case: Case = CLASSIFIERS[0], **changes: Any) -> Any:
    """A classifier whose running statistics and head are random."""
    model = case.model(**changes).eval()
    generator = torch.Generator().manual_seed(3)
    norm = model.batch_norm
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.01, 4, generator=generator)
    with torch.no_grad():
        model.classifier.weight.normal_(generator=generator)
        model.classifier.bias.normal_(generator=generator)
    return model


@pytest.mark.parametrize("case", CLASSIFIERS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_maps_of_all_patches_sum_to_the_logit(case: Case, size: tuple[int, int]) -> None:
    model, images = classifier(case), pixels(2, *size)
    found = logit_maps(model, images)
    with torch.no_grad():
        expected = model(images).logits
    assert found.maps.shape == (2, 3, size[0] // 8, size[1] // 8)
    scale = expected.abs().max()
    assert (found.maps.sum(dim=(2, 3)) - expected).abs().max() <= 1e-5 * scale
    assert (found.logits - expected).abs().max() <= 1e-5 * scale


def test_each_patch_has_the_value_of_the_formula() -> None:
    model, images = classifier(), pixels(1, 16, 24)
    norm, head = model.batch_norm, model.classifier
    with torch.no_grad():
        token = model.stedfm(images).last_hidden_state[0, 1 + 1 * 3 + 2]  # second row, third column
        share = head.weight @ ((token - norm.running_mean) / (norm.running_var + norm.eps).sqrt()) + head.bias
    assert torch.allclose(logit_maps(model, images).maps[0, :, 1, 2], share / 6, atol=1e-5)


def test_a_batch_equals_its_images() -> None:
    model, images = classifier(), pixels(3, 24, 40)
    single = torch.cat([logit_maps(model, image[None]).maps for image in images])
    assert torch.allclose(logit_maps(model, images).maps, single, atol=1e-5)


def test_a_blank_image_has_finite_maps() -> None:
    assert logit_maps(classifier(), torch.zeros(1, 1, 32, 32)).maps.isfinite().all()


def test_half_precision_sums_as_exactly() -> None:
    model, images = classifier(), pixels(2)
    half = copy.deepcopy(model).to(torch.bfloat16)
    found, expected = logit_maps(half, images), logit_maps(model, images).logits
    assert found.maps.dtype == torch.float32
    assert torch.allclose(found.maps.sum(dim=(2, 3)), found.logits, rtol=1e-5, atol=1e-5)
    assert (found.logits - expected).abs().max() < 0.1 * expected.abs().max()


def test_the_logit_of_a_field_in_tiles_is_the_mean_over_its_patches() -> None:
    model, field = classifier(), pixels(1, 44, 70)[0].numpy()
    (tokens,) = encode_images(model, [field], pooling="patch")
    (embedding,) = encode_images(model, [field])
    weights = torch.from_numpy(patch_coverage(44, 70, 8))
    values = patch_logits(model, torch.from_numpy(tokens))
    mean = (values * weights[:, :, None]).sum(dim=(0, 1)) / weights.sum()
    with torch.no_grad():
        expected = model.classify(torch.from_numpy(embedding)[None])[0]
    assert torch.allclose(mean, expected, atol=1e-5 * float(expected.abs().max()))


@dataclass
class TorchSession:
    """Session of an exported classifier, which a torch model computes."""

    model: Any
    facts: dict[str, str]

    def run(self, pixel_values: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
        return {name: self.model.stedfm(pixel_values)[name] for name in names}


def test_an_exported_classifier_has_the_same_maps() -> None:
    model, images = classifier(), pixels(1, 24, 40)
    weight, bias = folded_head(model.classifier)
    session: Any = TorchSession(model, {"precision": "float32", "weights_sha256": "0" * 64})
    exported = RuntimeClassifier(session, model.config, {"weight": weight, "bias": bias})
    found, expected = logit_maps(exported, images), logit_maps(model, images)
    assert torch.allclose(found.maps, expected.maps) and torch.allclose(found.logits, expected.logits)


@pytest.mark.parametrize("model_class", [StedFmModel, StedFmBackbone])
def test_a_model_without_logits_is_refused(model_class: type[Any]) -> None:
    with pytest.raises(UserError, match=f"a {model_class.__name__} has no logits of images; give a folder"):
        check_exact(Case(model_class).model().eval())


def test_pooling_of_the_class_token_is_refused() -> None:
    with pytest.raises(UserError, match="the pooling of this one is 'token'"):
        logit_maps(classifier(pooling="token"), pixels(1))


@pytest.mark.parametrize("part", ["", "classifier.batch_norm"])
def test_training_mode_is_refused(part: str) -> None:
    model = classifier()
    model.get_submodule(part).train()
    with pytest.raises(UserError, match=r"call model\.eval\(\)"):
        logit_maps(model, pixels(2))


def test_a_head_that_is_not_linear_is_refused() -> None:
    model: StedFmForImageClassification = classifier()
    head = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    model.classifier = head  # type: ignore[assignment]  # another class than the head of the model: it is refused
    with pytest.raises(UserError, match="the head is a Sequential"):
        logit_maps(model.eval(), pixels(1))
