"""Embeddings that are being added to an index: parts that survive an interrupt, and the segment made of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from stedfm_hf.data.sources import ImageFile, Source
from stedfm_hf.discovery.index.layout import (
    ADDING,
    DATASETS,
    DTYPES,
    EMBEDDINGS,
    ITEM_SCHEMA,
    ITEMS,
    PART_SCHEMA,
    SEGMENTS,
    State,
    new_embeddings,
    next_segment,
    open_segment,
)
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.labels.labelled.reading import source_of
from stedfm_hf.runs import ItemStatus, UserError
from stedfm_hf.runs.manifest import portable
from stedfm_hf.runs.output import Output
from stedfm_hf.runs.parts import PartStore
from stedfm_hf.runs.storage import is_remote


class SegmentParts:
    """Parts of the next segment of an index (`stedfm_hf.inference.tables.Parts`).

    The items of the manifest are taken from the segments and parts, which say what is on disk.

    Args:
        output: Output of the command.
        state: Current state of the index.
        datasets: Data sets among the inputs, as paths relative to the index or Hub ids.
    """

    def __init__(self, output: Output, state: State, datasets: Sequence[str] = ()) -> None:
        self.output, self.manifest, self.state, self.next_state = output, output.manifest, state, state
        self.datasets = list(datasets)
        self.name = next_segment(state)
        self.store = PartStore(output.path / ADDING / self.name)
        added = {path: status for path, status in self.store.items().items() if status.state == "done"}
        self.manifest.items = live_items(output.path, state) | added

    def finish(self) -> None:
        """Make a segment of the parts, and set `next_state`; the current state of the index is not changed.

        The last rows of an item replace earlier ones. Rows of items that are not done any more are removed.
        """
        items = self.manifest.items
        last = {item: part.name for part in self.store for item in part.items if items[item].state == "done"}
        gone = {path for path in live_items(self.output.path, self.state) if items[path].state != "done"}
        segments = self.state.segments
        if last:
            self._write_segment(last)
            segments = (*segments, self.name)
        if last or gone:
            removed = with_removed(self.output.path, self.state, gone | last.keys())
            self.next_state = self.state.next(segments=segments, removed=removed)

    def _write_segment(self, last: Mapping[str, str]) -> None:
        """Write a segment with the items of the parts.

        Args:
            last: Name of the part that holds the last rows of each item.
        """
        folder = self.output.path / SEGMENTS / self.name
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
        folder.mkdir(parents=True)
        tables = [rows.drop_columns(["embeddings"]) for rows in self._rows(last)]
        items = pa.concat_tables([ITEM_SCHEMA.empty_table(), *tables])
        count = int((np.asarray(items["rows"]) * np.asarray(items["cols"])).sum())
        dtype = DTYPES[self.state.pooling]
        with new_embeddings(folder / EMBEDDINGS, count, self.state.dim, dtype) as file:
            for rows in self._rows(last):
                for values in rows["embeddings"]:
                    file.write(values.as_buffer())
            file.flush()
            os.fsync(file.fileno())
        statuses = {item: self.manifest.items[item] for item in sorted(last)}
        PartStore(folder).write(ITEMS, items, statuses, {DATASETS: self.datasets})

    def _rows(self, last: Mapping[str, str]) -> Iterator[pa.Table]:
        """Yield the rows of the parts, one row group at a time, without replaced rows."""
        for part in self.store.in_order():
            for rows in part.row_groups():
                kept = [last.get(path) == part.name for path in rows["path"].to_pylist()]
                yield rows.filter(pa.array(kept, pa.bool_()))


def live_items(folder: Path, state: State) -> dict[str, ItemStatus]:
    """Return the status of the items of an index that are not removed, by path."""
    found: dict[str, ItemStatus] = {}
    for name in state.segments:
        segment = open_segment(folder, name)
        removed = set(state.removed.get(name, []))
        if not removed:
            found |= segment.statuses
            continue
        paths = segment.items()["path"].to_pylist()
        left = {path for number, path in enumerate(paths) if number not in removed}
        found |= {path: status for path, status in segment.statuses.items() if path in left}
    return found


def with_removed(folder: Path, state: State, paths: Iterable[str]) -> dict[str, list[int]]:
    """Return the removed items of every segment of a state after the items of some paths are removed."""
    wanted = set(paths)
    removed = {}
    for name in state.segments:
        numbers = [
            k for k, path in enumerate(open_segment(folder, name).items()["path"].to_pylist()) if path in wanted
        ]
        if every := sorted({*state.removed.get(name, []), *numbers}):
            removed[name] = every
    return removed


def without_empty_segments(folder: Path, state: State) -> State:
    """Return a state without the segments whose items are all removed."""
    sizes = {name: open_segment(folder, name).items().num_rows for name in state.removed}
    empty = {name for name, removed in state.removed.items() if len(removed) == sizes[name]}
    segments = tuple(name for name in state.segments if name not in empty)
    return replace(state, segments=segments, removed={k: v for k, v in state.removed.items() if k not in empty})


class ItemTable:
    """Function that makes the rows of parts from the facts and embeddings of images (`embed_sources`).

    Args:
        folder: Folder of the index.
        pooling: Pooling of the embeddings.
        patch_size: Size of a patch, in pixels of the input of the model.
        source_pattern: Pattern of the source image in a path, or None.
    """

    def __init__(self, folder: Path, pooling: str, patch_size: int, source_pattern: str | None) -> None:
        self.folder, self.pooling, self.patch_size, self.source_pattern = folder, pooling, patch_size, source_pattern
        self._contents: dict[str, str] = {}

    def __call__(self, results: list[tuple[Fact, np.ndarray]]) -> pa.Table:
        """Return the rows of some images."""
        return item_table([self._item(fact, values) for fact, values in results], self.pooling)

    def _item(self, fact: Fact, values: np.ndarray) -> Fact:
        """Return the columns of an image."""
        rows, cols = values.shape[:2] if self.pooling == "patch" else (1, 1)
        source: Source = fact["origin"]
        if source.path not in self._contents:  # a file with many series is read once
            self._contents = {source.path: source.source_id()}
        content = self._contents[source.path]
        is_file = isinstance(source, ImageFile)
        y_scale, x_scale = (fact[side] / size for side, size in zip(("height", "width"), fact["size"], strict=True))
        return fact | {
            "rows": rows,
            "cols": cols,
            "patch_height_px": self.patch_size * y_scale if self.pooling == "patch" else float(fact["height"]),
            "patch_width_px": self.patch_size * x_scale if self.pooling == "patch" else float(fact["width"]),
            "file": relative_to(self.folder, source.file) if isinstance(source, ImageFile) else None,
            "content": content if is_file else "",
            "source": source_of(fact["path"], self.source_pattern, content or fact["path"]),
            "embeddings": values,
        }


def item_table(rows: Sequence[Fact], pooling: str) -> pa.Table:
    """Return the table of a part from the columns of its images; `embeddings` are arrays.

    Raises:
        UserError: If a value does not fit the type in which embeddings are stored.
    """
    dtype = DTYPES[pooling]
    columns = {name: [row[name] for row in rows] for name in ITEM_SCHEMA.names}
    stored = []
    for row in rows:
        values = np.ascontiguousarray(row["embeddings"], dtype)
        if not np.isfinite(values).all():
            raise UserError(f"{row['path']}: has embeddings above the largest {dtype}; check the weights of the model")
        stored.append(values.tobytes())
    return pa.table(columns | {"embeddings": stored}, schema=PART_SCHEMA)


def relative_to(folder: Path, path: Path) -> str:
    """Return a path relative to a folder, so that both can be moved together; absolute on another drive or a URL."""
    if is_remote(path):
        return str(portable(path))
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()
