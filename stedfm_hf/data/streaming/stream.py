"""The stream: batches of crops for any number of GPUs, each crop exactly once, resumable to the batch.

The reference keeps every GPU on a fixed part of the data, loses the remainder and cannot resume. Here the order of an
epoch is a function of (seed, epoch) alone (:mod:`stedfm_hf.data.streaming.order`), and a batch of all ranks together
is the next piece of it, however many ranks there are.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from stedfm_hf.data.repository.decoding import stack_masks, stack_regions
from stedfm_hf.data.repository.files import ShardReader, SplitFiles, find_split
from stedfm_hf.data.repository.layout import CROP_COLUMNS
from stedfm_hf.data.streaming.blocks import PIXEL_COLUMNS, BlockReader
from stedfm_hf.data.streaming.order import Batching, EpochOrder, Rows
from stedfm_hf.data.streaming.prefetch import PREFETCHED, prefetch
from stedfm_hf.runs.errors import UserError

OPEN_SHARDS = 4
TRAINING = "train"
"""The split of which the stream leaves out, by default, what fills no whole batch."""
MUCH = 1.2
"""What a rank may read, times the ranks, before it is worth a word."""
MANY = 0.1
"""Share of the crops that an epoch may leave out before it is worth a word."""

Batch = dict[str, Any]
Batches = Generator[Batch, None, None]
"""A generator: closing it ends its threads."""


def stream(
    repo: str | os.PathLike[str],
    split: str = "train",
    *,
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    drop_last: bool | None = None,
    open_shards: int = OPEN_SHARDS,
    columns: Sequence[str] = ("label",),
    workers: int = 2,
    token: str | None = None,
) -> CropStream:
    """Streams a split of a data set in batches, from a local folder or the Hub.

    The global order is a function of (seed, epoch) alone. Batch number n of all ranks together is the n-th piece of
    `world_size * batch_size` crops of it; which crops are in it depends neither on how the ranks share it nor on
    workers. One process with batches of 2 B sees in every step what two with B see.

    Mixing: crops are dealt over the shards when a data set is built; the stream permutes the shards, and mixes the
    rows of `open_shards` of them at a time. Memory holds two such blocks (of a rank: its part of them), and a resume
    reads at most one of them again.

    Args:
        repo: a folder, a Hub id (`owner/name`, `owner/name@revision`) or an `hf://datasets/` path.
        split: name of the split.
        batch_size: crops of one rank in a batch.
        seed: names the run.
        epoch: number of the epoch; `set_epoch` changes it.
        rank: number of this process; None takes that of `torch.distributed`, 0 without it.
        world_size: processes in all; None takes that of `torch.distributed`, 1 without it.
        drop_last: True for training: what is left below one global batch at the end is left out, in every epoch
            something else. False: every crop exactly once; the last batch is filled up with copies whose `valid` is
            False, so that all ranks get equally many batches of one size. None: True for the split `train`, False
            for all others.
        open_shards: shards that are mixed at a time.
        columns: columns beside the pixels, see `layout.CROP_COLUMNS`; `mask`, `region` and `label` come as tensors
            (see `decode`; where no crop of a batch has a mask or region: zeros, or True), numbers as tensors, text as
            lists.
        workers: threads that read and decompress ahead; 0 reads when a batch is asked for. They share what they read,
            which processes of a `DataLoader` cannot.
        token: of the Hub; None takes that of the login.

    Returns:
        An iterable of batches: `pixels` (B, 1, H, W) in the stored dtype, `intensity_range` (B, 2) float32 (see
        `to_unit_range`), `index` (B,) int64, the number of each crop in the split, `valid` (B,) bool, and the
        columns. Give it to `DataLoader(..., batch_size=None)` to have it pinned.

    Raises:
        UserError: there is no such repository, split or column; more ranks than crops; less than one global batch.

    Example:
        >>> batches = stream("flclab/sted-crops", batch_size=256, seed=0)  # doctest: +SKIP
        >>> for epoch in range(10):  # doctest: +SKIP
        ...     batches.set_epoch(epoch)
        ...     for batch in batches:
        ...         pixels = to_unit_range(batch["pixels"].cuda(), batch["intensity_range"].cuda())
    """
    files = find_split(repo, split, token=token)
    if rank is None or world_size is None:
        rank, world_size = _place_in_the_world()
    return CropStream(
        files,
        batch_size=batch_size,
        seed=seed,
        epoch=epoch,
        rank=rank,
        world_size=world_size,
        drop_last=split == TRAINING if drop_last is None else drop_last,
        open_shards=open_shards,
        columns=columns,
        workers=workers,
    )


def _place_in_the_world() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class CropStream(IterableDataset[Batch]):
    """The batches of one rank; made by :func:`stream`, whose arguments it has.

    Iterating goes through the current epoch, from the place that `load_state_dict` set or from its begin. In a worker
    process of a `DataLoader` it gives every n-th batch, which the `DataLoader` puts in order again; each such process
    reads the rank's whole part, so threads (`workers`) are the better way.

    Attributes:
        bytes_read: compressed bytes this stream has read in this process.
    """

    def __init__(
        self,
        files: SplitFiles,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        rank: int,
        world_size: int,
        drop_last: bool,
        open_shards: int = OPEN_SHARDS,
        columns: Sequence[str] = ("label",),
        workers: int = 2,
    ) -> None:
        super().__init__()
        _check(files, batch_size, rank, world_size, drop_last, open_shards, columns, workers)
        self.files, self.seed, self.rank, self.workers = files, seed, rank, workers
        self.open_shards, self.columns = open_shards, tuple(columns)
        self.batching = Batching(files.rows, batch_size, world_size, drop_last)
        self.bytes_read = 0
        self._begin = self._position = 0
        self.set_epoch(epoch)
        self._warn_of_reading()
        left_out = files.rows % self.batching.global_batch
        if drop_last and not rank and left_out > MANY * files.rows:
            warnings.warn(
                f"{files.repo}: every epoch leaves out {left_out} of {files.rows} crops of split {files.split!r}, "
                f"which fill no batch of {self.batching.global_batch}; use smaller batches or drop_last=False",
                stacklevel=3,
            )

    def set_epoch(self, epoch: int) -> None:
        """Goes to an epoch, to its begin if it is another one than before."""
        if epoch != getattr(self, "epoch", None):
            self.epoch = epoch
            self._begin = self._position = 0
            self.__dict__.pop("_order", None)

    @cached_property
    def _order(self) -> EpochOrder:
        return EpochOrder(self.files.shards, seed=self.seed, epoch=self.epoch, open_shards=self.open_shards)

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a worker process: the order is made anew there."""
        return {name: value for name, value in vars(self).items() if name != "_order"}

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return self.batching.batches_from(0)

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where the stream is, for a checkpoint; the same on every rank.

        Args:
            batches: batches taken since the iteration began, where a `DataLoader` with worker processes took them
                (what it has fetched ahead does not count); None: those that were taken from this object.

        Returns:
            Plain data. It may be loaded with another number of ranks or another batch size.
        """
        position = self._position
        if batches is not None:
            position = min(self._begin + batches * self.batching.global_batch, self.files.rows)
        return {"epoch": self.epoch, "position": position, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where another stream was: the next iteration gives what it had not given.

        Raises:
            UserError: the state is of another data set, seed or mixing.
        """
        mine = self._identity()
        if differing := [key for key, value in mine.items() if state.get(key) != value]:
            shown = "; ".join(f"{key}: {state.get(key)!r} then, {mine[key]!r} now" for key in differing)
            raise UserError(f"{self.files.repo}: the state is of another stream ({shown})")
        self.set_epoch(int(state["epoch"]))
        self._begin = self._position = int(state["position"])

    def go_to(self, epoch: int, batches: int) -> None:
        """Goes to a batch of an epoch: the next iteration begins with it."""
        self.set_epoch(epoch)
        self._begin = self._position = batches * self.batching.global_batch

    def _identity(self) -> dict[str, Any]:
        """What the order depends on besides the epoch."""
        return {
            "seed": self.seed,
            "split": self.files.split,
            "rows": self.files.rows,
            "shards": len(self.files.shards),
            "open_shards": self.open_shards,
        }

    def __iter__(self) -> Batches:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        begin = self._begin
        batches = self._batches(begin, number, step)
        for count, batch in enumerate(prefetch(batches, PREFETCHED) if self.workers else batches):
            taken = begin + (count * step + number + 1) * self.batching.global_batch
            self._position = min(taken, self.files.rows)
            yield batch
        self._begin = self._position = 0

    def _batches(self, begin: int, number: int, step: int) -> Batches:
        """Every `step`-th batch of the rank from batch `number` on, reading one block ahead."""
        # What a mask needs to be read comes with it.
        beside = self.files.plane_columns[:2] if "mask" in self.columns else ()
        wanted = dict.fromkeys((*self.columns, *beside))
        columns = [*PIXEL_COLUMNS, "intensity_low", "intensity_high", *wanted]
        reader = ShardReader(self.files, columns, shards_in_use=2 * self.open_shards)
        blocks = BlockReader(reader, self.workers)
        try:
            mine = range(number, self.batching.batches_from(begin), step)
            for place, each in enumerate(mine):
                rows, valid = self.batching.batch(self._order, begin, each, self.rank)
                first, last = int(rows.block.min()), int(rows.block.max())
                blocks.forget_before(first)
                # Two blocks at most: the next but one waits until no batch needs the one before.
                end = min(last + 1, self._order.blocks - 1) if self.workers and first == last else last
                for block in range(first, end + 1):
                    if not blocks.has_begun(block):
                        blocks.begin(block, self._groups(begin, mine[place:], block))
                yield self._tensors(_gather(blocks, rows), rows.index, valid)
                self.bytes_read += reader.bytes_read
                reader.bytes_read = 0
        finally:
            blocks.close()

    def _groups(self, begin: int, numbers: range, block: int) -> np.ndarray:
        """Row groups of a block that batches of this rank touch."""
        first, last = self._order.block_span(block)
        size = self.batching.global_batch
        touched = [np.empty(0, np.int64)]
        for number in numbers:
            start = begin + number * size
            if start >= last:
                break
            if start + size > first:
                rows, _ = self.batching.batch(self._order, begin, number, self.rank)
                touched.append(rows.group[rows.block == block])
        return np.unique(np.concatenate(touched))

    def _tensors(self, columns: dict[str, np.ndarray], index: np.ndarray, valid: np.ndarray) -> Batch:
        ends = [columns.pop(f"intensity_{end}") for end in ("low", "high")]
        pixels = columns.pop("pixels")
        batch: Batch = {
            "pixels": torch.from_numpy(pixels)[:, None],
            "intensity_range": torch.from_numpy(np.stack(ends, axis=-1).astype(np.float32)),
            "index": torch.from_numpy(index),
            "valid": torch.from_numpy(valid),
        }
        kinds = {name: columns[name].tolist() for name in ("mask_planes", "mask_dtype") if name in columns}
        for name, values in columns.items():
            if name == "mask":
                masks = stack_masks(
                    values.tolist(), pixels.shape[1:], kinds.get("mask_planes"), kinds.get("mask_dtype")
                )
                batch[name] = torch.from_numpy(np.zeros(pixels.shape, np.uint8) if masks is None else masks)
            elif name == "region":
                regions = stack_regions(values.tolist(), pixels.shape[1:])
                batch[name] = torch.from_numpy(np.ones(pixels.shape, bool) if regions is None else regions)
            elif name in self.columns:
                batch[name] = values.tolist() if values.dtype == object else torch.from_numpy(values)
        return batch

    def read_share(self) -> float:
        """How much of the split this rank reads in an epoch, times the number of ranks: 1 is ideal.

        Estimated from the first two blocks of the order, without reading anything.
        """
        blocks = range(min(2, self._order.blocks))
        numbers = range(self.batching.batches_from(0))
        lengths = np.concatenate([np.asarray(shard.row_groups, np.int64) for shard in self.files.shards])
        read = sum(int(lengths[self._groups(0, numbers, block)].sum()) for block in blocks)
        there = sum(np.subtract(*self._order.block_span(block)[::-1]) for block in blocks)
        return float(read * self.batching.world_size / there)

    def _warn_of_reading(self) -> None:
        world = self.batching.world_size
        if self.rank or world == 1 or (share := self.read_share()) <= MUCH:
            return
        groups = sum(len(shard.row_groups) for shard in self.files.shards)
        warnings.warn(
            f"{self.files.repo}: each of {world} ranks reads {share:.1f}/{world} of split {self.files.split!r}, not "
            f"1/{world}: it has {len(self.files.shards)} shards ({groups} row groups) and batches of "
            f"{self.batching.batch_size}; more shards or larger batches read less",
            stacklevel=4,
        )


def _gather(blocks: BlockReader, rows: Rows) -> dict[str, np.ndarray]:
    """The columns of rows, out of the one or more blocks they lie in."""
    numbers = np.unique(rows.block)
    places = [np.flatnonzero(rows.block == number) for number in numbers]
    parts = [blocks.get(int(n)).take(rows.take(inside)) for n, inside in zip(numbers, places, strict=True)]
    if len(parts) == 1:
        return parts[0]
    back = np.argsort(np.concatenate(places), kind="stable")
    return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}


def _check(
    files: SplitFiles,
    batch_size: int,
    rank: int,
    world_size: int,
    drop_last: bool,
    open_shards: int,
    columns: Sequence[str],
    workers: int,
) -> None:
    if not 0 <= rank < world_size:
        raise UserError(f"rank {rank} of {world_size} is none; ranks go from 0 to {world_size - 1}")
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("open_shards", open_shards, 1),
        ("workers", workers, 0),
    ):
        if value < least:
            raise UserError(f"{name} must be {least} or more, not {value}")
    known = (*CROP_COLUMNS, *files.plane_columns)
    if unknown := set(columns) - set(known):
        raise UserError(f"unknown column {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if files.rows < world_size:
        raise UserError(
            f"{files.repo}: split {files.split!r} has {files.rows} crops for {world_size} ranks; use fewer ranks"
        )
    if drop_last and files.rows < batch_size * world_size:
        raise UserError(
            f"{files.repo}: split {files.split!r} has {files.rows} crops, less than one batch of {world_size} x "
            f"{batch_size}; use smaller batches or drop_last=False"
        )
