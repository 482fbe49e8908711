"""Tables of segmented fields and objects, stored field by field so that an interrupted run resumes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stedfm_hf.data.sources import Source
from stedfm_hf.runs import FileStamp, atomic_path, counted
from stedfm_hf.runs.copies import local_copy
from stedfm_hf.runs.files import remove_leftovers
from stedfm_hf.runs.output import Output
from stedfm_hf.runs.parts import Part, PartStore
from stedfm_hf.runs.result import OutputResult

FIELDS, OBJECTS, PARTS = "fields.parquet", "objects.parquet", "fields.parts"
OBJECTS_OF = "objects_"
"""Prefix of the columns with the number of objects of a class."""
_SAVE_EVERY = 5.0  # seconds between two saves of the manifest: it lists every file


@dataclass(frozen=True)
class SegmentResult(OutputResult):
    """Result of `segment`: the folder with maps and tables."""

    @cached_property
    def _table(self) -> pa.Table:
        with local_copy(self.output / FIELDS) as file:
            return pq.read_table(file)

    @property
    def fields(self) -> int:
        """Number of fields."""
        return len(self._table)

    @property
    def objects(self) -> dict[str, int]:
        """Number of objects of every class."""
        # By type too: "objects_file" names a file.
        names = [
            each.name
            for each in self._table.schema
            if each.name.startswith(OBJECTS_OF) and pa.types.is_integer(each.type)
        ]
        return {name.removeprefix(OBJECTS_OF): sum(self._table[name].to_pylist()) for name in names}

    def summary(self) -> str:
        """Return the number of fields and objects."""
        objects = self.objects
        each = f" ({', '.join(f'{name} {count:,}' for name, count in objects.items())})" if len(objects) > 1 else ""
        found = f"{counted(sum(objects.values()), 'object')}{each} in {counted(self.fields, 'field')}"
        return f"{self.output}: {found} from {self.describe_items('file')}"

    def to_json(self) -> dict[str, Any]:
        """Return counts of items, fields and objects."""
        objects = self.objects
        return super().to_json() | {
            "fields": self.fields,
            "objects": sum(objects.values()),
            "objects_of": objects,
        }


@dataclass(frozen=True)
class FieldParts:
    """Parts of the fields that are done, one for each field.

    Attributes:
        store: Store of the parts.
    """

    store: PartStore

    def has(self, path: str, number: int) -> bool:
        """Return whether field `number` of the file `path` is done."""
        return self.store.path(f"{path}.{number}").exists()

    def add(self, source: Source, number: int, field: Mapping[str, Any], objects: pa.Table) -> None:
        """Record a finished field: its row in the table of fields, and its objects."""
        notes = {"path": source.path, "number": number, "row": dict(field), "stamp": source.stamp}
        self.store.write(f"{source.path}.{number}", objects, {}, notes)


class FieldRecords:
    """Tables of fields and objects, stored in one part per field until they are combined.

    Args:
        output: Output folder.
        fields: Columns of the table of fields.
        objects: Columns of the table of objects.

    Attributes:
        parts: Parts of the fields.
        begun: Stamps of the files with parts of an interrupted run, if they are known.
    """

    def __init__(self, output: Output, fields: pa.Schema, objects: pa.Schema) -> None:
        self.output, self.manifest = output, output.manifest
        self._schemas = {output.path / FIELDS: fields, output.path / OBJECTS: objects}
        self._store = PartStore(output.path / PARTS)
        self.parts = FieldParts(self._store)
        remove_leftovers(output.path)  # each is as large as its field
        stamps = {part.notes["path"]: part.notes["stamp"] for part in self._store}
        self.begun = {path: FileStamp(*stamp) for path, stamp in stamps.items() if stamp}
        self._saved = time.monotonic()

    def save_at_times(self) -> None:
        """Write the manifest every few seconds."""
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.output.save()
            self._saved = time.monotonic()

    def remove_results(self, paths: Collection[str]) -> None:
        """Remove the parts and rows of some files."""
        some = set(paths)
        self._store.remove([part.name for part in self._store if part.notes["path"] in some])

    def finish(self, order: Sequence[str]) -> None:
        """Append the parts of finished files to the tables, and write tables and manifest."""
        done = {path for path, status in self.manifest.items.items() if status.state == "done"}
        place = {path: number for number, path in enumerate(order)}
        parts = sorted(
            (part for part in self._store if part.notes["path"] in done),
            key=lambda part: (place.get(part.notes["path"], len(place)), part.notes["path"], part.notes["number"]),
        )
        remove_leftovers(self.output.path)
        if self.output.finished:
            return
        # Rows of the new parts are there already where the run was interrupted between the two tables.
        old = pa.array(sorted(done - {part.notes["path"] for part in parts}), pa.string())
        for table, schema in self._schemas.items():
            with atomic_path(table) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                if table.exists():
                    with local_copy(table) as file:
                        before = pq.read_table(file).cast(schema)
                    writer.write_table(before.filter(pc.is_in(before["path"], old)))
                for rows in _new_rows(table, parts, schema):
                    writer.write_table(rows)
        self.output.save()
        self._store.remove([part.name for part in parts])
        if not self._store.names():
            self._store.remove()


def _new_rows(table: Path, parts: Sequence[Part], schema: pa.Schema) -> Iterator[pa.Table]:
    if table.name == FIELDS:
        yield pa.Table.from_pylist([part.notes["row"] for part in parts], schema)
    else:
        yield from (part.table().cast(schema) for part in parts)
