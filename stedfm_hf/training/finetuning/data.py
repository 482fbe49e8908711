"""Training data of a fine-tuning: images that are read once, and batches of samples, epoch after epoch.

Sample k of a training is a function of (seed, k): epoch k // n, and a place in the order of that epoch. Batches
continue across the ends of epochs, so that a handful of images fills any batch, and which samples are in step t does
not depend on how many processes or accumulated batches share it.
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
from transformers import TrainingArguments

from stedfm_hf.labels.splits import ONE_SPLIT, Images, Splits, split_images
from stedfm_hf.runs import UserError
from stedfm_hf.training.finetuning.settings import FinetuneSettings
from stedfm_hf.training.preparation import CROP, CROP_TRIES, ROTATION
from stedfm_hf.training.random_numbers import random_integers, random_uniform, sample_keys

Item = TypeVar("Item")

IN_MEMORY = 2**30
"""Bytes of images that are kept as they are fed; those beyond are read again whenever they are asked for."""
INTENSITY = 4
"""Purpose of random numbers, next to those of the pretraining."""
GAIN, GAMMA, OFFSET = 0.2, 0.2, 0.02
"""Largest logarithm of the factor and of the exponent, and largest shift, of intensities in [0, 1]."""
_SPLITS = {"train_split": "train", "validation_split": "validation", "test_split": "test"}


def splits_for_training(read: Mapping[str, Images], settings: FinetuneSettings) -> Splits[Images]:
    """Return train, validation and, if there is one, test; see :func:`~stedfm_hf.labels.splits.split_images`.

    Raises:
        UserError: The data set has no such split, or as :func:`~stedfm_hf.labels.splits.split_images`.
    """
    flags = {name: "--" + name.replace("_", "-") for name in _SPLITS}
    if set(read) == {ONE_SPLIT}:
        if named := [name for name, usual in _SPLITS.items() if getattr(settings, name) != usual]:
            raise UserError(f"{settings.dataset}: has no splits; leave {flags[named[0]]} out")
        return split_images(read, select=True)
    chosen = {}
    for option, usual in _SPLITS.items():
        name = getattr(settings, option)
        if name in read:
            chosen[usual] = read[name]
        elif usual == "train" or name != usual:
            known = ", ".join(read)
            raise UserError(f"{settings.dataset}: has no split {name!r}; give {flags[option]}, one of {known}")
    return split_images(chosen, select=True)


class CachedItems(Sequence[Item]):
    """Items that are read once, up to a limit of memory."""

    def __init__(
        self, read: Callable[[int], Item], count: int, *, size: Callable[[Item], int], limit: int = IN_MEMORY
    ) -> None:
        self.read, self.size, self.limit, self._count = read, size, limit, count
        self._known: dict[int, Item] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def kept(self) -> int:
        """Number of items kept so far."""
        return len(self._known)

    def __getitem__(self, number: Any) -> Any:
        if number in self._known:
            return self._known[number]
        item = self.read(number)
        if (size := self.size(item)) <= self.limit:
            self.limit -= size
            self._known[number] = item
        return item


@dataclass(frozen=True, eq=False)
class LoadedSplit(Generic[Images, Item]):
    """Images of a split, all of which were read once.

    Attributes:
        data: What is known of the images.
        items: What is fed or scored of each.
        failed: Images that could not be read, with the reason; they are none of the others.
    """

    data: Images
    items: CachedItems[Item]
    failed: Mapping[str, str]


def load_images(
    data: Images,
    cache: Callable[[Images], CachedItems[Item]],
    *,
    channels: int,
    channels_of: Callable[[Item], int],
) -> LoadedSplit[Images, Item]:
    """Read all images once: a damaged one is left out now, and not found in the middle of a training.

    Raises:
        UserError: An image has other channels, or none of a class can be read.
    """
    items, failed, good = cache(data), dict(data.failed), []
    for number in range(len(data)):
        try:
            item = items[number]
        except (ValueError, OSError) as error:
            failed[str(data.image_ids[number])] = " ".join(str(error).split()) or type(error).__name__
            continue
        if (found := channels_of(item)) != channels:
            raise UserError(
                f"{data.image_ids[number]}: has {found} channels, the model takes {channels}; choose with --channel"
            )
        good.append(number)
    if len(good) == len(data):
        return LoadedSplit(data, items, failed)
    kept = data.take(good)
    lost = [name for name, count in data.counts().items() if count and not kept.counts()[name]]
    if lost or not good:
        image, reason = next(iter(failed.items()))
        raise UserError(f"{data.name}: no image {f'of {lost[0]} ' if lost else ''}can be read ({image}: {reason})")
    return LoadedSplit(kept, cache(kept), failed)


class Samples(Dataset[dict[str, torch.Tensor]], Generic[Item]):
    """Samples of a training by their number, without end."""

    def __init__(self, items: Sequence[Item], *, seed: int) -> None:
        self.items, self.seed = items, seed
        self._order = lru_cache(maxsize=2)(self._order_of)

    @abstractmethod
    def sample(self, row: int, item: Item, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the sample of an item.

        Args:
            row: Number of the item.
            item: One of `items`.
            keys: Keys of the sample, (1, 2), see :func:`stedfm_hf.training.random_numbers.sample_keys`.
        """

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        epoch, place = divmod(number, len(self.items))
        row = int(self._order(epoch)[place])
        keys = sample_keys(self.seed, epoch, torch.tensor([row]))
        return {**self.sample(row, self.items[row], keys), "keys": keys[0]}

    def _order_of(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.items))


class SampleNumbers:
    """Numbers of the samples of every batch of one process, step after step.

    Example:
        >>> two = [iter(SampleNumbers(2, 1, rank, 2)) for rank in (0, 1)]
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


class Batches(IterableDataset[dict[str, torch.Tensor]]):
    """Batches of a process from a step on.

    Attributes:
        step: Number of optimiser steps that were done before.
    """

    def __init__(self, samples: Samples[Any], arguments: TrainingArguments) -> None:
        self.samples, self.arguments, self.step = samples, arguments, 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        arguments = self.arguments
        accumulation = arguments.gradient_accumulation_steps
        numbers = SampleNumbers(
            arguments.per_device_train_batch_size,
            accumulation,
            rank=arguments.process_index,
            world_size=arguments.world_size,
            first=self.step * accumulation,
        )
        # Its generator is never used; without one it would take a number of the global one.
        loader = DataLoader(
            self.samples,
            batch_sampler=numbers,
            num_workers=arguments.dataloader_num_workers,
            generator=torch.Generator(),
        )
        return iter(loader)


def choose_crop(
    shape: Sequence[int],
    size: int,
    keys: torch.Tensor,
    *,
    share: float,
    count_in: Callable[[tuple[slice, slice]], int],
) -> tuple[int, int]:
    """Return first row and column of a square: the first of some random places with enough in it, or that with most.

    Args:
        shape: (H, W) of the image, no smaller than `size`.
        size: Rows and columns of the square.
        keys: Keys of the sample, (1, 2), see :func:`stedfm_hf.training.random_numbers.sample_keys`.
        share: Share of the pixels of a square above which it has enough; 0 takes any place.
        count_in: Counts the wanted pixels in a square; a large image is not looked at as a whole.
    """
    height, width = shape
    if (height, width) == (size, size):
        return 0, 0
    places = random_integers(keys, 2 * CROP_TRIES, purpose=CROP).reshape(-1, 2)
    fullest, best = -1, (0, 0)
    for place in places:
        top, left = int(place[0]) % (height - size + 1), int(place[1]) % (width - size + 1)
        if share == 0:
            return top, left
        inside = count_in((slice(top, top + size), slice(left, left + size)))
        if inside > fullest:
            fullest, best = inside, (top, left)
        if inside > share * size * size:
            break
    return best


def random_rotations(keys: torch.Tensor) -> torch.Tensor:
    """Return one of eight rotations and reflections of every sample, (B,): a microscope has no upright."""
    return random_integers(keys, 1, purpose=ROTATION)[:, 0] % 8


def change_intensities(images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Change the intensities of every image a little: neither dye nor laser nor detector is the same twice.

    Each image becomes gain * x ** gamma + offset, clipped to [0, 1].

    Args:
        images: (B, C, S, S) in [0, 1].
        keys: Keys of the samples, (B, 2), on the same device.
    """
    chosen = 2 * random_uniform(keys, 3, purpose=INTENSITY)[:, :, None, None, None] - 1
    gain, gamma, offset = chosen.unbind(1)
    return ((GAIN * gain).exp() * images ** (GAMMA * gamma).exp() + OFFSET * offset).clamp(0, 1)
