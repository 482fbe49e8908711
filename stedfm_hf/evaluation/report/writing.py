"""Everything that an evaluation on labelled images leaves in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stedfm_hf.evaluation.report.evaluation import Evaluation
from stedfm_hf.evaluation.report.figures import draw_figures
from stedfm_hf.evaluation.report.folder import MANIFEST, RESULTS, finite, write_table
from stedfm_hf.evaluation.report.page import write_page_of
from stedfm_hf.runs import Manifest, write_json


def write_report(evaluation: Evaluation, folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Writes `results.json`, `results.parquet`, `predictions.parquet`, `figures/`, `report.html`, `manifest.json`.

    Returns:
        The figures, as they stand in `results.json`.
    """
    record = finite(evaluation.record())
    write_table(evaluation.results_table(), folder / "results.parquet")
    write_table(evaluation.predictions_table(), folder / "predictions.parquet")
    figures = draw_figures(evaluation, folder / "figures")
    write_page_of(evaluation, figures, folder / "report.html")
    write_json(folder / RESULTS, record)
    manifest.finish()
    manifest.save(folder / MANIFEST)
    return record
