"""Store of intermediate results: Parquet files that hold rows and the status of the items they cover.

A part is written under a temporary name and renamed when it is complete, so that an interrupted run can resume.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.runs.copies import local_copy
from stedfm_hf.runs.files import atomic_path, remove_path
from stedfm_hf.runs.manifest import ItemStatus
from stedfm_hf.runs.storage import storage_errors

_KEY = b"stedfm_part"
PLACE = "place"
"""Note with the number of a part among those that many workers write in any order."""


@dataclass(frozen=True)
class Part:
    """Part of the results on disk.

    Attributes:
        name: Name of the part.
        path: Path of the Parquet file.
        items: Status of every item that the part covers.
        notes: Plain data that the command stored.
    """

    name: str
    path: Path
    items: dict[str, ItemStatus]
    notes: dict[str, Any]

    def table(self) -> pa.Table:
        """Read all rows."""
        with local_copy(self.path) as file:
            return pq.read_table(file).replace_schema_metadata(None)

    def row_groups(self) -> Iterator[pa.Table]:
        """Read the rows, one row group at a time."""
        with local_copy(self.path) as copy, pq.ParquetFile(copy) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, use_threads=False).replace_schema_metadata(None)

    def selected(self, rows: np.ndarray) -> Iterator[pa.Table]:
        """Read some rows, one row group at a time; row groups without any of them are not read.

        Args:
            rows: Whether to read each row, (n,) bool.
        """
        with local_copy(self.path) as copy, pq.ParquetFile(copy) as file:
            start = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if (wanted := rows[start:end]).any():
                    table = file.read_row_group(group, use_threads=False).replace_schema_metadata(None)
                    yield table if wanted.all() else table.filter(pa.array(wanted))
                start = end


@dataclass
class PartWriter:
    """Writer of a part.

    Attributes:
        items: Status of every item that the part covers, to be set by the caller.
        notes: Plain data, to be set by the caller.
        rows: Number of rows written.
    """

    _file: pq.ParquetWriter
    items: dict[str, ItemStatus] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    rows: int = 0

    def add(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Write rows."""
        self._file.write_table(table.replace_schema_metadata(None), row_group_size=row_group_size)
        self.rows += table.num_rows


class PartStore:
    """Parts of the results in a folder.

    Args:
        folder: Folder of the parts; made when the first part is written.

    Example:
        >>> import tempfile
        >>> store = PartStore(Path(tempfile.mkdtemp()))
        >>> store.write("part-000000", pa.table({"area": [1.5]}), {"a.tif": ItemStatus("done")})
        >>> [(part.name, list(part.items), part.table().num_rows) for part in store]
        [('part-000000', ['a.tif'], 1)]
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __iter__(self) -> Iterator[Part]:
        """Iterate over the parts in the order of their names."""
        return map(self.read, self.names())

    def names(self) -> list[str]:
        """Return the names of the parts, sorted."""
        with storage_errors(self.folder):
            files = [path for path in self.folder.rglob("*.parquet") if not path.name.startswith(".")]
        return sorted(path.relative_to(self.folder).as_posix().removesuffix(".parquet") for path in files)

    def path(self, name: str) -> Path:
        """Return the path of a part."""
        return self.folder / f"{name}.parquet"

    def new_names(self) -> Iterator[str]:
        """Yield names that sort after those of the numbered parts that exist now."""
        numbers = [int(name.removeprefix("part-")) for name in self.names() if name.startswith("part-")]
        return (f"part-{number:06d}" for number in count(max(numbers, default=-1) + 1))

    def next_name(self) -> str:
        """Return a name that sorts after those of the numbered parts."""
        return next(self.new_names())

    def in_order(self) -> Iterator[Part]:
        """Iterate over the parts by the number in their notes (`PLACE`), and by name among those of one number."""
        places = {name: self.read(name).notes.get(PLACE, -1) for name in self.names()}
        return map(self.read, sorted(places, key=lambda name: (places[name], name)))

    def read(self, name: str) -> Part:
        """Read the item status and notes of a part; its rows are read on demand."""
        path = self.path(name)
        with storage_errors(path), path.open("rb") as file:
            record = json.loads(pq.read_metadata(file).metadata[_KEY])
        items = {item: ItemStatus(**status) for item, status in record["items"].items()}
        return Part(name, path, items, record["notes"])

    def items(self) -> dict[str, ItemStatus]:
        """Return the status of every item; later parts override earlier ones."""
        return {item: status for part in self for item, status in part.items.items()}

    @contextmanager
    def open(self, name: str, schema: pa.Schema, **options: Any) -> Iterator[PartWriter]:
        """Open a part for writing in pieces; after an error it does not exist.

        Args:
            name: Name of the part; an existing one is replaced.
            schema: Columns of the rows.
            options: Other arguments of `pyarrow.parquet.ParquetWriter`.
        """
        with atomic_path(self.path(name)) as temporary:
            with pq.ParquetWriter(temporary, schema, compression="zstd", **options) as file:
                writer = PartWriter(file)
                yield writer
                items = {item: status.record() for item, status in writer.items.items()}
                file.add_key_value_metadata({_KEY: json.dumps({"items": items, "notes": writer.notes})})

    def write(
        self, name: str, table: pa.Table, items: Mapping[str, ItemStatus], notes: Mapping[str, Any] | None = None
    ) -> None:
        """Write a complete part."""
        with self.open(name, table.schema.remove_metadata()) as writer:
            writer.add(table)
            writer.items, writer.notes = dict(items), dict(notes or {})

    def remove(self, names: Iterable[str] | None = None) -> None:
        """Remove the named parts, or the whole folder."""
        for name in () if names is None else names:
            remove_path(self.path(name))
        if names is None:
            remove_path(self.folder)
