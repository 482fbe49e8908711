from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from stedfm_hf import StedFmForImageClassification, StedFmImageProcessor, StedFmModel
from stedfm_hf.inference import Encoder
from stedfm_hf.interpretability import PatchPca, foreground_patches, rescale_components
from stedfm_hf.modeling.tiling_stedfm import encode_images
from stedfm_hf.runs import UserError
from tests.models import pixels
from tests.tiny_models import Case


def encoder_of(seed: int = 0, **changes: Any) -> Encoder:
    model = Case(StedFmModel).model(seed=seed, **changes).eval()
    return Encoder(model, StedFmImageProcessor(patch_size=8), f"encoder-{seed}", str(seed) * 64)


def images(count: int = 4) -> list[np.ndarray]:
    """Images of different sizes with a bright square."""
    made = []
    for number in range(count):
        image = 0.1 * pixels(1, 32, 32 + 8 * number, seed=number)[0].numpy()
        image[:, 8:20, 4:20] += 0.7
        made.append(image)
    return made


def tokens_of(encoder: Encoder, of: list[np.ndarray]) -> list[np.ndarray]:
    return list(encode_images(encoder.model, of, pooling="patch", tile_size=None))


def test_components_are_those_of_scikit_learn_on_all_patches() -> None:
    tokens = tokens_of(encoder_of(), images())
    pca = PatchPca.fit(tokens)
    stack = np.concatenate([each.reshape(-1, 32) for each in tokens])
    expected = PCA(3).fit(stack.astype(np.float64))
    assert np.allclose(pca.components, expected.components_) and np.allclose(pca.mean, expected.mean_)
    assert np.allclose(pca.explained_variance_ratio, expected.explained_variance_ratio_)
    projected = np.concatenate([pca.project(each).reshape(-1, 3) for each in tokens])
    assert np.allclose(projected, expected.transform(stack), atol=1e-5)
    assert np.allclose(projected.min(axis=0), pca.minimum, atol=1e-5)


@pytest.mark.parametrize("mode", ["none", "foreground", "pca"])
def test_saved_components_project_images_as_the_joint_fit(mode: str, tmp_path: Path) -> None:
    encoder, all_images = encoder_of(), images()
    tokens = tokens_of(encoder, all_images)
    masks = [foreground_patches(each, 8) for each in all_images]
    pca = PatchPca.fit(tokens, mode=mode, foreground=masks, encoder=encoder)
    pca.save(tmp_path / "new" / "pca")
    loaded = PatchPca.load(tmp_path / "new" / "pca")
    assert (loaded.mode, loaded.model, loaded.weights_sha256) == (mode, "encoder-0", "0" * 64)
    loaded.check_encoder(encoder)
    again = tokens_of(encoder, all_images[2:3])[0]  # as if it were a new image
    assert np.allclose(loaded.project(again, masks[2]), pca.project(tokens[2], masks[2]), atol=1e-5, equal_nan=True)
    new = tokens_of(encoder, [pixels(1, 24, 16, seed=9)[0].numpy()])[0]
    assert loaded.project(new, np.ones((3, 2), bool)).shape == (3, 2, 3)


def test_foreground_is_fitted_alone_and_background_gets_the_minimum() -> None:
    all_images = images()
    tokens = tokens_of(encoder_of(), all_images)
    masks = [foreground_patches(each, 8) for each in all_images]
    assert all(0 < mask.sum() < mask.size for mask in masks)
    pca = PatchPca.fit(tokens, mode="foreground", foreground=masks)
    stack = np.concatenate([each[mask] for each, mask in zip(tokens, masks, strict=True)])
    expected = PCA(3).fit(stack.astype(np.float64))
    shown = pca.project(tokens[1], masks[1])
    assert np.allclose(shown[masks[1]], expected.transform(tokens[1][masks[1]]), atol=1e-5)
    assert np.allclose(shown[~masks[1]], expected.transform(stack).min(axis=0), atol=1e-5)


def test_patches_with_a_negative_first_component_are_blank() -> None:
    tokens = tokens_of(encoder_of(), images())
    everything = PatchPca.fit(tokens).project(tokens[0])
    shown = PatchPca.fit(tokens, mode="pca").project(tokens[0])
    blank = everything[..., 0] < 0
    assert 0 < blank.sum() < blank.size
    assert np.isnan(shown[blank]).all() and np.array_equal(shown[~blank], everything[~blank])


def test_another_encoder_is_refused_and_a_copy_in_half_precision_is_not() -> None:
    encoder = encoder_of()
    pca = PatchPca.fit(tokens_of(encoder, images()), encoder=encoder)
    copy = encoder_of()
    copy.model.to(torch.bfloat16)
    pca.check_encoder(copy)
    headed = Case(StedFmForImageClassification).model().eval()
    headed.stedfm.load_state_dict(encoder.model.state_dict())
    pca.check_encoder(Encoder(headed, encoder.processor, "classifier", "1" * 64))  # it holds the same encoder
    with pytest.raises(UserError, match=r"fitted with another encoder \(encoder-0\) than encoder-1"):
        pca.check_encoder(encoder_of(seed=1))
    with pytest.raises(UserError, match="another encoder"):
        pca.check_encoder(encoder_of(hidden_size=64))
    with pytest.raises(UserError, match="have length 32, but the tokens 64"):
        pca.project(np.zeros((2, 2, 64), np.float32))


def test_patches_are_foreground_if_more_than_one_percent_of_their_pixels_are_bright() -> None:
    image = np.zeros((40, 56), np.float32)
    image[0, :2] = 1  # 2 of 256 pixels: below 1 %
    image[0, 16:19] = 1  # 3 of 256: above
    image[39, 55] = 1  # 1 of 64 pixels of a patch at the border
    found = foreground_patches(image, 16)
    assert found.tolist() == [[False, True, False, False], [False] * 4, [False, False, False, True]]
    both = foreground_patches(np.stack([image, np.zeros_like(image)]), 16)
    assert np.array_equal(both, found)


def test_constant_images_have_finite_components() -> None:
    blank = [np.full((1, 32, 32), 0.5, np.float32)] * 2
    tokens = tokens_of(encoder_of(), blank)
    assert not foreground_patches(blank[0], 8).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in (tokens, [np.ones((4, 4, 32), np.float32)] * 2):
            pca = PatchPca.fit(values)
            assert np.isfinite(pca.project(values[0])).all() and np.isfinite(pca.explained_variance_ratio).all()
            assert np.isfinite(rescale_components(pca.project(values[0]))).all()


def test_an_image_without_foreground_shows_the_minimum() -> None:
    all_images = [*images(), np.zeros((1, 32, 32), np.float32)]
    tokens = tokens_of(encoder_of(), all_images)
    masks = [foreground_patches(each, 8) for each in all_images]
    pca = PatchPca.fit(tokens, mode="foreground", foreground=masks)
    assert np.allclose(pca.project(tokens[-1], masks[-1]), pca.minimum)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "otsu"}, "mode 'otsu' is unknown; choose one of none, foreground, pca"),
        ({"mode": "foreground"}, "needs the foreground of each image"),
        ({"mode": "foreground", "foreground": [np.ones((1, 1), bool)] * 4}, "the foreground has (1, 1) patches"),
        ({"mode": "foreground", "foreground": [np.zeros((4, 4 + n), bool) for n in range(4)]}, "to 0 foreground"),
        ({"n_components": 33}, "give more images or 1 to 32 components"),
        ({"n_components": 0}, "0 components cannot be fitted"),
    ],
)
def test_a_wrong_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        PatchPca.fit(tokens_of(encoder_of(), images()), **arguments)
    assert message in str(error.value)


def test_no_images_are_refused() -> None:
    with pytest.raises(UserError, match="there are no images"):
        PatchPca.fit([])


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"patch_pca.safetensors and patch_pca.json missing"):
        PatchPca.load(tmp_path)
    PatchPca.fit(tokens_of(encoder_of(), images())).save(tmp_path)
    facts = json.loads((tmp_path / "patch_pca.json").read_text("utf-8"))
    for damaged in ("{", "[]", json.dumps(facts | {"mode": "all"}), json.dumps({})):
        (tmp_path / "patch_pca.json").write_text(damaged, "utf-8")
        with pytest.raises(UserError, match="damaged components"):
            PatchPca.load(tmp_path)
    (tmp_path / "patch_pca.json").write_text(json.dumps(facts), "utf-8")
    (tmp_path / "patch_pca.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="damaged components"):
        PatchPca.load(tmp_path)


def test_components_are_scaled_in_each_image() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    values[0, 0] = np.nan
    shown = rescale_components(values)
    assert np.isnan(shown[0, 0]).all()
    assert np.nanmin(shown, axis=(0, 1)).tolist() == [0, 0, 0] and np.nanmax(shown, axis=(0, 1)).tolist() == [1, 1, 1]
    assert np.isnan(rescale_components(np.full((2, 2, 3), np.nan))).all()
