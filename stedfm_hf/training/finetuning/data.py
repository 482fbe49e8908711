"""Training data of a fine-tuning: cached images, and endless batches of random samples.

Sample k of a training is a function of (seed, k). Batches continue across epochs, so a few images fill any batch, and
the samples of a step do not depend on the number of processes or of accumulated batches.
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

CACHE_BYTES = 2**30
"""Largest size of the cached images in bytes; further images are read again for every use."""
INTENSITY = 4
"""Purpose of random numbers, in addition to those of the pretraining."""
GAIN, GAMMA, OFFSET = 0.2, 0.2, 0.02
"""Largest absolute logarithm of factor and exponent, and largest offset, for intensities in [0, 1]."""
_SPLITS = {"train_split": "train", "validation_split": "validation", "test_split": "test"}


def splits_for_training(read: Mapping[str, Images], settings: FinetuneSettings) -> Splits[Images]:
    """Return the splits train, validation and, if it exists, test.

    Args:
        read: Images by split, as they were read.
        settings: Settings of the fine-tuning.

    Raises:
        UserError: The data set does not have a named split, or as for
            `split_images`.
    """
    flags = {name: "--" + name.replace("_", "-") for name in _SPLITS}
    if set(read) == {ONE_SPLIT}:
        if named := [name for name, usual in _SPLITS.items() if getattr(settings, name) != usual]:
            raise UserError(f"{settings.dataset}: the data set has no splits; remove {flags[named[0]]}")
        return split_images(read, select=True)
    chosen = {}
    for option, usual in _SPLITS.items():
        name = getattr(settings, option)
        if name in read:
            chosen[usual] = read[name]
        elif usual == "train" or name != usual:
            known = ", ".join(read)
            raise UserError(f"{settings.dataset}: no split {name!r}; set {flags[option]} to one of: {known}")
    return split_images(chosen, select=True)


class CachedItems(Sequence[Item]):
    """Sequence of items that are read once and cached, up to a limit of memory.

    Args:
        read: Function that reads the item with an index.
        count: Number of items.
        size: Function that returns the size of an item in bytes.
        limit: Largest size of all cached items in bytes.
    """

    def __init__(
        self, read: Callable[[int], Item], count: int, *, size: Callable[[Item], int], limit: int = CACHE_BYTES
    ) -> None:
        self.read, self.size, self.limit, self._count = read, size, limit, count
        self._known: dict[int, Item] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def cached(self) -> int:
        """Number of items in the cache."""
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
    """Readable images of a split.

    Attributes:
        data: Ids, labels and sources of the images.
        items: Item of each image, for training and evaluation.
        failed: Reason by id of each image that could not be read.
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
    """Read all images once, so that unreadable ones are found before the training starts.

    Args:
        data: Images of a split.
        cache: Function that returns the items of images.
        channels: Number of channels of the model.
        channels_of: Function that returns the number of channels of an item.

    Raises:
        UserError: An image has another number of channels, or no image of a class can be read.
    """
    items, failed, readable = cache(data), dict(data.failed), []
    for number in range(len(data)):
        try:
            item = items[number]
        except (ValueError, OSError) as error:
            failed[str(data.image_ids[number])] = " ".join(str(error).split()) or type(error).__name__
            continue
        if (count := channels_of(item)) != channels:
            raise UserError(
                f"{data.image_ids[number]}: has {count} channels, but the model expects {channels}; choose one with "
                "--channel"
            )
        readable.append(number)
    if len(readable) == len(data):
        return LoadedSplit(data, items, failed)
    kept = data.take(readable)
    lost = [name for name, count in data.counts().items() if count and not kept.counts()[name]]
    if lost or not readable:
        image, reason = next(iter(failed.items()))
        raise UserError(f"{data.name}: no image {f'of {lost[0]} ' if lost else ''}can be read ({image}: {reason})")
    return LoadedSplit(kept, cache(kept), failed)


class Samples(Dataset[dict[str, torch.Tensor]], Generic[Item]):
    """Endless random samples of a training, by index.

    Args:
        items: Items of the images.
        seed: Random seed of the order and the augmentation.
    """

    def __init__(self, items: Sequence[Item], *, seed: int) -> None:
        self.items, self.seed = items, seed
        self._order = lru_cache(maxsize=2)(self._order_of)

    @abstractmethod
    def sample(self, row: int, item: Item, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the sample of an item.

        Args:
            row: Index of the item.
            item: One of `items`.
            keys: Keys of the sample, (1, 2), see `sample_keys`.
        """

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        epoch, position = divmod(number, len(self.items))
        row = int(self._order(epoch)[position])
        keys = sample_keys(self.seed, epoch, torch.tensor([row]))
        return {**self.sample(row, self.items[row], keys), "keys": keys[0]}

    def _order_of(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.items))


class SampleNumbers:
    """Indices of the samples of the batches of one process, as a batch sampler.

    Args:
        batch_size: Number of samples in a batch.
        accumulation: Number of batches in an optimiser step.
        rank: Rank of the process.
        world_size: Number of processes.
        first: Number of batches to skip.

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
            # Consecutive batches, in the order in which a single process would accumulate them.
            begin = (number * self.world_size + self.rank) * self.batch_size
            yield list(range(begin, begin + self.batch_size))
            number += 1


class Batches(IterableDataset[dict[str, torch.Tensor]]):
    """Endless batches of one process.

    Args:
        samples: Samples of the training.
        arguments: Training arguments.

    Attributes:
        step: Number of optimiser steps to skip in the next iteration.
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
        # Without a generator, the loader would draw a number from the global one.
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
    min_fraction: float,
    count_in: Callable[[tuple[slice, slice]], int],
) -> tuple[int, int]:
    """Return the top row and left column of a random crop with enough pixels of interest.

    Of several random crops, the first one with enough pixels is selected, otherwise the one with most.

    Args:
        shape: Height and width of the image in pixels, at least `size`.
        size: Height and width of the crop in pixels.
        keys: Keys of the sample, (1, 2), see `sample_keys`.
        min_fraction: Fraction of pixels of interest above which a crop is selected; 0 selects the first crop.
        count_in: Function that counts the pixels of interest in a rectangle.
    """
    height, width = shape
    if (height, width) == (size, size):
        return 0, 0
    positions = random_integers(keys, 2 * CROP_TRIES, purpose=CROP).reshape(-1, 2)
    fullest, best = -1, (0, 0)
    for position in positions:
        top, left = int(position[0]) % (height - size + 1), int(position[1]) % (width - size + 1)
        if min_fraction == 0:
            return top, left
        inside = count_in((slice(top, top + size), slice(left, left + size)))
        if inside > fullest:
            fullest, best = inside, (top, left)
        if inside > min_fraction * size * size:
            break
    return best


def random_rotations(keys: torch.Tensor) -> torch.Tensor:
    """Sample one of the eight rotations and reflections, 0 to 7, for each image (B,).

    Args:
        keys: Keys of the samples, (B, 2).
    """
    return random_integers(keys, 1, purpose=ROTATION)[:, 0] % 8


def change_intensities(images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Change the intensities of every image at random: gain * x ** gamma + offset, clipped to [0, 1].

    The changes imitate different dyes, laser powers and detectors.

    Args:
        images: Images (B, C, S, S) in [0, 1].
        keys: Keys of the samples, (B, 2), on the same device.
    """
    chosen = 2 * random_uniform(keys, 3, purpose=INTENSITY)[:, :, None, None, None] - 1
    gain, gamma, offset = chosen.unbind(1)
    return ((GAIN * gain).exp() * images ** (GAMMA * gamma).exp() + OFFSET * offset).clamp(0, 1)
