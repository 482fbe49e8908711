"""Read, compute and write the images of a batch of sources, in this process or in a worker."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from stedfm_hf.data.sources import Source
from stedfm_hf.images.regions import RowArray
from stedfm_hf.inference.preparation import Fact, Preparation, Prepared
from stedfm_hf.runs import ItemStatus, Manifest, Progress
from stedfm_hf.runs.attempts import DEADLY, attempt
from stedfm_hf.runs.manifest import status_of
from stedfm_hf.runs.notes import ItemNotes
from stedfm_hf.runs.parts import PLACE, PartStore

AHEAD = 64, 128 * 2**20
"""Number and size in bytes of the files that are prefetched."""
LARGE = 2048 * 2048
"""Number of pixels of an image from which the progress of its rows is shown."""


@dataclass
class Processed:
    """What was done with a batch of sources; short, because it travels from a worker.

    Attributes:
        statuses: Status of each source, by path.
        notes: Notes on each file, by path.
        messages: Lines to print.
    """

    statuses: dict[str, ItemStatus] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def record(self, manifest: Manifest, sources: Sequence[Source], notes: ItemNotes) -> None:
        """Record the status of the sources in a manifest, and collect their notes.

        Paths and stamps are those of the sources, not the copies that a worker returned: a million take memory.
        """
        for source in sources:
            status = self.statuses[source.path]
            stamp = source.stamp if status.state == "done" else None
            manifest.record(source.path, status_of(status.state, status.reason, stamp))
            notes.add(source.path, self.notes.get(source.path, ()))

    def fail(self, path: str, error: str) -> None:
        """Record that a source failed, and the line to print."""
        self.statuses[path] = status = status_of("failed", error)
        # Readers name the file in their own way; it is named here by the path of the table.
        reason = (status.reason or "").rpartition(f"{Path(path).name}: ")[2]
        self.messages.append(f"stedfm: error: {path}: {reason}")


@dataclass(frozen=True)
class SourceBatch:
    """Function that processes a batch of sources and writes its rows as a part.

    Attributes:
        store: Store of the parts.
        prepare: Function that reads and scales a source.
        compute: Function that returns one array for every prepared image, in their order.
        tabulate: Function that makes the table of images and arrays.
        threads: Number of threads that read; None for one per core, at most 8.
        annotate: Function called with every prepared image before it is computed; returns more facts for its rows, and
            optionally a `remark` for the status of its source. If it raises a ValueError, the source has failed.
        survives: Whether the attempts at a batch are recorded, so that sources that kill their worker are found.
    """

    store: PartStore
    prepare: Preparation
    compute: Callable[[Iterator[np.ndarray]], Iterable[np.ndarray]]
    tabulate: Callable[[list[tuple[Fact, np.ndarray]]], pa.Table]
    threads: int | None = None
    annotate: Callable[[Fact, np.ndarray], Fact] | None = None
    survives: bool = False

    def __call__(
        self, name: str, place: int, sources: Sequence[Source], progress: Progress | None = None
    ) -> Processed:
        """Process sources.

        Args:
            name: Name of the part.
            place: Number that orders the parts.
            sources: Sources.
            progress: Progress to update with every source.
        """
        by_path = {source.path: source for source in sources}
        folder = self.store.folder if self.survives else None
        with attempt(by_path, folder, lambda source: self._process([source], None)) as given_up:
            results, done = self._process([each for each in sources if each.path not in given_up], progress)
            for path in sorted(given_up):
                done.fail(path, DEADLY)
            self.store.write(name, self.tabulate(results), done.statuses, {PLACE: place})
        return done

    def _process(
        self, sources: Sequence[Source], progress: Progress | None
    ) -> tuple[list[tuple[Fact, np.ndarray]], Processed]:
        """Return the results of the images of some sources, and the status of each source."""
        done, facts, errors = Processed(), list[Fact](), dict[str, str | None]()

        def images(ready: Iterable[Prepared]) -> Iterator[np.ndarray]:
            """Yield the images in order; as a side effect, collect the facts of each, and the error of each source."""
            for source in ready:
                errors[source.path] = source.error
                done.notes[source.path] = source.notes
                for fact, whole in source.images:
                    with _rows_progress(whole, source.path if progress else None) as pixels:
                        try:
                            more = self.annotate(fact, pixels) if self.annotate else {}
                        except ValueError as error:
                            errors[source.path] = str(error)
                            break
                        facts.append(fact | more | {"size": pixels.shape[1:]})
                        yield pixels
                if progress is not None:
                    progress.update()

        threads = self.threads or min(os.cpu_count() or 1, 8)
        with ThreadPoolExecutor(threads, thread_name_prefix="stedfm-read") as pool:
            values = list(self.compute(images(_prefetch(pool, self.prepare, sources))))
        for fact, value in zip(facts, values, strict=True):
            if not np.isfinite(value).all():
                errors[fact["path"]] = "the result is not finite; try --precision float32"
        remarks: dict[str, list[str]] = {source.path: list(done.notes.get(source.path, ())) for source in sources}
        for fact in facts:
            if "remark" in fact:
                remarks[fact["path"]].append(fact["remark"])
        for source in sources:
            if (error := errors[source.path]) is None:
                note = "; ".join(dict.fromkeys(remarks[source.path])) or None
                done.statuses[source.path] = status_of("done", note, source.stamp)
            else:
                done.fail(source.path, error)
        return [(fact, value) for fact, value in zip(facts, values, strict=True) if errors[fact["path"]] is None], done


@contextmanager
def _rows_progress(pixels: np.ndarray, path: str | None) -> Iterator[np.ndarray]:
    """Yield the pixels (C, H, W) of an image; if it is large, reading its rows from top to bottom shows progress."""
    height, width = pixels.shape[1:]
    if path is None or height * width < LARGE:
        yield pixels
        return
    with Progress(height, description=path, unit="rows") as progress:

        def read(top: int, bottom: int) -> np.ndarray:
            progress.update(max(0, top - progress.count))
            return pixels[:, top:bottom]

        yield cast(np.ndarray, RowArray(read, (len(pixels), height, width), pixels.dtype))
        progress.update(height - progress.count)


def _prefetch(
    pool: ThreadPoolExecutor, read: Callable[[Source], Prepared], sources: Iterable[Source]
) -> Iterator[Prepared]:
    """Yield sources in order; up to `AHEAD` files and bytes are read before they are needed."""
    waiting: deque[tuple[Future[Prepared], int]] = deque()
    max_files, max_bytes = AHEAD
    for source in sources:
        while waiting and (len(waiting) >= max_files or sum(size for _, size in waiting) + source.size > max_bytes):
            yield waiting.popleft()[0].result()
        waiting.append((pool.submit(read, source), source.size))
    while waiting:
        yield waiting.popleft()[0].result()
