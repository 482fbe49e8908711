"""Streaming of batches of crops to any number of GPUs, each crop exactly once, resumable at each batch.

The order of an epoch is a function of (seed, epoch) alone (`order`). The batches of all
ranks together are the next rows of this order, for any number of ranks. (In the reference protocol, each GPU reads a
fixed part of the data, the remainder is dropped, and a run cannot be resumed.)
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from stedfm_hf.data.repository.decoding import stack_masks, stack_regions
from stedfm_hf.data.repository.files import SplitFiles, find_split
from stedfm_hf.data.repository.layout import CROP_COLUMNS
from stedfm_hf.data.repository.shard_reader import ShardReader
from stedfm_hf.data.streaming.blocks import PIXEL_COLUMNS, BlockReader
from stedfm_hf.data.streaming.order import Batching, EpochOrder, Rows
from stedfm_hf.data.streaming.prefetch import PREFETCHED, prefetch
from stedfm_hf.runs.errors import UserError

OPEN_SHARDS = 4
"""Default number of shards that are mixed at once."""
TRAINING = "train"
"""Split for which the stream drops an incomplete last batch by default."""
MAX_READ_RATIO = 1.2
"""Ratio of the read to the needed rows above which the stream warns."""
MAX_WORKERS = 256
"""Largest number of worker processes of a `DataLoader`."""
MAX_DROPPED_FRACTION = 0.1
"""Fraction of the crops dropped in an epoch above which the stream warns."""

Batch = dict[str, Any]
Batches = Generator[Batch, None, None]
"""Generator of batches; closing it stops its threads."""


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
    """Stream a split of a data set in batches, from a local folder or the Hub.

    The global order is a function of (seed, epoch) alone. Batch n of all ranks together holds the n-th
    `world_size * batch_size` crops of this order, independent of the number of ranks and workers. One process with
    batches of 2 B therefore sees the same crops in each step as two processes with batches of B.

    Shuffling: a data set is written in random order. The stream permutes the shards, and mixes the rows of
    `open_shards` shards. Memory holds two such blocks, or the part of them that the rank needs. After resuming, at
    most one block is read again.

    Args:
        repo: Local folder, Hub id (`owner/name`, `owner/name@revision`) or `hf://datasets/` path.
        split: Name of the split.
        batch_size: Number of crops in the batch of one rank.
        seed: Random seed of the order.
        epoch: Number of the epoch; `set_epoch` changes it.
        rank: Number of this process; None uses the rank of `torch.distributed`, or 0 without it.
        world_size: Number of processes; None uses the world size of `torch.distributed`, or 1 without it.
        drop_last: True drops an incomplete last global batch, with different crops in each epoch. False yields each
            crop exactly once; the last batch is filled up with copies whose `valid` is False, so that all ranks get
            the same number of batches of the same size. None means True for the split `train`, False for others.
        open_shards: Number of shards that are mixed at once.
        columns: Columns in addition to the pixels, see `layout.CROP_COLUMNS`. `mask`, `region`, `label` and numbers
            are tensors, text is a list. If no crop of a batch has a mask (region), all values are 0 (True).
        workers: Number of threads that read and decompress in advance; 0 reads when a batch is requested. Threads
            share what they read; processes of a `DataLoader` do not.
        token: Token of the Hub; None uses the saved one.

    Returns:
        An iterable of batches: `pixels` (B, 1, H, W) in the stored dtype, `intensity_range` (B, 2) float32 (see
        `to_unit_range`), `index` (B,) int64, the number of each crop in the split, `valid` (B,) bool, and the
        columns. Pass it to `DataLoader(..., batch_size=None, pin_memory=True)` for pinned memory.

    Raises:
        UserError: There is no such data set, split or column; there are more ranks than crops; or the split is
            smaller than one global batch.

    Example:
        >>> batches = stream("flclab/sted-crops", batch_size=256, seed=0)  # doctest: +SKIP
        >>> for epoch in range(10):  # doctest: +SKIP
        ...     batches.set_epoch(epoch)
        ...     for batch in batches:
        ...         pixels = to_unit_range(batch["pixels"].cuda(), batch["intensity_range"].cuda())
    """
    files = find_split(repo, split, token=token)
    if (rank is None) != (world_size is None):
        raise UserError("only one of rank and world_size is given; give both or neither")
    if rank is None or world_size is None:
        rank, world_size = _rank_and_world_size()
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


def _rank_and_world_size() -> tuple[int, int]:
    """Return the rank and the number of processes of `torch.distributed`, or (0, 1) if it is not initialized."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class CropStream(IterableDataset[Batch]):
    """Iterable data set of the batches of one rank, created by `stream`, which documents the arguments.

    Iteration goes through the current epoch, from its start or from the position that `load_state_dict` set. In a
    worker process of a `DataLoader`, it yields every n-th batch, and the `DataLoader` restores the order. Each of
    these processes reads all rows of the rank, so threads (`workers`) are faster. Epoch and position are in shared
    memory, so that worker processes that live on (`persistent_workers=True`) follow changes in the main process.

    Attributes:
        bytes_read: Number of compressed bytes that were read in this process.
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
        _check_arguments(files, batch_size, rank, world_size, drop_last, open_shards, columns, workers)
        self.files, self.seed, self.rank, self.workers = files, seed, rank, workers
        self.open_shards, self.columns = open_shards, tuple(columns)
        self.batching = Batching(files.rows, batch_size, world_size, drop_last)
        self.bytes_read = 0
        # Epoch, position of the order where the iteration starts, and number of changes of these two.
        self._shared = torch.tensor([epoch, 0, 0]).share_memory_()
        # Number of changes at which each worker process finished the epoch; the next pass starts at position 0.
        self._finished = torch.full((MAX_WORKERS,), -1).share_memory_()
        self._position = 0  # end of the last batch
        self._warn_about_repeated_reading()
        dropped = files.rows % self.batching.global_batch
        if drop_last and not rank and dropped > MAX_DROPPED_FRACTION * files.rows:
            warnings.warn(
                f"{files.repo}: each epoch drops {dropped} of {files.rows} crops of split {files.split!r}, which do "
                f"not fill a batch of {self.batching.global_batch}; use smaller batches, "
                "or stream(..., drop_last=False)",
                stacklevel=3,
            )

    @property
    def epoch(self) -> int:
        """Number of the epoch."""
        return int(self._shared[0])

    @property
    def _begin(self) -> int:
        return int(self._shared[1])

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch. A new number starts at the first batch; the current one keeps the position."""
        if epoch != self.epoch:
            self._move(epoch, 0)

    def _move(self, epoch: int, position: int) -> None:
        """Start the next iteration at a position of the order of an epoch, in worker processes, too."""
        self._shared.copy_(torch.tensor([epoch, position, int(self._shared[2]) + 1]))
        self._position = position

    @property
    def _order(self) -> EpochOrder:
        order: EpochOrder | None = vars(self).get("_cached_order")
        if order is None or order.epoch != self.epoch:
            order = EpochOrder(self.files.shards, seed=self.seed, epoch=self.epoch, open_shards=self.open_shards)
            self._cached_order = order
        return order

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for worker processes, which compute the order again."""
        self._refuse_accelerate()
        return {name: value for name, value in vars(self).items() if name != "_cached_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for shared in (self._shared, self._finished):  # no effect in a worker process; a copy has memory of its own
            shared.share_memory_()

    def __len__(self) -> int:
        """Return the number of batches of an epoch, the same on all ranks."""
        return self.batching.batches_from(0)

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Return the position of the stream for a checkpoint, the same on all ranks.

        Args:
            batches: Number of batches used since the iteration started, needed with worker processes of a
                `DataLoader` (prefetched batches do not count); None counts the batches yielded by this object.

        Returns:
            Plain data, which can be loaded with another number of ranks or another batch size.
        """
        position = self._position
        if batches is not None:
            position = min(self._begin + batches * self.batching.global_batch, self.files.rows)
        return {"epoch": self.epoch, "position": position, **self._order_settings()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at the position of a state: the next iteration yields the remaining batches.

        Args:
            state: Result of `state_dict`.

        Raises:
            UserError: The state belongs to another data set, seed or `open_shards`.
        """
        current = self._order_settings()
        if differing := [key for key, value in current.items() if state.get(key) != value]:
            shown = "; ".join(f"{key}: {state.get(key)!r} before, {current[key]!r} now" for key in differing)
            raise UserError(
                f"{self.files.repo}: the state belongs to another stream ({shown}); use the settings of that stream"
            )
        self._move(int(state["epoch"]), int(state["position"]))

    def seek(self, epoch: int, batches: int) -> None:
        """Move to a position: the next iteration starts there.

        Args:
            epoch: Number of the epoch.
            batches: Number of batches of the epoch to skip.
        """
        self._move(epoch, batches * self.batching.global_batch)

    def _order_settings(self) -> dict[str, Any]:
        """Return the settings and sizes that decide the order, except the epoch; a saved state must have the same."""
        return {
            "seed": self.seed,
            "split": self.files.split,
            "rows": self.files.rows,
            "shards": len(self.files.shards),
            "open_shards": self.open_shards,
        }

    def __iter__(self) -> Batches:
        self._refuse_accelerate()
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        if step > MAX_WORKERS:
            raise UserError(f"num_workers must be {MAX_WORKERS} or less, not {step}; threads (workers=...) are faster")
        begin, changes = self._begin, int(self._shared[2])
        # Only after all worker processes finished: one that starts late must not skip the position of the others.
        if bool((self._finished[:step] == changes).all()):
            begin = 0
        batches = self._batches(begin, number, step)
        for count, batch in enumerate(prefetch(batches, PREFETCHED) if self.workers else batches):
            end = begin + (count * step + number + 1) * self.batching.global_batch
            self._position = min(end, self.files.rows)
            yield batch
        self._finished[number] = changes
        self._position = 0

    def _refuse_accelerate(self) -> None:
        """Raise an error if accelerate iterates the stream in several processes, because it divides the batches again.

        Raises:
            UserError: If accelerate prepared the `DataLoader` of this stream.
        """
        state = sys.modules.get("accelerate.state")
        if state is None or self.batching.world_size == 1:
            return
        for loader in state.GradientState().dataloader_references:
            data = getattr(loader, "dataset", None)
            if self in (data, getattr(data, "dataset", None)):
                raise UserError(
                    "accelerate prepared the DataLoader of a stream, which would divide the crops among the processes "
                    "a second time; the stream does that itself. Do not pass this DataLoader to accelerator.prepare"
                )

    def _batches(self, begin: int, number: int, step: int) -> Batches:
        """Yield every `step`-th batch of the rank from batch `number` on; read blocks of shards in advance.

        Batches are counted from the position `begin` of the order. A block is read when the first batch needs it, and
        discarded when no later batch needs it. The generator stops the threads when it is closed.
        """
        # Decoding a mask needs the columns of its planes.
        plane_columns = self.files.plane_columns[:2] if "mask" in self.columns else ()
        others = dict.fromkeys((*self.columns, *plane_columns))
        columns = [*PIXEL_COLUMNS, "intensity_low", "intensity_high", *others]
        reader = ShardReader(self.files, columns, shards_in_use=2 * self.open_shards)
        blocks = BlockReader(reader, self.workers)
        try:
            numbers = range(number, self.batching.batches_from(begin), step)
            for done, batch_number in enumerate(numbers):
                rows, valid = self.batching.batch(self._order, begin, batch_number, self.rank)
                first, last = int(rows.block.min()), int(rows.block.max())
                blocks.discard_before(first)
                # At most two blocks: the next one is prefetched when no batch needs the previous one.
                end = min(last + 1, self._order.blocks - 1) if self.workers and first == last else last
                for block in range(first, end + 1):
                    if not blocks.is_started(block):
                        blocks.start(block, self._groups_to_read(begin, numbers[done:], block))
                yield self._to_tensors(_collect(blocks, rows), rows.index, valid)
                self.bytes_read += reader.bytes_read
                reader.bytes_read = 0
        finally:
            blocks.close()

    def _groups_to_read(self, begin: int, numbers: range, block: int) -> np.ndarray:
        """Return the sorted numbers of the row groups of a block that the batches `numbers` of this rank need.

        Batches are counted from the position `begin` of the order.
        """
        first, last = self._order.block_span(block)
        size = self.batching.global_batch
        needed = [np.empty(0, np.int64)]
        for number in numbers:
            start = begin + number * size
            if start >= last:
                break
            if start + size > first:
                rows, _ = self.batching.batch(self._order, begin, number, self.rank)
                needed.append(rows.group[rows.block == block])
        return np.unique(np.concatenate(needed))

    def _to_tensors(self, arrays: dict[str, np.ndarray], index: np.ndarray, valid: np.ndarray) -> Batch:
        """Convert the arrays of a batch to the batch that the stream yields; see `stream`.

        Args:
            arrays: Array of each column that was read, (B, ...), see `blocks.to_arrays`; columns of planes are used to
                decode masks, and are in the result only if they were requested.
            index: Number of each row in the split, (B,).
            valid: False for copies that fill up the batch, (B,) bool.
        """
        limits = np.stack([arrays.pop("intensity_low"), arrays.pop("intensity_high")], axis=-1)
        pixels = arrays.pop("pixels")
        batch: Batch = {
            "pixels": torch.from_numpy(pixels)[:, None],
            "intensity_range": torch.from_numpy(limits.astype(np.float32)),
            "index": torch.from_numpy(index),
            "valid": torch.from_numpy(valid),
        }
        planes, dtypes = (arrays[name].tolist() if name in arrays else None for name in ("mask_planes", "mask_dtype"))
        for name, values in arrays.items():
            if name == "mask":
                masks = stack_masks(values.tolist(), pixels.shape[1:], planes, dtypes)
                batch[name] = torch.from_numpy(np.zeros(pixels.shape, np.uint8) if masks is None else masks)
            elif name == "region":
                regions = stack_regions(values.tolist(), pixels.shape[1:])
                batch[name] = torch.from_numpy(np.ones(pixels.shape, bool) if regions is None else regions)
            elif name in self.columns:
                batch[name] = values.tolist() if values.dtype == object else torch.from_numpy(values)
        return batch

    def read_ratio(self) -> float:
        """Return the fraction of the split that this rank reads in an epoch, times the number of ranks; 1 is ideal.

        The ratio is estimated from the first two blocks of the order, without reading data.
        """
        blocks = range(min(2, self._order.blocks))
        numbers = range(self.batching.batches_from(0))
        read = sum(int(self.files.groups.rows(self._groups_to_read(0, numbers, block)).sum()) for block in blocks)
        rows = sum(np.subtract(*self._order.block_span(block)[::-1]) for block in blocks)
        return float(read * self.batching.world_size / rows)

    def _warn_about_repeated_reading(self) -> None:
        """Warn on rank 0 if the ranks together read more than `MAX_READ_RATIO` times the split."""
        world = self.batching.world_size
        if self.rank or world == 1 or (ratio := self.read_ratio()) <= MAX_READ_RATIO:
            return
        groups = sum(len(shard.row_groups) for shard in self.files.shards)
        warnings.warn(
            f"{self.files.repo}: each of {world} ranks reads {ratio:.1f}/{world} of split {self.files.split!r} "
            f"instead of 1/{world}, because it has {len(self.files.shards)} shards ({groups} row groups) and batches "
            f"of {self.batching.batch_size}; use more shards or larger batches to read less",
            stacklevel=4,
        )


def _collect(blocks: BlockReader, rows: Rows) -> dict[str, np.ndarray]:
    """Return the values of each column for some rows, in their order; wait until their blocks are read."""
    numbers = np.unique(rows.block)
    positions = [np.flatnonzero(rows.block == number) for number in numbers]
    parts = [blocks.get(int(n)).take(rows.take(inside)) for n, inside in zip(numbers, positions, strict=True)]
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate(positions), kind="stable")  # the parts hold the rows block by block
    return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}


def _check_arguments(
    files: SplitFiles,
    batch_size: int,
    rank: int,
    world_size: int,
    drop_last: bool,
    open_shards: int,
    columns: Sequence[str],
    workers: int,
) -> None:
    """Raise `UserError` if an argument of `stream` is out of range, or the split is too small for the ranks."""
    if not 0 <= rank < world_size:
        raise UserError(f"rank {rank} is not valid with {world_size} ranks; ranks go from 0 to {world_size - 1}")
    for name, value, smallest in (
        ("batch_size", batch_size, 1),
        ("open_shards", open_shards, 1),
        ("workers", workers, 0),
    ):
        if value < smallest:
            raise UserError(f"{name} must be {smallest} or more, not {value}")
    available = (*CROP_COLUMNS, *files.plane_columns)
    if unknown := set(columns) - set(available):
        raise UserError(
            f"unknown column {', '.join(map(repr, sorted(unknown)))}; the columns are {', '.join(available)}"
        )
    if files.rows < world_size:
        raise UserError(
            f"{files.repo}: split {files.split!r} has {files.rows} crops for {world_size} ranks; use fewer ranks"
        )
    if drop_last and files.rows < batch_size * world_size:
        raise UserError(
            f"{files.repo}: split {files.split!r} has {files.rows} crops, fewer than one batch of {world_size} x "
            f"{batch_size}; use smaller batches, or stream(..., drop_last=False)"
        )
