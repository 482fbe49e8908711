"""What a fine-tuning is fed: batches of labelled images, epoch after epoch (ours).

Sample k of a training is a function of (seed, k): epoch k // n, and a place in the order of that epoch. Batches go on
across the ends of epochs, so that a handful of images fills any batch, and which samples are in step t does not depend
on how many processes or accumulated batches share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from stedfm_hf.evaluation.labelled import LabelledImages
from stedfm_hf.runs import UserError
from stedfm_hf.training.classification.augmentation import crop_with_foreground, middle_of
from stedfm_hf.training.counters import sample_keys

IN_MEMORY = 2**30
"""Bytes of images that are kept as they are fed; those beyond are read again whenever they are asked for."""


class Remembered(Sequence[np.ndarray]):
    """Images that are read once, as far as there is room for them.

    Args:
        images: what to read from.
        room: bytes of memory.
    """

    def __init__(self, images: Sequence[np.ndarray], room: int = IN_MEMORY) -> None:
        self.images, self.room = images, room
        self._known: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: Any) -> Any:
        if number in self._known:
            return self._known[number]
        image = np.asarray(self.images[number], np.float32)
        if image.nbytes <= self.room:
            self.room -= image.nbytes
            self._known[number] = image
        return image


@dataclass(frozen=True, eq=False)
class Side:
    """Images of one side of a split that were all read once.

    Args:
        data: what is known of them.
        images: (C, H, W) float32 in [0, 1] each.
        failed: images that could not be read, with the reason; they are none of the others.
    """

    data: LabelledImages
    images: Sequence[np.ndarray]
    failed: Mapping[str, str]


def read_side(data: LabelledImages, *, channels: int) -> Side:
    """Reads all images once: one that is damaged is left out, and not found in the middle of a training.

    Args:
        data: the images.
        channels: of the model.

    Raises:
        UserError: an image has other channels, or none of a class can be read.
    """
    images, failed, good = Remembered(data), dict(data.failed), []
    for number in range(len(data)):
        try:
            image = images[number]
        except (ValueError, OSError) as error:
            failed[str(data.places[number])] = " ".join(str(error).split()) or type(error).__name__
            continue
        if len(image) != channels:
            raise UserError(
                f"{data.places[number]}: has {len(image)} channels, the model takes {channels}; choose with --channel"
            )
        good.append(number)
    if len(good) == len(data):
        return Side(data, images, failed)
    kept = data.take(good)
    lost = [name for name, count in data.counts().items() if count and not kept.counts()[name]]
    if lost or not good:
        place, reason = next(iter(failed.items()))
        raise UserError(f"{data.name}: no image {f'of {lost[0]} ' if lost else ''}can be read ({place}: {reason})")
    return Side(kept, Remembered(kept), failed)


def training_side(images: Sequence[np.ndarray], names: Sequence[str], *, image_size: int, patch_size: int) -> int:
    """Side of the squares that are trained on: that of the model's images, or what the smallest image allows.

    Args:
        images: (C, H, W) each.
        names: of the images, for the errors.
        image_size: side of the model's images.
        patch_size: side of its patches; the side is a multiple of it.

    Raises:
        UserError: an image is smaller than a patch.
    """
    sides = [min(image.shape[1:]) for image in images]
    smallest = int(np.argmin(sides))
    side = min(image_size, sides[smallest] // patch_size * patch_size)
    if side < patch_size:
        raise UserError(
            f"{names[smallest]}: {' x '.join(map(str, images[smallest].shape[1:]))} pixels are less than a patch of "
            f"the model ({patch_size} x {patch_size}); leave it out, or take a larger piece of the image"
        )
    return side


class TrainingImages(Dataset[dict[str, torch.Tensor]]):
    """Samples of a training by their number, without end.

    Args:
        images: (C, H, W) each.
        targets: of every image, as the loss wants them.
        side: of the squares that are fed.
        seed: of the order and the augmentation.
        augment: whether crops are random; else they are of the middle.
    """

    def __init__(
        self, images: Sequence[np.ndarray], targets: torch.Tensor, *, side: int, seed: int, augment: bool
    ) -> None:
        self.images, self.targets, self.side, self.seed, self.augment = images, targets, side, seed, augment
        self._order = lru_cache(maxsize=2)(self._order_of)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        epoch, place = divmod(number, len(self.images))
        row = int(self._order(epoch)[place])
        keys = sample_keys(self.seed, epoch, torch.tensor([row]))
        image = torch.from_numpy(self.images[row])
        cut = crop_with_foreground(image, self.side, keys) if self.augment else middle_of(image, self.side)
        return {"pixel_values": cut.contiguous(), "labels": self.targets[row], "keys": keys[0]}

    def _order_of(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.images))


class SharedBatches:
    """Numbers of the samples of every batch of one process, step after step.

    Args:
        batch_size: samples of a process at a time.
        accumulation: its batches in a step.
        rank: number of this process.
        world_size: processes in all.
        first: batches of this process that were taken before.

    Example:
        >>> two = [iter(SharedBatches(2, 1, rank, 2)) for rank in (0, 1)]
        >>> [next(each) for each in two], [next(each) for each in two]
        ([[0, 1], [2, 3]], [[4, 5], [6, 7]])
    """

    def __init__(self, batch_size: int, accumulation: int, rank: int = 0, world_size: int = 1, first: int = 0) -> None:
        self.batch_size, self.accumulation = batch_size, accumulation
        self.rank, self.world_size, self.first = rank, world_size, first

    def __iter__(self) -> Iterator[list[int]]:
        number = self.first
        while True:
            # The batches of a step follow each other as one process would accumulate them all.
            begin = (number * self.world_size + self.rank) * self.batch_size
            yield list(range(begin, begin + self.batch_size))
            number += 1


class Feed(IterableDataset[dict[str, torch.Tensor]]):
    """The batches of a process from a step on, for a trainer.

    Args:
        samples: by number.
        workers: processes that read.
        sharing: of `SharedBatches`, without `first`.

    Attributes:
        step: optimiser steps that were done before.
    """

    def __init__(self, samples: TrainingImages, *, workers: int = 0, **sharing: int) -> None:
        self.samples, self.workers, self.sharing, self.step = samples, workers, sharing, 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        numbers = SharedBatches(**self.sharing, first=self.step * self.sharing["accumulation"])
        # Its generator is never used; without one it would take a number of the global one.
        loader = DataLoader(
            self.samples,
            batch_sampler=numbers,
            num_workers=self.workers,
            generator=torch.Generator(),
        )
        return iter(loader)
