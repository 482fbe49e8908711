"""Tables of `stedfm embed` as input of an index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.data.sources import ImageFile, Source
from stedfm_hf.discovery.index.layout import DTYPES
from stedfm_hf.discovery.index.segments import SegmentParts, item_table, relative_to
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.inference.resuming import unfinished
from stedfm_hf.inference.stepwise import CHUNK
from stedfm_hf.inference.tables import OF_IMAGE
from stedfm_hf.labels.labelled.reading import source_of
from stedfm_hf.runs import FileStamp, Manifest, Progress, UserError, counted, manifest_path, print_note
from stedfm_hf.runs.copies import local_copy
from stedfm_hf.runs.manifest import status_of
from stedfm_hf.runs.storage import as_path, storage_errors

BATCH = 8192
"""Rows of a table that are read at once."""


@dataclass(frozen=True)
class EmbeddingTable:
    """Table of `stedfm embed`.

    Attributes:
        path: Parquet file.
        manifest: Its manifest.
        dim: Length of an embedding.
    """

    path: Path
    manifest: Manifest
    dim: int

    @property
    def pooling(self) -> str:
        """Pooling of the embeddings."""
        return str(self.manifest.settings["pooling"])

    def items(self) -> Iterator[tuple[Fact, np.ndarray]]:
        """Yield the columns and the embeddings (n, D) of every image and channel, in the order of the table.

        Raises:
            UserError: If the rows are those of another model than the manifest says.
        """
        names = [name for name, _ in OF_IMAGE]
        more = ["row", "col", "y_px", "x_px"] if self.pooling == "patch" else []
        waiting: list[pa.Table] = []
        with local_copy(self.path) as copy, pq.ParquetFile(copy) as file:
            for batch in file.iter_batches(BATCH, columns=[*names, *more, "embedding", "weights_sha256"]):
                table = pa.Table.from_batches([batch])
                if set(table["weights_sha256"].to_pylist()) - {self.manifest.weights_sha256}:
                    raise UserError(f"{self.path}: holds embeddings of another model than its manifest says")
                keys = list(zip(*(table[name].to_pylist() for name in names[:3]), strict=True))
                starts = [0, *(k for k in range(1, len(keys)) if keys[k] != keys[k - 1]), len(keys)]
                for start, end in zip(starts, starts[1:], strict=False):
                    rows = table.slice(start, end - start)
                    if waiting and _key(waiting[0]) != _key(rows):
                        yield self._item(waiting)
                        waiting = []
                    waiting.append(rows)
        if waiting:
            yield self._item(waiting)

    def _item(self, tables: list[pa.Table]) -> tuple[Fact, np.ndarray]:
        """Return the columns and embeddings of the rows of one image and channel."""
        rows = pa.concat_tables(tables).combine_chunks()
        fact: dict[str, Any] = rows.select([name for name, _ in OF_IMAGE]).slice(0, 1).to_pylist()[0]
        values = np.asarray(rows["embedding"].combine_chunks().flatten()).reshape(len(rows), self.dim)
        grid, size = (1, 1), (float(fact["height"]), float(fact["width"]))
        if self.pooling == "patch":
            at = np.stack([np.asarray(rows[name]) for name in ("row", "col")])
            grid = (int(at[0].max()) + 1, int(at[1].max()) + 1)
            if len(rows) != grid[0] * grid[1]:
                raise UserError(
                    f"{self.path}: {fact['path']} has {len(rows)} patches of a grid of {grid}; embed again"
                )
            last = rows.slice(len(rows) - 1).to_pylist()[0]
            size = (
                last["y_px"] / last["row"] if last["row"] else size[0],
                last["x_px"] / last["col"] if last["col"] else size[1],
            )
        more = {"rows": grid[0], "cols": grid[1], "patch_height_px": size[0], "patch_width_px": size[1]}
        return fact | more, values


def open_table_input(path: str | Path) -> EmbeddingTable:
    """Open a table of `stedfm embed`, without reading its rows.

    Raises:
        UserError: If the file is not such a table, its manifest is missing, or it cannot be indexed.
    """
    path = as_path(path)
    if path.suffix.lower() != ".parquet":
        raise UserError(f"{path}: write the table as *.parquet to index it")
    record = manifest_path(path, folder=False)
    if not record.is_file():
        raise UserError(f"{path}: has no {record.name}, which says how it was made; copy it next to the table")
    manifest = Manifest.load(record)
    try:
        with storage_errors(path), path.open("rb") as handle:
            schema = pq.read_schema(handle)
        dim = schema.field("embedding").type.list_size
    except (OSError, pa.ArrowException, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is not a table of `stedfm embed`; embed the images again") from error
    if manifest.command != "embed" or manifest.ended is None:
        raise UserError(f"{path}: is not a finished table of `stedfm embed`; run the same command again to finish it")
    if manifest.settings["pooling"] not in DTYPES:
        raise UserError(
            f"{path}: has embeddings of the pooling {manifest.settings['pooling']}; an index needs avg or patch"
        )
    return EmbeddingTable(path, manifest, dim)


def add_table(
    parts: SegmentParts, table: EmbeddingTable, sources: dict[str, Source], pattern: str | None, left_out: set[str]
) -> None:
    """Add the items of a table that are not in the index, or whose file has changed.

    Rows that are not finite are skipped and counted.

    Args:
        parts: Parts of the next segment.
        table: Table.
        sources: Files or data set rows of the images by path; empty if they are not known.
        pattern: Pattern of the source image in a path, or None.
        left_out: Paths that are not added.
    """
    stamps = {path: status.stamp for path, status in table.manifest.items.items() if status.state == "done"}
    records: list[Source] = [_Record(path, stamp) for path, stamp in stamps.items() if path not in left_out]
    wanted = {each.path for each in unfinished(parts.manifest, records)}
    if wanted and parts.output.finished:
        parts.output.reopen()
    rows: dict[str, list[Fact]] = {path: [] for path in wanted}
    bad: dict[str, int] = dict.fromkeys(wanted, 0)
    waiting: list[str] = []
    seen = set[tuple[str, str, str]]()
    with Progress(len(wanted), description="index") as progress:
        for fact, values in table.items():
            path = fact["path"]
            key = (path, fact["series"], fact["channel"])
            if path not in wanted or key in seen:
                continue
            seen.add(key)
            if path not in waiting:
                if len(waiting) == CHUNK:
                    _flush(parts, table, waiting, rows, bad)
                    waiting = []
                waiting.append(path)
                progress.update()
            if np.isfinite(values).all():
                rows[path].append(fact | {"embeddings": values} | _origin(parts, sources.get(path), path, pattern))
            else:
                bad[path] += len(values) - int(np.isfinite(values).all(axis=1).sum())
    _flush(parts, table, waiting, rows, bad)
    if total := sum(bad.values()):
        print_note(f"note: {table.path}: {counted(total, 'row')} with values that are not finite, skipped")
    parts.finish()


def _flush(
    parts: SegmentParts, table: EmbeddingTable, paths: list[str], rows: dict[str, list[Fact]], bad: dict[str, int]
) -> None:
    """Write a part with the rows of some paths."""
    for path in paths:
        note = f"{counted(bad[path], 'row')} with values that are not finite" if bad[path] else None
        if rows[path] or note is None:
            parts.manifest.record(path, status_of("done", note, table.manifest.items[path].stamp))
        else:
            parts.manifest.skipped(path, str(note))
    done = [path for path in paths if parts.manifest.items[path].state == "done"]
    if done:
        added = item_table([fact for path in done for fact in rows.pop(path)], table.pooling)
        parts.store.write(parts.store.next_name(), added, {path: parts.manifest.items[path] for path in done})


def _origin(parts: SegmentParts, source: Source | None, path: str, pattern: str | None) -> Fact:
    """Return the columns that say where an image is."""
    content = "" if source is None else source.source_id()
    is_file = isinstance(source, ImageFile)
    return {
        "file": relative_to(parts.output.path, source.file) if isinstance(source, ImageFile) else None,
        "content": content if is_file else "",
        "source": source_of(path, pattern, content or path),
    }


@dataclass(frozen=True)
class _Record:
    """Source that is known from a table only: its path and the stamp of its file."""

    path: str
    stamp: FileStamp | None
    size: int = 0

    def read(self, series: str | int | None, channel: str | int | None) -> list[Any]:
        """Return no image."""
        return []

    def source_id(self) -> str:
        """Return "", because the bytes of the file are unknown."""
        return ""


def _key(table: pa.Table) -> tuple[Any, ...]:
    return tuple(table[name][0].as_py() for name in ("path", "series", "channel"))
