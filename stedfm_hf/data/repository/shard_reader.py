"""Reading of rows of the shards of a split."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.data.repository.files import SplitFiles, damage_errors
from stedfm_hf.data.repository.layout import INDEX_FILE
from stedfm_hf.data.repository.remote import FileRange, RemoteFiles
from stedfm_hf.runs.errors import UserError

_WHOLE_FRACTION = 0.5
"""Fraction of the row groups of a remote shard from which the whole file is read, which needs no separate footer."""
_Footer = tuple[pq.FileMetaData, list[int]]


class ShardReader:
    """Thread-safe reader of the row groups of a split.

    Remote shards are read by one request: the whole file, or the range of the row groups after one request for the
    footer.

    Args:
        files: Shards of the split.
        columns: Names of the columns to read.
        shards_in_use: Number of shards that are read alternately, whose footers are cached.

    Attributes:
        bytes_read: Number of compressed bytes of the columns that were read, without footers.
    """

    def __init__(self, files: SplitFiles, columns: Sequence[str], *, shards_in_use: int = 1) -> None:
        self.files, self.columns = files, list(columns)
        self.bytes_read = 0
        first = files.shards[0].file
        self._remote = RemoteFiles(first, files.token) if "://" in first else None
        self._lock = threading.Lock()
        # Each footer is downloaded and parsed once; it takes half a megabyte of memory.
        self._footer = functools.lru_cache(maxsize=shards_in_use)(self._read_footer)

    @property
    def is_remote(self) -> bool:
        """Whether each read of a shard is a request."""
        return self._remote is not None

    def read(self, shard: int, groups: Sequence[int]) -> pa.Table:
        """Read row groups of a shard.

        Args:
            shard: Number of the shard.
            groups: Numbers of the row groups in the shard.

        Raises:
            UserError: The shard is damaged, does not match the index, or has no such column.
        """
        return next(self.read_in_steps(shard, [groups]))

    def read_in_steps(self, shard: int, steps: Sequence[Sequence[int]]) -> Iterator[pa.Table]:
        """Read row groups of a shard one step after the other, a remote shard by one request for all steps.

        Args:
            shard: Number of the shard.
            steps: Numbers of the row groups of each step.

        Yields:
            Rows of each step.

        Raises:
            UserError: The shard is damaged, does not match the index, or has no such column.
        """
        path = self.files.shards[shard].file
        # Local shards are not memory-mapped, because mapped pages count as memory of the process until the system
        # reclaims them.
        with damage_errors(path):
            if self._remote is None:
                footer = self._footer(shard)
                file = pa.OSFile(path)
            else:
                footer, file = self._fetch(self._remote, shard, sorted({group for step in steps for group in step}))
        metadata, size_of = footer
        with file:
            for groups in steps:
                with damage_errors(path):
                    table = pq.ParquetFile(file, metadata=metadata).read_row_groups(
                        list(groups), columns=self.columns, use_threads=False
                    )
                with self._lock:
                    self.bytes_read += sum(size_of[group] for group in groups)
                yield table

    def _fetch(self, remote: RemoteFiles, shard: int, groups: Sequence[int]) -> tuple[_Footer, Any]:
        """Download row groups of a shard by one request, or two with the footer; return the footer and the file."""
        expected = self.files.shards[shard]
        path = expected.file
        if "pixels" in self.columns and len(groups) >= _WHOLE_FRACTION * len(expected.row_groups):
            data = remote.read(path)
            file = pa.BufferReader(data)
            return self._check(shard, pq.ParquetFile(file).metadata), file
        metadata, size_of = self._footer(shard)
        used = [metadata.row_group(group).column(column) for group in groups for column in self._used(metadata)]
        start = min(map(_start_of, used), default=0)
        end = max((_start_of(each) + each.total_compressed_size for each in used), default=0)
        if 2 * sum(size_of[group] for group in groups) >= end - start:
            return (metadata, size_of), pa.PythonFile(FileRange(remote.read(path, start, end), start), "r")
        # A few small columns: each is a request, because the range would hold mostly pixels.
        return (metadata, size_of), pa.PythonFile(remote.open(path), "r")

    def _read_footer(self, shard: int) -> _Footer:
        """Read the footer of a shard; see `_check`."""
        expected = self.files.shards[shard]
        if self._remote is None:
            with pa.OSFile(expected.file) as file:
                return self._check(shard, pq.read_metadata(file))
        return self._check(shard, pq.read_metadata(self._remote.read_footer(expected.file, len(expected.row_groups))))

    def _check(self, shard: int, metadata: pq.FileMetaData) -> _Footer:
        """Return a footer with the compressed bytes of the columns in each row group.

        Raises:
            UserError: The row groups are not those of the index, or a column is missing.
        """
        expected = self.files.shards[shard]
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        rows = tuple(group.num_rows for group in groups)
        if rows != expected.row_groups:
            raise UserError(
                f"{expected.file}: holds {sum(rows)} rows in {len(rows)} row groups, but {INDEX_FILE} lists "
                f"{expected.rows} in {len(expected.row_groups)}; download the file again, or build the data set again"
            )
        names = set(metadata.schema.to_arrow_schema().names)
        if missing := [name for name in self.columns if name not in names]:
            raise UserError(
                f"{expected.file}: has no column {', '.join(missing)} (its columns are {', '.join(sorted(names))}); "
                "give a data set of crops, such as one that `stedfm data build` wrote"
            )
        used = self._used(metadata)
        return metadata, [sum(group.column(column).total_compressed_size for column in used) for group in groups]

    def _used(self, metadata: pq.FileMetaData) -> list[int]:
        """Return the numbers of the Parquet columns to read; a list is stored as `name.list.element`."""
        paths = (str(metadata.schema.column(number).path) for number in range(metadata.num_columns))
        return [number for number, path in enumerate(paths) if path.split(".")[0] in self.columns]


def _start_of(chunk: pq.ColumnChunkMetaData) -> int:
    """Return the position of the first byte of a column of a row group in the file."""
    first = chunk.dictionary_page_offset
    return int(chunk.data_page_offset if first is None else min(first, chunk.data_page_offset))
