"""Map-style access to a local data set, and a sampler of the same batches as the stream.

The `datasets` library keeps the rows in an uncompressed, memory-mapped Arrow file, which is about three times the size
of the data set and is written at the first use.
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
    """Rows of a batch.

    Attributes:
        index: Numbers of the rows in the split.
        valid: False for copies that fill up the batch.
    """

    index: tuple[int, ...]
    valid: tuple[bool, ...]


class LocalCrops(Dataset[dict[str, Any]]):
    """Map-style data set of the rows of a split.

    Args:
        repo: Local folder of a data set.
        split: Name of the split.
        columns: Columns to read in addition to the pixels.

    Raises:
        UserError: There is no such folder or split.

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
            raise UserError(f"{repo}: not a local folder; use stream() for data sets on the Hub")
        self.files: SplitFiles = find_split(repo, split)
        # Decoding a mask needs the columns of its planes.
        plane_columns = self.files.plane_columns[:2] if "mask" in columns else ()
        kept = [*PIXEL_COLUMNS, "intensity_low", "intensity_high", *dict.fromkeys((*columns, *plane_columns))]
        files = [shard.file for shard in self.files.shards]
        rows = datasets.Dataset.from_parquet(files, split=datasets.Split(split), columns=kept)
        self.rows = rows.with_format("arrow")

    def __len__(self) -> int:
        return self.files.rows

    def __getitem__(self, rows: int | BatchRows | Sequence[int]) -> dict[str, Any]:
        """Return a decoded crop or batch, see `decode`; a batch of `BatchRows` also has `index` and `valid`."""
        if isinstance(rows, int | np.integer):
            row = decode(self.rows[[int(rows)]])
            return {name: value[0] for name, value in row.items()}
        if not isinstance(rows, BatchRows):
            return decode(self.rows[list(rows)])
        extra = {"index": torch.tensor(rows.index), "valid": torch.tensor(rows.valid)}
        return decode(self.rows[list(rows.index)]) | extra


class EpochBatches(Sampler[BatchRows]):
    """Sampler of the batches of one rank, the same as those of `stream` with the same arguments.

    Args:
        crops: Map-style data set.
        batch_size: Number of crops in the batch of one rank.
        seed: Random seed of the order.
        epoch: Number of the epoch; `set_epoch` changes it.
        rank: Number of this process.
        world_size: Number of processes.
        drop_last: Whether an incomplete last global batch is dropped, see `stream`.
        open_shards: Number of shards that are mixed at once, see `stream`.
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
        """Set the number of the epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batching.batches_from(0)

    def __iter__(self) -> Iterator[BatchRows]:
        order = EpochOrder(self.files.shards, seed=self.seed, epoch=self.epoch, open_shards=self.open_shards)
        for number in range(len(self)):
            rows, valid = self.batching.batch(order, 0, number, self.rank)
            yield BatchRows(tuple(rows.index.tolist()), tuple(valid.tolist()))
