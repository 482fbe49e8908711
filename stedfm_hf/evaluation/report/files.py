"""Files of evaluation reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.evaluation.report.content import MethodInfo
from stedfm_hf.evaluation.settings import ComparisonSettings, WeightsSettings
from stedfm_hf.runs import atomic_path
from stedfm_hf.runs.output import Output, open_output

RESULTS, PAGE = "results.json", "report.html"
OTHER_FILES = ("results.parquet", "predictions.parquet", "figures")
"""Other files of `evaluate knn` and `evaluate probe`."""


def open_report(
    command: str,
    settings: ComparisonSettings | WeightsSettings,
    methods: Sequence[MethodInfo],
    *,
    files: Sequence[str],
    resolved: Mapping[str, Any],
) -> AbstractContextManager[Output]:
    """Open the output folder of a comparison of models; see `open_output`.

    Args:
        command: Name of the command.
        settings: Settings of the command.
        methods: Models, then baselines.
        files: Names of the files of the report, except `results.json` and `report.html`.
        resolved: Settings that are known only now, for the manifest.
    """
    return open_output(
        settings.output,
        command,
        settings,
        results=(RESULTS, PAGE),
        temporary=files,
        resolved=resolved,
        model=", ".join(each.name for each in methods if each.kind == "model"),
        weights_sha256=methods[0].weights_sha256,
        seed=settings.seed,
        overwrite=settings.overwrite,
    )


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
