"""Masks without training: planted structures, degenerate images, and the reference's rule."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional

from stedfm_hf import StedFmModel
from stedfm_hf.images import StedImage
from stedfm_hf.inference import Encoder, load_encoder
from stedfm_hf.inference.one_image import prepare_image
from stedfm_hf.interpretability import attentions, cluster_margins, mass_mask, zero_shot, zero_shot_mask
from stedfm_hf.runs import UserError
from tests.tiny_models import Case

WAYS: tuple[dict[str, Any], ...] = (
    {"method": "clusters"},
    {"method": "attention"},
    {"method": "attention", "protocol": "reference"},
)


@pytest.fixture(scope="module")
def demo() -> Encoder:
    return load_encoder("demo", device="cpu")


def image_of(pixels: np.ndarray) -> StedImage:
    array = pixels if pixels.ndim == 3 else pixels[None]
    return StedImage(array, None, ("actin",) * len(array), {}, "folder/cell.tif", "image")


def planted(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A bright disk in photon noise, and its mask."""
    row, col = np.indices((height, width))
    disk = (row - 0.45 * height) ** 2 + (col - 0.6 * width) ** 2 < (0.28 * min(height, width)) ** 2
    return np.random.default_rng(seed).poisson(3 + 40 * disk), disk


@pytest.mark.parametrize(("way", "least"), list(zip(WAYS, (0.8, 0.5, 0.4), strict=True)))
def test_a_planted_structure_is_found(demo: Encoder, way: dict[str, Any], least: float) -> None:
    pixels, disk = planted(160, 224)
    mask = zero_shot_mask(demo, image_of(pixels), **way)
    assert mask.dtype == bool and (mask & disk).sum() / (mask | disk).sum() > least
    assert mask[disk].mean() > 3 * mask[~disk].mean()


@pytest.mark.parametrize("way", WAYS)
def test_units_of_the_intensity_and_batches_do_not_matter(demo: Encoder, way: dict[str, Any]) -> None:
    pixels, _ = planted(70, 90)
    mask = zero_shot_mask(demo, image_of(pixels), **way)
    other = zero_shot_mask(demo, image_of(3.0 * pixels + 100), batch_size=1, **way)
    assert (mask == other).mean() > 0.999, "equal up to rounding"
    assert (mask == zero_shot_mask(demo, image_of(pixels), **way)).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 41), (8, 8), (65, 64)])
def test_any_size_gives_a_mask(demo: Encoder, way: dict[str, Any], shape: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mask = zero_shot_mask(demo, image_of(np.random.default_rng(0).poisson(9, shape)), **way)
        assert mask.shape == shape
        assert not zero_shot_mask(demo, image_of(np.full(shape, 7)), **way).any(), "nothing stands out"
        assert not zero_shot_mask(demo, image_of(np.zeros(shape)), **way).any()


def test_the_mask_has_the_pixels_of_the_file_when_the_model_resamples(demo: Encoder) -> None:
    processor = type(demo.processor)(**{**demo.processor.to_dict(), "target_pixel_size_nm": 20.0})
    pixels, disk = planted(112, 112)
    image = replace(image_of(pixels), pixel_size_nm=(40.0, 40.0))
    for way in WAYS[:2]:
        mask = zero_shot_mask(replace(demo, processor=processor), image, **way)
        assert mask.shape == (112, 112) and mask[disk].mean() > 3 * mask[~disk].mean()


def test_large_images_are_tiled_without_seams(demo: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, disk = planted(144, 208)
    whole = zero_shot_mask(demo, image_of(pixels), method="attention")
    monkeypatch.setattr(zero_shot, "TILE", 16)
    tiled = zero_shot_mask(demo, image_of(pixels), method="attention")
    assert tiled.shape == whole.shape and tiled[disk].mean() > 3 * tiled[~disk].mean()


def test_the_reference_mask_equals_a_literal_evaluation() -> None:
    model = Case(StedFmModel).model(seed=3).eval()
    encoder = Encoder(model, load_encoder("demo", device="cpu").processor, "tiny", "")
    image = image_of(planted(48, 64)[0])
    ((_, pixels),) = prepare_image(encoder, image)
    total = np.zeros((48, 64))
    for block in attentions(model, torch.from_numpy(pixels)[None])[0]:
        row = block[:, 0, 1:].mean(dim=0).reshape(1, 1, 6, 8)
        resized = functional.interpolate(row, (48, 64), mode="bilinear")[0, 0].numpy().astype(np.float64)
        total += (resized - resized.min()) / (resized.max() - resized.min())
    descending = np.sort(total.ravel())[::-1]
    threshold = descending[np.flatnonzero(descending.cumsum() >= 0.6 * descending.sum())[0]]
    mask = zero_shot_mask(encoder, image, method="attention", protocol="reference")
    assert (mask == (total >= threshold)).mean() > 0.999, "equal up to rounding"


@given(arrays.arrays(np.float64, (4, 5), elements=st.floats(0, 100)), st.floats(0.05, 1))
def test_the_mass_mask_is_the_smallest_set_with_the_mass(values: np.ndarray, fraction: float) -> None:
    mask = mass_mask(values, fraction)
    if not values.any():
        assert not mask.any()
        return
    target = fraction * np.cumsum(np.sort(values.ravel())[::-1])[-1]
    assert values[mask].sum() >= target - 1e-9
    assert values[mask].sum() - values[mask].min() <= target + 1e-9, "one pixel less does not hold the mass"
    assert mask.all() or values[mask].min() >= values[~mask].max()


def test_clusters_are_those_of_directions_and_their_brightness_decides() -> None:
    rng = np.random.default_rng(0)
    structure = np.zeros((6, 7), bool)
    structure[2:5, 3:6] = True
    tokens = rng.normal(0, 0.05, (6, 7, 16)) + np.where(structure[..., None], np.eye(16)[0], np.eye(16)[1])
    brightness = np.where(structure, 0.6, 0.2)
    brightness[3, 4], brightness[0, 0] = 0.2, 0.6  # a dim patch of the structure, and a bright one of the background
    margins = cluster_margins(tokens, brightness, clusters=2)
    assert ((margins > 0) == structure).all()
    scaled = cluster_margins(tokens * rng.uniform(0.5, 2, (6, 7, 1)), 5 * brightness + 1, clusters=2)
    np.testing.assert_allclose(scaled, margins, atol=1e-9)
    assert ((cluster_margins(tokens, 1 - brightness, clusters=2) > 0) == ~structure).all()


def test_equal_tokens_or_equal_brightness_have_no_foreground() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (cluster_margins(np.ones((2, 3, 4)), np.arange(6.0).reshape(2, 3)) == -1).all()
        assert (cluster_margins(np.zeros((1, 1, 4)), np.ones((1, 1))) == -1).all()
        tokens = np.random.default_rng(0).normal(size=(2, 3, 4))
        assert (cluster_margins(tokens, np.ones((2, 3))) == -1).all()


def test_wrong_input_raises_an_error(demo: Encoder) -> None:
    with pytest.raises(UserError, match="zero-shot method 'magic' is unknown; choose clusters or attention"):
        zero_shot_mask(demo, image_of(np.eye(16)), method="magic")
    with pytest.raises(UserError, match=r"cell\.tif: has 2 channels, but demo .* needs 1\. Select one"):
        zero_shot_mask(demo, image_of(np.ones((2, 16, 16))))
