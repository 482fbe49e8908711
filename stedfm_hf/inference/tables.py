"""Tables of results: their columns, and their storage in parts that survive an interrupt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from stedfm_hf.runs import Manifest, atomic_path, counted
from stedfm_hf.runs.copies import local_copy
from stedfm_hf.runs.output import Output
from stedfm_hf.runs.parts import PartStore
from stedfm_hf.runs.result import OutputResult

OF_IMAGE = (
    ("path", pa.string()),
    ("series", pa.string()),
    ("channel", pa.string()),
    ("height", pa.int64()),
    ("width", pa.int64()),
    ("pixel_size_nm", pa.list_(pa.float64())),
)
"""Columns that identify the image of a row; the first columns of every table."""

OF_MODEL = (("model", pa.string()), ("weights_sha256", pa.string()))
"""Columns that identify the model of a row; the last columns of every table."""

TRAINED_ON = "trained_on"
"""Option of the manifest: number of inputs on which the model was trained or selected; None if unknown."""


def embedding_schema(dim: int, *, patches: bool) -> pa.Schema:
    """Return the schema of a table of embeddings of length `dim`, with one row per image or per patch."""
    place = (("row", pa.int64()), ("col", pa.int64()), ("y_px", pa.float64()), ("x_px", pa.float64()))
    return pa.schema([*OF_IMAGE, *(place if patches else ()), ("embedding", pa.list_(pa.float32(), dim)), *OF_MODEL])


@dataclass(frozen=True)
class TableResult(OutputResult):
    """Result of a command that writes a table.

    Attributes:
        table: Table of the rows.
    """

    table: pa.Table

    def summary(self) -> str:
        """Return the number of rows, in total and per label."""
        rows, files = counted(self.table.num_rows, "row"), self.describe_items("file")
        lines = [f"{self.output}: {rows} from {files}{self._trained_on()}"]
        lines += [", ".join(f"{label}: {count}" for label, count in self.labels().items())]
        if "map" in self.table.column_names:
            lines.append(f"maps: {self._maps()}, of images larger than the model's crop")
        return "\n".join(line for line in lines if line)

    def to_json(self) -> dict[str, Any]:
        """Return counts of rows, items, labels and maps."""
        found = super().to_json() | {"rows": self.table.num_rows}
        if TRAINED_ON in self.manifest.options:
            found[TRAINED_ON] = self.manifest.options[TRAINED_ON]
        if "label" in self.table.column_names:
            found["labels"] = self.labels()
        if "map" in self.table.column_names:
            found["maps"] = self._maps()
        return found

    def labels(self) -> dict[str, int]:
        """Return the number of rows of each label, the most frequent first."""
        labels = self.table["label"].to_pylist() if "label" in self.table.column_names else []
        return dict(Counter(labels).most_common())

    def _trained_on(self) -> str:
        """Describe how many inputs the model was trained on; empty if it was not checked."""
        if TRAINED_ON not in self.manifest.options:
            return ""
        number = self.manifest.options[TRAINED_ON]
        if number is None:
            return "; the training images of the model are unknown"
        return f"; the model was trained or selected on {number or 'none'} of them"

    def _maps(self) -> int:
        return sum(name is not None for name in self.table["map"].to_pylist())


def parts_name(target: Path) -> str:
    """Return the name of the folder for the parts of a table."""
    return f"{target.name}.parts"


class Parts(Protocol):
    """Store of rows that are written in steps, so that an interrupted run can resume.

    Attributes:
        output: Output of the command.
        manifest: Manifest of the output.
        store: Parts with the rows.
    """

    output: Output
    manifest: Manifest
    store: PartStore

    def finish(self) -> None:
        """Combine the rows when all items are done."""


class TableParts:
    """Table that is written in parts next to its target and combined at the end.

    Args:
        output: Output of the command.
        schema: Columns of the table.
        target: File of the table; by default the output itself.
    """

    def __init__(self, output: Output, schema: pa.Schema, target: Path | None = None) -> None:
        self.output, self.manifest, self.schema = output, output.manifest, schema
        self.target = output.path if target is None else target
        self.store = PartStore(self.target.with_name(parts_name(self.target)))
        self.manifest.items |= self.store.items()
        for item in self.manifest.failures():
            del self.manifest.items[item]  # to be tried again

    def finish(self) -> None:
        """Append the parts to the rows of the target, and remove the parts.

        The last rows of an item replace earlier ones.
        """
        target = self.target
        if self.store.names() or not target.exists():
            with atomic_path(target) as temporary:
                if target.suffix.lower() == ".csv":
                    write_csv(pa.concat_tables([self.schema.empty_table(), *self._tables()]), temporary)
                else:
                    with pq.ParquetWriter(temporary, self.schema, compression="zstd") as writer:
                        for table in self._tables():
                            writer.write_table(table)
        if self.store.folder.exists():
            self.output.save()  # before the parts go, which say what is done
            self.store.remove()

    def _tables(self) -> Iterator[pa.Table]:
        """Yield the rows of the target and of every part, without replaced rows."""
        last = {item: part.name for part in self.store for item in part.items}
        if self.target.exists():
            done = {item for item, status in self.manifest.items.items() if status.state == "done"}
            yield _rows_of(read_table(self.target, self.schema), done - last.keys())
        for part in self.store.in_order():
            table = part.table().cast(self.schema)
            yield _rows_of(table, [item for item in part.items if last[item] == part.name])


def _rows_of(table: pa.Table, items: Collection[str]) -> pa.Table:
    return table.filter(pc.is_in(table["path"], pa.array(sorted(items), pa.string())))


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a table as CSV, with lists split into one column per number, as in `pixel_size_y_nm`."""
    pyarrow.csv.write_csv(_flatten(table), path)


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table that `TableParts` wrote, from Parquet or CSV."""
    if path.suffix.lower() == ".csv":
        types = {field.name: field.type for field in _flatten(schema.empty_table()).schema}
        options = pyarrow.csv.ConvertOptions(
            column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        with local_copy(path) as file:
            return _unflatten(pyarrow.csv.read_csv(file, convert_options=options), schema)
    with local_copy(path) as file:
        return pq.read_table(file).cast(schema)


def _flatten(table: pa.Table) -> pa.Table:
    """Split lists into one column per number: `pixel_size_y_nm`, `pixel_size_x_nm`, `embedding_0`, ..."""
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
    """Convert a table with a column per number, as CSV files have, to one with vectors and lists as in `schema`."""
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
