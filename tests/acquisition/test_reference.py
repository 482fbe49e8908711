"""The published maps equal a literal evaluation of their formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.feature import peak_local_max

from stedfm_hf import StedFmImageProcessor, StedFmModel
from stedfm_hf.acquisition.finders import ForestFinder, TemplateFinder
from stedfm_hf.acquisition.reference import (
    Windows,
    fit_reference,
    reference_examples,
    reference_map,
    reference_regions,
    scale,
)
from stedfm_hf.inference.loading import Encoder
from tests.models import tiny_config

SIZE, PATCH = 32, 8


@pytest.fixture(scope="module")
def windows() -> Windows:
    torch.manual_seed(0)
    model = StedFmModel(tiny_config()).eval()
    return Windows(Encoder(model, StedFmImageProcessor(), "tiny", ""), 5)


def tokens_of(windows: Windows, crop: np.ndarray) -> np.ndarray:
    """Tokens (4, 4, D) of one crop."""
    with torch.inference_mode():
        found = windows.encoder.model(torch.from_numpy(crop.astype(np.float32))[None, None]).last_hidden_state
    return found[0, 1:].reshape(SIZE // PATCH, SIZE // PATCH, -1).numpy()


def normalised(image: np.ndarray) -> np.ndarray:
    low, high = image.min(), image.max()
    return np.clip((image - low) / (high - low + 1e-6), 0, 1).astype(np.float32)


def padded_crop(image: np.ndarray, y: int, x: int) -> np.ndarray:
    """Crop whose first pixel is (y, x), with zeros outside of the image, pixel by pixel."""
    crop = np.zeros((SIZE, SIZE), image.dtype)
    for row in range(SIZE):
        for col in range(SIZE):
            if 0 <= y + row < image.shape[0] and 0 <= x + col < image.shape[1]:
                crop[row, col] = image[y + row, x + col]
    return crop


def literal_templates(windows: Windows, image: np.ndarray, objects: list[np.ndarray]) -> np.ndarray:
    """Templates of all rotations; the objects are given one by one, in raster order of the rotated image."""
    found = []
    for number in range(4):
        plane, masks = np.rot90(image, number), [np.rot90(each, number) for each in objects]
        masks = sorted(masks, key=lambda mask: int(np.flatnonzero(mask.ravel())[0]))
        ids = np.sum([(k + 1) * mask for k, mask in enumerate(masks)], axis=0)
        for mask in masks:
            rows, cols = np.nonzero(mask)
            y, x = int(rows.mean()) - SIZE // 2, int(cols.mean()) - SIZE // 2
            tokens, covered = tokens_of(windows, padded_crop(plane, y, x)), padded_crop(ids, y, x)
            means = covered.reshape(4, PATCH, 4, PATCH).mean(axis=(1, 3))
            found.append(tokens[means > 0.5 * means.max()].mean(axis=0))
    return np.stack(found)


def literal_map(windows: Windows, image: np.ndarray, templates: np.ndarray, stride: int) -> np.ndarray:
    height, width = image.shape
    total, visits = np.zeros((height, width)), np.zeros((height, width))
    for y in range(0, height, stride):
        for x in range(0, width, stride):
            tokens = tokens_of(windows, padded_crop(image, y, x))
            for row in range(SIZE):
                for col in range(SIZE):
                    if y + row < height and x + col < width:
                        token = tokens[row // PATCH, col // PATCH].astype(np.float64)
                        cosines = templates @ token / np.linalg.norm(templates, axis=1) / np.linalg.norm(token)
                        total[y + row, x + col] += cosines.max()
                        visits[y + row, x + col] += 1
    return total / visits


def field(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(5, shape).astype(np.uint16)


def test_template_scores_equal_the_published_formula(windows: Windows) -> None:
    image, query = field((44, 51), 1), field((37, 42), 2)
    objects = [np.zeros(image.shape, bool), np.zeros(image.shape, bool)]
    objects[0][5:16, 3:9] = True
    objects[1][30:36, 28:45] = True
    planes = (objects[0] | objects[1])[None]
    images = [(scale(image), planes, 0)]
    finder = fit_reference("templates", reference_examples("templates", windows, images, ("rings",)))
    assert isinstance(finder, TemplateFinder)
    templates = literal_templates(windows, normalised(image), objects)
    units = templates / np.linalg.norm(templates, axis=1, keepdims=True)
    assert finder.vectors.shape == (8, 32) and np.abs(finder.vectors - units).max() <= 1e-5
    expected = literal_map(windows, normalised(query), templates, SIZE // 4)
    floored = np.maximum(expected, np.quantile(expected, 0.95))
    assert np.abs(reference_map(finder, windows, scale(query))[0] - floored).max() <= 1e-5


def test_an_image_of_the_size_of_a_crop_is_one_template(windows: Windows) -> None:
    image, planes = field((SIZE, SIZE), 3), np.zeros((1, SIZE, SIZE), bool)
    planes[0, 2:8, 2:8] = planes[0, 20:30, 18:31] = True
    images = [(scale(image), planes, 0)]
    examples = reference_examples("templates", windows, images, ("rings",), rotations=False)
    finder = fit_reference("templates", examples)
    assert isinstance(finder, TemplateFinder)
    means = planes[0].reshape(4, PATCH, 4, PATCH).mean(axis=(1, 3))
    expected = tokens_of(windows, normalised(image))[means > 0.5 * means.max()].mean(axis=0)
    assert np.abs(finder.vectors[0] - expected / np.linalg.norm(expected)).max() <= 1e-5


def test_a_forest_gives_the_published_map_of_classes(windows: Windows) -> None:
    pytest.importorskip("skops")
    image, planes = field((40, 56), 4), np.zeros((2, 40, 56), bool)
    planes[0, :20], planes[1, 20:] = True, True
    examples = reference_examples("forest", windows, [(scale(image), planes, 0)], ("a", "b"))
    finder = fit_reference("forest", examples)
    assert isinstance(finder, ForestFinder)
    plane, harvested = normalised(image), []
    for mask in planes:
        for y in range(0, 40, SIZE // 2):
            for x in range(0, 56, SIZE // 2):
                means = padded_crop(mask, y, x).reshape(4, PATCH, 4, PATCH).mean(axis=(1, 3))
                harvested.append(tokens_of(windows, padded_crop(plane, y, x))[means > 0.25])
    assert np.abs(examples.tokens - np.concatenate(harvested)).max() <= 1e-5
    values = reference_map(finder, windows, plane)[0]
    for y in (0, 32):
        for x in (0, 32):
            tokens = tokens_of(windows, padded_crop(plane, y, x)).reshape(-1, 32)
            expected = finder.predict(tokens).reshape(4, 4).repeat(PATCH, 0).repeat(PATCH, 1)
            part = values[y : y + SIZE, x : x + SIZE]
            assert np.array_equal(part, expected[: part.shape[0], : part.shape[1]])


def test_crops_are_proposed_around_peaks_away_from_the_border() -> None:
    values = np.random.default_rng(5).random((100, 120)).astype(np.float32)
    found = reference_regions(values, 20, 6)
    expected = peak_local_max(values, min_distance=10, num_peaks=6, exclude_border=20)
    assert [each.peak for each in found] == [tuple(map(float, each)) for each in expected]
    assert all(each.box.y >= 10 and each.box.height == 20 for each in found)
    assert reference_regions(values[:40], 20, 6) == []
