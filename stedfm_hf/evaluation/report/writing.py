"""Everything that an evaluation on labelled images leaves in its folder."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.evaluation.report.evaluation import Evaluation
from stedfm_hf.evaluation.report.figures import draw_figures
from stedfm_hf.evaluation.report.files import PAGE, RESULTS, finite, write_table
from stedfm_hf.evaluation.report.page import write_page_of
from stedfm_hf.runs import write_json


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write `results.json`, `results.parquet`, `predictions.parquet`, `figures/` and `report.html`."""
    write_table(evaluation.results_table(), folder / "results.parquet")
    write_table(evaluation.predictions_table(), folder / "predictions.parquet")
    figures = draw_figures(evaluation, folder / "figures")
    write_page_of(evaluation, figures, folder / PAGE)
    write_json(folder / RESULTS, finite(evaluation.record()))
