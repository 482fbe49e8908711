"""The folder of a report: written once, never mixed with other results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.runs import Manifest, UserError, atomic_path, check_same_settings

MANIFEST, RESULTS = "manifest.json", "results.json"


def prepare_folder(folder: str | Path, manifest: Manifest, *, overwrite: bool) -> Path:
    """Checks that results may be written into a folder.

    Args:
        folder: made if missing.
        manifest: of this evaluation.
        overwrite: whether results of another evaluation are replaced.

    Raises:
        UserError: it holds other results, or other files.
    """
    place = Path(folder)
    if place.is_file():
        raise UserError(f"{place}: is a file; name a folder for the report")
    record = place / MANIFEST
    if record.is_file():
        if not overwrite:
            check_same_settings(Manifest.load(record), manifest)
        else:
            record.unlink()
    elif place.is_dir() and any(place.iterdir()) and not overwrite:
        raise UserError(f"{place}: is no folder of such results and not empty; name another one")
    place.mkdir(parents=True, exist_ok=True)
    if not record.is_file():
        manifest.save(record)
    return place


def is_finished(folder: Path, results: str = RESULTS) -> Manifest | None:
    """The manifest of results that are whole; None where something is missing or failed.

    Args:
        folder: of the report.
        results: name of the file with all figures.
    """
    old = Manifest.load(folder / MANIFEST)
    whole = old.ended is not None and all((folder / name).is_file() for name in (results, "report.html"))
    return old if whole and not old.exit_status else None


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a Parquet file, whole or not at all."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def finite(value: Any) -> Any:
    """The same data without NaN and infinities, which are no JSON."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
