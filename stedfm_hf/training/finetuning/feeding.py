"""What a fine-tuning is fed: batches of images with what is known of them, epoch after epoch (ours).

Sample k of a training is a function of (seed, k): epoch k // n, and a place in the order of that epoch. Batches go on
across the ends of epochs, so that a handful of images fills any batch, and which samples are in step t does not depend
on how many processes or accumulated batches share it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from stedfm_hf.labels.splits import Images
from stedfm_hf.runs import UserError
from stedfm_hf.training.counters import sample_keys
from stedfm_hf.training.finetuning.arguments import FinetuningArguments

Item = TypeVar("Item")

IN_MEMORY = 2**30
"""Bytes of images that are kept as they are fed; those beyond are read again whenever they are asked for."""


class Remembered(Sequence[Item]):
    """Items that are read once, as far as there is room for them.

    Args:
        read: gives an item by its number.
        count: how many there are.
        size: bytes of an item.
        room: bytes of memory.
    """

    def __init__(
        self, read: Callable[[int], Item], count: int, *, size: Callable[[Item], int], room: int = IN_MEMORY
    ) -> None:
        self.read, self.size, self.room, self._count = read, size, room, count
        self._known: dict[int, Item] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def kept(self) -> int:
        """How many items are kept so far."""
        return len(self._known)

    def __getitem__(self, number: Any) -> Any:
        if number in self._known:
            return self._known[number]
        item = self.read(number)
        if (size := self.size(item)) <= self.room:
            self.room -= size
            self._known[number] = item
        return item


@dataclass(frozen=True, eq=False)
class Side(Generic[Images, Item]):
    """Images of one side of a split that were all read once.

    Args:
        data: what is known of them.
        items: what is fed or scored of each.
        failed: images that could not be read, with the reason; they are none of the others.
    """

    data: Images
    items: Remembered[Item]
    failed: Mapping[str, str]


def read_side(
    data: Images,
    remember: Callable[[Images], Remembered[Item]],
    *,
    channels: int,
    channels_of: Callable[[Item], int],
) -> Side[Images, Item]:
    """Reads all images once: one that is damaged is left out, and not found in the middle of a training.

    Args:
        data: the images.
        remember: makes the items of them.
        channels: of the model.
        channels_of: of an item.

    Raises:
        UserError: an image has other channels, or none of a class can be read.
    """
    items, failed, good = remember(data), dict(data.failed), []
    for number in range(len(data)):
        try:
            item = items[number]
        except (ValueError, OSError) as error:
            failed[str(data.places[number])] = " ".join(str(error).split()) or type(error).__name__
            continue
        if (found := channels_of(item)) != channels:
            raise UserError(
                f"{data.places[number]}: has {found} channels, the model takes {channels}; choose with --channel"
            )
        good.append(number)
    if len(good) == len(data):
        return Side(data, items, failed)
    kept = data.take(good)
    lost = [name for name, count in data.counts().items() if count and not kept.counts()[name]]
    if lost or not good:
        place, reason = next(iter(failed.items()))
        raise UserError(f"{data.name}: no image {f'of {lost[0]} ' if lost else ''}can be read ({place}: {reason})")
    return Side(kept, remember(kept), failed)


def training_side(shapes: Sequence[tuple[int, int]], names: Sequence[str], *, image_size: int, patch_size: int) -> int:
    """Side of the squares that are trained on: that of the model's images, or what the smallest image allows.

    Args:
        shapes: (H, W) of each image.
        names: of the images, for the errors.
        image_size: side of the model's images.
        patch_size: side of its patches; the side is a multiple of it.

    Raises:
        UserError: an image is smaller than a patch.
    """
    sides = [min(shape) for shape in shapes]
    smallest = int(np.argmin(sides))
    side = min(image_size, sides[smallest] // patch_size * patch_size)
    if side < patch_size:
        raise UserError(
            f"{names[smallest]}: {' x '.join(map(str, shapes[smallest]))} pixels are less than a patch of "
            f"the model ({patch_size} x {patch_size}); leave it out, or take a larger piece of the image"
        )
    return side


class Samples(Dataset[dict[str, torch.Tensor]], Generic[Item]):
    """Samples of a training by their number, without end.

    Args:
        items: what there is.
        seed: of the order and of what is drawn for each sample.
    """

    def __init__(self, items: Sequence[Item], *, seed: int) -> None:
        self.items, self.seed = items, seed
        self._order = lru_cache(maxsize=2)(self._order_of)

    @abstractmethod
    def sample(self, row: int, item: Item, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is fed of an item.

        Args:
            row: its number.
            item: of `items`.
            keys: of the sample, (1, 2), see :func:`stedfm_hf.training.counters.sample_keys`.
        """

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        epoch, place = divmod(number, len(self.items))
        row = int(self._order(epoch)[place])
        keys = sample_keys(self.seed, epoch, torch.tensor([row]))
        return {**self.sample(row, self.items[row], keys), "keys": keys[0]}

    def _order_of(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.items))


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
        arguments: of the run: who shares a step, and how many processes read.

    Attributes:
        step: optimiser steps that were done before.
    """

    def __init__(self, samples: Samples[Any], arguments: FinetuningArguments) -> None:
        self.samples, self.arguments, self.step = samples, arguments, 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        accumulation = self.arguments.gradient_accumulation_steps or 1
        numbers = SharedBatches(
            self.arguments.per_device_train_batch_size or 1,
            accumulation,
            rank=self.arguments.process_index,
            world_size=self.arguments.world_size,
            first=self.step * accumulation,
        )
        # Its generator is never used; without one it would take a number of the global one.
        loader = DataLoader(
            self.samples,
            batch_sampler=numbers,
            num_workers=self.arguments.dataloader_num_workers,
            generator=torch.Generator(),
        )
        return iter(loader)
