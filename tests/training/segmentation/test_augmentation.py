"""Crops and masks are turned alike; intensities change mildly, or as the reference's truly do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stedfm_hf.training.random_numbers import sample_keys
from stedfm_hf.training.segmentation.data import augment


def crops(count: int = 256, size: int = 8) -> torch.Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["default", "reference"])
@pytest.mark.parametrize("planes", [False, True])
def test_masks_and_regions_turn_with_their_images(kind: Any, planes: bool) -> None:
    binary = (crops() > 0.5).float()
    keys = sample_keys(3, 1, torch.arange(256))
    labels = binary.expand(-1, 2, -1, -1) if planes else binary[:, 0].long()
    images, turned, regions = augment(binary, labels, binary[:, 0].bool(), keys, kind)
    # Intensities change, but bright stays brighter than dark.
    bright = images > images.amax(dim=(1, 2, 3), keepdim=True) / 2
    assert turned.shape == labels.shape and turned.dtype == labels.dtype
    assert torch.equal(bright[:, 0], regions)
    assert torch.equal(bright.expand(-1, 2, -1, -1) if planes else bright[:, 0], turned.bool())
    marked = torch.zeros(256, 1, 8, 8)
    marked[:, :, 0, 1] = 1
    places = augment(marked, marked[:, 0].long(), marked[:, 0].bool(), keys, kind)[1].flatten(1).argmax(dim=1)
    assert len(set(places.tolist())) == 8


def test_the_reference_darkens_by_a_factor_and_brightens_by_gamma() -> None:
    flat = torch.full((4096, 1, 2, 2), 0.5)
    keys = sample_keys(0, 0, torch.arange(4096))
    found = augment(flat, flat[:, 0].long(), flat[:, 0].bool(), keys, "reference")[0][:, 0, 0, 0]
    assert (found == 0.5).float().mean() > 0.25  # neither, or cut to 1
    # A factor is below 1 in 46 % of the draws, an exponent in 47 %, each is drawn in half of the samples.
    assert (found < 0.5).float().mean() == pytest.approx(0.5 * 0.46, abs=0.05)
    assert found.min() > 0.5 * 0.6 and found.max() < 0.5**0.7


def test_it_does_not_depend_on_the_batch() -> None:
    images, keys = crops(64), sample_keys(7, 2, torch.arange(64))
    labels, region = images[:, 0].long(), images[:, 0].bool()
    whole = augment(images, labels, region, keys, "reference")[0]
    alone = augment(images[40:41], labels[40:41], region[40:41], keys[40:41], "reference")[0]
    assert torch.equal(alone[0], whole[40])
