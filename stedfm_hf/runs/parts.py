"""Results of items, kept in parts until they are put together: what an interrupted run leaves is found again.

A part is a Parquet file. Its footer holds the status of the items it covers and notes of its command. It is written
under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.runs.files import atomic_path, remove_path
from stedfm_hf.runs.manifest import ItemStatus

_KEY = b"stedfm_part"


@dataclass(frozen=True)
class Part:
    """A part on disk.

    Attributes:
        name: Name in the store.
        path: The Parquet file.
        items: Status of every item that the part covers.
        notes: Plain data of the command.
    """

    name: str
    path: Path
    items: dict[str, ItemStatus]
    notes: dict[str, Any]

    def table(self) -> pa.Table:
        """Read all rows."""
        return pq.read_table(self.path).replace_schema_metadata(None)

    def row_groups(self) -> Iterator[pa.Table]:
        """Read the rows, one row group at a time."""
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, use_threads=False).replace_schema_metadata(None)


@dataclass
class PartWriter:
    """A part that is being written.

    Attributes:
        items: Status of every item that the part covers; to be filled in.
        notes: Plain data of the command; to be filled in.
        rows: Number of rows so far.
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
    """The parts in a folder.

    Args:
        folder: Folder of the parts; made when the first is written.

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
        """Go through the parts in the order of their names."""
        return map(self.read, self.names())

    def names(self) -> list[str]:
        """Return the names of the parts, sorted."""
        files = (path for path in self.folder.rglob("*.parquet") if not path.name.startswith("."))
        return sorted(path.relative_to(self.folder).as_posix().removesuffix(".parquet") for path in files)

    def path(self, name: str) -> Path:
        """Return where a part belongs."""
        return self.folder / f"{name}.parquet"

    def next_name(self) -> str:
        """Return a name that sorts behind those of numbered parts."""
        numbers = [int(name.removeprefix("part-")) for name in self.names() if name.startswith("part-")]
        return f"part-{max(numbers, default=-1) + 1:06d}"

    def read(self, name: str) -> Part:
        """Read what a part covers; its rows are read when they are asked for."""
        path = self.path(name)
        record = json.loads(pq.read_metadata(path).metadata[_KEY])
        items = {item: ItemStatus(**status) for item, status in record["items"].items()}
        return Part(name, path, items, record["notes"])

    def items(self) -> dict[str, ItemStatus]:
        """Return the status of every item; the last part counts."""
        return {item: status for part in self for item, status in part.items.items()}

    @contextmanager
    def open(self, name: str, schema: pa.Schema, **options: Any) -> Iterator[PartWriter]:
        """Open a part for writing piece by piece; it exists once the block ends, and not at all after an error.

        Args:
            name: Name of the part; an older one is replaced.
            schema: Columns of the rows.
            options: Further arguments of `pyarrow.parquet.ParquetWriter`.
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
        """Write a part at once."""
        with self.open(name, table.schema.remove_metadata()) as writer:
            writer.add(table)
            writer.items, writer.notes = dict(items), dict(notes or {})

    def remove(self, names: Iterable[str] | None = None) -> None:
        """Remove some parts, or the whole folder."""
        for name in () if names is None else names:
            remove_path(self.path(name))
        if names is None:
            remove_path(self.folder)
