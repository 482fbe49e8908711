"""Masks and augmentation: functions of (seed, epoch, sample), whoever computes them and with whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stedfm_hf.training.preparation import Preparation, rotate_and_flip
from stedfm_hf.training.random_numbers import random_integers, random_ranks, random_uniform, sample_keys


def batch_of(index: list[int], side: int = 16, dtype: torch.dtype = torch.uint8) -> dict[str, Any]:
    pixels = [np.random.default_rng(number).integers(0, 255, (1, side, side)) for number in index]
    return {
        "pixels": torch.from_numpy(np.stack(pixels)).to(dtype),
        "intensity_range": torch.tensor([[0.0, 255.0]] * len(index)),
        "index": torch.tensor(index),
    }


@given(
    seed=st.integers(0, 2**60),
    epoch=st.integers(0, 10_000),
    index=st.lists(st.integers(0, 2**50), min_size=1, max_size=6, unique=True),
)
def test_a_sample_draws_the_same_with_whomever_it_is_in_a_batch(seed: int, epoch: int, index: list[int]) -> None:
    together = sample_keys(seed, epoch, torch.tensor(index))
    alone = torch.cat([sample_keys(seed, epoch, torch.tensor([number])) for number in index])
    assert torch.equal(together, alone)
    assert torch.equal(random_integers(together, 5, purpose=1), random_integers(alone, 5, purpose=1))
    assert not torch.equal(random_integers(together, 5, purpose=1), random_integers(together, 5, purpose=2))
    assert not torch.equal(together, sample_keys(seed, epoch + 1, torch.tensor(index)))


def test_no_two_samples_epochs_or_seeds_share_a_mask() -> None:
    index = torch.arange(20_000)
    masks = {
        row.tobytes()
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (2**33, 0))
        for row in np.packbits(
            random_ranks(sample_keys(seed, epoch, index), 64, purpose=1).argsort(dim=1).argsort(dim=1).numpy() < 16,
            axis=1,
        )
    }
    assert len(masks) == 80_000


def test_numbers_are_even_and_independent() -> None:
    numbers = random_uniform(sample_keys(3, 1, torch.arange(20_000)), 8, purpose=1).double().numpy()
    assert 0 <= numbers.min() and numbers.max() < 1
    counts = np.histogram(numbers, 64, (0, 1))[0]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 120  # chi square of 63 degrees of freedom
    for data in (numbers.T, np.stack([numbers[:-1, 0], numbers[1:, 0]])):
        correlation = np.corrcoef(data) - np.eye(len(data))
        assert np.abs(correlation).max() < 0.03
    kept = random_ranks(sample_keys(0, 0, torch.arange(20_000)), 16, purpose=1).argsort(dim=1)[:, :4]
    shares = np.bincount(kept.flatten().numpy(), minlength=16) / 20_000
    np.testing.assert_allclose(shares, 0.25, atol=0.015)


@given(index=st.integers(0, 10**9), count=st.integers(1, 300))
def test_ranks_have_no_ties(index: int, count: int) -> None:
    ranks = random_ranks(sample_keys(0, 0, torch.tensor([index])), count, purpose=1)
    assert len(set(ranks[0].tolist())) == count


def test_the_eight_turns_are_those_of_numpy() -> None:
    images = torch.arange(8 * 2 * 25).reshape(8, 2, 5, 5)
    turned = rotate_and_flip(images, torch.arange(8))
    for number in range(8):
        plain = images[number].numpy()
        mirrored = plain.transpose(0, 2, 1) if number >= 4 else plain
        np.testing.assert_array_equal(turned[number].numpy(), np.rot90(mirrored, number % 4, axes=(1, 2)))


@given(order=st.permutations([3, 14, 15, 92, 65]), cut=st.integers(1, 4), side=st.sampled_from([16, 20]))
def test_a_step_does_not_depend_on_how_its_samples_are_shared(order: list[int], cut: int, side: int) -> None:
    prepare = Preparation(seed=7, image_size=16, patches=16)
    whole = prepare(batch_of(order, side), epoch=3)
    parts = [prepare(batch_of(part, side), epoch=3) for part in (order[:cut], order[cut:])]
    for name, values in whole.items():
        assert torch.equal(values, torch.cat([part[name] for part in parts]))


def test_without_augmentation_images_stay_and_the_middle_is_taken() -> None:
    batch = batch_of([1, 2], side=20)
    ready = Preparation(seed=0, image_size=16, patches=16, augment=False)(batch, epoch=5)
    torch.testing.assert_close(ready["pixel_values"], batch["pixels"][:, :, 2:18, 2:18] / 255)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_every_stored_type_is_scaled_by_its_range(dtype: torch.dtype) -> None:
    batch = batch_of([4], dtype=dtype) | {"intensity_range": torch.tensor([[10.0, 110.0]])}
    values = Preparation(seed=0, image_size=16, patches=16, augment=False)(batch, epoch=0)["pixel_values"]
    expected = ((batch["pixels"].float() - 10) / 100).clamp(0, 1)
    torch.testing.assert_close(values, expected)
    assert values.dtype == torch.float32


def test_a_crop_of_a_large_image_lies_where_there_is_something() -> None:
    batch = batch_of([0] * 40, side=64)
    batch["index"] = torch.arange(40)
    batch["pixels"] = torch.zeros_like(batch["pixels"])
    batch["pixels"][:, :, :, 40:] = 200
    values = Preparation(seed=0, image_size=16, patches=16)(batch, epoch=0)["pixel_values"]
    assert (values.flatten(1).mean(dim=1) > 0.005).all()
    assert len({value.numpy().tobytes() for value in values}) > 5
