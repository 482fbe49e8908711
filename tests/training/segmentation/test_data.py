"""Crops hold what is annotated, with their masks, from every part of a large image."""

from __future__ import annotations

import numpy as np
import torch

from stedfm_hf.labels.annotated import AnnotatedImages, from_arrays
from stedfm_hf.training.finetuning.data import CachedItems
from stedfm_hf.training.segmentation.data import Annotated, AnnotatedSplit, TrainingCrops, cache_images, crop_size
from stedfm_hf.training.segmentation.notes import crop_notes


def one_corner() -> TrainingCrops:
    """A large image of which a corner is annotated."""
    image, mask = np.random.default_rng(0).random((200, 200)), np.zeros((200, 200), np.uint8)
    image[150:, 150:] += 3
    mask[150:, 150:] = 1
    data = from_arrays("d", [image], [mask])
    return TrainingCrops(
        cache_images(data), crops=[30], size=32, seed=1, background=data.background, min_annotated=0.01
    )


def test_crops_are_where_the_annotation_is_and_fit_their_masks() -> None:
    crops = one_corner()
    found = [crops[number] for number in range(60)]
    assert all(each["labels"].shape == (32, 32) and each["region"].all() for each in found)
    shares = [float(each["labels"].float().mean()) for each in found]
    assert sum(share > 0.01 for share in shares) > 30  # a twentieth of random places would have it
    for each in found:
        bright = each["pixel_values"][0] > 0.5
        assert torch.equal(bright, each["labels"].bool())


def test_crops_are_anywhere_without_a_minimum() -> None:
    crops = one_corner()
    crops.min_annotated = 0.0
    shares = [float(crops[number]["labels"].float().mean()) for number in range(60)]
    assert sum(share > 0 for share in shares) < 20


def test_the_number_of_crops_is_proportional_to_the_area() -> None:
    images = [np.full((16, 16), 0.2), np.full((32, 48), 0.8)]
    masks = [np.ones((16, 16), np.uint8), np.full((32, 48), 2, np.uint8)]
    data = from_arrays("d", images, masks)
    crops = TrainingCrops(cache_images(data), crops=[1, 6], size=16, seed=1, background=0, min_annotated=0.0)
    for epoch in range(3):
        seen = [int(crops[7 * epoch + number]["labels"].max()) for number in range(7)]
        assert sorted(seen) == [1, 2, 2, 2, 2, 2, 2]


def test_one_small_image_does_not_make_all_crops_small() -> None:
    mask = np.arange(20 * 40, dtype=np.uint8).reshape(20, 40) % 3
    region = np.ones((20, 40), bool)
    region[:, :10] = False
    data = from_arrays("d", [np.eye(20, 40)], [mask], regions=[region])
    crops = TrainingCrops(cache_images(data), crops=[1], size=32, seed=1, background=0, min_annotated=0.0)
    for number in range(8):
        sample = crops[number]
        assert sample["pixel_values"].shape == (1, 32, 32) and sample["labels"].shape == (32, 32)
        assert torch.equal(sample["labels"][20:], sample["labels"][8:20].flip(0))
        assert not sample["region"][20:].any() and sample["region"][:20, 10:22].all()
    assert crop_size([(20, 40), (50, 50)], image_size=64, patch_size=16) == 48
    assert crop_size([(5, 5)], image_size=64, patch_size=16) == 16


def test_notes_on_the_crops_of_a_run() -> None:
    masks = [np.ones((40, 40), np.uint8), np.full((40, 30), 2, np.uint8)]
    data = from_arrays("d", [np.eye(40), np.eye(40, 30)], masks)
    split = AnnotatedSplit(data, cache_images(data), {})
    shapes = [item.image.shape[1:] for item in split.items]
    assert not crop_notes(split, shapes, size=24, image_size=24)
    less, small = crop_notes(split, shapes, size=40, image_size=64)
    assert less == "crops of 40 instead of 64 pixels, because no training image is larger"
    assert "1 of 2 training images are smaller than a crop and padded by reflection, such as 1" in small
    sampled = data.take([0])
    (missing,) = crop_notes(AnnotatedSplit(sampled, _read(sampled), {}), shapes[:1], size=40, image_size=40)
    assert missing == "no training image of the sample shows class 2; the model cannot learn it"
    (again,) = crop_notes(
        AnnotatedSplit(data, CachedItems(cache_images(data).read, 2, size=lambda _: 2**40), {}),
        shapes,
        size=24,
        image_size=24,
    )
    assert again.startswith("2 of 2 training images exceed the cache of 1,024 MiB")


def _read(data: AnnotatedImages) -> CachedItems[Annotated]:
    items = cache_images(data)
    assert len(list(items)) == items.cached == len(data)
    return items
