"""Files of evaluation reports."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.runs import atomic_path

RESULTS, PAGE = "results.json", "report.html"
OTHER_FILES = ("results.parquet", "predictions.parquet", "figures")
"""Other files of `evaluate knn` and `evaluate probe`."""


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, atomically.

    Args:
        table: Table to write.
        path: File to write.
    """
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not support, by None.

    Args:
        value: JSON data.

    Example:
        >>> finite({"mean": float("nan"), "low": [0.5]})
        {'mean': None, 'low': [0.5]}
    """
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
