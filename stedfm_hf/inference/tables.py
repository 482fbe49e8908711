"""Tables of results: their columns, and writing them in steps that survive being stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from stedfm_hf.runs import ItemStatus, Manifest, UserError, atomic_path, manifest_path

SUFFIXES = (".parquet", ".csv")
_STATUSES = b"stedfm_statuses"


OF_IMAGE = (
    ("path", pa.string()),
    ("series", pa.string()),
    ("channel", pa.string()),
    ("height", pa.int64()),
    ("width", pa.int64()),
    ("pixel_size_nm", pa.list_(pa.float64())),
)
"""Columns that say which image a row is about; the first of every table."""

OF_MODEL = (("model", pa.string()), ("weights_sha256", pa.string()))
"""Columns that say what made a row; the last of every table."""


def embedding_schema(dim: int, *, patches: bool) -> pa.Schema:
    """Columns of a table of embeddings of length `dim`, one row per image or per patch."""
    place = (("row", pa.int64()), ("col", pa.int64()), ("y_px", pa.float64()), ("x_px", pa.float64()))
    return pa.schema([*OF_IMAGE, *(place if patches else ()), ("embedding", pa.list_(pa.float32(), dim)), *OF_MODEL])


class Parts:
    """A table written part by part beside its target and put together at the end.

    Each part is whole or not there, and carries the status of its items; what a stopped run has written is found.

    Args:
        target: The `.parquet` or `.csv` file to make.
        manifest: Record of the run; takes up what earlier runs have done.
        schema: Columns of the table.
        overwrite: Whether what is there is removed first.

    Raises:
        UserError: For another suffix, a target without a manifest, or one begun with other settings.
    """

    def __init__(self, target: Path, manifest: Manifest, schema: pa.Schema, *, overwrite: bool = False) -> None:
        if target.suffix.lower() not in SUFFIXES:
            raise UserError(f"{target}: the table must be named *.parquet or *.csv")
        self.target, self.manifest, self.schema = target, manifest, schema
        self.folder = target.with_name(f"{target.name}.parts")
        self.record = manifest_path(target, folder=False)
        if overwrite:
            for file in (target, self.record):
                file.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.record.exists():
            manifest.resume_from(Manifest.load(self.record))
            if not target.exists() and not self.folder.exists():
                manifest.items.clear()  # someone has deleted the table
        elif target.exists():
            raise UserError(f"{target}: is there already, without {self.record.name}; choose another output")
        for part in self._parts():
            manifest.items |= _statuses(part)
        for item in manifest.failures():
            del manifest.items[item]  # to be tried again
        self.folder.mkdir(parents=True, exist_ok=True)
        self._count = len(self._parts())
        manifest.ended = None
        manifest.save(self.record)

    def add(self, table: pa.Table, items: Iterable[str]) -> None:
        """Write the rows of some items, whose statuses the manifest knows."""
        statuses = {item: self.manifest.items[item].record() for item in items}
        metadata = {_STATUSES: json.dumps(statuses).encode()}
        with atomic_path(self.folder / f"part-{self._count:06d}.parquet") as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
        self._count += 1

    def finish(self) -> None:
        """Put the parts behind what the target held, write target and manifest, and remove the parts.

        Of an item that was done several times, because its file had changed, the last rows count.
        """
        if self._parts() or not self.target.exists():
            with atomic_path(self.target) as temporary:
                if self.target.suffix.lower() == ".csv":
                    table = pa.concat_tables([self.schema.empty_table(), *self._tables()])
                    pyarrow.csv.write_csv(_flatten(table), temporary)
                else:
                    with pq.ParquetWriter(temporary, self.schema, compression="zstd") as writer:
                        for table in self._tables():
                            writer.write_table(table)
        self.manifest.finish()
        self.manifest.save(self.record)
        shutil.rmtree(self.folder)

    def _tables(self) -> Iterator[pa.Table]:
        """What the target held and every part, without rows that later ones replace."""
        last = {item: part for part in self._parts() for item in _statuses(part)}
        if self.target.exists():
            done = {item for item, status in self.manifest.items.items() if status.state == "done"}
            yield _rows_of(read_table(self.target, self.schema), done - last.keys())
        for part in self._parts():
            yield _rows_of(self._read(part), [item for item in _statuses(part) if last[item] == part])

    def _read(self, part: Path) -> pa.Table:
        return pq.read_table(part).replace_schema_metadata(None).cast(self.schema)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))


def _statuses(part: Path) -> dict[str, ItemStatus]:
    statuses = json.loads(pq.read_schema(part).metadata[_STATUSES])
    return {item: ItemStatus(**status) for item, status in statuses.items()}


def _rows_of(table: pa.Table, items: Collection[str]) -> pa.Table:
    return table.filter(pc.is_in(table["path"], pa.array(sorted(items), pa.string())))


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table that `Parts` wrote, from Parquet or CSV."""
    if path.suffix.lower() == ".csv":
        types = {field.name: field.type for field in _flatten(schema.empty_table()).schema}
        options = pyarrow.csv.ConvertOptions(
            column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        return _unflatten(pyarrow.csv.read_csv(path, convert_options=options), schema)
    return pq.read_table(path).cast(schema)


def _flatten(table: pa.Table) -> pa.Table:
    """Give every number a column of its own: `pixel_size_y_nm`, `pixel_size_x_nm`, `embedding_0` and so on."""
    columns: dict[str, pa.Array] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name == "pixel_size_nm":
            for index, axis in enumerate("yx"):
                columns[f"pixel_size_{axis}_nm"] = pa.array([v and v[index] for v in column.to_pylist()], pa.float64())
        elif name == "embedding":
            values = np.asarray(column.flatten()).reshape(len(table), column.type.list_size)
            columns |= {f"embedding_{index}": pa.array(values[:, index]) for index in range(values.shape[1])}
        else:
            columns[name] = column
    return pa.table(columns)


def _unflatten(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for field in schema:
        if field.name == "pixel_size_nm":
            sizes = zip(*(table[f"pixel_size_{axis}_nm"].to_pylist() for axis in "yx"), strict=True)
            columns[field.name] = pa.array([None if y is None else [y, x] for y, x in sizes], field.type)
        elif field.name == "embedding":
            values = np.column_stack([table[f"embedding_{index}"].to_numpy() for index in range(field.type.list_size)])
            columns[field.name] = pa.FixedSizeListArray.from_arrays(values.ravel(), field.type.list_size)
        else:
            columns[field.name] = table[field.name]
    return pa.table(columns, schema=schema)
