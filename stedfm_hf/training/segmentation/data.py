"""Training data of a segmenter: crops of annotated images with their masks, and how both are augmented."""

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
"""Mean and standard deviation of the logarithms of the reference."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """An image and its annotation.

    Attributes:
        image: (C, H, W) float32 in [0, 1].
        target: (H, W) uint8 of a single label, else (L, H, W), see
            :meth:`~stedfm_hf.labels.annotated.AnnotatedImages.target`.
        region: (H, W) bool, where the target counts; None: everywhere.
    """

    image: np.ndarray
    target: np.ndarray
    region: np.ndarray | None

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.image.nbytes + self.target.nbytes + (0 if self.region is None else self.region.nbytes)

    def annotated(self, background: int | None, place: tuple[slice, slice]) -> int:
        """Count the pixels of a rectangle that are of any class but the background."""
        target = self.target[(..., *place)]
        if target.ndim == 2:
            there = (target != IGNORED) & (target != (-1 if background is None else background))
        else:
            there = (target > 0).any(axis=0)
        return int(np.count_nonzero(there if self.region is None else there & self.region[place]))

    def padded(self, size: int) -> Annotated:
        """Return it mirrored up to squares of this size; what is added does not count."""
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
    """Return the images with their masks, read once."""

    def read(number: int) -> Annotated:
        image = np.asarray(data.image(number), np.float32)
        target, region = data.annotation(number)
        # Numbers of classes are below 255, which is what is left out.
        return Annotated(image, target.astype(np.uint8) if data.target_type == "single_label" else target, region)

    return CachedItems(read, len(data), size=lambda item: item.nbytes)


def crop_size(shapes: Sequence[tuple[int, int]], *, image_size: int, patch_size: int) -> int:
    """Return the size of the crops: that of the model's images, or the largest that an image holds.

    Smaller images are mirrored up to it.

    Args:
        shapes: (H, W) of each image.
        image_size: Size of the images of the model.
        patch_size: Size of its patches; the result is a multiple of it.

    Example:
        >>> crop_size([(40, 300), (100, 120)], image_size=224, patch_size=16)
        96
    """
    largest = max(min(shape) for shape in shapes)
    return max(patch_size, min(image_size, largest // patch_size * patch_size))


def crops_in(pixels: int, size: int) -> int:
    """Return how many crops have as many pixels as an image, at least one: as often it is seen in an epoch.

    Example:
        >>> crops_in(224 * 224, 224), crops_in(1000 * 1000, 224), crops_in(100 * 60, 224)
        (1, 20, 1)
    """
    return max(1, round(pixels / size**2))


class _RepeatedItems(Sequence[Annotated]):
    """Every item as many times as it is seen in an epoch."""

    def __init__(self, items: Sequence[Annotated], times: Sequence[int]) -> None:
        self.items, self.rows = items, np.repeat(np.arange(len(items)), times)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        return self.items[int(self.rows[number])]


class TrainingCrops(Samples[Annotated]):
    """Samples of a training by their number, without end; a large image is seen at several places in an epoch.

    Args:
        items: Images with their masks.
        crops: Number of crops of each in an epoch.
        size: Size of the crops.
        seed: Random seed of the order and the places.
        background: Number of the class that is not an annotation.
        min_annotated: Share of a crop that is to be annotated.
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
        """Return a square of the image, of its target, and of its region."""
        item = item.padded(self.size)
        top, left = choose_crop(
            item.image.shape[1:],
            self.size,
            keys,
            share=self.min_annotated,
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

    Source: The reference changes each of five things with a probability of one half; its factor and its exponent are
    lognormal and then clipped to [0, 1], so that the factor only darkens and the exponent only brightens.

    Args:
        images: (B, C, S, S) in [0, 1].
        labels: (B, S, S) of a single label, else (B, L, S, S).
        region: (B, S, S) bool.
        keys: Keys of the samples, (B, 2), on the same device.
        protocol: `default` or `reference`.

    Returns:
        All three, of the same shapes.
    """
    turns = _reference_turns(keys) if protocol == "reference" else random_rotations(keys)
    planes = labels[:, None] if labels.ndim == 3 else labels
    images, planes, regions = (rotate_and_flip(each, turns) for each in (images, planes, region[:, None]))
    images = _reference_intensities(images, keys) if protocol == "reference" else change_intensities(images, keys)
    return images, planes[:, 0] if labels.ndim == 3 else planes, regions[:, 0]


def _reference_turns(keys: torch.Tensor) -> torch.Tensor:
    """Quarter turns (1 to 3), then a reflection of the columns, then one of the rows, each or not, as one of eight."""
    numbers = random_integers(keys, 4, purpose=ROTATION)
    quarters = (1 + numbers[:, 1] % 3) * (numbers[:, 0] % 2)
    columns, rows = numbers[:, 2] % 2, numbers[:, 3] % 2
    # Both reflections together are a half turn; one of the rows is one of the columns and a half turn.
    quarters = (quarters + 2 * rows) % 4
    mirrored = columns ^ rows
    return _TURN_OF.to(keys.device)[mirrored, quarters]


def _find_turns() -> torch.Tensor:
    """Number that `turn` has for quarter turns (second index) and then, or not (first), a reflection of columns."""
    image = torch.arange(4.0).view(1, 1, 2, 2)
    known = [rotate_and_flip(image, torch.tensor([number])) for number in range(8)]
    found = torch.zeros(2, 4, dtype=torch.int64)
    for mirrored in range(2):
        for quarters in range(4):
            wanted = torch.rot90(image, quarters, dims=(2, 3))
            wanted = wanted.flip(3) if mirrored else wanted
            found[mirrored, quarters] = next(number for number in range(8) if torch.equal(known[number], wanted))
    return found


_TURN_OF = _find_turns()


def _reference_intensities(images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    chosen = random_uniform(keys, 6, purpose=INTENSITY)
    factor = torch.where(chosen[:, 0] < 0.5, _lognormal(chosen[:, 1], chosen[:, 2], *FACTOR).clamp(0, 1), 1.0)
    exponent = _lognormal(chosen[:, 4], chosen[:, 5], *EXPONENT).clamp(0, 1)
    exponent = torch.where(chosen[:, 3] < 0.5, exponent, 1.0)
    shape = (-1, 1, 1, 1)
    return ((images * factor.view(shape)).clamp(0, 1) ** exponent.view(shape)).clamp(0, 1)


def _lognormal(first: torch.Tensor, second: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Of uniform numbers in [0, 1), by the method of Box and Muller."""
    normal = (-2 * torch.log1p(-first)).sqrt() * torch.cos(2 * math.pi * second)
    return (mean + std * normal).exp()
