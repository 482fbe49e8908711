"""Writing of the shards of a window from staged parts, in any process.

The rows of a window, their order and their shards depend only on the plan and the seed. A part in the folder
`RECORDS` says that a window is complete; it has the statistics of its rows, and the crops that the preview may select.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from stedfm_hf.data.assembly.plan import WindowRows
from stedfm_hf.data.assembly.staging import Staging
from stedfm_hf.data.publishing.preview import Preview
from stedfm_hf.data.publishing.statistics import Statistics
from stedfm_hf.data.repository.layout import crop_features
from stedfm_hf.data.repository.shards import Window, WindowWriter
from stedfm_hf.runs.parts import PartStore

RECORDS = "windows"


def record_name(window: Window) -> str:
    """Return the name of the record of a window."""
    return f"{window.split}-{window.number:06d}"


def is_written(folder: Path, window: Window) -> bool:
    """Return whether all shards of a window and its record are in a folder."""
    record = PartStore(folder / RECORDS).path(record_name(window))
    return record.exists() and all((folder / name).exists() for name in window.names)


def write_window(
    staging: Staging, folder: Path, rows: WindowRows, *, labels: tuple[str, ...], planes: bool, seed: int
) -> int:
    """Write the shards of a window and its record.

    Args:
        staging: Staged parts.
        folder: Folder that gets the shards and the record.
        rows: Rows of the window.
        labels: Names of the classes.
        planes: Whether the columns of masks with planes and of regions are written.
        seed: Random seed of the order of the rows and of the preview.

    Returns:
        Number of rows.
    """
    window = rows.window
    schema = crop_features(labels, planes=planes).arrow_schema
    statistics, preview = Statistics(labels), Preview(labels, seed=seed)
    with WindowWriter(folder, window, schema, seed=seed) as writer:
        for name, bits, count in rows.parts:
            selected = np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(bool)
            for staged in staging.read(name).selected(selected):
                table = _with_label_numbers(staged, labels, schema)
                writer.add(table)
                statistics.add(window.split, table)
                preview.add(window.split, table)
    PartStore(folder / RECORDS).write(
        record_name(window),
        pa.Table.from_pylist(preview.rows(window.split), schema=schema),
        {},
        {"statistics": statistics.record(), "row_groups": [shard.row_groups for shard in writer.shards]},
    )
    return window.rows


def _with_label_numbers(table: pa.Table, labels: tuple[str, ...], schema: pa.Schema) -> pa.Table:
    """Replace names of classes by their numbers, and select the columns of the data set."""
    table = table.select(schema.names)
    number_of = {name: number for number, name in enumerate(labels)}
    numbers = pa.array([number_of.get(name) for name in table["label"].to_pylist()], pa.int64())
    return table.set_column(table.schema.get_field_index("label"), "label", numbers).cast(schema)
