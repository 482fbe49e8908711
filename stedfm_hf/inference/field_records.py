"""What is known of segmented fields, kept field by field: a stopped run loses the one it was at and no more."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stedfm_hf.runs import FileStamp, Manifest, UserError, atomic_path, manifest_path

FIELDS, OBJECTS = "fields.parquet", "objects.parquet"
OBJECTS_OF = "objects_"
"""Column of the table of fields with the number of objects of a class: this and its name."""
_FIELD = b"stedfm_field"
_SAVE_EVERY = 5.0  # seconds between two saves of the manifest: it lists every file


def count_found(folder: Path) -> tuple[int, dict[str, int]]:
    """How many fields the tables of a folder hold, and how many objects of every class."""
    table = pq.read_table(folder / FIELDS)
    # By type too: "objects_file" names a file.
    names = [each.name for each in table.schema if each.name.startswith(OBJECTS_OF) and pa.types.is_integer(each.type)]
    return len(table), {name.removeprefix(OBJECTS_OF): sum(table[name].to_pylist()) for name in names}


class FieldRecords:
    """The tables of a folder, a part for every field until all are put together.

    Args:
        folder: Output folder, made if missing.
        manifest: Record of the run; takes up what earlier runs have done.
        fields: Columns of the table of fields.
        objects: Columns of the table of objects.
        overwrite: Whether the tables that are there are begun anew.

    Attributes:
        begun: Stamps of the files, where known, of which a stopped run has left parts.

    Raises:
        UserError: For a folder that holds such tables without a manifest, or was begun with other settings.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, fields: pa.Schema, objects: pa.Schema, *, overwrite: bool = False
    ) -> None:
        self.manifest, self.record = manifest, manifest_path(folder, folder=True)
        self._schemas = {folder / FIELDS: fields, folder / OBJECTS: objects}
        self._parts = folder / "fields.parts"
        if self.record.exists():
            for leftover in folder.rglob(".*.tmp.*"):  # of a run that was killed: as large as the field it was at
                leftover.unlink(missing_ok=True)
        if overwrite:
            for file in (*self._schemas, self.record):
                file.unlink(missing_ok=True)
            shutil.rmtree(self._parts, ignore_errors=True)
        there = [table.exists() for table in self._schemas]
        if self.record.exists():
            manifest.resume_from(Manifest.load(self.record))
            if not (all(there) or self._parts.exists()):
                manifest.items.clear()  # someone has deleted a table
        elif any(there) or self._parts.exists():
            raise UserError(f"{folder}: holds results without {self.record.name}; choose another output")
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output {folder}: cannot be made ({error.strerror}); choose another") from error
        stamps = {known["order"][0]: known.get("stamp") for _, known in self._held()}
        self.begun = {path: FileStamp(*stamp) for path, stamp in stamps.items() if stamp}
        manifest.ended = None
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        self.manifest.save(self.record)
        self._saved = time.monotonic()

    def save_at_times(self) -> None:
        """Write the manifest if it is a while ago."""
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.save()

    def has(self, path: str, number: int) -> bool:
        """Whether a field is done: the `number`th of the file `path`."""
        return self._part(path, number).exists()

    def add(self, path: str, number: int, field: Mapping[str, Any], objects: pa.Table) -> None:
        """Record a field whose files are written: its row of the table of fields, and its objects."""
        known = {"order": [path, number], "row": field, "stamp": self.manifest.stamps.get(path)}
        metadata = {_FIELD: json.dumps(known).encode()}
        with atomic_path(self._part(path, number)) as temporary:
            pq.write_table(objects.replace_schema_metadata(metadata), temporary, compression="zstd")

    def forget(self, paths: Collection[str]) -> None:
        """Remove the parts of some files; their rows of the tables go when those are written, unless done anew."""
        some = set(paths)
        for part in [part for part, known in self._held() if known["order"][0] in some]:
            part.unlink()

    def finish(self, order: Sequence[str]) -> None:
        """Put the parts of the files that are done behind what the tables held, and write tables and manifest.

        Args:
            order: Paths of the files in the order of the rows.
        """
        place = {path: number for number, path in enumerate(order)}
        parts: list[tuple[tuple[int, str, int], Path, dict[str, Any]]] = []
        done = {path for path, status in self.manifest.items.items() if status.state == "done"}
        for part, known in self._held():
            path, number = known["order"]
            if path in done:
                parts.append(((place.get(path, len(place)), path, number), part, known["row"]))
        parts.sort(key=lambda each: each[0])
        # Rows of the new parts are there already where the run was stopped between the two tables.
        old = pa.array(sorted(done - {path for (_, path, _), _, _ in parts}), pa.string())
        for table, schema in self._schemas.items():
            with atomic_path(table) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                if table.exists():
                    before = pq.read_table(table).cast(schema)
                    writer.write_table(before.filter(pc.is_in(before["path"], old)))
                if table.name == FIELDS:
                    writer.write_table(pa.Table.from_pylist([row for _, _, row in parts], schema))
                else:
                    for _, part, _ in parts:
                        writer.write_table(pq.read_table(part).replace_schema_metadata(None).cast(schema))
        self.manifest.finish()
        self.save()
        for _, part, _ in parts:
            part.unlink()
        if not any(self._parts.rglob("*.parquet")):
            shutil.rmtree(self._parts)

    def _held(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The parts that are there, and what they know."""
        for part in self._parts.rglob("*.parquet"):
            yield part, json.loads(pq.read_schema(part).metadata[_FIELD])

    def _part(self, path: str, number: int) -> Path:
        return self._parts / f"{path}.{number}.parquet"
