"""Endless training batches of one or several data sets.

Every epoch ends after a whole number of effective batches. The samples of an optimiser step therefore do not depend on
the number of processes or of accumulated batches.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset

from stedfm_hf.data.repository.files import SplitFiles
from stedfm_hf.data.streaming.prefetch import prefetch
from stedfm_hf.data.streaming.stream import OPEN_SHARDS, CropStream
from stedfm_hf.runs import UserError

Parts = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class MixedSplit:
    """Split of a data set in a mixed batch.

    Attributes:
        files: Files of the split.
        batch_size: Number of its crops in a batch of one process.
    """

    files: SplitFiles
    batch_size: int


def divide_batch(batch_size: int, weights: Sequence[float]) -> list[int]:
    """Divide the crops of a batch among data sets in proportion to weights; each gets at least one.

    Args:
        batch_size: Number of crops in the batch.
        weights: Weight of each data set, above 0.

    Returns:
        Number of crops of each data set, by the method of largest remainders.

    Raises:
        UserError: There are more data sets than crops, or a weight is not above 0.

    Example:
        >>> divide_batch(10, [2, 1, 1])
        [5, 3, 2]
    """
    if min(weights) <= 0 or batch_size < len(weights):
        raise UserError(
            f"a batch of {batch_size} crops cannot be divided by the weights "
            f"{' '.join(f'{each:g}' for each in weights)}; give numbers above 0, and at least one crop per data set"
        )
    exact = [batch_size * weight / sum(weights) for weight in weights]
    counts = [max(1, int(part)) for part in exact]
    by_remainder = sorted(range(len(exact)), key=lambda number: counts[number] - exact[number])
    while sum(counts) < batch_size:
        counts[by_remainder.pop(0)] += 1
    while sum(counts) > batch_size:
        counts[counts.index(max(counts))] -= 1
    return counts


class EndlessBatches(IterableDataset[Parts]):
    """Endless batches of one process.

    Args:
        sources: Splits to mix.
        seed: Random seed of the order.
        accumulation: Number of batches in an optimiser step.
        rank: Rank of this process.
        world_size: Number of processes.
        open_shards: Number of shards that are shuffled together.
        threads: Number of threads that prefetch crops; 0 for none.
        columns: Columns in addition to the pixels, see `stream`.

    Attributes:
        start: Number of batches to skip in the next iteration.
        batches_per_epoch: Number of batches in an epoch of each split.

    Raises:
        UserError: A split has fewer crops than one effective batch.
    """

    def __init__(
        self,
        sources: Sequence[MixedSplit],
        *,
        seed: int,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
        open_shards: int = OPEN_SHARDS,
        threads: int = 2,
        columns: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.sources, self.seed, self.start = tuple(sources), seed, 0
        self.rank, self.world_size, self.open_shards, self.threads = rank, world_size, open_shards, threads
        self.columns = tuple(columns)
        self.batches_per_epoch: list[int] = []
        for source in self.sources:
            effective = source.batch_size * world_size * accumulation
            if source.files.rows < effective:
                raise UserError(
                    f"{source.files.repo}: split {source.files.split!r} has {source.files.rows} crops, fewer than "
                    f"one effective batch ({effective}); give a smaller --effective-batch-size, or more data"
                )
            self.batches_per_epoch.append(source.files.rows // effective * accumulation)

    def __iter__(self) -> Iterator[Parts]:
        """Yield dictionaries with `parts`: one batch of each data set, with its `epoch`."""
        with ExitStack() as stack:
            each = [self._batches(number) for number in range(len(self.sources))]
            if self.threads:
                # Across epochs, too: the next epoch is prefetched while the last batches are used.
                each = [prefetch(batches) for batches in each]
            for batches in each:
                stack.enter_context(closing(batches))
            for parts in zip(*each, strict=True):
                yield {"parts": list(parts)}

    def _batches(self, number: int) -> Generator[dict[str, Any], None, None]:
        """Yield batches of one split without end, from batch `start` on; each has its `epoch` and unique indices."""
        source, per_epoch = self.sources[number], self.batches_per_epoch[number]
        epoch, taken = divmod(self.start, per_epoch)
        stream = CropStream(
            source.files,
            batch_size=source.batch_size,
            seed=self.seed + number,
            epoch=epoch,
            rank=self.rank,
            world_size=self.world_size,
            drop_last=True,
            open_shards=self.open_shards,
            columns=self.columns,
            workers=self.threads,
        )
        # Samples of all data sets have different indices, so that no two of them share a mask.
        before = sum(other.files.rows for other in self.sources[:number])
        while True:
            stream.seek(epoch, taken)
            with closing(iter(stream)) as batches:
                for batch in batches:
                    batch["index"] += before
                    yield batch | {"epoch": epoch}
                    taken += 1
                    if taken == per_epoch:
                        break
            epoch, taken = epoch + 1, 0
