"""Training data of a segmenter: crops of annotated images with their masks, and their augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.training.finetuning.data import (
    INTENSITY,
    CachedItems,
    LoadedSplit,
    Samples,
    change_intensities,
    choose_crop,
    random_rotations,
)
from stedfm_hf.training.preparation import ROTATION, rotate_and_flip
from stedfm_hf.training.random_numbers import random_integers, random_uniform

IGNORED = 255
FACTOR, EXPONENT = (0.01, 0.1), (0.005, math.sqrt(0.005))
"""Mean and standard deviation of the logarithms of factor and exponent in the reference protocol."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """An image and its annotation.

    Attributes:
        image: Image (C, H, W) float32 in [0, 1].
        target: Target (H, W) uint8 for exclusive classes, otherwise (L, H, W); see
            `target`.
        region: Annotated region (H, W) bool; None for the whole image.
    """

    image: np.ndarray
    target: np.ndarray
    region: np.ndarray | None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.image.nbytes + self.target.nbytes + (0 if self.region is None else self.region.nbytes)

    def annotated(self, background: int | None, place: tuple[slice, slice]) -> int:
        """Count the pixels of a rectangle, inside the region of interest, that are of any class but the background.

        Args:
            background: Index of the background class, if any.
            place: Rows and columns of the rectangle.
        """
        target = self.target[(..., *place)]
        if target.ndim == 2:  # class indices
            is_annotated = target != IGNORED
            if background is not None:
                is_annotated &= target != background
        else:  # a plane for each class; the background has none
            is_annotated = (target > 0).any(axis=0)
        return int(np.count_nonzero(is_annotated if self.region is None else is_annotated & self.region[place]))

    def padded(self, size: int) -> Annotated:
        """Return the image padded by reflection to a minimum size; the padding is not annotated.

        Args:
            size: Smallest height and width in pixels.
        """
        height, width = self.image.shape[1:]
        if min(height, width) >= size:
            return self
        added = (0, max(size - height, 0)), (0, max(size - width, 0))
        region = np.ones((height, width), bool) if self.region is None else self.region
        image, target = (
            np.pad(each, [(0, 0)] * (each.ndim - 2) + list(added), mode="symmetric")
            for each in (self.image, self.target)
        )
        return Annotated(image, target, np.pad(region, added))


AnnotatedSplit = LoadedSplit[AnnotatedImages, Annotated]


def cache_images(data: AnnotatedImages) -> CachedItems[Annotated]:
    """Return the images with their masks, each read once.

    Args:
        data: Images to read.
    """

    def read(number: int) -> Annotated:
        image = np.asarray(data.image(number), np.float32)
        target, region = data.annotation(number)
        # Class indices are below 255, which marks ignored pixels.
        return Annotated(image, target.astype(np.uint8) if data.target_type == "single_label" else target, region)

    return CachedItems(read, len(data), size=lambda item: item.nbytes)


def crop_size(shapes: Sequence[tuple[int, int]], *, image_size: int, patch_size: int) -> int:
    """Return the size of the training crops in pixels: that of the model, or the largest that fits an image.

    Smaller images are padded by reflection.

    Args:
        shapes: Height and width of each image in pixels.
        image_size: Image size of the model in pixels.
        patch_size: Patch size of the model in pixels; the result is a multiple of it.

    Example:
        >>> crop_size([(40, 300), (100, 120)], image_size=224, patch_size=16)
        96
    """
    largest = max(min(shape) for shape in shapes)
    return max(patch_size, min(image_size, largest // patch_size * patch_size))


def crops_in(pixels: int, size: int) -> int:
    """Return the number of crops of an image in an epoch: the ratio of their areas, at least one.

    Args:
        pixels: Number of pixels of the image.
        size: Height and width of a crop in pixels.

    Example:
        >>> crops_in(224 * 224, 224), crops_in(1000 * 1000, 224), crops_in(100 * 60, 224)
        (1, 20, 1)
    """
    return max(1, round(pixels / size**2))


class _RepeatedItems(Sequence[Annotated]):
    """Sequence that repeats every item, once for each of its crops in an epoch."""

    def __init__(self, items: Sequence[Annotated], times: Sequence[int]) -> None:
        self.items, self.rows = items, np.repeat(np.arange(len(items)), times)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        return self.items[int(self.rows[number])]


class TrainingCrops(Samples[Annotated]):
    """Endless training crops of annotated images, by index; an epoch has several crops of a large image.

    Args:
        items: Images with their masks.
        crops: Number of crops of each image in an epoch.
        size: Size of the crops in pixels.
        seed: Random seed of the order and the positions of the crops.
        background: Index of the background class, if any.
        min_annotated: Smallest annotated fraction of a crop.
    """

    def __init__(
        self,
        items: Sequence[Annotated],
        *,
        crops: Sequence[int],
        size: int,
        seed: int,
        background: int | None,
        min_annotated: float,
    ) -> None:
        super().__init__(_RepeatedItems(items, crops), seed=seed)
        self.size, self.background, self.min_annotated = size, background, min_annotated

    def sample(self, row: int, item: Annotated, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a crop of the image, of its target, and of its annotated region."""
        item = item.padded(self.size)
        top, left = choose_crop(
            item.image.shape[1:],
            self.size,
            keys,
            min_fraction=self.min_annotated,
            count_in=lambda place: item.annotated(self.background, place),
        )
        place = (slice(top, top + self.size), slice(left, left + self.size))
        region = np.ones((self.size, self.size), bool) if item.region is None else item.region[place]
        target = item.target[(..., *place)]
        return {
            "pixel_values": torch.tensor(item.image[(..., *place)]),
            "labels": torch.tensor(target),
            "region": torch.tensor(region),
        }


def augment(
    images: torch.Tensor, labels: torch.Tensor, region: torch.Tensor, keys: torch.Tensor, protocol: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotate and mirror images with their labels and regions, and change the intensities of the images.

    Args:
        images: Images (B, C, S, S) in [0, 1].
        labels: Targets (B, S, S) of exclusive classes, otherwise (B, L, S, S).
        region: Annotated regions (B, S, S) bool.
        keys: Keys of the samples, (B, 2), on the same device.
        protocol: `default` or `reference`.

    Returns:
        Images, labels and regions, of the same shapes.

    Source:
        With the protocol `reference`: published code. It applies each of five changes with a probability of 0.5;
        factor and exponent are lognormal and clipped to [0, 1], so the factor only darkens and the exponent only
        brightens.
    """
    turns = _reference_turns(keys) if protocol == "reference" else random_rotations(keys)
    planes = labels[:, None] if labels.ndim == 3 else labels
    images, planes, regions = (rotate_and_flip(each, turns) for each in (images, planes, region[:, None]))
    images = _reference_intensities(images, keys) if protocol == "reference" else change_intensities(images, keys)
    return images, planes[:, 0] if labels.ndim == 3 else planes, regions[:, 0]


def _reference_turns(keys: torch.Tensor) -> torch.Tensor:
    """Return the numbers of random transforms: rotation by 90 to 270 degrees, and reflections of columns and rows."""
    numbers = random_integers(keys, 4, purpose=ROTATION)
    quarters = (1 + numbers[:, 1] % 3) * (numbers[:, 0] % 2)
    columns, rows = numbers[:, 2] % 2, numbers[:, 3] % 2
    # Both reflections are a rotation by 180 degrees; that of the rows is that of the columns and a rotation by 180.
    quarters = (quarters + 2 * rows) % 4
    mirrored = columns ^ rows
    return _NUMBER_OF.to(keys.device)[mirrored, quarters]


def _find_numbers() -> torch.Tensor:
    """Return the number for `rotate_and_flip` by reflection of the columns (0 or 1) and rotation (0 to 3)."""
    image = torch.arange(4.0).view(1, 1, 2, 2)
    known = [rotate_and_flip(image, torch.tensor([number])) for number in range(8)]
    found = torch.zeros(2, 4, dtype=torch.int64)
    for mirrored in range(2):
        for quarters in range(4):
            wanted = torch.rot90(image, quarters, dims=(2, 3))
            wanted = wanted.flip(3) if mirrored else wanted
            found[mirrored, quarters] = next(number for number in range(8) if torch.equal(known[number], wanted))
    return found


_NUMBER_OF = _find_numbers()


def _reference_intensities(images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    chosen = random_uniform(keys, 6, purpose=INTENSITY)
    factor = torch.where(chosen[:, 0] < 0.5, _lognormal(chosen[:, 1], chosen[:, 2], *FACTOR).clamp(0, 1), 1.0)
    exponent = _lognormal(chosen[:, 4], chosen[:, 5], *EXPONENT).clamp(0, 1)
    exponent = torch.where(chosen[:, 3] < 0.5, exponent, 1.0)
    shape = (-1, 1, 1, 1)
    return ((images * factor.view(shape)).clamp(0, 1) ** exponent.view(shape)).clamp(0, 1)


def _lognormal(first: torch.Tensor, second: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Return lognormal numbers from uniform numbers in [0, 1), by the Box-Muller method."""
    normal = (-2 * torch.log1p(-first)).sqrt() * torch.cos(2 * math.pi * second)
    return (mean + std * normal).exp()
