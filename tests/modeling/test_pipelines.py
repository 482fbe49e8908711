from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from transformers import Pipeline, pipeline

from stedfm_hf import StedFmForImageClassification, StedFmForPreTraining, StedFmImageProcessor, StedFmModel
from stedfm_hf.modeling.pipeline_stedfm import StedFmFeatureExtractionPipeline, StedFmImageClassificationPipeline
from stedfm_hf.modeling.tiling_stedfm import encode_images
from tests.models import tiny_config


def counts(shape: tuple[int, ...] = (32, 32), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60000, shape).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("classifier")
    config = tiny_config(id2label={0: "rings", 1: "fibres", 2: "puncta"})
    StedFmForImageClassification(config).eval().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def extract(folder: Path) -> Pipeline:
    return pipeline("stedfm-feature-extraction", model=str(folder), device="cpu")


@pytest.fixture(scope="module")
def classify(folder: Path) -> Pipeline:
    return pipeline("stedfm-image-classification", model=str(folder), device="cpu")


def test_our_task_names_need_no_remote_code(
    folder: Path, extract: Pipeline, classify: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(prompt: str = "") -> str:
        asked.append(prompt)
        return "n"

    monkeypatch.setattr("builtins.input", answer)
    pipeline("stedfm-feature-extraction", model=str(folder), device="cpu")
    assert not asked, "transformers asks whether it may run the code of the folder"
    assert type(extract) is StedFmFeatureExtractionPipeline and type(extract.model) is StedFmModel
    assert type(classify) is StedFmImageClassificationPipeline
    assert type(classify.model) is StedFmForImageClassification


def test_the_stock_name_says_that_it_needs_remote_code(folder: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        pipeline("image-feature-extraction", model=str(folder), device="cpu")
    stock = pipeline(
        "image-feature-extraction",
        model=str(folder),
        device="cpu",
        pipeline_class=StedFmFeatureExtractionPipeline,
    )
    assert stock(counts()).shape == (32,)


def test_all_doors_lead_to_the_same_16_bit_vector(extract: Pipeline, folder: Path, tmp_path: Path) -> None:
    image = counts()
    tifffile.imwrite(tmp_path / "image.tif", image)
    Image.fromarray(image).save(tmp_path / "image.png")
    model = StedFmModel.from_pretrained(folder).eval()
    (expected,) = encode_images(model, [StedFmImageProcessor(patch_size=8).prepare(image)])
    doors = [image, image[None], torch.from_numpy(image.astype(np.int32)), Image.fromarray(image)]
    for door in [*doors, str(tmp_path / "image.tif"), tmp_path / "image.png"]:
        np.testing.assert_allclose(extract(door), expected, atol=1e-6)


def test_pixels_below_the_8_bit_step_count(extract: Pipeline) -> None:
    image = counts()
    other = image.copy()
    other[4:9, 4:9] ^= 31
    assert not np.array_equal(extract(image), extract(other))


def test_lists_and_batches(extract: Pipeline) -> None:
    images = [counts(seed=i) for i in range(5)] + [counts((40, 70))]
    one_by_one = [extract(image) for image in images]
    for batch_size in (1, 4):
        together = extract(images, batch_size=batch_size)
        np.testing.assert_allclose(np.stack(together), np.stack(one_by_one), atol=1e-5)


def test_patch_maps_of_any_size(extract: Pipeline) -> None:
    maps = extract([counts((20, 30)), counts((64, 9))], pooling="patch", batch_size=2)
    assert [m.shape for m in maps] == [(3, 4, 32), (8, 2, 32)]


def test_arguments_reach_their_stage(extract: Pipeline, tmp_path: Path) -> None:
    stack = np.stack([counts(), counts(seed=1)])
    tifffile.imwrite(tmp_path / "two.tif", stack, metadata={"axes": "CYX"}, ome=True)
    np.testing.assert_allclose(extract(tmp_path / "two.tif", channel=1), extract(stack[1]), atol=1e-6)
    np.testing.assert_allclose(extract(stack, channel=1), extract(stack[1]), atol=1e-6)
    assert not np.array_equal(extract(stack[0], normalization="none"), extract(stack[0]))
    with pytest.raises(TypeError, match="unknown argument size"):
        extract(stack[0], size=3)
    with pytest.raises(ValueError, match="2 channels but the model takes 1"):
        extract(stack)


def test_labels_best_first(classify: Pipeline) -> None:
    result = classify(counts())
    assert {entry["label"] for entry in result} == {"rings", "fibres", "puncta"}
    assert [entry["score"] for entry in result] == sorted((entry["score"] for entry in result), reverse=True)
    assert sum(entry["score"] for entry in result) == pytest.approx(1)
    assert classify(counts(), top_k=1) == result[:1]
    pixel_values = classify.image_processor(counts(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        probabilities = classify.model(pixel_values).logits.softmax(1)[0]
    assert result[0]["score"] == pytest.approx(probabilities.max().item(), abs=1e-6)
    batched = classify([counts(), counts((70, 40))], batch_size=2)[0]
    assert [entry["score"] for entry in batched] == pytest.approx([entry["score"] for entry in result])


@pytest.mark.parametrize("target_type", ["multi_label", "regression"])
def test_other_targets(target_type: str) -> None:
    model = StedFmForImageClassification(tiny_config(num_labels=2, target_type=target_type)).eval()
    classify = StedFmImageClassificationPipeline(model=model, image_processor=StedFmImageProcessor(patch_size=8))
    with torch.no_grad():
        logits = model(classify.image_processor(counts(), return_tensors="pt")["pixel_values"]).logits[0]
    expected = logits if target_type == "regression" else logits.sigmoid()
    scores = {entry["label"]: entry["score"] for entry in classify(counts())}
    assert [scores["LABEL_0"], scores["LABEL_1"]] == pytest.approx(expected.tolist(), abs=1e-5)


def test_only_sted_fm_models(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    stranger = ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16))
    with pytest.raises(ValueError, match="for STED-FM models, got ViTModel"):
        StedFmFeatureExtractionPipeline(model=stranger, image_processor=StedFmImageProcessor())
    autoencoder = StedFmForPreTraining(tiny_config()).eval()
    extract = StedFmFeatureExtractionPipeline(model=autoencoder, image_processor=StedFmImageProcessor(patch_size=8))
    assert extract(counts()).shape == (32,)
