"""The folder of a report: written once, never mixed with other results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.evaluation.report.evaluation import Evaluation
from stedfm_hf.evaluation.report.figures import draw_figures
from stedfm_hf.evaluation.report.page import write_page_of
from stedfm_hf.runs import Manifest, UserError, atomic_path, check_same_settings, write_json

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


def is_finished(folder: Path) -> Manifest | None:
    """The manifest of results that are whole; None where something is missing or failed."""
    old = Manifest.load(folder / MANIFEST)
    whole = old.ended is not None and all((folder / name).is_file() for name in (RESULTS, "report.html"))
    return old if whole and not old.exit_status else None


def write_report(evaluation: Evaluation, folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Writes `results.json`, `results.parquet`, `predictions.parquet`, `figures/`, `report.html`, `manifest.json`.

    Returns:
        The figures, as they stand in `results.json`.
    """
    record = _finite(evaluation.record())
    _write_table(evaluation.results_table(), folder / "results.parquet")
    _write_table(evaluation.predictions_table(), folder / "predictions.parquet")
    figures = draw_figures(evaluation, folder / "figures")
    write_page_of(evaluation, figures, folder / "report.html")
    write_json(folder / RESULTS, record)
    manifest.finish()
    manifest.save(folder / MANIFEST)
    return record


def _write_table(table: pa.Table, path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _finite(value: Any) -> Any:
    """The same data without NaN and infinities, which are no JSON."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
