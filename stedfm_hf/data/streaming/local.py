"""The map-style sibling of the stream: rows of a local data set by number, and a sampler of the same batches.

For data sets on a local disk, and for code that wants to look rows up. The `datasets` library keeps the rows in a
memory-mapped Arrow file, uncompressed: about three times the size of the repository, made at the first use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from stedfm_hf.data.repository.decoding import decode
from stedfm_hf.data.repository.files import SplitFiles, find_split
from stedfm_hf.data.streaming.blocks import PIXEL_COLUMNS
from stedfm_hf.data.streaming.order import Batching, EpochOrder
from stedfm_hf.data.streaming.stream import OPEN_SHARDS
from stedfm_hf.runs.errors import UserError


@dataclass(frozen=True)
class BatchRows:
    """The rows of a batch.

    Args:
        index: numbers of the rows in the split.
        valid: whether each is there for itself, or to fill the batch up.
    """

    index: tuple[int, ...]
    valid: tuple[bool, ...]


class LocalCrops(Dataset[dict[str, Any]]):
    """The rows of a split by number.

    Args:
        repo: a local folder.
        split: name of the split.
        columns: columns beside the pixels.

    Raises:
        UserError: there is no such folder or split.

    Example:
        >>> crops = LocalCrops("sted-crops", "train")  # doctest: +SKIP
        >>> batches = EpochBatches(crops, batch_size=256, seed=0)  # doctest: +SKIP
        >>> for batch in DataLoader(crops, sampler=batches, batch_size=None, num_workers=2):  # doctest: +SKIP
        ...     batch["pixels"]
    """

    def __init__(
        self, repo: str | os.PathLike[str], split: str = "train", *, columns: Sequence[str] = ("label",)
    ) -> None:
        import datasets

        if not os.path.isdir(repo):
            raise UserError(f"{repo}: is no local folder; stream() reads data sets of the Hub")
        self.files: SplitFiles = find_split(repo, split)
        # What a mask needs to be read comes with it.
        beside = self.files.plane_columns[:2] if "mask" in columns else ()
        kept = [*PIXEL_COLUMNS, "intensity_low", "intensity_high", *dict.fromkeys((*columns, *beside))]
        files = [shard.file for shard in self.files.shards]
        rows = datasets.Dataset.from_parquet(files, split=datasets.Split(split), columns=kept)
        self.rows = rows.with_format("arrow")

    def __len__(self) -> int:
        return self.files.rows

    def __getitem__(self, rows: int | BatchRows | Sequence[int]) -> dict[str, Any]:
        """One crop, or a batch, as `decode` gives it; a batch of `BatchRows` has `index` and `valid`, too."""
        if isinstance(rows, int | np.integer):
            row = decode(self.rows[[int(rows)]])
            return {name: value[0] for name, value in row.items()}
        if not isinstance(rows, BatchRows):
            return decode(self.rows[list(rows)])
        extra = {"index": torch.tensor(rows.index), "valid": torch.tensor(rows.valid)}
        return decode(self.rows[list(rows.index)]) | extra


class EpochBatches(Sampler[BatchRows]):
    """The batches of one rank, as `stream` with the same arguments gives them.

    Args:
        crops: the rows.
        batch_size: crops of one rank in a batch.
        seed: names the run.
        epoch: number of the epoch; `set_epoch` changes it.
        rank: number of this process.
        world_size: processes in all.
        drop_last: see `stream`.
        open_shards: see `stream`.
    """

    def __init__(
        self,
        crops: LocalCrops,
        *,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        open_shards: int = OPEN_SHARDS,
    ) -> None:
        self.files, self.seed, self.epoch, self.rank = crops.files, seed, epoch, rank
        self.open_shards = open_shards
        self.batching = Batching(crops.files.rows, batch_size, world_size, drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Goes to an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batching.batches_from(0)

    def __iter__(self) -> Iterator[BatchRows]:
        order = EpochOrder(self.files.shards, seed=self.seed, epoch=self.epoch, open_shards=self.open_shards)
        for number in range(len(self)):
            rows, valid = self.batching.batch(order, 0, number, self.rank)
            yield BatchRows(tuple(rows.index.tolist()), tuple(valid.tolist()))
