"""What a segmenter is fed: crops of annotated images with their masks (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.training.finetuning import feeding
from stedfm_hf.training.finetuning.augmentation import choose_place
from stedfm_hf.training.finetuning.feeding import IN_MEMORY, Remembered, Samples

IGNORED = 255


@dataclass(frozen=True, eq=False)
class Annotated:
    """An image and what is known of its pixels.

    Args:
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
        """How many pixels of a rectangle are of any class but the background."""
        target = self.target[(..., *place)]
        if target.ndim == 2:
            there = (target != IGNORED) & (target != (-1 if background is None else background))
        else:
            there = (target > 0).any(axis=0)
        return int(np.count_nonzero(there if self.region is None else there & self.region[place]))

    def padded(self, side: int) -> Annotated:
        """Mirrored up to squares of this side, as images are that a model segments; what was added does not count."""
        height, width = self.image.shape[1:]
        if min(height, width) >= side:
            return self
        added = (0, max(side - height, 0)), (0, max(side - width, 0))
        region = np.ones((height, width), bool) if self.region is None else self.region
        image, target = (
            np.pad(each, [(0, 0)] * (each.ndim - 2) + list(added), mode="symmetric")
            for each in (self.image, self.target)
        )
        return Annotated(image, target, np.pad(region, added))


Side = feeding.Side[AnnotatedImages, Annotated]


def remember(data: AnnotatedImages) -> Remembered[Annotated]:
    """The images with their masks, read once."""

    def read(number: int) -> Annotated:
        image = np.asarray(data.image(number), np.float32)
        target, region = data.annotation(number)
        # Numbers of classes are below 255, which is what is left out.
        return Annotated(image, target.astype(np.uint8) if data.target_type == "single_label" else target, region)

    return Remembered(read, len(data), size=lambda item: item.nbytes)


def read_side(data: AnnotatedImages, *, channels: int) -> Side:
    """Reads all images once; see :func:`stedfm_hf.training.finetuning.feeding.read_side`.

    Args:
        data: the images.
        channels: of the model.

    Raises:
        UserError: an image has other channels, or none that shows a class can be read.
    """
    return feeding.read_side(data, remember, channels=channels, channels_of=lambda item: len(item.image))


def crop_side(shapes: Sequence[tuple[int, int]], *, image_size: int, patch_size: int) -> int:
    """Side of the squares that are trained on: that of the model's images, or the largest that an image holds.

    Smaller images are mirrored up to it.

    Args:
        shapes: (H, W) of each image.
        image_size: side of the model's images.
        patch_size: side of its patches; the side is a multiple of it.

    Example:
        >>> crop_side([(40, 300), (100, 120)], image_size=224, patch_size=16)
        96
    """
    largest = max(min(shape) for shape in shapes)
    return max(patch_size, min(image_size, largest // patch_size * patch_size))


def crops_in(pixels: int, side: int) -> int:
    """How many crops have as many pixels as an image, one at least: as often it is seen in an epoch.

    Example:
        >>> crops_in(224 * 224, 224), crops_in(1000 * 1000, 224), crops_in(100 * 60, 224)
        (1, 20, 1)
    """
    return max(1, round(pixels / side**2))


def warnings_of(train: Side, shapes: Sequence[tuple[int, int]], *, side: int, image_size: int) -> list[str]:
    """What a user should know of the images of a run before it begins.

    Args:
        train: the images, all of them read.
        shapes: (H, W) of each.
        side: of the crops.
        image_size: side of the model's images.
    """
    found = [
        f"no training image that was drawn shows {name}: it cannot be learned"
        for name, there in train.data.shown().items()
        if not there.any()
    ]
    if side < image_size:
        found.append(f"crops have {side} pixels and not {image_size}: no training image holds larger ones")
    small = [place for place, shape in zip(train.data.places, shapes, strict=True) if min(shape) < side]
    if small:
        found.append(
            f"{len(small):,} of {len(shapes):,} training images are smaller than a crop ({small[0]}, ...): mirrored "
            "up to it; what is added does not count"
        )
    if again := len(train.items) - train.items.kept:
        found.append(
            f"{again:,} of {len(train.items):,} training images are not kept in memory ({IN_MEMORY >> 20:,} MiB), and "
            "read again for every crop; cut large fields into pieces, if that is slow"
        )
    return found


class _Slots(Sequence[Annotated]):
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
        items: images with their masks.
        crops: how many of each are seen in an epoch.
        side: of the squares that are fed.
        seed: of the order and the places.
        background: number of the class that is no annotation.
        min_annotated: share of a square to be annotated.
    """

    def __init__(
        self,
        items: Sequence[Annotated],
        *,
        crops: Sequence[int],
        side: int,
        seed: int,
        background: int | None,
        min_annotated: float,
    ) -> None:
        super().__init__(_Slots(items, crops), seed=seed)
        self.side, self.background, self.min_annotated = side, background, min_annotated

    def sample(self, row: int, item: Annotated, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """A square of the image, of its target, and of its region."""
        item = item.padded(self.side)
        top, left = choose_place(
            item.image.shape[1:],
            self.side,
            keys,
            share=self.min_annotated,
            wanted_in=lambda place: item.annotated(self.background, place),
        )
        place = (slice(top, top + self.side), slice(left, left + self.side))
        region = np.ones((self.side, self.side), bool) if item.region is None else item.region[place]
        target = item.target[(..., *place)]
        return {
            "pixel_values": torch.tensor(item.image[(..., *place)]),
            "labels": torch.tensor(target),
            "region": torch.tensor(region),
        }
