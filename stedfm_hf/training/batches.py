"""What a pretraining is fed: batches of one or several data sets, epoch after epoch.

Every epoch is cut at whole effective batches, those of an optimiser step, so that which samples are in step n does not
depend on how many ranks or accumulated batches share it.
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
class Source:
    """A data set of a training."""

    files: SplitFiles
    batch_size: int


def divide_batch(batch_size: int, weights: Sequence[float]) -> list[int]:
    """Deals the crops of a batch out to data sets, by largest remainders; each gets one at least.

    Raises:
        UserError: there are more data sets than crops, or a weight is not above 0.

    Example:
        >>> divide_batch(10, [2, 1, 1])
        [5, 3, 2]
    """
    if min(weights) <= 0 or batch_size < len(weights):
        raise UserError(f"weights {list(weights)} cannot share a batch of {batch_size}; give numbers above 0")
    exact = [batch_size * weight / sum(weights) for weight in weights]
    counts = [max(1, int(part)) for part in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: counts[place] - exact[place])
    while sum(counts) < batch_size:
        counts[by_remainder.pop(0)] += 1
    while sum(counts) > batch_size:
        counts[counts.index(max(counts))] -= 1
    return counts


class EndlessBatches(IterableDataset[Parts]):
    """The batches of one rank, without end.

    Attributes:
        start: batches that were taken before: the next iteration begins behind them.

    Raises:
        UserError: a split has not even one effective batch, or fewer crops than there are ranks.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        seed: int,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
        open_shards: int = OPEN_SHARDS,
        threads: int = 2,
    ) -> None:
        super().__init__()
        self.sources, self.seed, self.start = tuple(sources), seed, 0
        self.rank, self.world_size, self.open_shards, self.threads = rank, world_size, open_shards, threads
        self.batches_per_epoch: list[int] = []
        for source in self.sources:
            effective = source.batch_size * world_size * accumulation
            if source.files.rows < effective:
                raise UserError(
                    f"{source.files.repo}: split {source.files.split!r} has {source.files.rows} crops, less than the "
                    f"{effective} of one effective batch; give a smaller --effective-batch-size, or more data"
                )
            self.batches_per_epoch.append(source.files.rows // effective * accumulation)

    def __iter__(self) -> Iterator[Parts]:
        """Gives `parts`, one batch of each data set, as the stream has it, with its `epoch`."""
        with ExitStack() as stack:
            each = [self._batches(number) for number in range(len(self.sources))]
            if self.threads:
                # Over the end of an epoch, too: the stream of the next one begins while the last batches are used.
                each = [prefetch(batches) for batches in each]
            for batches in each:
                stack.enter_context(closing(batches))
            for parts in zip(*each, strict=True):
                yield {"parts": list(parts)}

    def _batches(self, number: int) -> Generator[dict[str, Any], None, None]:
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
            columns=(),
            workers=self.threads,
        )
        # Samples are numbered through all data sets: no two of them may share a mask.
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
