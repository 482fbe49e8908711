"""Scores of maps, and images with a planted grid (`tests/benchmarks/interpretability_scores.py`, `planted.py`)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stedfm_hf import StedFmForImageClassification
from stedfm_hf.labels.labelled import read_labelled
from tests.benchmarks import interpretability_scores as scores
from tests.benchmarks.planted import WITH, WITHOUT, plant, write_classes
from tests.models import tiny_config


@pytest.fixture(scope="module")
def model() -> StedFmForImageClassification:
    torch.manual_seed(0)
    return StedFmForImageClassification(tiny_config(num_labels=3)).eval()


def images_for(model: StedFmForImageClassification, count: int = 3) -> torch.Tensor:
    size = 5 * model.config.patch_size
    return torch.rand(count, model.config.num_channels, size, size, generator=torch.Generator().manual_seed(1))


def test_planted_grids_are_brighter_than_their_gaps_and_the_same_again() -> None:
    for index in range(5):
        planted = plant(WITH, seed=3, index=index)
        assert planted.box is not None
        top, bottom, left, right = planted.box
        assert 0 <= top < bottom <= 64 and 0 <= left < right <= 64
        assert planted.image[top + 2 : bottom : 5, left + 2 : right : 5].shape == (5, 5)
        spots, gaps = (planted.image[top + at : bottom - 2 : 5, left + at : right - 2 : 5].mean() for at in (2, 4))
        assert spots > gaps
        np.testing.assert_array_equal(planted.image, plant(WITH, seed=3, index=index).image)
    assert plant(WITHOUT, seed=3, index=0).box is None


def test_written_images_are_a_labelled_data_set_with_splits(tmp_path: Path) -> None:
    images = [plant(WITHOUT, seed=0, index=index).image for index in range(6)]
    splits = {"train": {"a": images[:1], "b": images[1:3]}, "test": {"a": images[3:4], "b": images[4:]}}
    write_classes(tmp_path, splits)
    read = read_labelled(str(tmp_path))
    assert {split: data.counts() for split, data in read.items()} == {split: {"a": 1, "b": 2} for split in splits}
    assert not set(read["train"].sources) & set(read["test"].sources)


def test_every_method_scores_every_patch(model: StedFmForImageClassification) -> None:
    pixels = images_for(model)
    found = scores.patch_scores(model, pixels, torch.tensor([0, 2, 0]), seed=0)
    assert tuple(found) == scores.METHODS
    assert {tuple(each.shape) for each in found.values()} == {(3, 25)}
    logits = scores.predict(model, pixels).logits
    torch.testing.assert_close(found[scores.LOGIT].sum(dim=1), logits[[0, 1, 2], [0, 2, 0]], atol=1e-5, rtol=0)


def test_filled_patches_have_the_median_and_others_stay(model: StedFmForImageClassification) -> None:
    pixels, patch = images_for(model, 1), model.config.patch_size
    filled = scores.fill_patches(pixels, torch.tensor([[0, 6]]), patch)
    median = pixels.median()
    assert (filled[:, :, :patch, :patch] == median).all() and (
        filled[:, :, patch : 2 * patch, patch : 2 * patch] == median
    ).all()
    torch.testing.assert_close(filled[:, :, 2 * patch :], pixels[:, :, 2 * patch :])


def test_tokens_left_out_do_not_depend_on_their_pixels(model: StedFmForImageClassification) -> None:
    pixels, deleted = images_for(model, 1), torch.tensor([[3, 8]])
    changed = scores.fill_patches(pixels, deleted, model.config.patch_size)
    torch.testing.assert_close(
        scores.without_tokens(model, pixels, deleted), scores.without_tokens(model, changed, deleted)
    )
    none = torch.zeros(1, 0, dtype=torch.int64)
    torch.testing.assert_close(scores.without_tokens(model, pixels, none), scores.predict(model, pixels).logits)


def test_patches_of_a_box() -> None:
    found = scores.patches_in_box((7, 17, 8, 16), (32, 32), 8)
    assert [row.tolist() for row in np.argwhere(found["touches"])] == [[0, 1], [1, 1], [2, 1]]
    assert [row.tolist() for row in np.argwhere(found["inside"])] == [[1, 1]]
