"""Augmentation is a function of (seed, epoch, sample), mild, and keeps what a crop is about."""

from __future__ import annotations

import torch

from stedfm_hf.training.classification.data import crop_with_foreground
from stedfm_hf.training.classification.trainer import augment
from stedfm_hf.training.random_numbers import sample_keys


def images(count: int = 64) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_it_does_not_depend_on_the_batch() -> None:
    keys = sample_keys(7, 2, torch.arange(64))
    whole = augment(images(), keys)
    assert torch.equal(augment(images()[40:41], keys[40:41])[0], whole[40])
    other = augment(images(), sample_keys(7, 3, torch.arange(64)))
    assert not torch.equal(whole[40], other[40])


def test_intensities_change_a_little_and_stay_in_range() -> None:
    flat = torch.full((256, 1, 8, 8), 0.5)
    found = augment(flat, sample_keys(0, 0, torch.arange(256)))[:, 0, 0, 0]
    assert found.min() > 0.3 and found.max() < 0.75 and found.std() > 0.03
    assert abs(float(found.mean()) - 0.5) < 0.03
    bright = augment(torch.ones(64, 1, 8, 8), sample_keys(0, 0, torch.arange(64)))
    assert bright.max() == 1 and bright.min() > 0.75


def test_all_eight_rotations_and_reflections_occur() -> None:
    marked = torch.zeros(64, 1, 8, 8)
    marked[:, :, 0, 1] = 1
    found = augment(marked, sample_keys(0, 0, torch.arange(64))).flatten(1).argmax(dim=1)
    assert len(set(found.tolist())) == 8


def test_a_crop_contains_foreground_if_possible() -> None:
    image = torch.zeros(1, 100, 100)
    image[:, 40:60, 40:60] = 1
    empty = 0
    for number in range(50):
        crop = crop_with_foreground(image, 32, sample_keys(0, 0, torch.tensor([number])))
        assert crop.shape == (1, 32, 32)
        empty += int(not crop.any())
    assert empty < 5
    dark = crop_with_foreground(torch.zeros(1, 40, 50), 32, sample_keys(0, 0, torch.tensor([0])))
    assert dark.shape == (1, 32, 32)
